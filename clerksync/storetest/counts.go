package storetest

import "flag"

// How much a run does. The defaults are small, so that a Store that scans its records
// finishes in seconds; the flags raise them. No flag skips a case, and a value below the
// default counts as the default: with fewer, a case might no longer find what it is for.
//
// They are flags because the count is a decision of whoever runs the tests: the Store's
// test stays as it is. Package testing registers its flags the same way, in test binaries
// only, and the prefix keeps these apart from a program's own.
const (
	fewestRounds  = 4
	fewestWorkers = 16
	fewestUsers   = 120
)

var (
	roundsFlag = flag.Int("storetest.rounds", fewestRounds,
		"storetest: repeat each concurrent case and random history `n` times")
	workersFlag = flag.Int("storetest.workers", fewestWorkers,
		"storetest: run each concurrent case on `n` goroutines")
	usersFlag = flag.Int("storetest.users", fewestUsers,
		"storetest: put `n` users into the largest batches")
)

// rounds is how often a concurrent case and a random history are repeated.
func rounds() int { return max(fewestRounds, *roundsFlag) }

// workers is how many goroutines compete for one record.
func workers() int { return max(fewestWorkers, *workersFlag) }

// many is the size of the largest batches: more than a hundred, a common size of a page.
func many() int { return max(fewestUsers, *usersFlag) }
