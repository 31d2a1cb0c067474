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

// FuzzArguments runs the program with arbitrary arguments, one per line. KEY and URI stand for
// secrets. The program must end with one of its exit codes and must not print a secret.
func FuzzArguments(f *testing.F) {
	for _, seed := range []string{
		"", "KEY", "URI", "help\nKEY", "-KEY", "--KEY", "drift\n-KEY", "drift\n---KEY", "drift\n-=KEY",
		"drift\n-timeout\nKEY", "drift\n-timeout=URI", "drift\n-json=KEY", "drift\n-secret-key\nKEY",
		"drift\n-db\nURI", "drift\n-collection=URI", "drift\n-batch-size=KEY", "drift\n-writers\n-KEY",
		"drift\n-h", "drift\n-\x00", "drift\n-\xff=\xff", "reconcile\n-resume\nKEY", "reconcile\n-instance\nKEY",
		"reconcile\n-page-size\n99999999999999999999", "reconcile\n-rate\n1e400", "reconcile\n-holdback\n-1h",
		"reconcile\n-dry-run\n-force\n-json", "user\nKEY", "user\nuser_1\nKEY", "user\nuser_1",
		"indexes\n--\n-KEY", "indexes\n-allow-unique\nKEY,",
	} {
		f.Add(seed)
	}
	env := environment{
		lookup: lookupIn(map[string]string{secretKeyVar: secretKey, mongoURIVar: mongoURI}),
		open: func(context.Context, settings, *mongostore.Options) (database, error) {
			return nil, errors.New("MongoDB cannot be reached")
		},
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "env-file") {
			t.Skip("the file may be one that never ends, such as a terminal")
		}
		var args []string
		if text != "" {
			args = strings.Split(strings.NewReplacer("KEY", secretKey, "URI", mongoURI).Replace(text), "\n")
		}
		var stdout, stderr strings.Builder
		o := output{code: run(t.Context(), env, args, &stdout, &stderr)}
		o.stdout, o.stderr = stdout.String(), stderr.String()
		switch {
		case o.code == exitDone && o.stderr == "" && o.stdout != "": // help
		case (o.code == exitFailed || o.code == exitUsage) && o.stderr != "" && o.stdout == "":
		default:
			t.Errorf("the output does not fit the exit code:\n%s", o)
		}
		o.lacks(t, password, secretKey)
	})
}

// FuzzMongoURI checks that no error about a connection string contains the password, in any form in
// which the driver quotes it.
func FuzzMongoURI(f *testing.F) {
	// These two leaked the password once.
	f.Add("?@/%", "0")
	f.Add("0", `0tlsCertificateKeyFilePassword=p4ssw0rd%"`)
	for _, seed := range [][2]string{
		{"", ""}, {"", "host/db"}, {"%40", "host/db"}, {"%2F", "host"}, {"%", "host"}, {"+", "host/?w=x"},
		{"?", "host"}, {"#", "host"}, {"[", "host"}, {":", "host"}, {"@", "host"}, {"/", "host"}, {"\x00", "h"},
		{" ", "host:port"}, {"%25", "a,b,,c/db"}, {"&", "h/?a&b=c;d"},
		{"", "host/db?tls=maybe"}, {"", "host/db?authMechanism=NONE"}, {"", "host/db?authSource=%zz"},
		{"", "h/?replicaSet="}, {"", "h:99999"}, {"", "%2Ftmp%2Fx.sock"},
		{"", "h/?tlsCertificateKeyFilePassword=p4ssw0rd%2B&tls=x"}, {"", "h%,tlsCertificateKeyFilePassword=p4ssw0rd"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, around, rest string) {
		if strings.Count(rest, password) != strings.Count(rest, "tlsCertificateKeyFilePassword="+password) {
			t.Skip("the password is in a part that is not secret")
		}
		if strings.Contains(rest, "File=") {
			t.Skip("the driver would read a file")
		}
		uri := "mongodb://app:" + around + password + around + "@" + rest
		if err := checkMongoURI(uri); err != nil {
			if strings.Contains(err.Error(), password) {
				t.Fatalf("%q: %v", uri, err)
			}
			return
		}
		if err := options.Client().ApplyURI(uri).Validate(); err != nil {
			if text := withoutSecrets(err, uri); strings.Contains(text, password) {
				t.Fatalf("%q: %s", uri, text)
			}
		}
		if name := databaseOf(uri); strings.Contains(name, password) && !strings.Contains(rest, password) {
			t.Fatalf("databaseOf(%q) = %q", uri, name)
		}
	})
}

// The commands fail because of Clerk, of the database and of single users. The output must not
// contain the users' data.
func TestOutputHasNoPersonalData(t *testing.T) {
	t.Parallel()
	const email, name = "ada.hush@example.com", "Hushname"
	for _, tt := range []struct {
		name    string
		args    string
		arrange func(t *testing.T, f *fixture, id string)
		code    int
		want    string
	}{
		{"drift", "drift", func(*testing.T, *fixture, string) {}, exitDiffer, "1"},
		{"reconcile", "reconcile", func(*testing.T, *fixture, string) {}, exitDone, "1"},
		{"conflict", "reconcile -instance INSTANCE", func(t *testing.T, f *fixture, _ string) {
			f.db.records.UniqueEmail = true
			other := &clerksync.User{ClerkID: "user_other", Email: email, Name: name}
			if _, err := f.db.records.Upsert(t.Context(), other); err != nil {
				t.Fatal(err)
			}
		}, exitFailed, "user_"},
		{"wrong type", "reconcile", func(t *testing.T, f *fixture, id string) {
			if err := f.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) {
				u.Extra = map[string]any{"last_name": []string{name}}
			}); err != nil {
				t.Fatal(err)
			}
		}, exitFailed, "user_"},
		{"key refused", "drift", func(_ *testing.T, f *fixture, _ string) {
			f.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
				return fakeclerk.ErrorFault(401, "clerk_key_invalid")
			})
		}, exitFailed, "Clerk refuses CLERK_SECRET_KEY"},
		{"HTML instead of a user", "user ID", func(_ *testing.T, f *fixture, _ string) {
			f.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
				return &fakeclerk.Fault{Status: 403, ContentType: "text/html", Body: "<html>" + email + " " + secretKey}
			})
		}, exitFailed, "403"},
		{"indexes", "indexes", func(_ *testing.T, f *fixture, _ string) {
			f.db.list = []index{{Name: "email_1"}}
		}, exitDone, "email_1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			id := f.clerk.CreateUser(fakeclerk.NewUser{FirstName: name, Email: email})
			tt.arrange(t, f, id)
			args := strings.NewReplacer("ID", id, "INSTANCE", f.clerk.InstanceID()).Replace(tt.args)
			o := f.run(t, strings.Fields(args)...)
			o.want(t, tt.code, tt.want)
			o.lacks(t, email, "ada.hush", name)
		})
	}
}
