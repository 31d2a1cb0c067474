package clerksync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// Values that move between users
//
// Under a unique index on the e-mail address (or another field of Clerk's), a record can hold
// a value that its user no longer has: two users exchanged addresses, or the holder was deleted
// and the event was lost. Then the user who has the value now, the writer, cannot be written.
// A handover asks Clerk about both in one call, and then does the following. A fault in one
// field does not keep another field from its user.
//
//  1. The holder loses the value if Clerk has the writer with it, and either does not have the
//     holder, or has the holder with another value. If the field could not be mapped for one of
//     them, the value stays. A holder that Clerk has is written as Clerk has it, but without the
//     value and one millisecond older: so Decide guards the write, and the holder's own version
//     repairs it. A holder that Clerk does not have loses only the field, because a handover
//     never deletes.
//  2. The writer is written.
//  3. The holder is written whole. Another record may hold its new value in turn.
//
// A process that dies in between leaves records that the next sync of each repairs.

const (
	// maxHolders bounds the holders of one handover.
	maxHolders = 4
	// handoverEvery is the least time between two handovers for one user and value.
	handoverEvery = time.Minute
	// maxHandoversKnown bounds the memory for them.
	maxHandoversKnown = 10_000
	// holderTimeout bounds one question to Clerk. A webhook has 15 s at Svix.
	holderTimeout = 3 * time.Second
)

// handover is one attempt to write a user whose values other records hold.
type handover struct {
	syncer *Syncer
	store  Store
	ask    func(ctx context.Context, ids []string) ([]clerkapi.ListedUser, time.Time, error)
	known  map[string]mapped // as Clerk has them; the zero mapped: Clerk does not have the user

	freed   map[freedField]bool
	holders map[string]bool    // who was to lose a value
	written map[string]Outcome // what became of each user who was written whole

	clerkErr error // why Clerk could not be asked
	storeErr error // of a write to a holder's record: trying again may help
}

type freedField struct{ id, field string }

// newHandover returns a handover that writes to store. ask reads users from Clerk.
func (s *Syncer) newHandover(
	store Store, ask func(context.Context, []string) ([]clerkapi.ListedUser, time.Time, error),
) *handover {
	return &handover{
		syncer: s, store: store, ask: ask, known: make(map[string]mapped),
		freed: make(map[freedField]bool), holders: make(map[string]bool), written: make(map[string]Outcome),
	}
}

// handOver tries to write the fields of u that w could not. It leaves w as it is if there was
// an attempt less than a minute ago, no value is free, or Clerk does not answer in time.
func (s *Syncer) handOver(ctx context.Context, u *User, w writing, upsert upsertFunc) writing {
	now, first := s.clock.Now(), w
	first.conflicts = slices.DeleteFunc(slices.Clone(w.conflicts), func(conflict *ConflictError) bool {
		value := fieldOf(u, conflict.Field)
		return !askable(conflict, value) || s.pause.left(now) > 0 ||
			!s.handovers.reserve(u.ClerkID, conflict.Field, value, now)
	})
	if len(first.conflicts) == 0 {
		return w
	}
	h := s.newHandover(s.store, s.askAboutHolder)
	handed := h.settle(ctx, u, first, upsert)
	if handed.user == w.user { // nothing was free
		handed = w
	}
	if err := cmp.Or(h.clerkErr, h.storeErr); err != nil {
		s.cfg.Logger.DebugContext(ctx, "clerksync: a value could not be handed over", "clerk_id", u.ClerkID, "error", err)
	}
	if len(handed.conflicts) > 0 && h.storeErr != nil {
		handed.err = h.storeErr
	}
	return handed
}

// askAboutHolder reads users from Clerk, within holderTimeout.
func (s *Syncer) askAboutHolder(ctx context.Context, ids []string) ([]clerkapi.ListedUser, time.Time, error) {
	ctx, cancel := clock.WithTimeout(ctx, s.clock, holderTimeout)
	defer cancel()
	users, asOf, err := s.api.Users(ctx, ids)
	s.pause.record(err, s.clock.Now())
	return users, asOf, err
}

// askable reports whether Clerk can say who of the two users has the value.
func askable(conflict *ConflictError, value any) bool {
	return value != nil && clerkapi.ValidUserID(conflict.Holder)
}

// settle takes the values in w's conflicts from their holders, and writes u as Clerk has it
// now. Then it writes the holders whole. It returns w if no value is free.
func (h *handover) settle(ctx context.Context, u *User, w writing, upsert upsertFunc) writing {
	var holders []string
	for len(w.conflicts) > 0 && (w.err == nil || permanent(w.err)) {
		fresh, released := h.release(ctx, u, w.conflicts)
		if fresh == nil {
			break
		}
		before := w
		holders, u, w = append(holders, released...), fresh, without(ctx, fresh, upsert)
		if w.res.Outcome == 0 {
			w.res = before.res
		}
		if len(w.conflicts) == 0 && errors.Is(w.err, ErrNotFound) { // fresh has Omit, and no record
			w.conflicts = before.conflicts
		}
	}
	if w.err == nil && len(w.conflicts) == 0 {
		h.written[u.ClerkID] = w.res.Outcome
	}
	h.writeHolders(ctx, holders)
	return w
}

func (h *handover) upsert(ctx context.Context, u *User) (Result, error) {
	return h.syncer.upsertTo(ctx, h.store, u)
}

// tryOne is settle for one of several users who share the answers of Clerk and the log of what
// was written. The error is nil if the write succeeded, or only conflicts remain.
func (h *handover) tryOne(ctx context.Context, u *User, conflict *ConflictError) (writing, error) {
	if outcome, done := h.written[u.ClerkID]; done {
		return writing{res: Result{Outcome: outcome}, user: u}, nil
	}
	one := h.syncer.newHandover(h.store, h.ask)
	one.known, one.written = h.known, h.written
	w := one.settle(ctx, u, writing{user: u, conflicts: []*ConflictError{conflict}}, h.upsert)
	err := cmp.Or(one.clerkErr, one.storeErr, w.err)
	if len(w.conflicts) > 0 && permanent(err) && !errors.Is(err, ErrRejected) {
		err = nil
	}
	return w, err
}

// writeHolders writes holders as Clerk has them. If a write fails, the record keeps Clerk's other
// fields without the value, and an older version, so a later sync writes it again.
func (h *handover) writeHolders(ctx context.Context, ids []string) {
	for _, id := range ids {
		u := h.known[id].user
		if _, done := h.written[id]; done || u == nil {
			continue
		}
		w := h.settle(ctx, u, without(ctx, u, h.upsert), h.upsert)
		if w.err != nil && !permanent(w.err) {
			h.storeErr = w.err
		}
		if err := cmp.Or(w.err, w.conflict()); err != nil {
			h.syncer.logOmitted(ctx, w.user, err)
		}
	}
}

// release takes values from the records that hold them, as far as Clerk says that they are
// u's. It returns u as Clerk has it, and who lost a value. It returns nil if no value is free.
func (h *handover) release(ctx context.Context, u *User, conflicts []*ConflictError) (fresh *User, holders []string) {
	conflicts = slices.DeleteFunc(slices.Clone(conflicts), func(c *ConflictError) bool {
		return !askable(c, fieldOf(u, c.Field)) || h.freed[freedField{c.Holder, c.Field}] ||
			len(h.holders) >= maxHolders && !h.holders[c.Holder]
	})
	if len(conflicts) == 0 || !h.learn(ctx, u.ClerkID, conflicts) {
		return nil, nil
	}
	now := h.known[u.ClerkID].user
	if now == nil || version(now) < version(u) { // unknown, not mapped, or Clerk's list lags behind
		return nil, nil
	}
	for _, conflict := range conflicts {
		field, value := conflict.Field, fieldOf(u, conflict.Field)
		switch {
		case now.omitsExtra(field): // it is not known what the user has
		case !sameValue(fieldOf(now, field), value):
			fresh = now // the user has another value by now
		case h.releaseField(ctx, field, value, conflict.Holder):
			fresh, holders = now, append(holders, conflict.Holder)
		}
	}
	return fresh, holders
}

// releaseField takes a value from the record of a holder, unless Clerk says that it is the
// holder's, or what the holder has could not be mapped. It reports whether the value is free.
func (h *handover) releaseField(ctx context.Context, field string, value any, id string) bool {
	h.freed[freedField{id, field}], h.holders[id] = true, true
	holder := h.known[id]
	var err error
	switch {
	case holder.user == nil && holder.err == nil:
		err = h.releaseUnknown(ctx, field, value, id)
	case holder.user == nil, holder.user.omitsExtra(field), sameValue(fieldOf(holder.user, field), value):
		return false
	default:
		err = h.releaseKnown(ctx, field, holder.user)
	}
	if err != nil && !permanent(err) {
		h.storeErr = err
	}
	return err == nil
}

// errKept says that a holder's record cannot be written without a value.
var errKept error = &ConflictError{}

// releaseKnown removes the value of a field from the record of a holder that Clerk has.
func (h *handover) releaseKnown(ctx context.Context, field string, holder *User) error {
	less := withoutField(holder, field)
	if less == nil || less.ClerkUpdatedAt.IsZero() {
		return errKept
	}
	less.ClerkUpdatedAt = less.ClerkUpdatedAt.Add(-time.Millisecond)
	w := without(ctx, less, h.upsert)
	if w.err == nil && w.res.Outcome == Stale {
		// The record has Clerk's version, or a later one, and still the value: only its own
		// version can change that.
		w = without(ctx, holder, h.upsert)
	}
	return w.err
}

// releaseUnknown removes the value from the record of a user that Clerk does not have, and
// changes nothing else: the event of the user's deletion may be lost. A record that clerksync has
// never written stays as it is.
func (h *handover) releaseUnknown(ctx context.Context, field string, value any, id string) error {
	stored, err := h.store.User(ctx, id)
	if failed, ok := withFailure(stored, err); ok {
		stored, err = failed, nil
	}
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return storeError(err)
	case !stored.DeletedAt.IsZero() || !sameValue(fieldOf(stored, field), value):
		return nil // the value is free by now
	case stored.SyncedAt.IsZero():
		return errKept
	}
	less := withoutField(stored, field)
	if less == nil {
		return errKept
	}
	// SyncedAt as stored: Clerk has not confirmed the record, and Decide keeps a later
	// confirmation.
	for path := range stored.ClerkFields() {
		if !slices.Contains(together(field), path) {
			less.Omit = append(less.Omit, path)
		}
	}
	_, err = h.upsert(ctx, less)
	return err
}

// learn asks Clerk in one call about a writer and the holders in its conflicts, unless all are
// known. It returns false if Clerk did not answer.
func (h *handover) learn(ctx context.Context, writer string, conflicts []*ConflictError) bool {
	ids := []string{writer}
	for _, conflict := range conflicts {
		if _, has := h.known[conflict.Holder]; !has {
			ids = append(ids, conflict.Holder)
		}
	}
	if _, has := h.known[writer]; has && len(ids) == 1 {
		return true
	}
	users, asOf, err := h.ask(ctx, ids)
	if err != nil {
		h.clerkErr = unavailable(err)
		return false
	}
	h.keep(ids, users, asOf)
	return true
}

// keep notes what Clerk answered about users.
func (h *handover) keep(ids []string, users []clerkapi.ListedUser, asOf time.Time) {
	for _, id := range ids {
		h.known[id] = mapped{}
	}
	for _, listed := range users {
		if _, asked := h.known[listed.ID]; asked {
			h.known[listed.ID] = h.syncer.mapListed(listed, asOf)
		}
	}
}

// fieldOf returns the value that an Upsert of u writes to a field; nil if there is none.
func fieldOf(u *User, field string) any {
	for path, value := range u.ClerkFields() {
		if path == field {
			return value
		}
	}
	return nil
}

// sameValue reports whether two values of a field are equal. The case of text does not matter:
// it does not to many unique indexes on addresses either.
func sameValue(a, b any) bool {
	x, isText := a.(string)
	if y, both := b.(string); isText && both {
		return strings.EqualFold(x, y)
	}
	return reflect.DeepEqual(a, b)
}

// withoutField returns a copy of u without the value of a field; nil if the field is not one
// that can be removed.
func withoutField(u *User, field string) *User {
	c := u.Clone()
	text := map[string]*string{
		"email": &c.Email, "name": &c.Name, "profile.firstName": &c.Profile.FirstName,
		"profile.lastName": &c.Profile.LastName, "profile.fullName": &c.Profile.FullName,
		"profile.imageUrl": &c.Profile.ImageURL, "profile.phoneNumber": &c.Profile.PhoneNumber,
		"profile.birthday": &c.Profile.Birthday, "profile.gender": &c.Profile.Gender,
	}[field]
	_, isExtra := c.Extra[field]
	switch {
	case text != nil:
		*text = ""
	case field == "role":
		c.Role, c.RoleFromClerk = "", true // an empty role of Clerk's is removed
	case isExtra:
		delete(c.Extra, field)
	default:
		return nil
	}
	switch field {
	case "email":
		c.EmailVerified = false
	case "profile.phoneNumber":
		c.PhoneVerified = false
	}
	return c
}

// handoverLog remembers for handoverEvery who tried to get which value, so that each request
// of a user in conflict does not ask Clerk again. It keeps hashes of the values.
type handoverLog struct {
	seed     maphash.Seed
	attempts *otter.Cache[attempt, time.Time]
}

type attempt struct {
	id   string
	hash uint64 // of field and value
}

func newHandoverLog(size int) handoverLog {
	return handoverLog{maphash.MakeSeed(), otter.Must(&otter.Options[attempt, time.Time]{MaximumSize: size})}
}

// reserve reports whether an attempt may be made now. If so, the next may follow after
// handoverEvery.
func (l handoverLog) reserve(id, field string, value any, now time.Time) (reserved bool) {
	key := attempt{id, maphash.String(l.seed, fmt.Sprint(field, " ", value))}
	l.attempts.Compute(key, func(last time.Time, found bool) (time.Time, otter.ComputeOp) {
		reserved = !found || now.Sub(last) >= handoverEvery
		if !reserved {
			return last, otter.CancelOp
		}
		return now, otter.WriteOp
	})
	return reserved
}
