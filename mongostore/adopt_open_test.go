package mongostore_test

import (
	"slices"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/mongostore"
)

// TestOpenAdoptRefused opens Stores that could not adopt, or would adopt what they must not.
func TestOpenAdoptRefused(t *testing.T) {
	t.Parallel()
	byEmail := &mongostore.Adopt{ByEmail: true, Trusted: bson.D{}}
	byID := func(path string) *mongostore.Options {
		return &mongostore.Options{Adopt: &mongostore.Adopt{ByExternalID: path}}
	}
	for name, tt := range map[string]struct {
		opts *mongostore.Options
		want []string // nil if Open succeeds
	}{
		"by email without Trusted":   {&mongostore.Options{Adopt: &mongostore.Adopt{ByEmail: true}}, []string{"Trusted", "bson.D{} accepts every record"}},
		"by email, all trusted":      {&mongostore.Options{Adopt: byEmail}, nil},
		"nothing":                    {&mongostore.Options{Adopt: &mongostore.Adopt{}}, nil},
		"clerkId is the _id":         {&mongostore.Options{Adopt: byEmail, Fields: mongostore.Fields{"clerkId": "_id"}}, []string{"an _id cannot change"}},
		"no address":                 {&mongostore.Options{Adopt: byEmail, Fields: mongostore.Fields{"email": ""}}, []string{"Adopt.ByEmail needs the record's e-mail address"}},
		"no address, by external id": {&mongostore.Options{Adopt: &mongostore.Adopt{ByExternalID: "_id"}, Fields: mongostore.Fields{"email": ""}}, nil},
		"the Clerk id":               {byID("clerkId"), []string{`"clerkId", where the Clerk id is`}},
		"an empty name":              {byID("a..b"), []string{`"a..b"`, "an empty name"}},
		"a dollar":                   {byID("$where"), []string{"begins with $"}},
		"a number":                   {byID("ids.0"), []string{"a number"}},
		"a NUL":                      {byID("a\x00"), []string{"a NUL"}},
		"Trusted cannot be encoded": {
			&mongostore.Options{Adopt: &mongostore.Adopt{ByEmail: true, Trusted: bson.D{{Key: "x", Value: func() {}}}}},
			[]string{"Adopt.Trusted cannot be encoded"},
		},
		"two faults": {
			&mongostore.Options{Adopt: &mongostore.Adopt{ByExternalID: "$x", ByEmail: true}}, []string{"begins with $", "Trusted"},
		},
	} {
		_, err := mongostore.Open(t.Context(), newCollection(t), tt.opts)
		if tt.want == nil {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		t.Run(name, func(t *testing.T) { wantError(t, err, append(tt.want, "mongostore: open: ")...) })
	}
}

// TestOpenAdoptTrusted has a server that does not take Trusted for a filter.
func TestOpenAdoptTrusted(t *testing.T) {
	t.Parallel()
	coll, f := newFront(t, newStore(t).coll, standalone, retryWrites(false))
	f.play(func(_ string, cmd bson.Raw) reaction {
		if !cmd.Lookup("filter", "$and").IsZero() {
			return failed(2)
		}
		return reaction{}
	})
	_, err := mongostore.Open(t.Context(), coll, &mongostore.Options{Adopt: adoptAny()})
	wantError(t, err, "Adopt.Trusted, which must be a filter", "server error 2")
}

// TestOpenAdoptSparse has unique indexes on clerkId, and runs the line that replaces one that
// lets in only one record without a Clerk id.
func TestOpenAdoptSparse(t *testing.T) {
	t.Parallel()
	opts := &mongostore.Options{Adopt: adoptAny()}
	sparse := newCollection(t)
	open(t, sparse, nil)
	open(t, sparse, opts) // FerretDB 1 does not list it as sparse
	open(t, sparse, opts)
	if !listsSparse() {
		return
	}
	dense := newCollection(t)
	createIndex(t, dense, ascending("clerkId"), options.Index().SetUnique(true))
	open(t, dense, nil)
	_, err := mongostore.Open(t.Context(), dense, opts)
	wantError(t, err, `the unique index "clerkId_1" on clerkId is not sparse`)
	calls, parseErr := mongostore.ShellCalls(err.Error())
	if parseErr != nil || len(calls) != 6 {
		t.Fatalf("%v, %v", calls, parseErr)
	}
	followAdvice(t, dense, calls[:2], mongostore.ShellCall{})
	open(t, dense, opts)
	insert(t, dense, legacy(1), legacy(2))
	if partialIndexes() {
		partial := newCollection(t)
		createIndex(t, partial, ascending("clerkId"), options.Index().SetUnique(true).SetPartialFilterExpression(exists("clerkId")))
		open(t, partial, opts)
	}
}

// TestOpenAdoptIndexes checks which indexes Open makes for lookups, once.
func TestOpenAdoptIndexes(t *testing.T) {
	t.Parallel()
	own := []string{"_id_", "clerkId_1"}
	for name, tt := range map[string]struct {
		keys  bson.D // of an index of the app's
		opts  *options.IndexOptionsBuilder
		adopt *mongostore.Adopt
		want  []string
	}{
		"none":                {nil, nil, adoptAny(), []string{"email_1", "legacyId_1"}},
		"one on the address":  {ascending("email"), options.Index().SetName("own"), adoptAny(), []string{"legacyId_1", "own"}},
		"one that begins so":  {ascending("email", "x"), options.Index().SetName("own"), adoptAny(), []string{"legacyId_1", "own"}},
		"one that ends so":    {ascending("x", "email"), options.Index().SetName("own"), adoptAny(), []string{"email_1", "legacyId_1", "own"}},
		"one of that name":    {ascending("x"), options.Index().SetName("email_1"), adoptAny(), []string{"clerksync_email", "email_1", "legacyId_1"}},
		"by _id alone":        {nil, nil, &mongostore.Adopt{ByExternalID: "_id"}, nil},
		"by the address":      {nil, nil, &mongostore.Adopt{ByEmail: true, Trusted: bson.D{}}, []string{"email_1"}},
		"without Adopt":       {nil, nil, nil, nil},
		"without any of both": {nil, nil, &mongostore.Adopt{}, nil},
	} {
		coll := newCollection(t)
		if tt.keys != nil {
			createIndex(t, coll, tt.keys, tt.opts)
		}
		want := slices.Sorted(slices.Values(append(slices.Clone(own), tt.want...)))
		for range 2 {
			open(t, coll, &mongostore.Options{Adopt: tt.adopt})
			var got []string
			for name := range indexSpecs(t, coll) {
				got = append(got, name)
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
}

// TestOpenAdoptSharded plays clusters on which the collection is sharded, to users who may read
// the metadata and to others.
func TestOpenAdoptSharded(t *testing.T) {
	t.Parallel()
	base := newStore(t).coll
	metadata := func(key bson.D) reaction {
		return reaction{answer: bson.D{{Key: "ok", Value: 1.0}, {Key: "cursor", Value: bson.D{
			{Key: "id", Value: int64(0)}, {Key: "ns", Value: "config.collections"},
			{Key: "firstBatch", Value: bson.A{bson.D{{Key: "_id", Value: "x"}, {Key: "key", Value: key}}}},
		}}}}
	}
	for name, tt := range map[string]struct {
		metadata, write reaction
		refused         bool
	}{
		"on clerkId":             {metadata(ascending("clerkId")), reaction{}, true},
		"on clerkId and another": {metadata(ascending("x", "clerkId")), reaction{}, true},
		"on _id":                 {metadata(ascending("_id")), reaction{}, false},
		"not at all":             {reaction{}, reaction{}, false},
		"may not read, refused":  {failed(13), failed(61), true},
		"may not read":           {failed(13), reaction{}, false},
		"may not read, failed":   {failed(13), failed(9), false},
	} {
		for _, adopt := range []*mongostore.Adopt{adoptAny(), nil} {
			coll, f := newFront(t, base, mongos, retryWrites(false))
			f.play(func(_ string, cmd bson.Raw) reaction {
				switch {
				case cmd.Lookup("$db").StringValue() == "config":
					return tt.metadata
				case commandName(cmd) == "findAndModify":
					return tt.write
				}
				return reaction{}
			})
			_, err := mongostore.Open(t.Context(), coll, &mongostore.Options{Adopt: adopt})
			if tt.refused && adopt != nil {
				t.Run(name, func(t *testing.T) { wantError(t, err, "the collection is sharded on clerkId") })
			} else if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
