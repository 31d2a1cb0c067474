package world

import (
	"context"
	"errors"

	"github.com/clerksync/clerksync-go/clerksync"
)

// checkDeletion checks what a deletion made of a record. It marks the record deleted and leaves the
// rest. A Store that erases also removes what Clerk told about the person, unless the deletion owes a
// job: then the end of the job does.
func (w *world) checkDeletion(u *user, was, is *recordKey) {
	want := *was
	want.Active, want.Deleted, want.Updated = false, is.Deleted, is.Updated
	if j := w.deleteJob(u.id, is.Deleted); w.opts.Erases && (j == nil || j.over != "") {
		want.erase()
		w.checkErased(u, was)
	}
	if *is != want {
		w.fail("after its deletion the record of %s is\n%+v\nwant\n%+v", u.id, *is, want)
	}
}

// erase leaves only those of Clerk's fields that are not personal: the flags and the version.
func (k *recordKey) erase() {
	k.facts = facts{
		EmailVerified: k.facts.EmailVerified, PhoneVerified: k.facts.PhoneVerified, Banned: k.facts.Banned,
		Version: k.facts.Version,
	}
	k.SignedIn = 0
}

// checkErased checks that the database does not hold the field that Map set. The record does not
// show it, because the deletion also removed the list of Map's fields.
func (w *world) checkErased(u *user, was *recordKey) {
	if was.facts.Plan != "" {
		w.counts.add(erased)
	}
	if !w.able.foreign {
		return
	}
	fields, err := w.raw.Fields(context.Background(), u.id)
	if plan, there := fields["plan"]; there || err != nil {
		w.fail("the record of %s, who is deleted, still has plan %v, %v", u.id, plan, err)
	}
}

// checkTombstone checks that a deleted record did not change, except that it lost its e-mail
// address to another record, or was erased by the end of its job.
func (w *world) checkTombstone(u *user, was, is *recordKey) {
	want := *was
	if j := w.ending; w.opts.Erases && j != nil && j == w.deleteJob(u.id, was.Deleted) && j.over != "" {
		want.erase()
		want.Updated = is.Updated
		w.checkErased(u, was)
	}
	if w.opts.UniqueEmail && is.facts.Email == "" && w.holder(u.id, was.facts.Email) != nil {
		want.facts.Email, want.Updated = "", is.Updated
		w.counts.add(emailGivenUp)
	}
	if *is != want {
		w.fail("the record of %s, who is deleted, went from\n%+v\nto\n%+v", u.id, *was, *is)
	}
}

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
// loses it; only one that is not deleted may cause a conflict, also one from before Clerk.
func (w *world) checkEmail(u *clerksync.User, err error) {
	var conflict *clerksync.ConflictError
	if w.checkUnlinked(u, err) {
		return
	}
	if errors.As(err, &conflict) {
		w.counts.add(emailConflict)
		taken := w.isTaken(u.Email, w.named(u.ExternalID))
		if taken && w.byID[u.ClerkID].last() == nil {
			w.counts.add(addressBlocks)
		} else if taken {
			w.counts.add(addressLacks)
		}
		if !w.opts.UniqueEmail || w.holder(u.ClerkID, u.Email) == nil && !taken {
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
