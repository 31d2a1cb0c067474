// Package world runs Syncers on a Store through random steps in virtual time, and checks that
// clerksync keeps its promise: whatever order webhooks, visits and reconciles arrive in, and
// however often, each Clerk user has exactly one record, it converges to Clerk's latest state, what
// the app owns in it stays the app's, and a deleted user never comes back.
//
// A world consists of a [github.com/clerksync/clerksync-go/clerksync/fakeclerk.Server], the Store,
// and two or three processes, each a Syncer with its own cache. In it
//
//   - users are created, changed, banned and deleted in Clerk,
//   - webhooks are dropped, doubled, delayed, reordered and replayed,
//   - visits, Sync and Reconcile come to any process at any time,
//   - Clerk and the Store fail, stall and recover,
//   - the app writes the fields it owns,
//   - the clock of one process may be ahead or behind,
//   - processes die at once, and others take over what they left, if the Store keeps jobs,
//   - deletions are taken back, if it restores,
//   - in half of the worlds, Clerk owns the role of each user who has one in the metadata.
//
// If the Store is a clerksync.JobStore, most processes have OnCreate and OnDelete, and some are of a
// version of the app that lacks one. The functions fail, panic, discard their job, hang until their
// context ends, or outlive their lease. A job in the background waits for its turn, so a process may die
// with it, and everything else may happen between its calls to the Store and around the function.
//
// About half of the operations are interrupted by another one, at any of their calls to the Store
// or to Clerk.
//
// # Use
//
// Call [Run] from a test of your Store's package:
//
//	func TestWorld(t *testing.T) {
//		world.Run(t, func(t testing.TB, now func() time.Time) clerksync.Store {
//			s, err := mystore.Open(t.Context(), newEmptyDatabase(t), mystore.Now(now))
//			if err != nil {
//				t.Fatal(err)
//			}
//			return s
//		}, world.Options{})
//	}
//
// The Store must take its times from now. If it is a storetest.RawStore, the world also writes and
// checks what the app owns. If it is a clerksync.BatchStore, Reconcile looks for ghosts too. If it
// is a [Counter], the world counts second records of a user. [Options] say whether two records may
// have the same e-mail address, and whether a deletion erases.
//
// If it is a storetest.AdoptingStore and a clerksync.BatchStore, the world begins with records from
// before Clerk. Users have an external id, or an address that they have proven, prove later or never
// prove; some events lack the proof. Addresses and proofs change during the run.
//
// # How much
//
// By default a run is short. The flags of pgregory.net/rapid set the number of worlds and the
// average number of steps in each. They override the [Options].
//
//	go test ./clerksync/storetest/world    # some 12,000 steps
//	go test ./clerksync/storetest/world -run 'TestMemstore$' -v -timeout 2h \
//		-rapid.checks=2800 -rapid.steps=400    # 1,000,000 steps
//	go test ./mongostore -run 'TestWorld$' -v -timeout 2h \
//		-rapid.checks=250 -rapid.steps=200     # 50,000 steps
//
// With -v a run prints how often each fault, Outcome and interleaving happened. From 20,000 steps
// on, it fails if one of them never happened. In a shorter run the rarest may be missing. Each of
// the most important interleavings also has a subtest, which is as short as possible.
//
// # When it fails
//
// rapid shortens the run, and prints the remaining operations and a seed. The flag -rapid.seed
// repeats that run exactly, with the same -rapid.checks and -rapid.steps. This works because one
// thing happens at a time, in virtual time, and nothing waits for real. An operation in the middle
// of another one runs inside it, on the same goroutine. A background refresh waits in the HTTP
// transport for its turn.
//
// # What is checked
//
// After each write:
//
//   - no field of the app changed, and no deletion was undone;
//   - the version, lastSignInAt and syncedAt did not go back;
//   - the record equals a state that the user had in Clerk at syncedAt or later, with Clerk's role
//     if Clerk had one;
//   - a deletion left the record as it was, or erased it, and a deleted record did not change. If
//     two records must not share an e-mail address, it loses its address to another record;
//   - the Store rejected an address only if another record, not deleted, has it.
//
// If the Store adopts, at a user's first record:
//
//   - the record is one from before Clerk only if nobody else has it, and the external id names it, or
//     it is the only one with the address, it is trusted, and the user had proven the address in
//     Clerk at syncedAt or later;
//   - otherwise no record that could be linked has the address or the external id;
//   - a user is held back only because of such a record. Once somebody has it, it is nobody else's,
//     also after a deletion.
//
// If the Store keeps jobs:
//
//   - a job is owed by the first insert and by the deletion of a record, and by nothing else: not for a
//     user who signed up too long ago, nor by a process without the function, nor twice;
//   - a function is called only for a job that is owed and not over, by its last claim, within the lease,
//     with the same key each time, and with a record that is deleted for OnDelete alone;
//   - no two functions run for a user within their leases, and no Restore comes in between;
//   - an attempt follows another only after the end of that was written, or after its lease, and then for
//     a reason: its process died, the Store failed, or the function outlived the lease;
//   - a job ends as its function asked, fails after the last attempt, and is dropped only with the state
//     of the record that it is for;
//   - a deletion that owes a job erases by the end of the job.
//
// In the end, after all that is due was run, no job is owed any more: each has had its effect, or failed or
// was discarded or dropped for one of these reasons.
//
// In each request, no handler runs
//
//   - for a user whom the process knows to be deleted;
//   - with a record from before the last webhook, Sync or Forget in its process;
//   - with a record that has been outdated for longer than a cache may keep it;
//   - with a record older than the visitor's token says;
//   - before OnCreate has succeeded or was discarded, if the process awaits it.
//
// If nothing fails, no request is refused without a reason. Each event was written before it was
// acknowledged.
//
// From time to time the world becomes quiet and must converge, in one of two ways. Either
// RefreshAfter, CacheTTL and the holdback pass. Then one Reconcile without a limit must leave
// exactly one record for each user, equal to Clerk, no deleted user active, and nothing for a dry
// run to find. Or RefreshAfter passes (a day, if tokens confirm the records), and each user who
// lives visits twice. Then the record, and what the second visit is served, must equal Clerk. Both
// wait longer by the difference between the processes' clocks.
//
// A user who must not be linked then has no record and gets 409, and everybody else has one. Records
// from before Clerk that nobody has are as they were. The others keep what is the app's. If addresses
// are unique, a record may lack one that such a record has, and a user whose external id names another
// record waits for it.
package world
