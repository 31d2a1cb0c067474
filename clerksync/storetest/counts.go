package storetest

import "flag"

// How much a run does by default. This is small, so that a Store that scans all records for each
// read finishes in seconds. Flags raise it. No flag skips a case, and a value below the default
// counts as the default: with less, a case might miss what it is for.
//
// These are flags, not arguments of Run, so that the person who runs the tests can choose them: the
// test in the Store's package stays the same. Only tests import this package, so only test binaries
// have the flags, like those of package rapid. The prefix keeps them apart from others.
const (
	fewestRounds  = 3
	fewestWorkers = 8
	fewestUsers   = 105
)

var (
	roundsFlag = flag.Int("storetest.rounds", fewestRounds,
		"storetest: repeat each concurrent case and random history `n` times; "+
			"above the default, also try all orders of events, and each type at each path")
	workersFlag = flag.Int("storetest.workers", fewestWorkers,
		"storetest: run each concurrent case on `n` goroutines")
	usersFlag = flag.Int("storetest.users", fewestUsers,
		"storetest: put `n` users into the largest batches")
)

// rounds is how often a concurrent case and a random history are repeated.
func rounds() int { return max(fewestRounds, *roundsFlag) }

// thorough reports whether a case tries all orders, and each type at each path. By default it tries
// every other order, and at each path a third of the types in turn.
func thorough() bool { return rounds() > fewestRounds }

// workers is how many goroutines compete for one record.
func workers() int { return max(fewestWorkers, *workersFlag) }

// many is the size of the largest batches: more than a hundred, a common page size.
func many() int { return max(fewestUsers, *usersFlag) }
