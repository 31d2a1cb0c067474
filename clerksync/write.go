package clerksync

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
)

// What can be written is written
//
// Every write of what Clerk says about a user goes through write: an event's, a Sync's, a
// visit's and a refresh's. A Reconcile does the same for a page at a time
// (reconcile_write.go). A problem in one field must not keep a ban or the other fields of an
// existing record out, because users can cause such problems themselves:
//
//   - A field that a unique index refuses is omitted. This write comes first, and never waits
//     for Clerk. Then holders.go tries to free each such value.
//   - A field that cannot be mapped is omitted (mapping.go). After RoleOf or Map failed,
//     everything but the ban is, and the call still fails.
//   - If the Store rejects the record for good, the ban is tried alone: the reason may be a
//     value that the database does not take.
//
// [User].Omit is the means: such a write leaves a version that is one millisecond older, so
// that the same user is written whole later. Such a write creates no record: if there is none, the
// call fails.

// upsertFunc is Store.Upsert, or Syncer.upsert, which also invalidates.
type upsertFunc func(context.Context, *User) (Result, error)

// writing is what became of a user who was offered to the Store.
type writing struct {
	res       Result
	user      *User            // as it was offered last
	conflicts []*ConflictError // with unique indexes: these fields are not written
	err       error            // nil if the record is written, with or without these fields
}

// write offers to the Store what Clerk said about a user. If the Outcome is not zero,
// the record was written, or nothing had to be written. Beside an error, that means that RoleOf or
// Map failed, or that the Store rejected everything but the ban.
func (s *Syncer) write(ctx context.Context, m mapped, upsert upsertFunc) (Result, error) {
	if m.user == nil {
		return Result{}, m.err
	}
	w := without(ctx, m.user, upsert)
	if len(w.conflicts) > 0 && !w.late() {
		w = s.handOver(ctx, m.user, w, upsert)
	}
	if w.err == nil && !w.late() && (m.onlyFields || m.err == nil && len(w.conflicts) > 0) {
		s.logOmitted(ctx, w.user, cmp.Or(m.err, w.conflict()))
	}
	return w.res, w.answer(m)
}

// late reports whether the record has a later state than the user, so that nothing is missing.
func (w *writing) late() bool {
	return w.err == nil && (w.res.Outcome == Stale || w.res.Outcome == Deactivated)
}

// conflict is the first of the conflicts; nil if there is none.
func (w *writing) conflict() error {
	if len(w.conflicts) == 0 {
		return nil
	}
	return w.conflicts[0]
}

// answer is the error of a write of m. A transient one comes first, because then trying again
// helps.
func (w *writing) answer(m mapped) error {
	switch {
	case w.err == nil && m.onlyFields:
		return nil
	case w.err == nil:
		return m.err
	case !permanent(w.err):
		return w.err
	case errors.Is(w.err, ErrRejected):
		return cmp.Or(w.conflict(), w.err)
	}
	return cmp.Or(m.err, w.conflict(), w.err)
}

// permanent reports whether an error of the Store's is about the user, or about the record that
// it has or does not have. After any other error, trying again may help.
func permanent(err error) bool {
	var conflict *ConflictError
	return errors.As(err, &conflict) || errors.Is(err, ErrRejected) || errors.Is(err, ErrNotFound)
}

// refusedField returns the conflict with a unique index that err is about, or nil.
func refusedField(err error) *ConflictError {
	var conflict *ConflictError
	if errors.As(err, &conflict) && conflict.ofIndex() {
		return conflict
	}
	return nil
}

// banAlone is onlyBan for a write that was refused; nil if that was the ban alone, or if it is
// not known whether Clerk bans the user.
func banAlone(u *User) *User {
	if u.omits("extraFields") || u.omits("banned") {
		return nil
	}
	return onlyBan(u)
}

// maxRefusedFields is how many fields are omitted one after the other. After that, everything
// but the ban is.
const maxRefusedFields = 4

// without upserts u, and omits what unique indexes refuse. If the Store rejects the rest, it
// writes the ban alone, and the error is that rejection.
func without(ctx context.Context, u *User, upsert upsertFunc) writing {
	w := writing{user: u}
	var rejection error
	for less := u; less != nil; {
		w.user = less
		w.res, w.err = upsert(ctx, w.user)
		conflict := refusedField(w.err)
		switch {
		case w.err == nil:
			less = staleBan(w.user, w.res.Outcome)
		case conflict != nil:
			less = omitNext(w.user, conflict, len(w.conflicts))
			w.conflicts = append(w.conflicts, conflict)
		case errors.Is(w.err, ErrRejected):
			rejection, less = w.err, banAlone(w.user)
		default:
			less = nil
		}
	}
	if w.err == nil || permanent(w.err) {
		w.err = cmp.Or(rejection, w.err)
	}
	return w
}

// omitNext is omitRefused after n more fields were refused.
func omitNext(u *User, conflict *ConflictError, n int) *User {
	if n >= maxRefusedFields {
		return omitRefused(u, "")
	}
	return omitRefused(u, conflict.Field)
}

// omitRefused returns u without a field that a unique index refuses. If the field is not
// known, is not one that clerksync writes, or was omitted before, only the ban is left. It
// returns nil if that was so already.
func omitRefused(u *User, field string) *User {
	if u.omits("extraFields") {
		return nil
	}
	paths := together(field)
	if field == "banned" || slices.ContainsFunc(paths, func(path string) bool { return !u.owns(path) }) {
		return banAlone(u)
	}
	less := *u
	less.Omit = slices.Concat(u.Omit, paths)
	return &less
}

// together returns a field and the one that says whether it is verified.
func together(field string) []string {
	switch field {
	case "email", "emailVerified":
		return []string{"email", "emailVerified"}
	case "profile.phoneNumber", "phoneVerified":
		return []string{"profile.phoneNumber", "phoneVerified"}
	}
	return []string{field}
}

// owns reports whether an Upsert of u writes or removes a field.
func (u *User) owns(path string) bool {
	for owned := range u.ClerkFields() {
		if owned == path {
			return true
		}
	}
	return false
}

// allButBanned is the Omit that leaves only the ban.
func allButBanned() []string {
	paths := []string{"role", "extraFields"}
	for _, f := range clerkFields {
		if f.path != "banned" {
			paths = append(paths, f.path)
		}
	}
	return paths
}

// logOmitted warns that a record was written without some fields. Anybody can cause this for
// a record of theirs, so the lines are limited.
func (s *Syncer) logOmitted(ctx context.Context, u *User, cause error) {
	omitted := slices.DeleteFunc(slices.Clone(u.Omit), func(path string) bool { return path == nameless || !isLoggable(path) })
	var conflict *ConflictError
	if errors.As(cause, &conflict) && len(omitted) == 0 { // a holder that gave a value up
		omitted = together(conflict.Field)
	}
	attrs := []slog.Attr{slog.String("clerk_id", u.ClerkID), slog.String("omitted", clipped(strings.Join(omitted, " ")))}
	if conflict != nil && clerkapi.ValidUserID(conflict.Holder) {
		attrs = append(attrs, slog.String("holder", conflict.Holder))
	}
	attrs = append(attrs, slog.Any("error", cause))
	s.logLimited(ctx, slog.LevelWarn, "omitted", "clerksync: a record was written without some of its fields", attrs...)
}
