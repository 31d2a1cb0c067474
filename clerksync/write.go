package clerksync

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
)

// What can be written is written
//
// Every write of what Clerk says about a user goes through write: an event's, a Sync's, a
// visit's and a refresh's. A Reconcile does the same for a page at a time
// (reconcile_write.go). A problem in one field must not keep a ban or the other fields of an
// existing record out, because users can cause such problems themselves:
//
//   - A field that a unique index refuses is omitted. This write comes first, and never waits
//     for Clerk. Then holders.go tries to make the way free for the whole record.
//   - A field that cannot be mapped is omitted (mapping.go). After RoleOf or Map failed,
//     everything but the ban is, and the call still fails.
//   - If the Store rejects the record for good, the ban is tried alone: the reason may be a
//     value that the database does not take.
//
// [User].Omit is the means: such a write leaves a version that is one millisecond older, so
// that the same user is written whole later. It creates no record: a first insert that cannot
// happen is an error.

// upsertFunc is Store.Upsert, or Syncer.upsert, which also invalidates.
type upsertFunc func(context.Context, *User) (Result, error)

// write offers to the Store what Clerk said about a user. If the Outcome is not zero,
// something was written or nothing had to be, also beside an error: then RoleOf or Map failed,
// or the Store refused all but the ban.
func (s *Syncer) write(ctx context.Context, m mapped, upsert upsertFunc) (Result, error) {
	if m.user == nil {
		return Result{}, m.err
	}
	if m.err != nil {
		return s.writePart(ctx, m, upsert)
	}
	res, err := upsert(ctx, m.user)
	if err == nil {
		return s.writeStaleBan(ctx, m.user, res, upsert)
	}
	if conflict := refusedField(err); conflict != nil {
		return s.writeConflicting(ctx, m.user, conflict, err, upsert)
	}
	if ban := banAlone(m.user); ban != nil && errors.Is(err, ErrRejected) {
		if written, banErr := upsert(ctx, ban); banErr == nil {
			return written, err
		}
	}
	return Result{}, err
}

// refusedField returns the conflict with a unique index that err is about, or nil. A conflict
// of types is not one: the record is the app's, and nothing may be written to it. A record that
// may not be linked is not one either: the user does not have a record to write.
func refusedField(err error) *ConflictError {
	var conflict *ConflictError
	if errors.As(err, &conflict) && conflict.Type == "" && !errors.Is(err, ErrUnlinked) {
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

// writePart writes what is left of a user who could not be mapped as a whole.
func (s *Syncer) writePart(ctx context.Context, m mapped, upsert upsertFunc) (Result, error) {
	res, u, err := without(ctx, m.user, upsert)
	var conflict *ConflictError
	switch {
	case err == nil && m.onlyFields:
		s.logOmitted(ctx, u, m.err)
		return res, nil
	case err == nil, errors.Is(err, ErrNotFound), errors.As(err, &conflict):
		return res, m.err
	default:
		return res, err
	}
}

// writeStaleBan sets the ban of a user who came without a version, if the record has one. It
// returns the Result of the last write.
func (s *Syncer) writeStaleBan(ctx context.Context, u *User, res Result, upsert upsertFunc) (Result, error) {
	if res.Outcome != Stale || !u.ClerkUpdatedAt.IsZero() {
		return res, nil
	}
	ban := undatedBan(u)
	if ban == nil {
		return res, nil
	}
	return upsert(ctx, ban)
}

// writeConflicting writes a user whom a unique index refuses. cause is the error.
func (s *Syncer) writeConflicting(
	ctx context.Context, u *User, conflict *ConflictError, cause error, upsert upsertFunc,
) (Result, error) {
	part, left, err := without(ctx, omitRefused(u, conflict.Field), upsert)
	exists := err == nil
	if exists && (part.Outcome == Stale || part.Outcome == Deactivated) {
		return part, nil // there is a later state
	}
	if whole, ok := s.handOver(ctx, u, conflict, upsert); ok {
		return whole, nil
	}
	if !exists {
		return part, cause
	}
	s.logOmitted(ctx, left, conflict)
	return part, nil
}

// maxRefusedFields is how many fields are omitted one after the other. After that, everything
// but the ban is.
const maxRefusedFields = 4

// without upserts u, and omits what unique indexes refuse. If the Store rejects the rest, it
// writes the ban alone, and the error is that rejection. It returns what it wrote.
func without(ctx context.Context, u *User, upsert upsertFunc) (Result, *User, error) {
	var rejection error
	for n := 0; ; n++ {
		res, err := upsert(ctx, u)
		var less *User
		switch conflict := refusedField(err); {
		case conflict != nil:
			less = omitNext(u, conflict, n)
		case errors.Is(err, ErrRejected):
			rejection, less = err, banAlone(u)
		}
		if less == nil {
			return res, u, cmp.Or(rejection, err)
		}
		u = less
	}
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
	if conflict != nil && conflict.Holder != "" {
		attrs = append(attrs, slog.String("holder", clipped(conflict.Holder)))
	}
	attrs = append(attrs, slog.Any("error", cause))
	s.logLimited(ctx, slog.LevelWarn, "omitted", "clerksync: a record was written without some of its fields", attrs...)
}
