package world

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"
)

// claim is what a session token says about the user's version.
type claim int

const (
	noClaim claim = iota
	claimMillis
	claimSeconds
	claimOld // an earlier version, as in a token that is some time old
)

// generator draws a kind as often as its weight says. It spreads each kind evenly over the list,
// because rapid prefers the beginning of a list.
func generator(weight func(operation) int) *rapid.Generator[kind] {
	type turn struct {
		kind kind
		at   float64
	}
	var turns []turn
	for _, o := range operations() {
		n := weight(o)
		for i := range n {
			turns = append(turns, turn{o.kind, (float64(i) + 0.5) / float64(n)})
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return cmp.Compare(a.at, b.at) })
	all := make([]kind, len(turns))
	for i, t := range turns {
		all[i] = t.kind
	}
	return rapid.SampledFrom(all)
}

var (
	steps  = generator(func(o operation) int { return o.weight })
	nested = generator(func(o operation) int { return o.nested })
)

var (
	small      = rapid.IntRange(0, 7)
	medium     = rapid.IntRange(0, 15)
	large      = rapid.IntRange(0, 63)
	coin       = rapid.Bool()
	callNumber = rapid.SampledFrom([]int{0, 1, 2, 0, 1, 2, 3, 4, 5, 7, 9})
	interrupts = rapid.SampledFrom([]int{0, 1, 0, 1, 0, 2, 1, 3})
	claims     = rapid.SampledFrom([]claim{
		noClaim, noClaim, noClaim, claimMillis, claimSeconds, claimOld, claimMillis,
	})
	// The time that passes in a step.
	longTimes = rapid.SampledFrom([]time.Duration{
		time.Millisecond, 700 * time.Millisecond, time.Second, 12 * time.Second, 31 * time.Second, 2 * time.Minute,
		11 * time.Minute, 61 * time.Minute, 5 * time.Hour, 30 * time.Hour,
		time.Millisecond, time.Second, 10 * time.Second, 61 * time.Second,
	})
	// The time that passes in the middle of an operation.
	shortTimes = rapid.SampledFrom([]time.Duration{
		time.Millisecond, 0, 3 * time.Second, 9 * time.Second, 31 * time.Second, time.Second, time.Hour,
	})
	// What happens in the middle of a job.
	disturbances = rapid.SampledFrom([]kind{drainJobs, kill, deleteUser, kill, visit, drainJobs})
	// The time after a change in Clerk in the middle of an operation.
	pauses = rapid.SampledFrom([]time.Duration{0, time.Millisecond, 0, 2 * time.Second})
)

// step draws an operation of the top level.
var step = rapid.Custom(func(t *rapid.T) op {
	o := drawOp(t, steps, longTimes)
	switch o.kind {
	case reconcile:
		if coin.Draw(t, "is cancelled") {
			o.n = o.n&^pageSizes | pagesOfOne
			o.breaks = append(o.breaks, interrupt{call: 4 + medium.Draw(t, "at call"), do: &op{kind: cancelRun}})
		}
		o.breaks = append(o.breaks, drawInterrupts(t)...)
	case visit, syncNow, deliver, deliverAny, runRefresh, replayHook:
		o.breaks = drawInterrupts(t)
	case runJob, drainJobs:
		o.breaks = append(drawInterrupts(t), drawDisturbance(t, o.kind)...)
	}
	return o
})

// drawDisturbance draws what happens around the claim, the function or the end of the first job, or
// nothing.
func drawDisturbance(t *rapid.T, during kind) []interrupt {
	call := rapid.SampledFrom([]int{claimCall, functionCall, functionCall, functionCall + 1}).Draw(t, "call")
	if during == drainJobs {
		call += 2 // due jobs of two kinds are read first
	}
	do := &op{kind: disturbances.Draw(t, "kind"), user: sameUser, proc: small.Draw(t, "process"), delivered: true}
	in := interrupt{call: call, after: coin.Draw(t, "after"), do: do}
	if coin.Draw(t, "undisturbed") {
		return nil
	}
	return []interrupt{in}
}

// drawNested draws an operation in the middle of another one.
func drawNested(t *rapid.T) *op {
	o := drawOp(t, nested, shortTimes)
	switch o.kind {
	case update, silent, ban, unban, exchange, deleteUser, signIn:
		o.delivered = coin.Draw(t, "its webhook is delivered")
		o.proc = small.Draw(t, "process")
		o.d = pauses.Draw(t, "time after it")
	}
	// Mostly the same user: the others hardly affect the interrupted operation.
	if rapid.IntRange(0, 3).Draw(t, "another user") != 3 {
		o.user = sameUser
	}
	return &o
}

func drawOp(t *rapid.T, kinds *rapid.Generator[kind], times *rapid.Generator[time.Duration]) op {
	o := op{kind: kinds.Draw(t, "kind"), user: medium.Draw(t, "user")}
	switch o.kind {
	case visit, syncNow, forget, reconcile, deliver, deliverAny, deliverAll, replayHook, restart, runRefresh,
		kill, drainJobs, runJob, mistake:
		o.proc = small.Draw(t, "process")
	}
	switch o.kind {
	case visit:
		o.claim = claims.Draw(t, "claim")
		o.flag = coin.Draw(t, "its refresh waits")
	case reconcile:
		for bit := range 9 { // rapid prefers small numbers, and its coins are fair
			if coin.Draw(t, "option") {
				o.n |= 1 << bit
			}
		}
	case pass:
		o.d = times.Draw(t, "time")
	case delayHook:
		o.n, o.d = small.Draw(t, "which"), times.Draw(t, "time")
	case deliverAny, dropHook, doubleHook, replayHook, update, silent, editApp, clerkDown, storeDown, quiet,
		signUpAgain, signUp, restart, runRefresh, kill, runJob, mistake:
		o.n = large.Draw(t, "which")
	case exchange:
		o.n, o.flag = large.Draw(t, "with whom"), coin.Draw(t, "webhooks lost")
	case unban, deleteUser, ban:
		o.flag = coin.Draw(t, "webhook lost")
	}
	return o
}

func drawInterrupts(t *rapid.T) (ins []interrupt) {
	for range interrupts.Draw(t, "interrupts") {
		in := interrupt{call: callNumber.Draw(t, "call"), after: coin.Draw(t, "after")}
		if rapid.IntRange(0, 2).Draw(t, "fault") == 1 {
			in.fault = 1 + rapid.IntRange(0, 11).Draw(t, "which fault")
			in.repeat = rapid.SampledFrom([]int{0, 0, 0, 1, 3, 9}).Draw(t, "further calls")
		} else {
			in.do = drawNested(t)
		}
		ins = append(ins, in)
	}
	return ins
}

// String describes the operation in one line of the story.
func (o op) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s user %d process %d n %d", o.kind, o.user, o.proc, o.n)
	if o.d != 0 {
		fmt.Fprintf(&b, " %v", o.d)
	}
	if o.claim != noClaim {
		fmt.Fprintf(&b, " claim %d", o.claim)
	}
	if o.flag {
		b.WriteString(" flag")
	}
	if o.delivered {
		b.WriteString(" delivered")
	}
	for _, in := range o.breaks {
		when := "before"
		if in.after {
			when = "after"
		}
		fmt.Fprintf(&b, "; %s call %d", when, in.call)
		if in.fault != 0 {
			fmt.Fprintf(&b, " fault %d×%d", in.fault, in.repeat+1)
		} else {
			fmt.Fprintf(&b, " {%v}", *in.do)
		}
	}
	return b.String()
}
