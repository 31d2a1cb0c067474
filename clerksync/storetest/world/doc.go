// Package world puts a Store, and the Syncers on it, into a random world and checks that
// they keep clerksync's promise there: whatever order webhooks, visits and reconciles
// arrive in, and however often, each Clerk user has one record, it converges to Clerk's
// latest state, what the app owns in it stays the app's, and a deleted user never comes
// back.
//
// In a world, users are created, changed, banned and deleted in a
// [github.com/clerksync/clerksync-go/clerksync/fakeclerk.Server]; webhooks are dropped,
// doubled, delayed, reordered and replayed; visits, Sync and Reconcile come at any moment
// to two or three processes, each a Syncer with a cache of its own, one of them perhaps
// with its clock ahead or behind; Clerk and the Store fail, stall and return; the app
// writes what it owns; in half of the worlds Clerk owns the roles of those users who have
// one in their metadata. An operation is as likely as not interrupted by another one, at
// any of its calls to the Store or to Clerk.
//
// # Use
//
// A Store author points [Run] at the Store, as with storetest.Run, in a test of its
// package:
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
// The times that the Store sets must come from now. What the app owns is edited, and
// looked at, where the Store is a storetest.RawStore; Reconcile looks for ghosts where it
// is a clerksync.BatchStore; second records of a user are counted where it is a [Counter].
// [Options] say whether an e-mail address may be there twice, and whether a deletion erases.
//
// # How much
//
// The flags of pgregory.net/rapid say how many worlds there are and how many steps each
// has on average, and win over the [Options] given:
//
//	go test ./clerksync/storetest/world                          # some 12,000 steps
//	go test ./clerksync/storetest/world -run 'TestMemstore$' -v -timeout 2h -rapid.checks=2800 -rapid.steps=400   # 1,000,000
//	go test ./mongostore -run 'TestWorld$' -v -timeout 2h -rapid.checks=250 -rapid.steps=200                      # 50,000
//
// With -v the run prints how often each fault, Outcome and interleaving occurred. From
// 20,000 steps on, one that never did fails it; in shorter runs the rarest may be missing.
// The interleavings that matter most are also subtests by themselves, in a shortest form.
//
// # When it fails
//
// rapid makes the run shorter, and prints the operations that are left, and a seed. The
// flag -rapid.seed repeats that run exactly, with the same -rapid.checks and -rapid.steps:
// one thing happens at a time, in virtual time, and nothing waits for real. What is in
// the middle of an operation runs inside of it, on its goroutine, and a background
// refresh waits at Clerk's door until its turn comes.
//
// # What is checked
//
// After each write: no field of the app's changed, no deletion was taken back, neither
// the version nor lastSignInAt nor syncedAt went back, and the record equals a state that
// the user had in Clerk at syncedAt or later, with Clerk's role if it had one then. A
// deletion leaves the record as it was, or erased, and so it stays; only its e-mail
// address goes, where two records may not share one, once another has it; and nobody is
// refused an address that no such record has. In each request: no handler runs for a user
// whom the process knows to be deleted, or with a record from before the last webhook,
// Sync or Forget in its process, or with one that is longer out of date than a cache may
// keep it, or older than its token says; without a fault nobody is refused without a
// reason. After each webhook: what was acknowledged is written.
//
// Every so often the world goes quiet, and must converge. Either RefreshAfter, CacheTTL
// and the holdback pass, and one Reconcile without a limit leaves exactly one record
// each, equal to Clerk, nobody deleted active, and nothing to do for a dry run. Or
// RefreshAfter passes (a day, where tokens confirm the records), each user who lives
// visits twice with a drain in between, and the record and what is served equal Clerk.
// Both wait for as long more as the processes' clocks disagree.
package world
