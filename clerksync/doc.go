// Package clerksync keeps an app's users collection in step with Clerk.
//
// A [Syncer] learns about changes in three ways. [Syncer.RequireUser] verifies the session
// token on protected routes, and reads a new user from Clerk to create the record at the
// first request ([Syncer.Middleware] does all but the verification, behind Clerk's own
// middleware).
// [Syncer.WebhookHandler] applies Clerk's webhooks. [Syncer.Reconcile] finds what both
// missed. All of them write through one [Store], and keep one promise:
//
//	Whatever order webhooks, visits and reconciles arrive in, and however often,
//	each Clerk user has exactly one record, it converges to Clerk's latest
//	state, what the app owns in it stays the app's, and a deleted user never
//	comes back.
//
// An event is acknowledged with 2xx only after it is written. Only an operator can take a
// deletion back, with [ReconcileOptions].Restore.
//
// # For apps
//
// Start with [New], [Syncer.RequireUser] and [Syncer.WebhookHandler]; package mongostore is
// the Store on MongoDB:
//
//	store, err := mongostore.Open(ctx, client.Database("app").Collection("users"), nil)
//	…
//	syncer, err := clerksync.New(clerksync.Config{Store: store, SecretKey: os.Getenv("CLERK_SECRET_KEY")})
//	…
//	defer syncer.Close()
//	webhooks, err := syncer.WebhookHandler(clerksync.WebhookConfig{
//		Secrets: []string{os.Getenv("CLERK_WEBHOOK_SIGNING_SECRET")},
//	})
//	…
//	mux.Handle("/api/", syncer.RequireUser(protected)) // its handlers call UserFromContext
//	mux.Handle("/api/webhooks/clerk", webhooks)
//
// The user of [UserFromContext] is the record, and [RequireRole] lets only some roles through.
// For gin, echo and other routers without an http.Handler, use [Syncer.Check] and [CheckRole].
// [Config].OnCreate is called once for each new user.
//
// To test an app, use package fakeclerk, a Clerk in the test's process, and package memstore, a
// Store in memory. A handler's unit test needs only [ContextWithUser]. [Config] lists everything
// that can be changed, the constants Code… what clients see, and [Observation] what metrics and
// spans can be made of.
//
// # What the promise assumes
//
// The promise assumes nothing about the order or number of events, only this:
//
//   - Clerk never gives a user's id to another user, and a user's updated_at does not go
//     back. Two changes within one millisecond, or that leave updated_at as it was, are
//     ordered by SyncedAt: the time of the API request or of the event.
//   - The clocks of the app's processes are within a minute of the true time. A clock that
//     is further off delays convergence by as much. Over five minutes off, it rejects
//     webhooks ([WebhookConfig].Tolerance). It breaks none of the rest.
//   - For a change to arrive, one of these happens: its webhook; a visit after
//     [Config].RefreshAfter, or with a token that is newer than the record
//     ([AuthConfig].FreshnessClaim); a Sync; a Reconcile. A deletion arrives only by its
//     webhook or a Reconcile: a visit never deletes, because one wrong key would delete
//     every user.
//   - The app leaves Clerk's fields alone. Its change to one of them lasts until the user is
//     next read from Clerk (by a Reconcile: with Force), or an event of the same or a later
//     version comes.
//   - The collection belongs to one Clerk instance, and its unique index on clerkId stays.
//     Nobody removes a record that is marked deleted: a late event could create it again.
//   - All processes have the same DefaultRole, RoleOf and Map. Otherwise they overwrite each
//     other's fields. This can happen while a new version is rolled out.
//
// # For Store authors
//
// Implement [Store] and, if the database can, [BatchStore], [RestoreStore] and [JobStore]; for
// collections that apps had before, [LegacyStore] and [AdoptStore]. Decide with [Decide], write
// what [User.ClerkFields] yields, leave what [User].Omit names, and begin each Upsert with
// [User.Canonical]. Report what is in the way with [ConflictError], a record that the database
// never takes with [ErrRejected], and a partly written batch with [BatchError]. The Store must
// keep what it has acknowledged, change a record atomically, and read its latest state.
// Package storetest checks a Store against the contract; storetest/world puts it into a random
// world of lost, late and repeated events, failing parts, restarts and wrong clocks.
//
// # Where the rules live
//
//   - One record per user, and which version wins: [Decide] (decide.go) and the [Store]
//     contract (store.go).
//   - What Clerk owns and what the app owns: [User.ClerkFields] (user.go), mapping.go.
//   - A fault in one field keeps neither a ban nor the other fields out: write.go and
//     mapping.go. Values that move between users under a unique index: holders.go.
//   - A deleted user never comes back: rule 2 of [Decide], and the tombstone that
//     [Store].Deactivate leaves even if there is no record.
//   - How a visit finds its record, and what happens in a stampede: the comment at the top
//     of visit.go, then visit_cache.go, visit_reread.go and standby.go. A user without a
//     confirmed record, and what is remembered of failures: visit_create.go.
//   - Once per user: OnCreate and OnDelete: the comment at the top of jobs.go, the decisions
//     in jobs_decide.go, the [JobStore] contract in jobs_store.go. The manual is JOBS.md.
//   - Acknowledged only after the write: webhook.go. Which signatures count:
//     webhook_signature.go. The checks alone, for apps that queue: verifier.go. What an event
//     does: event.go.
//   - Which credential of a request counts: credential.go. Which tokens count as signed in:
//     auth.go, internal/sessiontoken. Which roles may pass: role.go.
//   - What keeps a reconcile from deleting everybody: checkInstance and checkComplete
//     (reconcile.go), then verifyAbsent (reconcile_sweep.go), which asks Clerk for each ghost
//     (a record whose user Clerk does not have).
//   - Retries, rate limits and pages of Clerk's API: internal/clerkapi.
//   - Every wait is bounded: background.go, internal/clock, internal/retry.
//   - What clients see, and what is never shown: problem.go. What a refusal leaves in the log
//     and in the metrics: refusal.go. What Observe and Start are told: observe.go, span.go.
//   - Which settings are refused: config.go, internal/setting.
package clerksync
