package clerksync

import (
	"fmt"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// Each kind has its burst and then one line a minute, which says how many were left out.
func TestLogLimit(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	l := newLogLimit(clock.System(func() time.Time { return now }))
	for i := range logBurst {
		if suppressed, ok := l.allow("a"); !ok || suppressed != 0 {
			t.Errorf("line %d: %t, %d suppressed", i, ok, suppressed)
		}
	}
	for range 7 {
		if _, ok := l.allow("a"); ok {
			t.Error("a line above the burst was allowed")
		}
	}
	if _, ok := l.allow("b"); !ok {
		t.Error("the lines of one kind count for another")
	}
	now = now.Add(logInterval)
	if suppressed, ok := l.allow("a"); !ok || suppressed != 7 {
		t.Errorf("a minute later: %t, %d suppressed", ok, suppressed)
	}
	if _, ok := l.allow("a"); ok {
		t.Error("two lines in the minute after the burst")
	}
	now = now.Add(-time.Hour)
	if _, ok := l.allow("a"); ok {
		t.Error("a clock that went back allowed a line")
	}
}

// Kinds without end take neither memory nor lines without end.
func TestLogLimitIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	l := newLogLimit(clock.System(func() time.Time { return now }))
	lines := 0
	for i := range 10_000 {
		if _, ok := l.allow(fmt.Sprint("kind ", i)); ok {
			lines++
		}
	}
	if lines != maxLogKinds+logBurst || len(l.kinds) != maxLogKinds+1 {
		t.Errorf("%d lines, %d kinds", lines, len(l.kinds))
	}
}
