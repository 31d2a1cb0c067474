package world

import (
	"errors"

	"github.com/clerksync/clerksync-go/clerksync"
)

// holder is another user whose record, which is not deleted, has this e-mail address; nil
// where there is none.
func (w *world) holder(id, email string) *user {
	for _, other := range w.users {
		if s := other.last(); other.id != id && s != nil && s.key.Deleted == 0 && s.key.Email == email {
			return other
		}
	}
	return nil
}

// contended looks at those who had the e-mail address of an offered record: a deleted one
// gives it up, and only one that is not may be in the way.
func (w *world) contended(u *clerksync.User, err error) {
	var conflict *clerksync.ConflictError
	if errors.As(err, &conflict) {
		w.counts.add(emailConflict)
		if !w.opts.UniqueEmail || w.holder(u.ClerkID, u.Email) == nil {
			w.fail("the Store does not write %s for a record in the way, and there is none: %v", u.ClerkID, err)
		}
		return
	}
	if !w.opts.UniqueEmail || err != nil || u.Email == "" {
		return
	}
	for _, other := range w.users {
		if s := other.last(); other.id != u.ClerkID && s != nil && s.key.Deleted != 0 && s.key.Email == u.Email {
			w.store.note(other.id, false)
		}
	}
}
