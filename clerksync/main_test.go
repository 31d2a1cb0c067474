package clerksync_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// The defaults are small, so that the tests are quick. The flags raise them: a value below the
// default counts as the default, and none skips a test. -rapid.checks, a flag of package rapid, may
// also be lowered.
const (
	fewestUsers    = 100_000
	fewestVisitors = 2000
	rapidChecks    = "30"
)

var (
	usersFlag    = flag.Int("users", fewestUsers, "reconcile `n` users in TestReconcileMemory")
	visitorsFlag = flag.Int("visitors", fewestVisitors, "let `n` visitors come at once in the tests of a stampede")
)

func manyUsers() int { return max(fewestUsers, *usersFlag) }

func manyVisitors() int { return max(fewestVisitors, *visitorsFlag) }

func TestMain(m *testing.M) {
	checks := flag.Lookup("rapid.checks") // by default 100
	if err := checks.Value.Set(rapidChecks); err != nil {
		panic(err)
	}
	checks.DefValue = rapidChecks
	goleak.VerifyTestMain(m) // reads the flags
}
