package world

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// The interleavings that each long run must have had.
const (
	equalVersion      = "interleaving: equal version with other content"
	readRacesWebhook  = "interleaving: a read from Clerk racing a webhook"
	invalidatedLoad   = "interleaving: an invalidation during a load"
	oldAfterLost      = "interleaving: a redelivered old webhook after a lost newer one"
	banLiftingLost    = "interleaving: a ban whose lifting was lost"
	suspendedDeleted  = "interleaving: a suspended user deleted in Clerk"
	twoInASecond      = "interleaving: two updates in one second under a claim in seconds"
	firstWaiterLeaves = "interleaving: a flight whose first waiter leaves"
	clockAhead        = "interleaving: a clock ahead"
	proxysNotFound    = "interleaving: a 404 from a proxy"
	madeAnew          = "interleaving: an account made anew with the same e-mail"
	emailGivenUp      = "interleaving: a deleted record gives its e-mail up"
	emailConflict     = "interleaving: a record in the way of an e-mail"
	erased            = "interleaving: a record erased with its deletion"
	roleOverEdit      = "interleaving: a role of Clerk's over the app's edit"
	editOverSync      = "interleaving: the app's edit of a role outlives a sync where Clerk has none"
)

const (
	endingReconcile = "ending: quiet, then one Reconcile"
	endingVisits    = "ending: quiet, then two visits each"
	endingClaims    = "ending: quiet, then two visits each with claims"
)

// counts says how often things happened.
type counts struct {
	mu sync.Mutex
	n  map[string]int
}

// newCounts begins with what must happen, so that a zero shows.
func newCounts(needs []string) *counts {
	c := &counts{n: make(map[string]int)}
	for _, name := range needs {
		c.n[name] = 0
	}
	return c
}

func (c *counts) add(name string) {
	c.mu.Lock()
	c.n[name]++
	c.mu.Unlock()
}

// zeros are what never happened and should have.
func (c *counts) zeros() (names []string) {
	for name, n := range c.n {
		if n == 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (c *counts) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c.n)) {
		fmt.Fprintf(&b, "%9d  %s\n", c.n[name], name)
	}
	return b.String()
}

// needs are what a long run must have had all of.
func needs(w *world) []string {
	all := slices.Concat(
		[]string{
			equalVersion, readRacesWebhook, invalidatedLoad, oldAfterLost, banLiftingLost, twoInASecond,
			firstWaiterLeaves, clockAhead, proxysNotFound, madeAnew, endingReconcile, endingVisits, endingClaims,
			"Outcome created", "Outcome updated", "Outcome unchanged", "Outcome stale", "Outcome deactivated",
			failBefore, failAfter, stallBefore, stallAfter,
			"visit 200", "visit 403 user_inactive", "visit 403 user_unknown", "visit 503 unavailable",
			"webhook 204", "webhook 503", "webhook 400", "served a Partial user", "refresh behind a visit", "a visitor joined a flight",
			"Reconcile resumed", "Reconcile dry run", "Reconcile cancelled", "Reconcile finished",
			lagging, missingOne, missingMany,
			"observed visit", "observed sync", "observed refresh", "observed webhook", "observed reconcile",
		},
		clerkFaults)
	for _, k := range []kind{
		visit, syncNow, forget, reconcile, runRefresh, deliver, deliverAny, deliverAll, dropHook, doubleHook, delayHook, replayHook,
		signUp, update, silent, silentSignIn, ban, unban, signIn, deleteUser, pass, clerkDown, storeDown, restart,
	} {
		all = append(all, string(k))
	}
	if w.opts.UniqueEmail {
		all = append(all, emailConflict)
	}
	if w.opts.UniqueEmail && !w.opts.Erases {
		all = append(all, emailGivenUp)
	}
	if w.opts.Erases {
		all = append(all, erased)
	}
	if w.able.app {
		all = append(all, suspendedDeleted, roleOverEdit, editOverSync, string(editApp), string(suspend), string(unsuspend))
	}
	slices.Sort(all)
	return slices.Compact(all)
}
