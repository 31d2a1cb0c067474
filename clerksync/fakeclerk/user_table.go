package fakeclerk

import (
	"slices"
	"strings"
)

// userTable holds the users. Stored objects are never modified, only replaced, so what
// was read under the server's lock stays valid outside it.
type userTable struct {
	byID    map[string]*UserObject
	ordered []*UserObject   // by compareCreated
	deleted map[string]bool // ids that are never used again

	population *population // further users, nil where there are none
}

func newUserTable() userTable {
	return userTable{byID: make(map[string]*UserObject), deleted: make(map[string]bool)}
}

// compareCreated is the order of created_at: total, as the id breaks ties.
func compareCreated(a, b *UserObject) int {
	if a.CreatedAt != b.CreatedAt {
		if a.CreatedAt < b.CreatedAt {
			return -1
		}
		return 1
	}
	return strings.Compare(a.ID, b.ID)
}

func (t *userTable) put(u *UserObject) {
	if old, ok := t.byID[u.ID]; ok {
		i, _ := slices.BinarySearchFunc(t.ordered, old, compareCreated)
		if old.CreatedAt == u.CreatedAt {
			t.ordered[i] = u
			t.byID[u.ID] = u
			return
		}
		t.ordered = slices.Delete(t.ordered, i, i+1)
	} else if t.population != nil {
		t.population.leave(u.ID) // where it is the first change
	}
	i, _ := slices.BinarySearchFunc(t.ordered, u, compareCreated)
	t.ordered = slices.Insert(t.ordered, i, u)
	t.byID[u.ID] = u
}

func (t *userTable) remove(u *UserObject) {
	if t.population != nil && t.population.leave(u.ID) {
		return // it was never stored
	}
	i, _ := slices.BinarySearchFunc(t.ordered, u, compareCreated)
	t.ordered = slices.Delete(t.ordered, i, i+1)
	delete(t.byID, u.ID)
	t.deleted[u.ID] = true
}

// get returns a user's object, nil where there is no such user. One of the population is
// made, and not stored.
func (t *userTable) get(id string) *UserObject {
	e, ok := t.find(id)
	if ok && e.user == nil {
		return t.population.object(e.number)
	}
	return e.user
}

// used reports whether an id is or was a user's.
func (t *userTable) used(id string) bool {
	if t.population != nil {
		if _, ok := t.population.number(id); ok {
			return true
		}
	}
	return t.byID[id] != nil || t.deleted[id]
}
