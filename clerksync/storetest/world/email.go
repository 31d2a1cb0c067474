package world

import (
	"errors"

	"github.com/clerksync/clerksync-go/clerksync"
)

// holder returns another user whose record has this e-mail address and is not deleted, or nil.
func (w *world) holder(id, email string) *user {
	for _, other := range w.users {
		if s := other.last(); other.id != id && s != nil && s.key.Deleted == 0 && s.key.facts.Email == email {
			return other
		}
	}
	return nil
}

// checkEmail checks what an Upsert did about records with the same e-mail address. A deleted one
// loses it; only one that is not deleted may cause a conflict.
func (w *world) checkEmail(u *clerksync.User, err error) {
	var conflict *clerksync.ConflictError
	if errors.As(err, &conflict) {
		w.counts.add(emailConflict)
		if !w.opts.UniqueEmail || w.holder(u.ClerkID, u.Email) == nil {
			w.fail("the Store rejects %s because of another record, and no record has the address: %v", u.ClerkID, err)
		}
		return
	}
	if !w.opts.UniqueEmail || err != nil || u.Email == "" {
		return
	}
	for _, other := range w.users {
		s := other.last()
		if other.id != u.ClerkID && s != nil && s.key.Deleted != 0 && s.key.facts.Email == u.Email {
			w.store.note(other.id, false)
		}
	}
}
