package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// pause waits for d. If ctx ends first, it returns ctx's cause.
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

// patience bounds each wait: for a process, for the database, for the webhooks. It is generous, for a
// busy machine.
const patience = 90 * time.Second

// until polls a condition that other processes make true. It is a violation if it stays false.
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

// violation is a finding.
type violation struct {
	lost bool // what was acknowledged or served is gone, or an older state replaced it
	text string
}

func (v *violation) Error() string {
	if v.lost {
		return "lost: " + v.text
	}
	return "violated: " + v.text
}

func violated(format string, args ...any) error {
	return &violation{text: fmt.Sprintf(format, args...)}
}

func lost(format string, args ...any) error {
	return &violation{lost: true, text: fmt.Sprintf(format, args...)}
}

// stream returns the random numbers of one part of the program. They do not depend on how many
// numbers another part has drawn.
func stream(seed uint64, part string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(part))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}
