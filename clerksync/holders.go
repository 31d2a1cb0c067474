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
// a value that its user no longer has: the two exchanged addresses, or the holder was deleted
// and the event is lost. Then the user who has the value now, the writer, cannot be written.
// A handover asks Clerk for both in one call, and goes on with these answers:
//
//  1. The holder loses the value, if Clerk has the writer with it, and has no holder or one
//     with another value. A holder that Clerk has is written as Clerk has it, without the
//     value and a millisecond older, so that Decide guards the write and the holder's own
//     version repairs it. One that Clerk does not have loses only the field: a handover never
//     deletes.
//  2. The writer is written.
//  3. The holder is written whole. Its new value may have a holder in turn.
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

// handover is one attempt to write a user whose value another record holds.
type handover struct {
	syncer *Syncer
	store  Store
	ask    func(ctx context.Context, ids []string) ([]clerkapi.ListedUser, time.Time, error)
	known  map[string]mapped // as Clerk has them; without an id: Clerk does not have the user

	freed   map[freedField]bool
	holders map[string]bool    // who lost a value
	written map[string]Outcome // what became of each user who was written whole
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

// handOver tries to write a user in spite of a conflict. ok is false if nothing was written
// for the user, because there was an attempt less than a minute ago, the value is not free, or
// Clerk or the Store did not answer in time.
func (s *Syncer) handOver(ctx context.Context, u *User, conflict *ConflictError, upsert upsertFunc) (res Result, ok bool) {
	value, now := fieldOf(u, conflict.Field), s.clock.Now()
	if !askable(conflict, value) || s.pause.left(now) > 0 || !s.handovers.reserve(u.ClerkID, conflict.Field, value, now) {
		return Result{}, false
	}
	res, err := s.newHandover(s.store, s.askAboutHolder).write(ctx, u, conflict, upsert)
	if err != nil {
		s.cfg.Logger.DebugContext(ctx, "clerksync: a value could not be handed over",
			"clerk_id", u.ClerkID, "holder", conflict.Holder, "field", clipped(conflict.Field), "error", err)
	}
	return res, err == nil
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

// write takes the value from its holder and writes u, or the state of u that Clerk has now.
// Then it writes the holders whole. The error is the conflict that remains, or a failure of
// Clerk's or the Store's.
func (h *handover) write(ctx context.Context, u *User, conflict *ConflictError, upsert upsertFunc) (Result, error) {
	var holders []string
	for {
		fresh, err := h.release(ctx, u, conflict)
		if err != nil {
			return Result{}, err
		}
		holders = append(holders, conflict.Holder)
		u = fresh
		res, err := upsert(ctx, u)
		if err == nil {
			h.written[u.ClerkID] = res.Outcome
			h.writeHolders(ctx, holders)
			return res, nil
		}
		if conflict = refusedField(err); conflict == nil {
			return Result{}, err
		}
	}
}

func (h *handover) upsert(ctx context.Context, u *User) (Result, error) {
	return h.syncer.upsertTo(ctx, h.store, u)
}

// tryOne is write for one of several users who share the answers of Clerk and the log of what
// was written.
func (h *handover) tryOne(ctx context.Context, u *User, conflict *ConflictError) (Outcome, bool) {
	if outcome, done := h.written[u.ClerkID]; done {
		return outcome, true
	}
	one := h.syncer.newHandover(h.store, h.ask)
	one.known, one.written = h.known, h.written
	res, err := one.write(ctx, u, conflict, h.upsert)
	return res.Outcome, err == nil
}

// writeHolders writes holders as Clerk has them. If a write fails, the record keeps Clerk's other
// fields without the value, and an older version, so a later sync writes it again.
func (h *handover) writeHolders(ctx context.Context, ids []string) {
	for _, id := range ids {
		u := h.known[id].user
		if _, done := h.written[id]; done || u == nil {
			continue
		}
		res, err := h.upsert(ctx, u)
		if conflict := refusedField(err); conflict != nil {
			res, err = h.write(ctx, u, conflict, h.upsert)
		}
		if err != nil {
			h.syncer.logOmitted(ctx, u, err)
			continue
		}
		h.written[id] = res.Outcome
	}
}

// release takes the value of a field of u's from the record that holds it, if Clerk says that
// it is u's. It returns u as Clerk has it.
func (h *handover) release(ctx context.Context, u *User, conflict *ConflictError) (*User, error) {
	field, value, freed := conflict.Field, fieldOf(u, conflict.Field), freedField{conflict.Holder, conflict.Field}
	if !askable(conflict, value) || h.freed[freed] || len(h.holders) >= maxHolders && !h.holders[conflict.Holder] {
		return nil, conflict
	}
	fresh, holder, err := h.learn(ctx, u.ClerkID, conflict.Holder)
	if err != nil {
		return nil, err
	}
	if fresh == nil || version(fresh) < version(u) { // Clerk's list lags behind
		return nil, conflict
	}
	if !sameValue(fieldOf(fresh, field), value) {
		return fresh, nil // the user has another value by now
	}
	h.freed[freed], h.holders[conflict.Holder] = true, true
	if holder == nil {
		return fresh, h.releaseUnknown(ctx, field, value, conflict)
	}
	if sameValue(fieldOf(holder, field), value) {
		return nil, conflict
	}
	less := withoutField(holder, field)
	if less == nil || less.ClerkUpdatedAt.IsZero() {
		return nil, conflict
	}
	less.ClerkUpdatedAt = less.ClerkUpdatedAt.Add(-time.Millisecond)
	res, _, err := without(ctx, less, h.upsert)
	if err == nil && res.Outcome == Stale {
		// The record has Clerk's version, or a later one, and still the value: only its own
		// version can change that.
		_, err = h.upsert(ctx, holder)
	}
	return fresh, err
}

// releaseUnknown removes the value from the record of a user that Clerk does not have, and
// changes nothing else: the record may be a deletion's whose event is lost. What clerksync has
// never written stays.
func (h *handover) releaseUnknown(ctx context.Context, field string, value any, conflict *ConflictError) error {
	stored, err := h.store.User(ctx, conflict.Holder)
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
		return conflict
	}
	less := withoutField(stored, field)
	if less == nil {
		return conflict
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

// learn returns the users as Clerk has them, nil for one that it does not have. It asks for
// both in one call. A user who cannot be mapped as a whole is an error, because what it has is
// not known.
func (h *handover) learn(ctx context.Context, writer, holder string) (w, o *User, err error) {
	_, knowsWriter := h.known[writer]
	_, knowsHolder := h.known[holder]
	if !knowsWriter || !knowsHolder {
		ids := []string{writer, holder}
		users, asOf, err := h.ask(ctx, ids)
		if err != nil {
			return nil, nil, unavailable(err)
		}
		h.keep(ids, users, asOf)
	}
	return h.known[writer].user, h.known[holder].user, cmp.Or(h.known[writer].err, h.known[holder].err)
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
