package mongostore_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/clerksync/clerksync-go/clerksync"
)

// remake is one way in which callers write a new user whose values tombstones hold.
type remake struct {
	unique  []string // fields with a unique index of their own
	holders int      // deleted records that hold the values: one for all, or one for each
	before  bool     // the user has a record
}

// TestConcurrentRemakesOfOneUser lets several calls write the same user, whose values deleted
// records hold. Nobody else has the values, so all succeed.
func TestConcurrentRemakesOfOneUser(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]remake{
		"Email":               {unique: []string{"email"}, holders: 1},
		"Phone":               {unique: []string{"profile.phoneNumber"}, holders: 1},
		"Extra":               {unique: []string{"username"}, holders: 1},
		"Array":               {unique: []string{"tags"}, holders: 2},
		"TwoFieldsOneHolder":  {unique: []string{"email", "username"}, holders: 1},
		"TwoFieldsTwoHolders": {unique: []string{"email", "username"}, holders: 2},
		"Three":               {unique: []string{"email", "profile.phoneNumber", "username"}, holders: 3},
		"Update":              {unique: []string{"email", "username"}, holders: 2, before: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newUniqueStore(t, c.unique...)
			for round := range 4 * *rounds {
				empty(t, s.coll)
				c.run(t, s, fmt.Sprintf("r%d", round))
			}
		})
	}
}

func (c remake) run(t *testing.T, s rawStore, sfx string) {
	t.Helper()
	for i := range c.holders {
		u := person(fmt.Sprintf("gone%d%s", i, sfx), 1)
		u.Profile.PhoneNumber = ""
		for j, field := range c.unique {
			if j%c.holders == i {
				setUnique(u, field, sfx)
			}
		}
		if c.unique[0] == "tags" {
			u.Extra["tags"] = []any{fmt.Sprint(i, sfx), fmt.Sprint("other", i, sfx)}
		}
		upsert(t, s, u, clerksync.Created)
		deactivate(t, s.Store, u.ClerkID, hour(2))
	}
	anew := person("anew"+sfx, 3)
	anew.Profile.PhoneNumber = ""
	if c.before {
		upsert(t, s, anew, clerksync.Created)
		anew.ClerkUpdatedAt = hour(4)
	}
	for _, field := range c.unique {
		setUnique(anew, field, sfx)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	outcomes := make(map[string]int)
	for i := range 5 {
		wg.Go(func() {
			var out string
			if i%2 == 0 {
				res, err := s.Upsert(t.Context(), anew.Clone())
				out = fmt.Sprint(res.Outcome, err)
			} else {
				res, err := s.UpsertBatch(t.Context(), []*clerksync.User{person(fmt.Sprint("b", i, sfx), 1), anew.Clone()})
				out = fmt.Sprint(res[1].Outcome, err)
			}
			mu.Lock()
			defer mu.Unlock()
			outcomes[out]++
		})
	}
	wg.Wait()
	// Batches of one millisecond cannot tell whose update it was, so several may report it.
	first, updated := outcomes[fmt.Sprint(clerksync.Created, nil)] == 1, outcomes[fmt.Sprint(clerksync.Updated, nil)]
	if c.before {
		first = updated > 0
	}
	if unchanged := outcomes[fmt.Sprint(clerksync.Unchanged, nil)]; !first || unchanged+max(updated, 1) != 5 {
		t.Errorf("%v, want all to succeed, one by writing the user", outcomes)
	}
}

func setUnique(u *clerksync.User, field, sfx string) {
	switch field {
	case "email":
		u.Email = "remade" + sfx + "@example.com"
	case "profile.phoneNumber":
		u.Profile.PhoneNumber = "+1555" + sfx
	case "username":
		u.Extra["username"] = "remade" + sfx
	case "tags":
		u.Extra["tags"] = []any{"0" + sfx, "1" + sfx}
	}
}
