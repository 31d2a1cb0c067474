// Package clerksyncgo is the root of a module that keeps an app's MongoDB users collection
// in step with Clerk. It holds no code. Start with the README; the packages are:
//
//   - clerksync: the library. The middleware that syncs the signed-in user on protected
//     routes, the webhook handler, the reconcile, and the Store interface.
//   - mongostore: the Store on MongoDB.
//   - clerksync/cmd/clerksync: the command line: backfill, drift report and repair.
//   - clerksync/cli: the command line as a package, for apps with a Map, RoleOf, Fields or Adopt.
//   - clerksync/otelsync: metrics and spans for OpenTelemetry, a module of its own.
//   - clerksync/memstore: a Store in memory, for unit tests.
//   - clerksync/fakeclerk: a Clerk in a Go process, for tests and local work: Backend API,
//     session tokens, signed webhooks, faults.
//   - clerksync/cmd/fakeclerk: the same as a command, for programs in any language.
//   - clerksync/storetest: the conformance suite for a Store of your own.
//   - clerksync/storetest/world: a random world of lost events, faults and races for it.
package clerksyncgo
