package world

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"
)

// op is one operation. All of it is drawn before it begins, what is to happen in its
// middle included: so an operation that makes more calls or fewer does not shift what
// is drawn after it, and no draw is made beside another.
type op struct {
	kind   kind
	user   int // counted from the youngest
	proc   int
	n      int // means something else to each kind
	d      time.Duration
	flag   bool
	lands  bool // of a change in Clerk: its webhook comes at once
	claim  claim
	breaks []interrupt
}

// interrupt is what happens in the middle of an operation: at its n-th call to the
// Store or to Clerk, before it or between what it does and its return.
type interrupt struct {
	call   int
	after  bool
	do     *op
	fault  int // 0: none
	repeat int // how many further calls the fault hits
}

type kind string

const (
	visit        kind = "visit"
	syncNow      kind = "Sync"
	forget       kind = "Forget"
	reconcile    kind = "Reconcile"
	runRefresh   kind = "a refresh goes on"
	deliver      kind = "webhook delivered"
	deliverAny   kind = "webhook delivered out of order"
	deliverAll   kind = "backlog of webhooks delivered"
	dropHook     kind = "webhook dropped"
	doubleHook   kind = "webhook doubled"
	delayHook    kind = "webhook delayed over hours"
	replayHook   kind = "webhook replayed"
	signUp       kind = "user signed up"
	makeAnew     kind = "account made anew"
	update       kind = "user changed"
	silent       kind = "changed at equal version"
	silentSignIn kind = "signed in at equal version"
	ban          kind = "user banned"
	unban        kind = "ban lifted"
	signIn       kind = "user signed in"
	deleteUser   kind = "user deleted"
	editApp      kind = "app's edit"
	suspend      kind = "app suspends"
	unsuspend    kind = "app's suspension ends"
	pass         kind = "time passes"
	clerkDown    kind = "outage of Clerk"
	storeDown    kind = "outage of the Store"
	restart      kind = "process restarted"
	quiet        kind = "ending"
	leave        kind = "waiter leaves" // in the middle of a visit
	cancelRun    kind = "Reconcile cancelled"
)

// claim is what a session token says of the user's version.
type claim int

const (
	noClaim claim = iota
	claimMillis
	claimSeconds
	claimOld // of the token's first hour: an earlier version
)

// weights say how often a kind is drawn.
type weights []struct {
	kind   kind
	weight int
}

// generator spreads the kinds evenly, so that each beginning of the list has them in
// about the same shares: rapid prefers what comes first.
func (ws weights) generator() *rapid.Generator[kind] {
	type turn struct {
		kind kind
		at   float64
	}
	var turns []turn
	for _, w := range ws {
		for i := range w.weight {
			turns = append(turns, turn{w.kind, (float64(i) + 0.5) / float64(w.weight)})
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return cmp.Compare(a.at, b.at) })
	all := make([]kind, len(turns))
	for i, t := range turns {
		all[i] = t.kind
	}
	return rapid.SampledFrom(all)
}

var steps = weights{
	{visit, 40}, {update, 9}, {deliver, 16}, {pass, 14}, {deliverAny, 4}, {syncNow, 4}, {reconcile, 2},
	{forget, 2}, {runRefresh, 3}, {dropHook, 4}, {doubleHook, 2}, {delayHook, 2}, {replayHook, 3}, {deliverAll, 1},
	{signUp, 4}, {makeAnew, 2}, {silent, 3}, {silentSignIn, 1}, {ban, 2}, {unban, 3}, {signIn, 3}, {deleteUser, 3},
	{editApp, 4}, {suspend, 2}, {unsuspend, 2}, {clerkDown, 1}, {storeDown, 1}, {restart, 1}, {quiet, 2},
}.generator()

// nested happen in the middle of others.
var nested = weights{
	{visit, 8}, {update, 6}, {deliver, 3}, {deliverAny, 9}, {syncNow, 3}, {forget, 2}, {replayHook, 2},
	{silent, 2}, {ban, 1}, {unban, 2}, {deleteUser, 2}, {editApp, 2}, {suspend, 1}, {pass, 3}, {restart, 1},
	{leave, 3}, {cancelRun, 4}, {reconcile, 1}, {signIn, 1}, {runRefresh, 1}, {makeAnew, 1},
}.generator()

var (
	small    = rapid.IntRange(0, 7)
	medium   = rapid.IntRange(0, 15)
	callNo   = rapid.SampledFrom([]int{0, 1, 2, 0, 1, 2, 3, 4, 5, 7, 9})
	coin     = rapid.Bool()
	breaking = rapid.SampledFrom([]int{0, 1, 0, 1, 0, 2, 1, 3})
	passing  = rapid.SampledFrom([]time.Duration{
		time.Millisecond, 700 * time.Millisecond, time.Second, 12 * time.Second, 31 * time.Second, 2 * time.Minute,
		11 * time.Minute, 61 * time.Minute, 5 * time.Hour, 30 * time.Hour, time.Millisecond, time.Second, 10 * time.Second, 61 * time.Second,
	})
	shortly = rapid.SampledFrom([]time.Duration{time.Millisecond, 0, 3 * time.Second, 9 * time.Second, 31 * time.Second, time.Second, time.Hour})
	lulls   = rapid.SampledFrom([]time.Duration{0, time.Millisecond, 0, 2 * time.Second})
	claims  = rapid.SampledFrom([]claim{noClaim, noClaim, noClaim, claimMillis, claimSeconds, claimOld, claimMillis})
)

// step draws an operation of the top level.
var step = rapid.Custom(func(t *rapid.T) op { return drawOp(t, steps, passing, 0) })

func drawOp(t *rapid.T, kinds *rapid.Generator[kind], passing *rapid.Generator[time.Duration], depth int) op {
	o := op{kind: kinds.Draw(t, "kind")}
	o.user = medium.Draw(t, "user")
	switch o.kind {
	case visit, syncNow, forget, reconcile, deliver, deliverAny, deliverAll, replayHook, restart, runRefresh:
		o.proc = small.Draw(t, "process")
	}
	switch o.kind {
	case visit:
		o.claim = claims.Draw(t, "claim")
		o.flag = coin.Draw(t, "its refresh waits")
	case reconcile:
		for bit := range 9 { // rapid's numbers are small ones as a rule, and coins are fair
			if coin.Draw(t, "option") {
				o.n |= 1 << bit
			}
		}
		if depth == 0 && coin.Draw(t, "is cancelled") {
			o.n = o.n&^pageSizes | pagesOfOne
			o.breaks = append(o.breaks, interrupt{call: 4 + medium.Draw(t, "at call"), do: &op{kind: cancelRun}})
		}
	case pass:
		o.d = passing.Draw(t, "time")
	case delayHook:
		o.n, o.d = small.Draw(t, "which"), passing.Draw(t, "time")
	case deliverAny, dropHook, doubleHook, replayHook, update, silent, editApp, clerkDown, storeDown, quiet, makeAnew, signUp, restart, runRefresh:
		o.n = rapid.IntRange(0, 63).Draw(t, "which")
	case unban, deleteUser, ban:
		o.flag = coin.Draw(t, "webhook lost")
	}
	if depth > 0 {
		switch o.kind {
		case update, silent, ban, unban, deleteUser, signIn:
			o.lands, o.proc = coin.Draw(t, "its webhook lands"), small.Draw(t, "process")
			o.d = lulls.Draw(t, "time after it")
		}
	}
	calls := depth == 0
	switch o.kind {
	case visit, syncNow, reconcile, deliver, deliverAny, runRefresh, replayHook:
	default:
		calls = false
	}
	if calls {
		for range breaking.Draw(t, "interrupts") {
			o.breaks = append(o.breaks, drawInterrupt(t))
		}
	}
	return o
}

func drawInterrupt(t *rapid.T) interrupt {
	in := interrupt{call: callNo.Draw(t, "call"), after: coin.Draw(t, "after")}
	if rapid.IntRange(0, 2).Draw(t, "fault") == 1 {
		in.fault = 1 + rapid.IntRange(0, 11).Draw(t, "which fault")
		in.repeat = rapid.SampledFrom([]int{0, 0, 0, 1, 3, 9}).Draw(t, "further calls")
		return in
	}
	o := drawOp(t, nested, shortly, 1)
	// What concerns the same user is what matters.
	if rapid.IntRange(0, 3).Draw(t, "another user") != 3 {
		o.user = sameUser
	}
	in.do = &o
	return in
}

// The bits of a Reconcile's op.n that choose the size of its pages.
const (
	pageSizes  = 3 << 3
	pagesOfOne = 1 << 3
)

// sameUser, as op.user, is the user of the operation around.
const sameUser = -1

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
	if o.lands {
		b.WriteString(" lands")
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
