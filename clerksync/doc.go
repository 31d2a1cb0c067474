// Package clerksync keeps an app's users collection in step with Clerk.
//
// A [Syncer] does it from two sides, and a third. Its [Syncer.RequireUser] verifies the session
// token on protected routes and syncs the signed-in user lazily: the first request
// of a user that the app has not seen reads the user from Clerk and creates the
// record. ([Syncer.Middleware] does the second half behind Clerk's own middleware.) Its
// [Syncer.WebhookHandler] applies Clerk's webhooks as they arrive. What both missed,
// [Syncer.Reconcile] finds. All write through one [Store], whose decisions make
// one promise hold:
//
//	Whatever order webhooks, visits and reconciles arrive in, and however often,
//	each Clerk user has exactly one record, it converges to Clerk's latest
//	state, what the app owns in it stays the app's, and a deleted user never
//	comes back.
//
// The rules behind the promise are [Decide]'s. Package mongostore is the Store on
// MongoDB, package memstore one in memory for unit tests, package storetest the
// suite that any other Store must pass, and package fakeclerk a Clerk to test an
// app against.
package clerksync
