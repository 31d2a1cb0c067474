package mongostore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/mongostore"
)

// TestUnlinkedEmails checks what counts as a record without a Clerk id.
func TestUnlinkedEmails(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		record bson.D
		want   []string
	}{
		"no clerkId":                {bson.D{{Key: "email", Value: "ada@example.com"}}, []string{"ada@example.com"}},
		"a null":                    {bson.D{{Key: "clerkId", Value: nil}, {Key: "email", Value: "Ada@example.com"}}, []string{"Ada@example.com"}},
		"an empty one":              {bson.D{{Key: "clerkId", Value: ""}, {Key: "email", Value: "ada@example.com"}}, []string{"ada@example.com"}},
		"no e-mail":                 {bson.D{{Key: "name", Value: "Ada"}}, []string{""}},
		"an e-mail that is null":    {bson.D{{Key: "email", Value: nil}}, []string{""}},
		"several e-mails":           {bson.D{{Key: "email", Value: bson.A{"ada@example.com", int32(1), "eve@example.com"}}}, []string{"ada@example.com", "eve@example.com"}},
		"an empty list of them":     {bson.D{{Key: "email", Value: bson.A{}}}, []string{""}},
		"a document of the app's":   {bson.D{{Key: "email", Value: bson.D{{Key: "address", Value: "ada@example.com"}}}}, []string{""}},
		"a deletedAt that is null":  {bson.D{{Key: "email", Value: "ada@example.com"}, {Key: "deletedAt", Value: nil}}, []string{"ada@example.com"}},
		"deleted is a flag":         {bson.D{{Key: "email", Value: "ada@example.com"}, {Key: "deletedAt", Value: false}}, []string{"ada@example.com"}},
		"a record of clerksync's":   {bson.D{{Key: "email", Value: "ada@example.com"}, {Key: "syncedAt", Value: hour(1)}}, []string{"ada@example.com"}},
		"deleted":                   {bson.D{{Key: "email", Value: "ada@example.com"}, {Key: "deletedAt", Value: hour(1)}}, nil},
		"a Clerk id":                {bson.D{{Key: "clerkId", Value: "user_ada"}, {Key: "email", Value: "ada@example.com"}}, nil},
		"an id of another system":   {bson.D{{Key: "clerkId", Value: "legacy-1"}, {Key: "email", Value: "ada@example.com"}}, nil},
		"a number":                  {bson.D{{Key: "clerkId", Value: int32(0)}, {Key: "email", Value: "ada@example.com"}}, nil},
		"an array, of several ids":  {bson.D{{Key: "clerkId", Value: bson.A{"user_a", "user_b"}}}, nil},
		"an ObjectID of the app's":  {bson.D{{Key: "clerkId", Value: bson.NewObjectID()}}, nil},
		"a document as clerkId":     {bson.D{{Key: "clerkId", Value: bson.D{}}}, nil},
		"false, as an app may have": {bson.D{{Key: "clerkId", Value: false}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			insert(t, s.coll, tt.record)
			var got []string
			for email, err := range s.UnlinkedEmails(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, email)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestUnlinkedEmailsInOnePass has several round trips of records. The Store reads no more of each
// than it needs, and closes the cursor if the caller stops.
func TestUnlinkedEmailsInOnePass(t *testing.T) {
	t.Parallel()
	base := newCollection(t)
	const linked, unlinked = 1500, 900
	var docs []bson.D
	want := make(map[string]bool)
	for i := range unlinked {
		email := fmt.Sprintf("ada%d@example.com", i)
		want[email] = true
		docs = append(docs, bson.D{{Key: "email", Value: email}, {Key: "plan", Value: "pro"}})
	}
	for i := range linked {
		docs = append(docs, bareDocument(person(fmt.Sprint(i), 1)))
	}
	for chunk := range slices.Chunk(docs, batchSize) {
		insert(t, base, chunk...)
	}
	coll, sent := newMonitored(t, base)
	s := open(t, coll, nil)
	sent.take()
	got := make(map[string]bool)
	for email, err := range s.UnlinkedEmails(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if !want[email] || got[email] {
			t.Errorf("yields %q, which it should not, or not again", email)
		}
		got[email] = true
	}
	if len(got) != unlinked {
		t.Errorf("yields %d addresses of %d", len(got), unlinked)
	}
	begun := 0
	for _, cmd := range sent.take() {
		switch name := commandName(cmd); name {
		case "find":
			begun++
			if !isPass(cmd) || cmd.Lookup("projection", "email").AsInt64() != 1 {
				t.Errorf("the pass begins with %s", cmd)
			}
		case "getMore", "killCursors":
		default:
			t.Errorf("sends %s", cmd)
		}
	}
	if begun != 1 {
		t.Errorf("%d passes", begun)
	}
	for range s.UnlinkedEmails(t.Context()) {
		break
	}
	if names := sent.names(); !slices.Contains(names, "killCursors") {
		t.Errorf("a caller that stops sends %v, want killCursors", names)
	}
}

// TestHasLegacy checks what Open's sample finds, and that it stays a sample.
func TestHasLegacy(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		record bson.D
		want   bool
	}{
		"no record":                   {nil, false},
		"the app's":                   {bson.D{{Key: "email", Value: "ada@example.com"}}, true},
		"the app's, with a Clerk id":  {bson.D{{Key: "clerkId", Value: "user_ada"}, {Key: "role", Value: "ADMIN"}}, true},
		"syncedAt of another meaning": {bson.D{{Key: "clerkId", Value: "user_ada"}, {Key: "syncedAt", Value: "yesterday"}}, true},
		"clerksync's":                 {bson.D{{Key: "clerkId", Value: "user_ada"}, {Key: "syncedAt", Value: hour(1)}}, false},
		"synced, without a Clerk id":  {bson.D{{Key: "syncedAt", Value: hour(1)}}, true},
		"a tombstone":                 {bson.D{{Key: "clerkId", Value: "user_ada"}, {Key: "deletedAt", Value: hour(1)}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			coll := newCollection(t)
			if tt.record != nil {
				insert(t, coll, tt.record)
			}
			monitored, sent := newMonitored(t, coll)
			if got := open(t, monitored, nil).HasLegacy(); got != tt.want {
				t.Errorf("%t, want %t", got, tt.want)
			}
			samples := slices.DeleteFunc(sent.take(), func(cmd bson.Raw) bool { return !isPass(cmd) })
			if len(samples) != 1 || samples[0].Lookup("limit").AsInt64() != 100 {
				t.Errorf("Open reads with %v, want one find of at most a hundred records", samples)
			}
		})
	}
	s := newStore(t)
	upsert(t, s, ada(1), clerksync.Created)
	deactivate(t, s, "user_none", hour(1))
	if open(t, s.coll, nil).HasLegacy() {
		t.Error("the Store's own records count as the app's")
	}
}

// TestReconcileUnlinked runs a reconcile over a collection of an app that had users before Clerk.
func TestReconcileUnlinked(t *testing.T) {
	t.Parallel()
	clerk, err := fakeclerk.Start(fakeclerk.Config{RateLimit: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = clerk.Close() })
	coll := newCollection(t)
	insert(t, coll,
		bson.D{{Key: "email", Value: "ada@example.com"}, {Key: "plan", Value: "pro"}},
		bson.D{{Key: "email", Value: "grace@example.com"}, {Key: "deletedAt", Value: hour(1)}},
		bson.D{{Key: "name", Value: "Eve"}})
	ada := clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "Ada@example.com"})
	clerk.CreateUser(fakeclerk.NewUser{FirstName: "Grace", Email: "grace@example.com"})
	clerk.CreateUser(fakeclerk.NewUser{FirstName: "No address"})
	s := newReconciler(t, coll, clerk)
	count := func() int64 {
		t.Helper()
		n, err := coll.CountDocuments(t.Context(), bson.D{})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, dry := range []bool{true, false} {
		report, err := s.Reconcile(t.Context(), clerksync.ReconcileOptions{DryRun: dry})
		if !errors.Is(err, clerksync.ErrUnlinked) || !report.Complete || report.Created.Count != 2 ||
			!slices.Equal(report.Unlinked.IDs, []string{ada}) {
			t.Errorf("dry %t: %v, reports %+v", dry, err, report)
		}
		if want := map[bool]int64{true: 3, false: 5}[dry]; count() != want {
			t.Errorf("dry %t: %d records, want %d", dry, count(), want)
		}
	}
	report, err := s.Reconcile(t.Context(), clerksync.ReconcileOptions{IgnoreUnlinked: true})
	if err != nil || report.Created.Count != 1 || count() != 6 {
		t.Errorf("ignored: %v, %d records, reports %+v", err, count(), report)
	}
}

// TestLegacyMapped checks that the collection's own names are looked at.
func TestLegacyMapped(t *testing.T) {
	t.Parallel()
	noEmail := mongostore.SnakeCase()
	noEmail["email"] = ""
	for name, tt := range map[string]struct {
		fields mongostore.Fields
		record bson.D
		want   []string
		legacy bool
	}{
		"snake case": {mongostore.SnakeCase(),
			bson.D{{Key: "email", Value: "ada@example.com"}, {Key: "clerkId", Value: "the app's own"}}, []string{"ada@example.com"}, true},
		"linked": {mongostore.SnakeCase(),
			bson.D{{Key: "email", Value: "ada@example.com"}, {Key: "clerk_id", Value: "user_ada"}}, nil, true},
		"confirmed": {mongostore.SnakeCase(),
			bson.D{{Key: "clerk_id", Value: "user_ada"}, {Key: "synced_at", Value: hour(1)}}, nil, false},
		"confirmed by another name": {mongostore.SnakeCase(),
			bson.D{{Key: "clerk_id", Value: "user_ada"}, {Key: "syncedAt", Value: hour(1)}}, nil, true},
		"deleted": {mongostore.SnakeCase(),
			bson.D{{Key: "clerk_id", Value: "user_ada"}, {Key: "deleted_at", Value: hour(1)}}, nil, false},
		"deleted by the app": {mongostore.SnakeCase(),
			bson.D{{Key: "email", Value: "ada@example.com"}, {Key: "deleted_at", Value: hour(1)}}, nil, true},
		"nested": {mongostore.Fields{"clerkId": "auth.clerk", "email": "contact.mail"},
			bson.D{{Key: "contact", Value: bson.D{{Key: "mail", Value: "ada@example.com"}}}, {Key: "auth", Value: nil}},
			[]string{"ada@example.com"}, true},
		"no e-mail is stored": {noEmail, bson.D{{Key: "email", Value: "ada@example.com"}}, []string{""}, true},
		"a Clerk id as _id": {mongostore.Fields{"clerkId": "_id"},
			bson.D{{Key: "_id", Value: "user_ada"}, {Key: "email", Value: "ada@example.com"}}, nil, true},
		"an _id of the app's": {mongostore.Fields{"clerkId": "_id"},
			bson.D{{Key: "email", Value: "ada@example.com"}}, []string{"ada@example.com"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			coll := newCollection(t)
			monitor.expect(coll.Name(), tt.fields["clerkId"])
			insert(t, coll, tt.record)
			s := open(t, coll, &mongostore.Options{BatchSize: batchSize, Fields: tt.fields})
			var got []string
			for email, err := range s.UnlinkedEmails(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, email)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if s.HasLegacy() != tt.legacy {
				t.Errorf("legacy: %t", s.HasLegacy())
			}
		})
	}
}

// wantAdoption checks what Inspect says about the users of TestReconcileAdopts.
func wantAdoption(t *testing.T, coll *mongo.Collection, opts *mongostore.Options, want mongostore.AdoptionCounts) {
	t.Helper()
	var us []*clerksync.User
	for _, who := range []string{"ada", "new", "twice", "eve", "somebody"} {
		us = append(us, change(person(who, 1), func(u *clerksync.User) { u.EmailProven, u.Extra = true, nil }))
	}
	us[1].ExternalID = "a7"
	found, err := mongostore.Inspect(t.Context(), coll, opts, mongostore.InspectOptions{
		Users: func(ctx context.Context, visit func(context.Context, []*clerksync.User) error) error {
			return visit(ctx, us)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&want, found.Adoption); d != "" {
		t.Errorf("adoption (-want +got):\n%s", d)
	}
}

// TestReconcileAdopts takes over a collection of an app that had users before Clerk. A dry run says
// beforehand what the run does. A ghost sweep right afterwards deletes no adopted record, although
// Clerk's list does not have the users yet and the records are old.
func TestReconcileAdopts(t *testing.T) {
	t.Parallel()
	clerk, err := fakeclerk.Start(fakeclerk.Config{RateLimit: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = clerk.Close() })
	coll := newCollection(t)
	old := bson.E{Key: "createdAt", Value: hour(0)}
	insert(t, coll,
		bson.D{{Key: "email", Value: "ada@example.com"}, {Key: "plan", Value: "pro"}, old},
		bson.D{{Key: "email", Value: "grace@example.com"}, {Key: "legacyId", Value: "a7"}, old},
		bson.D{{Key: "email", Value: "twice@example.com"}}, bson.D{{Key: "email", Value: "twice@example.com"}},
		bson.D{{Key: "email", Value: "Eve@Example.com"}})
	ids := make(map[string]string)
	for _, u := range []fakeclerk.NewUser{
		{FirstName: "Ada", Email: "ada@example.com"},
		{FirstName: "Grace", Email: "new@example.com", ExternalID: "a7"},
		{FirstName: "Twice", Email: "twice@example.com"},
		{FirstName: "Eve", Email: "eve@example.com"}, // Store.Upsert would not find the record
		{FirstName: "New", Email: "somebody@example.com"},
	} {
		ids[u.FirstName] = clerk.CreateUser(u)
	}
	opts := &mongostore.Options{BatchSize: batchSize, Adopt: &mongostore.Adopt{ByExternalID: "legacyId", ByEmail: true, Trusted: bson.D{}}}
	s, err := clerksync.New(clerksync.Config{Store: open(t, coll, opts), SecretKey: clerk.SecretKey(), APIURL: clerk.APIURL()})
	if err != nil {
		t.Fatal(err)
	}
	wantAdoption(t, coll, opts, mongostore.AdoptionCounts{
		Users: 5, New: 2, Either: 2, // Eve counts as new: a finding says that her address has capitals
		ByExternalID: mongostore.AdoptionWay{On: true, Field: "legacyId", Has: 1, Adopts: 1},
		ByEmail:      mongostore.AdoptionWay{On: true, Field: "email", Has: 5, Adopts: 1, Refuses: 1},
	})
	wantAdoption(t, coll, nil, mongostore.AdoptionCounts{
		Users: 5, New: 3, Either: 1,
		ByExternalID: mongostore.AdoptionWay{Field: "_id", Has: 1},
		ByEmail:      mongostore.AdoptionWay{Field: "email", Has: 5, Adopts: 1, Refuses: 1},
	})
	for _, dry := range []bool{true, false} {
		report, err := s.Reconcile(t.Context(), clerksync.ReconcileOptions{DryRun: dry})
		if !errors.Is(err, clerksync.ErrUnlinked) || !report.Complete {
			t.Errorf("dry %t: %v, reports %+v", dry, err, report)
		}
		for what, tt := range map[string]struct {
			got  clerksync.Tally
			want []string
		}{
			"adopted":  {report.Adopted, []string{ids["Ada"], ids["Grace"]}},
			"unlinked": {report.Unlinked, []string{ids["Twice"], ids["Eve"]}},
			"created":  {report.Created, []string{ids["New"]}},
			"others":   {report.Conflicts, nil},
		} {
			if !slices.Equal(slices.Sorted(slices.Values(tt.got.IDs)), slices.Sorted(slices.Values(tt.want))) {
				t.Errorf("dry %t: %s are %v, want %v", dry, what, tt.got.IDs, tt.want)
			}
		}
		n, err := coll.CountDocuments(t.Context(), bson.D{})
		if want := map[bool]int64{true: 5, false: 6}[dry]; err != nil || n != want {
			t.Errorf("dry %t: %d records, %v, want %d", dry, n, err, want)
		}
	}

	// Clerk has lost them, as far as it says. The confirmation is from long ago, as a late event's.
	for _, name := range []string{"Ada", "Grace"} {
		if err := clerk.DeleteUser(ids[name]); err != nil {
			t.Fatal(err)
		}
		if _, err := coll.UpdateOne(t.Context(), bson.D{{Key: "clerkId", Value: ids[name]}},
			bson.D{{Key: "$set", Value: bson.D{{Key: "syncedAt", Value: hour(1)}}}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		holdback      time.Duration
		held, deleted int
	}{{0, 2, 0}, {-1, 0, 2}} {
		report, err := s.Reconcile(t.Context(), clerksync.ReconcileOptions{IgnoreUnlinked: true, Holdback: tt.holdback})
		if report.HeldBack != tt.held || report.Deactivated.Count != tt.deleted {
			t.Errorf("holdback %v: %v, reports %+v", tt.holdback, err, report)
		}
	}
}
