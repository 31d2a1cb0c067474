// Package clerksync keeps an app's users collection in step with Clerk.
//
// A [Syncer] learns of changes in three ways. [Syncer.RequireUser] verifies the session
// token on protected routes and creates the record at a user's first request, by reading
// the user from Clerk ([Syncer.Middleware] does the second half behind Clerk's own
// middleware). [Syncer.WebhookHandler] applies Clerk's webhooks. [Syncer.Reconcile] finds
// what both missed. All write through one [Store], whose decisions make one promise hold:
//
//	Whatever order webhooks, visits and reconciles arrive in, and however often,
//	each Clerk user has exactly one record, it converges to Clerk's latest
//	state, what the app owns in it stays the app's, and a deleted user never
//	comes back.
//
// An event answered with 2xx has been written. Only an operator takes a deletion back,
// with [ReconcileOptions].Restore. The rules behind the promise are [Decide]'s.
//
// # Assumptions
//
// The promise rests on these, and on nothing about the order or the number of events:
//
//   - The Store keeps what it acknowledged, changes a record atomically, and reads the
//     latest state of one. mongostore gets that of MongoDB by reading from the primary;
//     whether an acknowledged write survives a failover is the write concern's to say
//     (MongoDB's default, majority, does).
//   - Clerk never gives a user's id to another user, and a user's updated_at does not go
//     back. Changes within one millisecond, and those that leave updated_at where it was,
//     are told apart by when Clerk was asked.
//   - The clocks of the app's processes are within a minute of the true time. One that is
//     further off delays convergence by as much, and over five minutes off it refuses
//     webhooks; it breaks none of the rest.
//   - For a change to arrive, one of these happens: its webhook, a visit after
//     [Config].RefreshAfter or with a token that is newer than the record
//     ([AuthConfig].FreshnessClaim), a Sync, a Reconcile. A deletion arrives by its webhook
//     or a Reconcile alone: a visit does not delete, as a wrong key must not.
//   - The app leaves the fields that are Clerk's alone. What it does to them holds until
//     the user is next read from Clerk (by a Reconcile: with Force), or an event of the same
//     or a later version comes.
//   - The collection is of one Clerk instance. The unique index on clerkId stays. Nobody
//     removes a record marked deleted: a late or resent event could make it again.
//   - All processes have the same DefaultRole, RoleOf and Map; otherwise they overwrite each
//     other's fields. While a new version of them is rolled out, that may be seen.
//
// # How it is tested
//
// Package storetest holds a Store to single rules. Package storetest/world puts Stores
// and Syncers into a random world of lost, late and doubled events, failing parts,
// restarts and wrong clocks, in a million steps that a seed repeats. Real processes and
// databases are killed in the midst of traffic, and faults put into the library must each
// be found. The README has the commands and the figures of the longest runs.
//
// # Packages
//
// Package mongostore is the Store on MongoDB, package memstore one in memory for unit
// tests, package storetest the suite that any other Store must pass, and package
// fakeclerk a Clerk to test an app against.
package clerksync
