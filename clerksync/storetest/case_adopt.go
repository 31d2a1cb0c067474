package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// AdoptingStore is a [clerksync.AdoptStore] whose records from before Clerk a test can insert and
// read. It must adopt by external id and by proven e-mail address, and trust some records only.
type AdoptingStore interface {
	RawStore
	clerksync.AdoptStore

	// InsertLegacy inserts a record without a Clerk id, as the app has made it: with these
	// fields, which are as in SetFields, named by this external id unless that is empty, and
	// trusted or not. It returns the id of the record, as in User.ID.
	InsertLegacy(ctx context.Context, externalID string, trusted bool, fields map[string]any) (id string, err error)

	// LegacyFields returns the record with this id, as Fields does.
	LegacyFields(ctx context.Context, id string) (map[string]any, error)
}

// legacyRecord is a record that the app had before Clerk.
type legacyRecord struct {
	externalID string
	untrusted  bool
	fields     map[string]any
}

func (c *check) adopting() AdoptingStore { return c.newStore().(AdoptingStore) }

// legacy inserts a record and returns its id.
func (c *check) legacy(s AdoptingStore, r legacyRecord) string {
	c.t.Helper()
	id, err := s.InsertLegacy(c.t.Context(), r.externalID, !r.untrusted, r.fields)
	if err != nil {
		c.t.Fatalf("AdoptingStore.InsertLegacy(%+v): %v", r, err)
	}
	return id
}

// legacyFields returns the record with this id, as a flat map by dotted path.
func (c *check) legacyFields(s AdoptingStore, id string) map[string]any {
	c.t.Helper()
	record, err := s.LegacyFields(c.t.Context(), id)
	if err != nil {
		c.t.Fatalf("AdoptingStore.LegacyFields(%q): %v", id, err)
	}
	flat := make(map[string]any)
	flatten("", record, flat)
	return flat
}

// addressed returns a record with the address of u.
func addressed(u *clerksync.User, more map[string]any) legacyRecord {
	r := legacyRecord{fields: map[string]any{"email": u.Email, "role": "ADMIN", "credits": 7}}
	for name, v := range more {
		r.fields[name] = v
	}
	return r
}

// proven returns a person at version n who controls the address.
func proven(id string, n int) *clerksync.User {
	u := person(id, n)
	u.EmailProven = true
	return u
}

// named returns a person at version n with an external id.
func named(id string, n int, externalID string) *clerksync.User {
	u := person(id, n)
	u.ExternalID = externalID
	return u
}

// adopt upserts u, who must adopt the record with this id, and returns the record after it.
func (c *check) adopt(s AdoptingStore, u *clerksync.User, id string) *clerksync.User {
	c.t.Helper()
	res, err := s.Upsert(c.t.Context(), u)
	if err != nil || res.Outcome != clerksync.Adopted {
		c.fatalf("Upsert of %s: %v, %v, want %v", describe(u), res.Outcome, err, clerksync.Adopted)
	}
	after := c.record(s, u.ClerkID)
	c.result(res, after)
	if after.ID != id {
		c.errorf("the record of %s is %s, want the adopted one, %s", u.ClerkID, after.ID, id)
	}
	want := after.Clone()
	canonical, err := u.Canonical()
	if err != nil {
		c.t.Fatal(err)
	}
	apply(want, canonical)
	c.same("the adopted record", after, want)
	if !after.SyncedAt.Equal(canonical.SyncedAt) || !after.ClerkUpdatedAt.Equal(canonical.ClerkUpdatedAt) {
		c.errorf("the adopted record has SyncedAt %v and version %v, want the user's", after.SyncedAt, after.ClerkUpdatedAt)
	}
	return after
}

// adoptRefusal is a user who must not adopt what there is.
type adoptRefusal struct {
	what     string
	u        *clerksync.User
	records  []legacyRecord
	owner    string // who is to adopt the first record before
	unlinked bool   // the error matches ErrUnlinked
	holder   bool   // the error names owner
	typ      string // the error has a Type
	created  bool   // no error: the user gets a record of their own
}

// adoptRefusals are all reasons not to adopt a record.
func adoptRefusals() []adoptRefusal {
	ada := proven("user_1", 1)
	unproven := person("user_1", 1)
	byID := named("user_1", 1, "a7")
	of := func(more map[string]any) legacyRecord { return addressed(ada, more) }
	id := legacyRecord{externalID: "a7", fields: map[string]any{"credits": 7}}
	untrusted := of(nil)
	untrusted.untrusted = true
	odd := legacyRecord{externalID: "a7", fields: map[string]any{"name": map[string]any{"first": "Ada"}}}
	extra := legacyRecord{externalID: "a7", fields: map[string]any{"plan": "gold"}}
	gone := legacyRecord{externalID: "a7", fields: map[string]any{"deletedAt": hour(0)}}
	return []adoptRefusal{
		{what: "an address that is not proven", u: unproven, records: []legacyRecord{of(nil)}, unlinked: true},
		{what: "two records with the address", u: ada, records: []legacyRecord{of(nil), of(nil)}, unlinked: true},
		{what: "two records, one of them trusted", u: ada, records: []legacyRecord{of(nil), untrusted}, unlinked: true},
		{what: "a record that is not trusted", u: ada, records: []legacyRecord{untrusted}, unlinked: true},
		{what: "a deleted record with the address", u: ada, records: []legacyRecord{of(map[string]any{"deletedAt": hour(0)})}, created: true},
		{what: "another address", u: ada, records: []legacyRecord{of(map[string]any{"email": "eve@example.com"})}, created: true},
		{what: "another user's record, by id", u: byID, records: []legacyRecord{id}, owner: "user_2", holder: true},
		{what: "two records with the external id", u: byID, records: []legacyRecord{id, id}},
		{what: "a deleted record, by id", u: byID, records: []legacyRecord{gone}},
		{what: "another external id", u: named("user_1", 1, "a8"), records: []legacyRecord{id}, created: true},
		{what: "a name of another type", u: byID, records: []legacyRecord{odd}, typ: "object"},
		{what: "a name of Extra", u: byID, records: []legacyRecord{extra}, typ: "string"},
	}
}

// seed inserts the records, and has the owner adopt the first one. It returns their ids.
func (r adoptRefusal) seed(c *check, s AdoptingStore) (ids []string) {
	c.t.Helper()
	for _, record := range r.records {
		ids = append(ids, c.legacy(s, record))
	}
	if r.owner != "" {
		c.adopt(s, named(r.owner, 1, r.records[0].externalID), ids[0])
	}
	return ids
}

// check checks what an Upsert of the user returned, or what Adoptions said.
func (r adoptRefusal) check(c *check, how string, err error) {
	c.t.Helper()
	var conflict *clerksync.ConflictError
	switch {
	case r.created && err != nil:
		c.errorf("%s of a user with %s: %v", how, r.what, err)
	case r.created:
	case !errors.As(err, &conflict):
		c.errorf("%s of a user with %s: %v, want a ConflictError", how, r.what, err)
	case errors.Is(err, clerksync.ErrUnlinked) != r.unlinked, conflict.Type != r.typ, (conflict.Holder == r.owner) != (r.holder || r.owner == ""):
		c.errorf("%s of a user with %s: %v (%+v)", how, r.what, err, conflict)
	default:
		c.rejected(how, err, r.u)
	}
}

// unchanged checks that the records did not change, and whether the user has one.
func (r adoptRefusal) unchanged(c *check, s AdoptingStore, ids []string, before []map[string]any, created bool) {
	c.t.Helper()
	for i, id := range ids {
		c.untouched("after a refusal because of "+r.what, c.legacyFields(s, id), before[i])
	}
	if u := c.find(s, r.u.ClerkID); (u != nil) != created || u != nil && slices.Contains(ids, u.ID) {
		c.errorf("with %s, the user has the record %+v; want one of their own: %t", r.what, u, created)
	}
}

// adoptCases are about clerksync.AdoptStore.
var adoptCases = []testCase{
	{
		name:  "AdoptByExternalIDAndEmail",
		rule:  "a user without a record gets the one that the external id names or, if the address is proven, that has it",
		needs: adopts,
		run: func(c *check) {
			for by, u := range map[string]*clerksync.User{clerksync.ByExternalID: named("user_1", 2, "a7"), clerksync.ByEmail: proven("user_1", 2)} {
				s := c.adopting()
				r := addressed(u, map[string]any{"createdAt": hour(-1000), "isActive": false, "profile.birthday": "1900"})
				r.externalID = "a7"
				id := c.legacy(s, r)
				got := c.adopt(s, u, id)
				fields := c.fields(s, "user_1")
				if got.Role != clerksync.RoleAdmin || got.IsActive || !got.CreatedAt.Equal(hour(-1000)) || fields["credits"] != int64(7) {
					c.errorf("the app's fields have changed: %+v, credits %v", got, fields["credits"])
				}
				if at, ok := fields["adoptedAt"].(time.Time); !ok || time.Since(at).Abs() > time.Hour || fields["adoptedBy"] != by {
					c.errorf("adoptedAt is %v and adoptedBy %v, want about the present and %s", fields["adoptedAt"], fields["adoptedBy"], by)
				}
				c.offer(s, u, clerksync.Unchanged)
				c.offer(s, person("user_1", 1), clerksync.Stale)
				c.offer(s, person("user_1", 3), clerksync.Updated)
				c.deactivate(s, "user_1", hour(4))
				c.offer(s, named("user_1", 5, "a7"), clerksync.Deactivated)
			}
		},
	},
	{
		name:  "AdoptFillsIn",
		rule:  "an adopted record gets the role, isActive and createdAt that it lacks, and no location",
		needs: adopts,
		run: func(c *check) {
			s := c.adopting()
			id := c.legacy(s, legacyRecord{externalID: "a7"})
			u := named("user_1", 1, "a7")
			got := c.adopt(s, u, id)
			if got.Role != u.Role || !got.IsActive || time.Since(got.CreatedAt).Abs() > time.Hour || got.Location != nil {
				c.errorf("the adopted record is %+v", got)
			}
		},
	},
	{
		name:  "AdoptPrefersTheExternalID",
		rule:  "if the external id names a record, the address is not tried; if it names none, it is",
		needs: adopts,
		run: func(c *check) {
			s := c.adopting()
			u := proven("user_1", 1)
			u.ExternalID = "a7"
			other := c.legacy(s, addressed(u, nil))
			id := c.legacy(s, legacyRecord{externalID: "a7", fields: map[string]any{"credits": 7}})
			before := c.legacyFields(s, other)
			c.adopt(s, u, id)
			c.untouched("after the adoption of another", c.legacyFields(s, other), before)
			second := proven("user_2", 1)
			second.ExternalID, second.Email = "a8", u.Email
			c.adopt(s, second, other)
		},
	},
	{
		name:  "AdoptRefuses",
		rule:  "no record is adopted that may be another's, and no user is inserted beside an unlinked record with the address",
		needs: adopts,
		run: func(c *check) {
			for _, r := range adoptRefusals() {
				s := c.adopting()
				ids := r.seed(c, s)
				var before []map[string]any
				for _, id := range ids {
					before = append(before, c.legacyFields(s, id))
				}
				adoptions, err := s.Adoptions(c.t.Context(), []*clerksync.User{r.u})
				if err != nil || len(adoptions) != 1 || adoptions[0].By != "" {
					c.fatalf("Adoptions of a user with %s: %+v, %v", r.what, adoptions, err)
				}
				r.check(c, "Adoptions", adoptions[0].Err)
				r.unchanged(c, s, ids, before, false)
				_, err = s.Upsert(c.t.Context(), r.u)
				r.check(c, "Upsert", err)
				r.unchanged(c, s, ids, before, r.created)
			}
		},
	},
	{
		name:  "AdoptOmit",
		rule:  "a user with Omit is never adopted",
		needs: adopts,
		run: func(c *check) {
			s := c.adopting()
			c.legacy(s, legacyRecord{externalID: "a7"})
			u := named("user_1", 1, "a7")
			u.Omit = []string{"email"}
			if res, err := s.Upsert(c.t.Context(), u); !errors.Is(err, clerksync.ErrNotFound) {
				c.errorf("Upsert with Omit: %v, %v, want ErrNotFound", res.Outcome, err)
			}
		},
	},
	{
		name:  "AdoptBatch",
		rule:  "a batch adopts, creates and refuses as single Upserts do, and Adoptions says so before",
		needs: adopts | batch,
		run: func(c *check) {
			s := c.adopting().(interface {
				AdoptingStore
				clerksync.BatchStore
			})
			c.offer(s, person("user_known", 1), clerksync.Created)
			one := c.legacy(s, addressed(proven("user_1", 1), nil))
			two := c.legacy(s, legacyRecord{externalID: "a7"})
			c.legacy(s, addressed(person("user_3", 1), nil))
			us := []*clerksync.User{
				proven("user_1", 1), named("user_2", 1, "a7"), person("user_3", 1), person("user_new", 1), person("user_known", 2),
				proven("user_1", 2), named("user_4", 1, "a7"),
			}
			adoptions, err := s.Adoptions(c.t.Context(), us)
			if err != nil || len(adoptions) != len(us) {
				c.fatalf("Adoptions: %+v, %v", adoptions, err)
			}
			for i, by := range []string{clerksync.ByEmail, clerksync.ByExternalID, "", "", ""} {
				if adoptions[i].By != by || (adoptions[i].Err != nil) != (i == 2) {
					c.errorf("Adoptions says %+v of %s, want by %q", adoptions[i], us[i].ClerkID, by)
				}
			}
			got, err := s.UpsertBatch(c.t.Context(), us)
			failed := &clerksync.BatchError{}
			if !errors.As(err, &failed) || len(failed.Errs) != 2 || !errors.Is(failed.Errs[2], clerksync.ErrUnlinked) {
				c.fatalf("UpsertBatch: %v, want errors for indexes 2 and 6", err)
			}
			var conflict *clerksync.ConflictError
			if !errors.As(failed.Errs[6], &conflict) || conflict.Holder != "user_2" {
				c.errorf("UpsertBatch: index 6: %v, want a conflict with user_2", failed.Errs[6])
			}
			want := []clerksync.Outcome{clerksync.Adopted, clerksync.Adopted, 0, clerksync.Created, clerksync.Updated, clerksync.Updated, 0}
			for i := range us {
				if got[i].Outcome != want[i] {
					c.errorf("result %d is %v, want %v", i, got[i].Outcome, want[i])
				}
			}
			if a, b := c.record(s, "user_1").ID, c.record(s, "user_2").ID; a != one || b != two {
				c.errorf("the records are %s and %s, want %s and %s", a, b, one, two)
			}
		},
	},
	{
		name:  "AdoptDeactivateExternal",
		rule:  "a deletion of a user without a record deletes the one that the external id names, if it is free",
		needs: adopts,
		run: func(c *check) {
			s := c.adopting()
			id := c.legacy(s, addressed(person("user_1", 1), map[string]any{"name": map[string]any{"first": "Ada"}}))
			free := c.legacy(s, legacyRecord{externalID: "a7", fields: map[string]any{"credits": 7, "isActive": "yes"}})
			for _, deleted := range []struct{ clerkID, externalID, record string }{
				{"user_1", "a7", free}, {"user_1", "a7", free}, {"user_2", "a7", ""}, {"user_3", "a8", ""},
			} {
				res, err := s.DeactivateExternal(c.t.Context(), deleted.clerkID, deleted.externalID, hour(3))
				if err != nil || res.Outcome != clerksync.Deactivated {
					c.fatalf("DeactivateExternal: %v, %v", res.Outcome, err)
				}
				got := c.record(s, deleted.clerkID)
				if (got.ID == deleted.record) != (deleted.record != "") || got.ID == id || !got.DeletedAt.Equal(hour(3)) || got.IsActive {
					c.errorf("DeactivateExternal of %s leaves %+v, want record %q", deleted.clerkID, got, deleted.record)
				}
				c.offer(s, named(deleted.clerkID, 5, deleted.externalID), clerksync.Deactivated)
			}
			if fields := c.fields(s, "user_1"); fields["credits"] != int64(7) {
				c.errorf("the tombstone is %v", fields)
			}
		},
	},
	{
		name:  "ConcurrentAdopt",
		rule:  "of concurrent calls for one record, exactly one adopts it, for one user or for several",
		needs: adopts,
		run: func(c *check) {
			for range rounds() {
				for _, several := range []bool{false, true} {
					c.adoptConcurrently(several)
				}
			}
		},
	},
}

// adoptConcurrently has calls for one user, or for several, who may adopt one record.
func (c *check) adoptConcurrently(several bool) {
	s := c.adopting()
	c.legacy(s, legacyRecord{externalID: "a7"})
	var adopted atomic.Int32
	c.concurrently(workers(), func(i int) {
		u := named("user_1", 1+i%3, "a7")
		if several {
			u = named(fmt.Sprint("user_", i), 1, "a7")
		}
		res, err := s.Upsert(c.t.Context(), u)
		var conflict *clerksync.ConflictError
		switch {
		case err == nil && res.Outcome == clerksync.Adopted:
			adopted.Add(1)
		case several && !(errors.As(err, &conflict) && conflict.Holder != ""), !several && err != nil:
			c.errorf("Upsert of %s: %v, %v", u.ClerkID, res.Outcome, err)
		}
	})
	if n := adopted.Load(); n != 1 {
		c.errorf("%d calls adopted the record, several users: %t", n, several)
	}
}
