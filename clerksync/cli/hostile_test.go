package cli

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/mongostore"
)

// FuzzArguments runs the program with any arguments, one a line, in which KEY and URI
// stand for secrets. It ends with one of its statuses, and tells no secret where it
// finds fault.
func FuzzArguments(f *testing.F) {
	for _, seed := range []string{
		"", "KEY", "URI", "help\nKEY", "-KEY", "--KEY", "drift\n-KEY", "drift\n---KEY", "drift\n-timeout\nKEY", "drift\n-timeout=URI", "drift\n-json=KEY", "drift\n-=KEY", "drift\n-secret-key\nKEY",
		"drift\n-db\nURI", "drift\n-collection=URI", "reconcile\n-resume\nKEY", "reconcile\n-instance\nKEY", "reconcile\n-page-size\n99999999999999999999", "reconcile\n-rate\n1e400", "reconcile\n-holdback\n-1h",
		"reconcile\n-dry-run\n-force\n-json", "user\nKEY", "user\nuser_1\nKEY", "user\nuser_1", "indexes\n--\n-KEY", "indexes\n-allow-unique\nKEY,", "drift\n-batch-size=KEY", "drift\n-writers\n-KEY", "drift\n-h", "drift\n-\x00", "drift\n-\xff=\xff",
	} {
		f.Add(seed)
	}
	vars := map[string]string{secretKeyVar: secretKey, mongoURIVar: "mongodb://app:" + password + "@localhost:27017/school"}
	env := environment{
		lookup: lookupIn(vars),
		open: func(context.Context, settings, *mongostore.Options) (database, error) {
			return nil, errors.New("MongoDB cannot be reached")
		},
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "env-file") {
			return // which may name a device that never ends
		}
		text = strings.NewReplacer("KEY", secretKey, "URI", vars[mongoURIVar]).Replace(text)
		var args []string
		if text != "" {
			args = strings.Split(text, "\n")
		}
		var stdout, stderr strings.Builder
		code := run(t.Context(), env, args, &stdout, &stderr)
		switch {
		case code == exitDone && stderr.Len() == 0 && stdout.Len() > 0: // help
		case (code == exitFailed || code == exitUsage) && stderr.Len() > 0 && stdout.Len() == 0:
		default:
			t.Fatalf("exit status %d\n%s\n%s", code, &stdout, &stderr)
		}
		for _, secret := range []string{password, secretKey} {
			if strings.Contains(stdout.String()+stderr.String(), secret) {
				t.Fatalf("%s is in\n%s\n%s", secret, &stdout, &stderr)
			}
		}
	})
}

// FuzzMongoURI: what checkMongoURI lets through and the driver refuses is told without
// the password, in whatever form the driver quotes it.
func FuzzMongoURI(f *testing.F) {
	// These leaked the password once.
	f.Add("?@/%", "0")
	f.Add("0", `0tlsCertificateKeyFilePassword=p4ssw0rd%"`)
	for _, seed := range [][2]string{
		{"", "host/db"}, {"%40", "host/db"}, {"%2F", "host"}, {"%", "host"}, {"+", "host/?w=x"}, {"?", "host"}, {"#", "host"}, {"[", "host"}, {" ", "host:port"}, {"%25", "a,b,,c/db"}, {":", "host"}, {"@", "host"}, {"/", "host"}, {"", ""},
		{"", "host/db?tls=maybe"}, {"", "host/db?authMechanism=NONE"}, {"", "host/db?authSource=%zz"}, {"", "h/?replicaSet="}, {"\x00", "h"}, {"", "h:99999"}, {"", "%2Ftmp%2Fx.sock"}, {"&", "h/?a&b=c;d"}, {"", "h/?tlsCertificateKeyFilePassword=p4ssw0rd%2B&tls=x"}, {"", "h%,tlsCertificateKeyFilePassword=p4ssw0rd"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, around, rest string) {
		if strings.Count(rest, password) != strings.Count(rest, "tlsCertificateKeyFilePassword="+password) || strings.Contains(rest, "File=") {
			return // the secret where none is, or a file to read
		}
		uri := "mongodb://app:" + around + password + around + "@" + rest
		if err := checkMongoURI(uri); err != nil {
			if strings.Contains(err.Error(), password) {
				t.Fatal(err)
			}
			return
		}
		if err := options.Client().ApplyURI(uri).Validate(); err != nil {
			if text := withoutSecrets(err, uri); strings.Contains(text, password) {
				t.Fatalf("%q: %s", uri, text)
			}
		}
		if name := databaseOf(uri); strings.Contains(name, password) && !strings.Contains(rest, password) {
			t.Fatalf("the database of %q is called %q", uri, name)
		}
	})
}

// TestOutputTellsNothingPersonal runs the commands through failures of Clerk, of the
// database and of users, and searches the output for what is in the users. (run
// itself looks for the secrets.)
func TestOutputTellsNothingPersonal(t *testing.T) {
	t.Parallel()
	const email, name = "ada.hush@example.com", "Hushname"
	page := &fakeclerk.Fault{Status: 403, ContentType: "text/html", Body: "<html>" + email + " " + secretKey}
	for _, tt := range []struct {
		name    string
		args    string
		arrange func(t *testing.T, f *fixture, id string)
		code    int
		tells   string
	}{
		{"drift", "drift", func(*testing.T, *fixture, string) {}, exitDiffer, "1"},
		{"reconcile", "reconcile", func(*testing.T, *fixture, string) {}, exitDone, "1"},
		{"in conflict", "reconcile -instance INSTANCE", func(t *testing.T, f *fixture, _ string) {
			f.db.records.UniqueEmail = true
			if _, err := f.db.records.Upsert(t.Context(), &clerksync.User{ClerkID: "user_other", Email: email, Name: name}); err != nil {
				t.Fatal(err)
			}
		}, exitFailed, "user_"},
		{"of wrong types", "reconcile", func(t *testing.T, f *fixture, id string) {
			if err := f.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"last_name": []string{name}} }); err != nil {
				t.Fatal(err)
			}
		}, exitFailed, "user_"},
		{"key refused", "drift", func(_ *testing.T, f *fixture, _ string) {
			f.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return fakeclerk.ErrorFault(401, "clerk_key_invalid") })
		}, exitFailed, "Clerk refuses CLERK_SECRET_KEY"},
		{"a page for a user", "user ID", func(_ *testing.T, f *fixture, _ string) {
			f.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return page })
		}, exitFailed, "403"},
		{"indexes", "indexes", func(_ *testing.T, f *fixture, _ string) { f.db.list = []index{{Name: "email_1"}} }, exitDone, "email_1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			id := f.clerk.CreateUser(fakeclerk.NewUser{FirstName: name, Email: email})
			tt.arrange(t, f, id)
			o := f.run(t, strings.Fields(strings.NewReplacer("ID", id, "INSTANCE", f.clerk.InstanceID()).Replace(tt.args))...)
			o.want(t, tt.code, tt.tells)
			for _, secret := range []string{email, "ada.hush", name} {
				if strings.Contains(o.stdout+o.stderr, secret) {
					t.Errorf("%q is in the output:\n%s", secret, o)
				}
			}
		})
	}
}
