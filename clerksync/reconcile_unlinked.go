package clerksync

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/idset"
)

// Records without a Clerk id
//
// An app that had users before Clerk has records without a Clerk id. A run must not create a
// second record beside one of them, because what the app keeps in the first would be lost to
// its user. So it knows the e-mail addresses of these records before it writes anything. A
// new user with one of these addresses is adopted if the Store does that; else the run leaves
// the user out and says so.

// unlinkedTimeout bounds the wait for the next record without a Clerk id. It is far longer
// than storeTimeout: a collection of millions may have none, and the Store reads all of it
// before it says so.
const unlinkedTimeout = 30 * time.Minute

// unlinkedEmails are the e-mail addresses of the Store's records without a Clerk id, when the
// run began. A nil one has none.
type unlinkedEmails struct {
	hashes  *idset.Set
	odd     *idset.Set // of hashes, those of addresses that are not stored in their folded form
	records int        // those without an address too
}

func newUnlinkedEmails() *unlinkedEmails {
	return &unlinkedEmails{hashes: idset.New(0), odd: idset.New(0)}
}

func (e *unlinkedEmails) add(email string) {
	e.records++
	if email == "" {
		return
	}
	folded := foldedEmail(email)
	e.hashes.Add(folded)
	if folded != email {
		e.odd.Add(folded)
	}
}

// has reports whether a record has this address. An empty one is nobody's.
func (e *unlinkedEmails) has(email string) bool {
	return e != nil && email != "" && e.hashes.Has(foldedEmail(email))
}

// hasExactly reports whether an AdoptStore that looks for this address, as it is and in lower case,
// finds every record that has it.
func (e *unlinkedEmails) hasExactly(email string) bool {
	folded := foldedEmail(email)
	return folded == strings.ToLower(email) && !e.odd.Has(folded)
}

// foldedEmail is an address in the form in which two are compared.
func foldedEmail(email string) string { return strings.ToLower(strings.TrimSpace(email)) }

// findUnlinked reads the addresses of the records without a Clerk id, if the run needs them.
func (r *reconcileRun) findUnlinked(ctx context.Context) error {
	legacy, ok := r.syncer.store.(LegacyStore)
	if !ok || r.opts.IgnoreUnlinked && !r.foretells() {
		return nil
	}
	return r.retry(ctx, func() error {
		found := newUnlinkedEmails()
		for email, err := range inTimeEach(ctx, r.syncer.clock, unlinkedTimeout, legacy.UnlinkedEmails) {
			if err != nil {
				return storeError(err)
			}
			found.add(email)
		}
		r.unlinked = found
		return nil
	})
}

// foretells reports whether the run is to say what the Store would adopt.
func (r *reconcileRun) foretells() bool {
	return r.opts.DryRun && r.adopts != nil && (r.unlinked == nil || r.unlinked.records > 0)
}

// holdsBack reports whether a user who has no record must not be created, unless the Store
// adopts a record for the user.
func (r *reconcileRun) holdsBack(u *User) bool {
	return !r.opts.IgnoreUnlinked && r.unlinked.has(u.Email)
}

// fate is what becomes of a user who has no record.
type fate int

const (
	isCreated fate = iota
	isAdopted
	isUnlinked
	isConflict
	isRejected
)

// ofEmail reports whether the Store has looked for the user's address and found it.
func (a Adoption) ofEmail() bool { return a.By == ByEmail || errors.Is(a.Err, ErrUnlinked) }

// fateOf decides about a new user. heldBack is what holdsBack says, and a what the Store would
// do.
func fateOf(heldBack bool, a Adoption) fate {
	var conflict *ConflictError
	switch {
	case errors.Is(a.Err, ErrUnlinked):
		return isUnlinked
	case errors.As(a.Err, &conflict):
		return isConflict
	case a.Err != nil:
		return isRejected
	case a.By != "":
		return isAdopted
	case heldBack:
		return isUnlinked
	}
	return isCreated
}

// mustAsk reports whether the Store must say what it would do with a new user before it is to
// write one. If it looks for addresses, it creates nobody beside a record with the same one.
func (r *reconcileRun) mustAsk(u *User) bool {
	return r.foretells() || r.holdsBack(u) && !(r.looksForEmails.Load() && r.unlinked.hasExactly(u.Email))
}

// judgeNew decides about the users to write who have no record. It takes those who are not to
// be created out of c.write. In a dry run, it also takes out those whom it knows not to be
// created by a run that writes.
func (c *comparison) judgeNew(ctx context.Context) error {
	isNew := func(u *User) bool { return !c.existing[u.ClerkID] && !c.restored[u.ClerkID] }
	var asked, kept []*User
	for _, u := range c.write {
		if isNew(u) && c.run.mustAsk(u) {
			asked = append(asked, u)
		} else {
			kept = append(kept, u)
		}
	}
	adoptions, err := c.run.adoptions(ctx, asked)
	if err != nil {
		return err
	}
	for i, u := range asked {
		if adoptions[i].ofEmail() {
			c.run.looksForEmails.Store(true)
		}
		if !c.takeOut(ctx, u, adoptions[i]) {
			kept = append(kept, u)
		}
	}
	c.write = kept
	return nil
}

// takeOut counts a new user who is not to be written. It reports whether u is one. A run that
// writes leaves conflicts and what the Store rejects to the write.
func (c *comparison) takeOut(ctx context.Context, u *User, a Adoption) bool {
	switch fate := fateOf(c.run.holdsBack(u), a); {
	case fate == isUnlinked:
		c.report.Unlinked.add(u.ClerkID)
	case !c.run.opts.DryRun:
		return false
	case fate == isConflict:
		c.run.noteConflict(a.Err)
		c.report.Conflicts.add(u.ClerkID)
	case fate == isRejected:
		c.failed(ctx, u.ClerkID, a.Err)
	case fate == isAdopted:
		c.report.Adopted.add(u.ClerkID)
	default:
		return false
	}
	return true
}

// noteConflict keeps the conflict in err for the error of the run.
func (r *reconcileRun) noteConflict(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = errors.As(err, &r.conflict)
}

// adoptions asks the Store what it would do with new users. A Store that does not adopt would
// create them.
func (r *reconcileRun) adoptions(ctx context.Context, us []*User) (adoptions []Adoption, err error) {
	if r.adopts == nil || len(us) == 0 {
		return make([]Adoption, len(us)), nil
	}
	err = r.retry(ctx, func() error {
		return r.inTime(ctx, func(ctx context.Context) (err error) {
			adoptions, err = r.adopts.Adoptions(ctx, us)
			return storeError(err)
		})
	})
	return adoptions, err
}
