package main

// mutants are faults that must not go unnoticed. Each would leave a record wrong, lose what
// the app wrote, let a barred user in, or bring a deleted user back.
var mutants = []mutant{
	// Decisions and writes of a Store.
	{"an older version is written", in("clerksync", "Decide"),
		replace("return Stale", "return Updated")},
	{"an equal version counts as older", in("clerksync", "Decide"),
		replace("offered < have", "offered <= have")},
	{"an equal version counts as newer", in("clerksync", "Decide"),
		replace("offered > have", "offered >= have")},
	{"an equal version with other content is ignored", in("clerksync", "Decide"),
		replace("if confirmedLater(stored, u, now) || sameClerkFields(stored, u) { return Unchanged }; return Updated",
			"return Unchanged")},
	{"the time of the confirmation is ignored", in("clerksync", "Decide"),
		replace("confirmedLater(stored, u, now)", "false")},
	{"a confirmation from the future is believed", in("clerksync", "confirmedLater"),
		replace("!stored.SyncedAt.After(now)", "true")},
	{"a tombstone is overwritten", in("clerksync", "Decide"),
		replace("!stored.DeletedAt.IsZero()", "false")},
	{"no tombstone is set", in("clerksync/memstore", "Store.Deactivate"),
		replace("r.IsActive, r.DeletedAt, r.UpdatedAt = false, canonical(at), now",
			"r.IsActive, r.UpdatedAt = false, now")},
	{"a deleted record stays active", in("clerksync/memstore", "Store.Deactivate"),
		replace("r.IsActive, r.DeletedAt, r.UpdatedAt = false, canonical(at), now",
			"r.DeletedAt, r.UpdatedAt = canonical(at), now")},
	{"no tombstone for an unknown user", in("clerksync/memstore", "Store.Deactivate"),
		replace("r = s.newRecord(clerkID, now)", "return clerksync.Result{Outcome: clerksync.Deactivated}, nil")},
	{"a later deletion changes deletedAt", in("clerksync/memstore", "Store.Deactivate"),
		replace("r.DeletedAt.IsZero()", "true")},
	{"the whole record is replaced", in("clerksync/memstore", "Store.upsert"),
		insertBefore("r.UpdatedAt = now", "r.Role, r.Location, r.IsActive = u.Role, u.Location, true")},
	{"a sync makes a suspended user active", in("clerksync/memstore", "Store.upsert"),
		insertBefore("r.UpdatedAt = now", "r.IsActive = true")},
	{"lastSignInAt goes back", in("clerksync/memstore", "confirm"),
		replace("latest(r.LastSignInAt, u.LastSignInAt)", "u.LastSignInAt")},
	{"syncedAt goes back", in("clerksync/memstore", "confirm"),
		replace("latest(r.SyncedAt, u.SyncedAt)", "u.SyncedAt")},
	{"names removed from Extra stay in the record", in("clerksync/memstore", "write"),
		replace("r.Extra = u.Extra", "if u.Extra != nil { r.Extra = u.Extra }")},
	{"a deleted record keeps its e-mail address", in("clerksync/memstore", "Store.claimEmail"),
		replace("other.DeletedAt.IsZero()", "true")},

	// The role.
	{"a role from Clerk is not written", in("clerksync", "User.ClerkFields"),
		replace("u.RoleFromClerk", "false")},
	{"a role from Clerk is written to new records only", in("clerksync", "Syncer.customize"),
		replace("u.Role, u.RoleFromClerk = role, true", "u.Role = role")},
	{"an empty role counts as one from Clerk", in("clerksync", "Syncer.customize"),
		replace(`role != ""`, "true")},
	{"a hand edit of Clerk's role survives an equal version", in("clerksync", "sameClerkFields"),
		replace("u.RoleFromClerk && stored.Role != u.Role", "false")},

	// The cache and the lookups.
	{"the cache takes a record after an invalidation", in("clerksync", "recordCache.put"),
		replace("c.generation(id).Load() != gen", "false")},
	{"a lookup is served after an invalidation", in("clerksync", "Syncer.lookup"),
		replace("!f.current", "false")},
	{"the cache never expires", in("clerksync", "recordCache.fresh"),
		replace("now.Sub(r.loadedAt) >= c.ttl", "false")},
	{"an upsert does not invalidate the cache", in("clerksync", "Syncer.upsert"),
		replace("s.invalidateUpserted(u, gen, res, err)", "_ = gen")},
	{"a deletion does not invalidate the cache", in("clerksync", "Syncer.deactivate"),
		replace("s.invalidate", "func(string, any) {}")},
	{"Forget does not invalidate the cache", in("clerksync", "Syncer.Forget"),
		replace("s.invalidate", "func(string, any) {}")},
	{"a known deletion is forgotten in an outage", in("clerksync", "standbyAfterDeactivate"),
		replace("&User{ClerkID: id, DeletedAt: at}", "nil")},
	{"a deletion is forgotten while an older event is written", in("clerksync", "upserted.standby"),
		replace("cached != nil && !cached.DeletedAt.IsZero()", "false")},
	{"a repeated deletion does not renew the standby", in("clerksync", "upserted.standby"),
		replace("w.err == nil && w.res.Outcome == Deactivated",
			"w.err == nil && w.res.Outcome == Deactivated && cached == nil")},
	{"a suspension during a write is forgotten in an outage", in("clerksync", "upserted.standby"),
		replace("written == nil || w.overtaken", "written == nil")},
	{"an earlier write replaces a later one on standby", in("clerksync", "upserted.standby"),
		replace("cached != nil && laterState(cached, cmp.Or(written, w.offered))", "cmp.Or(cached, written) == nil")},
	{"a late ban replaces a later active record in the cache", in("clerksync", "supersedes"),
		replace("!deletedOrSuspended(loaded)", "!barred(loaded)")},
	{"the TTL begins when the lookup ends", in("clerksync", "Syncer.load"),
		replace("s.cacheLoaded(id, gen, f, now)", "s.cacheLoaded(id, gen, f, s.clock.Now())")},
	{"an earlier lookup replaces a barred record", in("clerksync", "recordCache.put"),
		remove("c.generation(id).Add(1)")},
	{"a lifted ban does not end the other lookups", in("clerksync", "recordCache.put"),
		replace("endsOtherLoads(old.user, u)", "barred(u)")},
	{"a write that could not be cached is ignored", in("clerksync", "Syncer.cacheLoaded"),
		replace("!f.current && f.source == SourceClerk", "false")},
	{"a re-read counts for every version of the record", in("clerksync", "rereadLog.wasReread"),
		replace("version(u) >= e.version", "true")},
	{"a banned record is served although no re-read was tried", in("clerksync", "rereadLog.isSettled"),
		replace("e.settled", "true")},
	{"a lookup is cancelled by its first waiter", in("clerksync", "background.run"),
		replace("context.WithoutCancel(ctx)", "ctx")},
	{"Sync joins a lookup", in("clerksync", "Syncer.Sync"),
		replace(`
			u, err := s.readFromClerk(callCtx, clerkID)
			if err == nil {
				res, err = s.upsert(callCtx, u)
			}`, `
			v, err, _ := s.lookups.Do(clerkID, func() (any, error) {
				u, err := s.readFromClerk(callCtx, clerkID)
				if err != nil {
					return found{current: true}, err
				}
				r, err := s.upsert(callCtx, u)
				return found{user: r.User, outcome: r.Outcome, current: true}, err
			})
			res.User, res.Outcome = v.(found).user, v.(found).outcome`)},

	// What a visit asks Clerk, and when.
	{"no background refresh", in("clerksync", "Syncer.refreshIfDue"),
		remove("s.refresh(ctx, u.ClerkID)")},
	{"a refresh is not written", in("clerksync", "Syncer.refreshIfDue"),
		replace("s.refresh(ctx, u.ClerkID)", `
			_, _ = s.readFromClerk(ctx, u.ClerkID)
			s.observe(ctx, now, Observation{Op: OpRefresh})`)},
	{"a banned user's record is not re-read", in("clerksync", "banMayBeLifted"),
		replace("u.Banned && u.DeletedAt.IsZero() && !confirmedWithin(u, now, banConfirmedFor)", "false")},
	{"a visit leaves a tombstone on a 404", in("clerksync", "Syncer.readAndUpsert"),
		insertBefore("if err != nil { return found{}, err }",
			"if errors.Is(err, ErrUserUnknown) { _, _ = s.store.Deactivate(ctx, id, time.Time{}) }")},
	{"a proxy's 404 makes a user unknown", in("clerksync/internal/clerkapi", "describe"),
		insertBefore("case e.status >= 400:", "case e.status == http.StatusNotFound: e.err = ErrUserUnknown")},
	{"an answer for another user is taken", in("clerksync/internal/clerkapi", "Client.User"),
		replace("got.ID != id", "false")},
	{"a confirmation gets the time of the answer", in("clerksync/internal/clerkapi", "Client.User"),
		replace("return raw, call.sentAt, err", "return raw, c.clock.Now(), err")},
	{"a newer token causes no re-read", in("clerksync/internal/sessiontoken", "Version.NewerThan"),
		replace("v.At.UnixMilli() > updatedAt.UnixMilli()", "false")},
	{"a token in seconds confirms its whole second", in("clerksync/internal/sessiontoken", "Version.Matches"),
		replace("!syncedAt.Before(v.At.Add(secondsSettle))", "true")},
	{"a token confirms an older record", in("clerksync/internal/sessiontoken", "Version.Matches"),
		replace("v.At.UnixMilli() == updatedAt.UnixMilli()", "true")},
	{"a suspended user is let in", in("clerksync", "barred"),
		replace("!u.IsActive", "false")},
	{"a banned user is let in", in("clerksync", "barred"),
		replace("u.Banned", "false")},

	// Webhooks.
	{"a webhook is acknowledged though the write failed", in("clerksync", "webhookHandler.serve"),
		replace("e.Result, err = h.syncer.Apply(ctx, e)", "e.Result, _ = h.syncer.Apply(ctx, e)")},
	{"a webhook is acknowledged before the write", in("clerksync", "webhookHandler.serve"),
		replace("e.Result, err = h.syncer.Apply(ctx, e)", `
			defer func() { _, _ = h.syncer.Apply(ctx, e) }()
			w.WriteHeader(http.StatusNoContent)
			if true {
				return nil
			}`)},

	// Reconcile.
	{"Reconcile does not ask about a ghost again", in("clerksync", "sweep.verifyAbsent"),
		replace("s.run.clerk.User(ctx, id)",
			"clerkapi.ListedUser{}, s.run.syncer.clock.Now(), error(ErrUserUnknown)")},
	{"Reconcile without a holdback", in("clerksync", "sweep.look"),
		replace("stamp.CreatedAt.After(s.youngest)", "stamp.CreatedAt.IsZero()")},
	{"Reconcile asks for users that it has seen", in("clerksync", "sweep.look"),
		replace("s.run.pager.Seen(id)", "false")},
	{"Reconcile counts a record once for each pass", in("clerksync", "sweep.look"),
		replace("!s.handled.Add(id)", "false")},
	{"Reconcile trusts a restored record", in("clerksync", "reconcileRun.compare"),
		replace("c.checkRestored(ctx)", "error(nil)")},
	{"Reconcile waits for the Store for ever", in("clerksync", "boundedBatchStore.Undeleted"),
		replace("func() { cancel(context.DeadlineExceeded) }", "func() {}")},
	{"Reconcile trusts an incomplete list", in("clerksync", "reconcileRun.checkComplete"),
		replace("r.pager.Complete()", "true")},
	{"Reconcile does not look for ghosts", in("clerksync", "reconcileRun.run"),
		replace("r.canList", "false")},
	{"a dry run writes", in("clerksync", "comparison.findAndWrite"),
		replace("c.run.opts.DryRun", "false")},
	{"Force compares versions", in("clerksync", "comparison.find"),
		replace("c.run.opts.Force", "false")},
	{"Reconcile leaves older records as they are", in("clerksync", "comparison.byVersion"),
		replace("offered > have", "false")},
	{"Reconcile forgets the conflicts", in("clerksync", "reconcileRun.run"),
		replace("return errors.Join(err, r.retryConflicts(ctx))", "return err")},

	{"a rejected record is answered as an outage", in("clerksync", "storeError"),
		replace("errors.Is(err, ErrRejected)", "false")},

	// On MongoDB.
	{"mongostore: a deleted record keeps its e-mail address", in("mongostore", "upsert.conflict"),
		replace("up.release(ctx, key)", "false, error(nil)")},
	{"mongostore: a record that is not deleted loses its address", in("mongostore", "upsert.release"),
		replace(`append(slices.Clone(key.filter), bson.E{Key: "deletedAt", Value: bson.D{{Key: "$gte", Value: epoch}}})`,
			"slices.Clone(key.filter)")},
	{"mongostore: a record that loses its address loses its name too", in("mongostore", "upsert.release"),
		replace("make(bson.D, len(remove))", `append(make(bson.D, len(remove)), bson.E{Key: "name", Value: ""})`)},
	{"mongostore: a deletion erases nothing", in("mongostore", "deactivation.try"),
		remove(`if d.erase { update = append(update, bson.E{Key: "$unset", Value: erasure(r)}) }`)},
	{"mongostore: a deletion leaves lastSignInAt", in("mongostore", "erasure"),
		replace(`bson.D{{Key: "lastSignInAt", Value: ""}, {Key: "extraFields", Value: ""}}`,
			`bson.D{{Key: "extraFields", Value: ""}}`)},
	{"mongostore: a deletion leaves what Map added", in("mongostore", "erasure"),
		replace("r.lost(nobody)", "[]string(nil)")},
	{"mongostore: a deletion erases the role", in("mongostore", "erasure"),
		insertBefore("return unset", `unset = append(unset, bson.E{Key: "role", Value: ""})`)},
	{"mongostore: Open takes a refusal for success", in("mongostore", "Store.checkWrites"),
		replace("onlyUnconfirmed(err)", "true")},
	{"mongostore: a rejected record counts as an outage", in("mongostore", "databaseError.Unwrap"),
		replace("e.rejected", "false")},
	{"mongostore: one user who is too large fails the batch", in("mongostore", "unreachable"),
		replace("rejects || errors.Is(err, clerksync.ErrRejected)", "rejects && false")},
	{"mongostore: an equal event needs the validator's consent to a new record", in("mongostore", "refusedRecord"),
		replace("rejects || mongo.IsDuplicateKeyError(err)", "rejects && false || mongo.IsDuplicateKeyError(err)")},
	{"mongostore: a failover fails a write", in("mongostore", "transient"),
		replace("hasCode(err, notPrimary...)", "false")},
	{"mongostore: each sync writes the app's role", in("mongostore", "upsert.fields"),
		insertBefore(`set = append(set, bson.E{Key: "updatedAt", Value: up.time})`, `
			set = append(set, bson.E{Key: "role", Value: string(up.u.Role)})
			up.u.RoleFromClerk = false`)},
}
