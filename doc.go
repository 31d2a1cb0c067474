// Package clerksyncgo is the root of a module that keeps an app's MongoDB users
// collection in step with Clerk. It holds no code; the packages are:
//
//   - clerksync: the library. The middleware that syncs the signed-in user on
//     protected routes, the webhook handler, the reconcile, and the Store
//     interface that all write through.
//   - mongostore: the Store on MongoDB.
//   - clerksync/cmd/clerksync: the command line: backfill, drift report and repair.
//   - clerksync/memstore: a Store in memory, for unit tests.
//   - clerksync/storetest: the conformance suite for a Store of your own.
//   - clerksync/storetest/world: a random world of lost events, faults and races, for
//     the same.
//   - clerksync/fakeclerk: a Clerk in a Go process, for tests and local work:
//     Backend API, session tokens, signed webhooks, faults.
//
// The README at the root of the repository is the place to begin.
package clerksyncgo
