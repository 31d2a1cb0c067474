package main

// mutant is one fault put into a file: the text that stands there once, and what
// takes its place.
type mutant struct {
	name, file string
	old, new   string
}

const (
	converge  = "clerksync/converge.go"
	memory    = "clerksync/memstore/memstore.go"
	memFields = "clerksync/memstore/fields.go"
	cache     = "clerksync/cache.go"
	syncer    = "clerksync/syncer.go"
	visits    = "clerksync/visit.go"
	fresh     = "clerksync/freshness.go"
	api       = "clerksync/clerkapi.go"
	webhooks  = "clerksync/webhook.go"
	sweeping  = "clerksync/sweep.go"
	reconcile = "clerksync/reconcile.go"
	comparing = "clerksync/compare.go"
	mapping   = "clerksync/mapping.go"
	users     = "clerksync/user.go"
	mongoMail = "mongostore/conflict.go"
	mongoGone = "mongostore/deactivate.go"
	mongoSave = "mongostore/upsert.go"
)

// mutants are the faults that the promise must not survive: each would leave a record
// wrong, lose what the app wrote, or bring a deleted user back.
var mutants = []mutant{
	// The Store's decision.
	{"an older version is written", converge, "case offered < have:\n\t\treturn Stale", "case offered < have:\n\t\treturn Updated"},
	{"an equal version is taken as an older one", converge, "case offered < have:", "case offered <= have:"},
	{"an equal version is taken as a newer one", converge, "case offered > have:", "case offered >= have:"},
	{"an equal version with other content is ignored", converge, "\t\treturn Unchanged\n\t}\n\treturn Updated\n", "\t\treturn Unchanged\n\t}\n\treturn Unchanged\n"},
	{"a later confirmation is not asked for", converge, "if confirmedLater(stored, u, now) || sameClerkFields(stored, u) {", "if sameClerkFields(stored, u) {"},
	{"a confirmation from the future is believed", converge, "&&\n\t\t!stored.SyncedAt.After(now)", ""},
	{"a tombstone is overwritten", converge, "if !stored.DeletedAt.IsZero() {\n\t\treturn Deactivated\n\t}", ""},
	{"no tombstone is set", memory, "r.IsActive, r.DeletedAt, r.UpdatedAt = false, canonical(at), now", "r.IsActive, r.UpdatedAt = false, now"},
	{"a deleted record stays active", memory, "r.IsActive, r.DeletedAt, r.UpdatedAt = false, canonical(at), now", "r.DeletedAt, r.UpdatedAt = canonical(at), now"},
	{"no tombstone for an unknown user", memory, "if r == nil {\n\t\tr = s.newRecord(clerkID, now)\n\t}\n\tif r.DeletedAt", "if r == nil {\n\t\treturn clerksync.Result{Outcome: clerksync.Deactivated}, nil\n\t}\n\tif r.DeletedAt"},
	{"a later deletion moves the tombstone", memory, "if r.DeletedAt.IsZero() {\n\t\tr.IsActive", "{\n\t\tr.IsActive"},
	{"the whole record is replaced", memory, "case clerksync.Updated:\n\t\tr.UpdatedAt = now", "case clerksync.Updated:\n\t\tr.Role, r.Location, r.IsActive = u.Role, u.Location, true\n\t\tr.UpdatedAt = now"},
	{"a sync makes a suspended user active", memory, "case clerksync.Updated:\n\t\tr.UpdatedAt = now", "case clerksync.Updated:\n\t\tr.IsActive = true\n\t\tr.UpdatedAt = now"},
	{"lastSignInAt is set", memFields, "r.LastSignInAt = latest(r.LastSignInAt, u.LastSignInAt)", "r.LastSignInAt = u.LastSignInAt"},
	{"syncedAt is set", memFields, "r.SyncedAt = latest(r.SyncedAt, u.SyncedAt)", "r.SyncedAt = u.SyncedAt"},
	{"Extra's lost names stay", memFields, "r.Extra = u.Extra\n", "if u.Extra != nil {\n\t\tr.Extra = u.Extra\n\t}\n"},
	{"a deleted record keeps its e-mail address", memory, "case other.DeletedAt.IsZero():", "case true:"},

	// The role.
	{"a role of Clerk's stays out of the record", users, "if u.RoleFromClerk && !yield", "if false && !yield"},
	{"a role of Clerk's is the new record's alone", mapping, "u.Role, u.RoleFromClerk = role, true", "u.Role = role"},
	{"a role that Clerk has not is Clerk's", mapping, "role := s.cfg.RoleOf(cu); role != \"\"", "role := s.cfg.RoleOf(cu); true"},
	{"an edit of Clerk's role stays at an equal version", converge, "if u.RoleFromClerk && stored.Role != u.Role {", "if false {"},

	// The cache and the flights.
	{"the cache is put after an invalidation", cache, "if c.generation(id).Load() != gen {", "if false {"},
	{"a load is served after an invalidation", visits, "if !f.current {", "if false {"},
	{"the cache never expires", cache, "c.ttl < 0 || now.Sub(r.loadedAt) >= c.ttl", "c.ttl < 0"},
	{"an upsert does not invalidate the cache", syncer, "res, err := s.store.Upsert(ctx, u)\n\ts.upserted(u, res, err)", "res, err := s.store.Upsert(ctx, u)"},
	{"a deletion does not invalidate the cache", syncer, "res, err := s.store.Deactivate(ctx, id, at)\n\ts.invalidate(id,", "res, err := s.store.Deactivate(ctx, id, at)\n\tfunc(string, func(*User) *User) {}(id,"},
	{"Forget does not invalidate the cache", syncer, "func (s *Syncer) Forget(clerkID string) {\n\ts.invalidate(clerkID,", "func (s *Syncer) Forget(clerkID string) {\n\tfunc(string, func(*User) *User) {}(clerkID,"},
	{"a known deletion is forgotten in an outage", syncer, "return &User{ClerkID: id, DeletedAt: at}", "return nil"},
	{"a deletion is forgotten while an older event is written", syncer, "case old != nil && !old.DeletedAt.IsZero():\n\t\t\treturn old", "case false:\n\t\t\treturn old"},
	{"a deletion heard of again is not known anew", syncer, "case err == nil && res.Outcome == Deactivated:", "case err == nil && res.Outcome == Deactivated && old == nil:"},
	{"a cached record is as old as its answer", visits, "s.cache.put(id, gen, f.user, now) // as old", "s.cache.put(id, gen, f.user, s.clock.Now()) // as old"},
	{"a load that began before a refusal takes its place", cache, "\t\t\tc.generation(id).Add(1)\n\t\t}\n", "\t\t}\n"},
	{"the end of a ban ends no loads", cache, "if !sameStanding(old.user, u) || refused(u) && laterState(u, old.user) {", "if refused(u) {"},
	{"a write that could not be cached is not seen", visits, "if !f.current && f.source == SourceClerk {", "if false {"},
	{"a claim's answer is one for any version", cache, "version(u) >= a.got && ", ""},
	{"nobody waits for the end of a ban", cache, "return ok && a.settled && now.Sub(a.at) < askAgainAfter", "return ok && now.Sub(a.at) < askAgainAfter"},
	{"a flight is cancelled by its first waiter", visits, "s.lookupAndCache(context.WithoutCancel(ctx), id, claim)", "s.lookupAndCache(ctx, id, claim)"},
	{"Sync joins a flight", syncer, "u, err := s.readFromClerk(callCtx, clerkID)\n\tif err == nil {\n\t\tres, err = s.upsert(callCtx, u)\n\t}\n\ts.observe(ctx, start, Observation{Op: OpSync",
		"v, err, _ := s.flights.Do(clerkID, func() (any, error) {\n\t\tu, err := s.readFromClerk(callCtx, clerkID)\n\t\tif err != nil {\n\t\t\treturn found{current: true}, err\n\t\t}\n\t\tr, err := s.upsert(callCtx, u)\n\t\treturn found{user: r.User, outcome: r.Outcome, current: true}, err\n\t})\n\tres.User, res.Outcome = v.(found).user, v.(found).outcome\n\ts.observe(ctx, start, Observation{Op: OpSync"},

	// What a visit asks Clerk, and when.
	{"no background refresh", visits, "s.refresh(context.WithoutCancel(ctx), u.ClerkID)", ""},
	{"a refresh is not written", visits, "s.refresh(context.WithoutCancel(ctx), u.ClerkID)", "_, _ = s.readFromClerk(context.WithoutCancel(ctx), u.ClerkID)\n\t\ts.observe(ctx, now, Observation{Op: OpRefresh})"},
	{"a ban that refuses is not re-read", visits, "return u.Banned && u.DeletedAt.IsZero() && confirmedBefore(u, now, time.Minute)", "return false"},
	{"a visit leaves a tombstone on a 404", visits, "\tif err != nil {\n\t\treturn found{}, err\n\t}\n\tif res.User == nil {", "\tif errors.Is(err, ErrUserUnknown) {\n\t\t_, _ = s.store.Deactivate(ctx, id, time.Time{})\n\t}\n\tif err != nil {\n\t\treturn found{}, err\n\t}\n\tif res.User == nil {"},
	{"a proxy's 404 makes a user unknown", api, "case e.status >= 400:", "case e.status == http.StatusNotFound:\n\t\te.err = ErrUserUnknown\n\tcase e.status >= 400:"},
	{"another user's answer is taken", api, "err != nil || got.ID != id {", "err != nil {"},
	{"a confirmation is dated by the answer", api, "return raw, call.sentAt, err", "return raw, a.clock.Now(), err"},
	{"a token that is newer causes no re-read", fresh, "return f.at.UnixMilli() > version(u)", "return false"},
	{"a token in seconds confirms its whole second", fresh, " && !u.SyncedAt.Before(f.at.Add(secondsSettle))", ""},
	{"a token confirms an older record", fresh, "return f.at.UnixMilli() == version(u)", "return true"},
	{"a suspended user is let in", visits, "return !u.IsActive || u.Banned || !u.DeletedAt.IsZero()", "return u.Banned || !u.DeletedAt.IsZero()"},
	{"a banned user is let in", visits, "return !u.IsActive || u.Banned || !u.DeletedAt.IsZero()", "return !u.IsActive || !u.DeletedAt.IsZero()"},

	// Webhooks.
	{"a webhook is acknowledged though the write failed", webhooks, "e.Result, err = h.syncer.Apply(ctx, e)\n", "e.Result, _ = h.syncer.Apply(ctx, e)\n"},
	{"a webhook is acknowledged before the write", webhooks, "e.Result, err = h.syncer.Apply(ctx, e)\n", "defer func() { _, _ = h.syncer.Apply(ctx, e) }()\n\t\tw.WriteHeader(http.StatusNoContent)\n\t\tif true {\n\t\t\treturn nil\n\t\t}\n"},

	// Reconcile.
	{"Reconcile takes no last word", sweeping, "u, asOf, err := s.reader.user(ctx, id)", "u, asOf, err := listed{}, s.clock.Now(), error(ErrUserUnknown)"},
	{"Reconcile without a holdback", sweeping, "stamp.CreatedAt.After(s.youngest)", "stamp.CreatedAt.IsZero()"},
	{"Reconcile asks for those it has seen", sweeping, "case s.pager.seen.has(stamp.ClerkID) && !s.wasRestored(stamp.ClerkID):", "case false:"},
	{"Reconcile goes by an incomplete list", reconcile, "if r.pager.complete() {", "if true {"},
	{"Reconcile does not look for ghosts", reconcile, "if err == nil && r.whole &&", "if false &&"},
	{"a dry run writes", comparing, "if err == nil && r.opts.DryRun {", "if false {"},
	{"Force compares versions", comparing, "if r.opts.Force {", "if false {"},
	{"Reconcile leaves what is older", comparing, "case offered > have:\n\t\t\tc.existing", "case false:\n\t\t\tc.existing"},
	{"Reconcile forgets the conflicts", reconcile, "return errors.Join(err, r.retryConflicts(ctx))", "return err"},

	// On MongoDB.
	{"mongostore: a deleted record keeps its e-mail address", mongoMail, "released, e := up.release(ctx, key)", "released, e := false, error(nil)"},
	{"mongostore: a record that is not deleted gives its address up", mongoMail, "append(slices.Clone(key.filter), bson.E{Key: \"deletedAt\", Value: bson.D{{Key: \"$gte\", Value: epoch}}})", "slices.Clone(key.filter)"},
	{"mongostore: a record that gives its address up loses its name", mongoMail, "{Key: \"$unset\", Value: unset}", "{Key: \"$unset\", Value: append(unset, bson.E{Key: \"name\", Value: \"\"})}"},
	{"mongostore: a deletion erases nothing", mongoGone, "\tif d.erase {\n", "\tif false {\n"},
	{"mongostore: a deletion leaves lastSignInAt", mongoGone, "{Key: \"lastSignInAt\", Value: \"\"}, ", ""},
	{"mongostore: a deletion leaves what Map added", mongoGone, "range r.lost(nobody)", "range []string(nil)"},
	{"mongostore: a deletion erases the role", mongoGone, "unset := bson.D{", "unset := bson.D{{Key: \"role\", Value: \"\"}, "},
	{"mongostore: the app's role is written by each sync", mongoSave, "\tfor path, value := range up.u.ClerkFields() {\n\t\tif value != nil {\n", "\tset = append(set, bson.E{Key: \"role\", Value: string(up.u.Role)})\n\tup.u.RoleFromClerk = false\n\tfor path, value := range up.u.ClerkFields() {\n\t\tif value != nil {\n"},
}
