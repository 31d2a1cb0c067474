package world

import "context"

// checkDeletion checks what a deletion made of a record: it says so, and keeps the rest,
// but what Clerk told about the person where the Store erases that.
func (w *world) checkDeletion(u *user, was, is *recordKey) {
	want := *was
	want.Active, want.Deleted, want.Updated = false, is.Deleted, is.Updated
	if w.opts.Erases {
		want.erase()
		w.checkErased(u, was)
	}
	if *is != want {
		w.fail("the record of %s became by its deletion\n%+v\nwhich is to be\n%+v", u.id, *is, want)
	}
}

// erase leaves of what Clerk told what is about no person: the flags and the version.
func (k *recordKey) erase() {
	k.facts = facts{EmailVerified: k.EmailVerified, PhoneVerified: k.PhoneVerified, Banned: k.Banned, Version: k.Version}
	k.SignedIn = 0
}

// checkErased looks for what a record does not show, once its deletion has forgotten that
// it was Map's.
func (w *world) checkErased(u *user, was *recordKey) {
	if was.Plan != "" {
		w.counts.add(erased)
	}
	if !w.able.foreign {
		return
	}
	fields, err := w.raw.Fields(context.Background(), u.id)
	if plan, there := fields["plan"]; there || err != nil {
		w.fail("the record of %s, who is deleted, has still %v, %v", u.id, plan, err)
	}
}

// checkTombstone checks that a deleted record stays as it is, but for the e-mail address
// where another record took that.
func (w *world) checkTombstone(u *user, was, is *recordKey) {
	want := *was
	if w.opts.UniqueEmail && is.Email == "" && w.holder(u.id, was.Email) != nil {
		want.Email, want.Updated = "", is.Updated
		w.counts.add(emailGivenUp)
	}
	if *is != want {
		w.fail("the record of %s, who is deleted, went from\n%+v\nto\n%+v", u.id, *was, *is)
	}
}
