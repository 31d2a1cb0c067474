package world

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// NewStore returns a new, empty Store, which takes all its times from now: the world's clock moves
// only when the world moves it. Functions registered with t.Cleanup run when the world ends.
type NewStore func(t testing.TB, now func() time.Time) clerksync.Store

// Counter is implemented by a Store that can count the records of a user.
type Counter interface {
	// Count returns how many records the user has, deleted ones included.
	Count(ctx context.Context, clerkID string) (int, error)
}

// Options say how much Run does and how the Store is configured.
type Options struct {
	_ [0]func() // an unkeyed literal would break when a field is added

	// Checks is how many worlds there are, and Steps how many steps each has on average. The
	// flags -rapid.checks and -rapid.steps override them.
	//
	// Defaults to 30 and 300.
	Checks, Steps int

	// UniqueEmail says that two records must not have the same e-mail address. Only then may
	// the Store return a [*clerksync.ConflictError], and may a deleted record lose its address.
	//
	// Defaults to false.
	UniqueEmail bool

	// Erases says that a deletion removes personal data from the record.
	//
	// Defaults to false: a deleted record keeps its fields.
	Erases bool
}

// orDefault sets those of rapid's flags that the command line and the environment do not.
func (o Options) orDefault(t testing.TB) {
	if o.Checks == 0 {
		o.Checks = 30
	}
	if o.Steps == 0 {
		o.Steps = 300
	}
	given := make(map[string]bool)
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, n := range map[string]int{"rapid.checks": o.Checks, "rapid.steps": o.Steps} {
		env := strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
		if given[name] || os.Getenv(env) != "" {
			continue
		}
		f := flag.Lookup(name)
		old := f.Value.String()
		if err := f.Value.Set(fmt.Sprint(n)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Value.Set(old) })
	}
}
