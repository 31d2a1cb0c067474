package clerksync

import (
	"context"
	"errors"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// Users who have a record from before Clerk
//
// A Store that adopts ([AdoptStore]) links such a record at the user's first write, whatever
// causes it. If a record without a Clerk id has the user's address and must not be linked,
// nothing is written (ErrUnlinked): linking would give it to somebody who may not own it, and a
// second record would split the user's data. Visits and webhooks then answer 409.
//
// The proof of an address can be missing from an event although Clerk's API has it
// (email_proof.go). So after an event the user is read from the API once, and offered as it is
// there. A visit, a Sync and a Reconcile have read the API already.

// linkAttempt stands in the handoverLog for an attempt to link a user. No field has this name.
const linkAttempt = ""

// linkFromClerk tries again to write a user whom an event could not link to a record, as
// Clerk's API has the user now. It asks at most once every handoverEvery for one user. cause is
// the error; it stands if Clerk does not answer in time.
//
// If the user stays unlinked, visits get the same answer for failureFor without asking Clerk.
func (s *Syncer) linkFromClerk(ctx context.Context, id string, cause error) (Result, error) {
	now := s.clock.Now()
	if s.pause.left(now) > 0 {
		return Result{}, cause
	}
	if !s.handovers.reserve(id, linkAttempt, nil, now) {
		s.rereads.recordFailure(id, cause, now, failureFor)
		return Result{}, cause
	}
	callCtx, cancel := clock.WithTimeout(ctx, s.clock, holderTimeout)
	defer cancel()
	m := s.readFromClerk(callCtx, id)
	if m.user == nil {
		return Result{}, cause
	}
	res, err := s.write(ctx, m, s.upsert)
	if errors.Is(err, ErrUnlinked) {
		s.rereads.recordFailure(id, err, s.clock.Now(), failureFor)
	}
	return res, err
}

// unlinkedAdvice is what the log says to do about ErrUnlinked.
const unlinkedAdvice = "set the user's id as the record's clerkId if it is the user's, or its external id in Clerk; " +
	"a user who proves the address to Clerk, by a code or link, is linked at the next visit"
