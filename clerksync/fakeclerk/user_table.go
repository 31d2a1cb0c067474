package fakeclerk

import (
	"slices"
	"strings"
)

// userTable holds the users. Its methods need the server's lock, except json. Stored objects are never
// modified, only replaced, so an object that was read under the lock stays valid without it.
type userTable struct {
	byID    map[string]*UserObject
	ordered []*UserObject   // by compareCreated
	deleted map[string]bool // ids of deleted users, which cannot be used again

	population *population // more users; nil: none
}

func newUserTable() userTable {
	return userTable{byID: make(map[string]*UserObject), deleted: make(map[string]bool)}
}

// compareCreated is the order of created_at. The id breaks ties.
func compareCreated(a, b *UserObject) int {
	if a.CreatedAt != b.CreatedAt {
		if a.CreatedAt < b.CreatedAt {
			return -1
		}
		return 1
	}
	return strings.Compare(a.ID, b.ID)
}

// put adds a user, or replaces the one with the same id.
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
		t.population.leave(u.ID) // the first change of one of the population moves it here
	}
	i, _ := slices.BinarySearchFunc(t.ordered, u, compareCreated)
	t.ordered = slices.Insert(t.ordered, i, u)
	t.byID[u.ID] = u
}

// remove deletes a user, which must exist.
func (t *userTable) remove(u *UserObject) {
	if t.population != nil && t.population.leave(u.ID) {
		return // it was not in the table
	}
	i, _ := slices.BinarySearchFunc(t.ordered, u, compareCreated)
	t.ordered = slices.Delete(t.ordered, i, i+1)
	delete(t.byID, u.ID)
	t.deleted[u.ID] = true
}

// entry is a user in a list: a stored user, or one of the population if user is nil.
type entry struct {
	user   *UserObject
	number int
}

// find returns a user, stored or of the population.
func (t *userTable) find(id string) (e entry, ok bool) {
	if u := t.byID[id]; u != nil {
		return entry{user: u}, true
	}
	if t.population == nil {
		return entry{}, false
	}
	i, ok := t.population.number(id)
	return entry{number: i}, ok && !t.population.isGone(i)
}

// json returns the JSON of a user that find returned. It does not need the server's lock.
func (t *userTable) json(e entry) []byte {
	if e.user != nil {
		return mustMarshal(e.user)
	}
	return t.population.appendJSON(nil, e.number)
}

// get returns a user's object, or nil if there is no such user. An object of the population is
// generated and not stored.
func (t *userTable) get(id string) *UserObject {
	e, ok := t.find(id)
	if ok && e.user == nil {
		return t.population.object(e.number)
	}
	return e.user
}

// used reports whether a user has or had the id.
func (t *userTable) used(id string) bool {
	if t.population != nil {
		if _, ok := t.population.number(id); ok {
			return true
		}
	}
	return t.byID[id] != nil || t.deleted[id]
}
