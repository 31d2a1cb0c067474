package mongostore_test

import (
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

func openDeleting(t *testing.T, coll *mongo.Collection, erase bool) rawStore {
	t.Helper()
	return rawStore{open(t, coll, &mongostore.Options{BatchSize: batchSize, Adopt: adoptAny(), EraseOnDelete: erase}), coll}
}

// TestDeactivateExternal deletes users of whom only the external id is known, and others.
func TestDeactivateExternal(t *testing.T) {
	t.Parallel()
	field := func(name string, value any) bson.E { return bson.E{Key: name, Value: value} }
	of := func(id any, more ...bson.E) bson.D { return legacy(id, append(more, field("legacyId", "a7"))...) }
	for name, tt := range map[string]struct {
		docs   []bson.D
		linked bool // the first record becomes the tombstone
	}{
		"named":               {[]bson.D{of(1)}, true},
		"named, clerkId null": {[]bson.D{of(1, field("clerkId", nil))}, true},
		// A deletion is always written.
		"named, odd types":          {[]bson.D{of(1, field("isActive", "yes"), field("name", int32(1)), field("updatedAt", "x"), field("profile", "x"))}, true},
		"named, deletedAt odd":      {[]bson.D{of(1, field("deletedAt", true))}, true},
		"named, beside a tombstone": {[]bson.D{of(1), of(2, field("deletedAt", hour(0)))}, true},
		"not named":                 {[]bson.D{legacy(1)}, false},
		"ambiguous":                 {[]bson.D{of(1), of(2)}, false},
		"of another user":           {[]bson.D{of(1, field("clerkId", "user_other"))}, false},
		"of another user and free":  {[]bson.D{of(1), of(2, field("clerkId", "user_other"))}, false},
		"a tombstone":               {[]bson.D{of(1, field("deletedAt", hour(0)))}, false},
		"none at all":               {nil, false},
	} {
		for _, erase := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := openDeleting(t, newCollection(t), erase)
				if tt.docs != nil {
					insert(t, s.coll, tt.docs...)
				}
				before := s.snapshot(t)
				for range 2 {
					res, err := s.DeactivateExternal(t.Context(), "user_ada", "a7", hour(3))
					if err != nil || res.Outcome != clerksync.Deactivated {
						t.Fatalf("%v, %v", res.Outcome, err)
					}
				}
				after := s.snapshot(t)
				others := slices.DeleteFunc(slices.Clone(after), func(doc string) bool { return strings.Contains(doc, "user_ada") })
				if tt.linked {
					before = before[1:] // the first one, sorted by _id
				}
				if len(after) != len(others)+1 || !slices.Equal(others, before) {
					t.Errorf("erase %t: the other records are %q, want %q", erase, others, before)
				}
				checkTombstone(t, s, tt.linked, erase)
				upsert(t, s, external("a7", 5), clerksync.Deactivated)
			})
		}
	}
}

// checkTombstone checks ada's tombstone, which may have been a record of the app's.
func checkTombstone(t *testing.T, s rawStore, linked, erase bool) {
	t.Helper()
	f := s.fields(t, "user_ada")
	if f["isActive"] != false || f["deletedAt"] != hour(3) || (f["credits"] == int32(7)) != linked || (f["role"] == "ADMIN") != linked {
		t.Errorf("erase %t: tombstone %v", erase, f)
	}
	if _, has := f["email"]; has != (linked && !erase) {
		t.Errorf("erase %t: email %v", erase, f["email"])
	}
}

// TestDeactivateExternalKnown deletes users who have a record: it takes what Deactivate takes,
// and leaves the record that the external id names.
func TestDeactivateExternalKnown(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	monitored, sent := newMonitored(t, coll)
	for _, erase := range []bool{false, true} {
		empty(t, coll)
		s := openDeleting(t, monitored, erase)
		s.coll = coll
		insert(t, coll, legacy(1, bson.E{Key: "legacyId", Value: "a7"}), bson.D{{Key: "clerkId", Value: bson.A{"user_array"}}})
		upsert(t, s, person("known", 1), clerksync.Created)
		before := s.snapshot(t)
		want := map[bool][][]string{false: {{"update"}, {"update", "find"}}, true: {{"find", "update"}, {"find"}}}[erase]
		for i := range 2 {
			sent.take()
			res, err := s.DeactivateExternal(t.Context(), "user_known", "a7", hour(3))
			if got := sent.names(); err != nil || !slices.Equal(got, want[i]) || (res.User != nil) != (i == 1) {
				t.Errorf("erase %t, call %d: %+v, %v, sends %q, want %q", erase, i, res, err, got, want[i])
			}
		}
		if after := s.snapshot(t); after[0] != before[0] && after[1] != before[0] && after[2] != before[0] {
			t.Errorf("the app's record has changed: %q", after)
		}
		if res, err := s.DeactivateExternal(t.Context(), "user_array", "a7", hour(3)); err != nil || res.Outcome != clerksync.Deactivated {
			t.Errorf("a clerkId in an array: %+v, %v", res, err)
		}
		// At most two commands more for a user without a record.
		for id, most := range map[string]int{"a7": 3, "none": 3, "": 3} {
			sent.take()
			if _, err := s.DeactivateExternal(t.Context(), "user_of_"+id, id, hour(3)); err != nil {
				t.Error(err)
			}
			if got := sent.names(); len(got) > most {
				t.Errorf("erase %t, external id %q: sends %q", erase, id, got)
			}
		}
	}
}

// TestDeactivateExternalOff leaves the app's records alone without ByExternalID.
func TestDeactivateExternalOff(t *testing.T) {
	t.Parallel()
	for _, adopt := range []*mongostore.Adopt{nil, {ByEmail: true, Trusted: bson.D{}}} {
		s := openAdopting(t, newCollection(t), adopt)
		insert(t, s.coll, legacy(1, bson.E{Key: "legacyId", Value: "a7"}))
		before := s.snapshot(t)
		if _, err := s.DeactivateExternal(t.Context(), "user_ada", "a7", hour(3)); err != nil {
			t.Error(err)
		}
		if after := s.snapshot(t); len(after) != 2 || !slices.Contains(after, before[0]) {
			t.Errorf("records %q", after)
		}
	}
	if _, err := newStore(t).DeactivateExternal(t.Context(), "", "a7", hour(3)); err == nil {
		t.Error("no Clerk id is no error")
	}
}
