package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// pause waits, and returns early with ctx's cause.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// patience is how long anything may take: a process or the database to come up, the
// webhooks to get through. It is for a loaded machine, and bounds the run.
const patience = 90 * time.Second

// until polls a condition of other processes, which cannot tell of it themselves. That it
// does not come true is a violation.
func until(ctx context.Context, holds func() bool, otherwise string) error {
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			return violated("%s within %v", otherwise, patience)
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// violation is the finding that something does not hold.
type violation struct{ text string }

func (v *violation) Error() string { return "violated: " + v.text }

func violated(format string, args ...any) error {
	return &violation{fmt.Sprintf(format, args...)}
}

// stream returns the random numbers of one part of the program: how many another one has
// drawn does not matter to it.
func stream(seed uint64, part string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(part))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}
