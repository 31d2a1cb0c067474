package world

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// The interleavings that must happen in each long run.
const (
	equalVersion      = "interleaving: equal version with other content"
	readRacesWebhook  = "interleaving: a read from Clerk races a webhook"
	invalidatedLoad   = "interleaving: an invalidation during a load"
	oldAfterLost      = "interleaving: a redelivered old webhook after a lost newer one"
	banLiftingLost    = "interleaving: a ban whose lifting was lost"
	suspendedDeleted  = "interleaving: a suspended user deleted in Clerk"
	twoInASecond      = "interleaving: two updates in one second under a claim in seconds"
	firstWaiterLeaves = "interleaving: a lookup whose first waiter leaves"
	clockAhead        = "interleaving: a clock ahead"
	proxysNotFound    = "interleaving: a 404 from a proxy"
	sameEmail         = "interleaving: a new account with the e-mail address of a deleted one"
	emailGivenUp      = "interleaving: a deleted record loses its e-mail address"
	emailConflict     = "interleaving: an e-mail address in use"
	exchanged         = "interleaving: two users exchange their e-mail addresses"
	erased            = "interleaving: a deletion erases a record"
	roleOverEdit      = "interleaving: Clerk's role overwrites the app's edit"
	editOverSync      = "interleaving: the app's edit of a role survives a sync because Clerk has no role"
)

// These too, if the Store adopts.
const (
	adoptedByID     = "adoption: by external id"
	adoptedByEmail  = "adoption: by e-mail address"
	unlinkedUser    = "adoption: a user is held back"
	namedAnothers   = "adoption: the external id names another user's record"
	legacyTombstone = "adoption: a deletion makes the record that the external id names the tombstone"

	// Only with unique addresses.
	addressBlocks = "adoption: an unlinked record with the address keeps the one that the external id names from being linked"
	addressLacks  = "adoption: a record lacks an address that an unlinked one has"
)

const (
	joinedLookup = "a visitor joined a lookup"
	pausedVisit  = "a visit did not ask a Clerk that wants a pause"
)

const (
	endingReconcile = "ending: quiet, then one Reconcile"
	endingVisits    = "ending: quiet, then two visits each"
	endingClaims    = "ending: quiet, then two visits each with claims"
)

// counts counts what happened.
type counts struct {
	mu sync.Mutex
	n  map[string]int
}

// newCounts starts with what must happen, so that a zero is listed.
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

// zeros returns what never happened.
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

// isTooRare reports whether only a scenario makes this happen for sure: a user is seldom deleted before
// anything else was written, and little happens in the middle of a function.
func isTooRare(name string) bool {
	return slices.Contains([]string{legacyTombstone, outlived, diedAfter, deletedBy, notRestored}, name)
}

// needs returns what must happen in a long run, or in its scenario.
func needs(w *world) []string {
	all := slices.Concat(
		[]string{
			equalVersion, readRacesWebhook, invalidatedLoad, oldAfterLost, banLiftingLost, twoInASecond,
			firstWaiterLeaves, clockAhead, proxysNotFound, sameEmail, endingReconcile, endingVisits, endingClaims,
			"Outcome created", "Outcome updated", "Outcome unchanged", "Outcome stale", "Outcome deactivated",
			exchanged, failBefore, failAfter, stallBefore, stallAfter,
			"visit 200", "visit 403 user_inactive", "visit 403 user_unknown", "visit 503 unavailable",
			"webhook 204", "webhook 503", "webhook 400", "served a Partial user", "refresh behind a visit",
			joinedLookup,
			"Reconcile resumed", "Reconcile dry run", "Reconcile cancelled", "Reconcile finished",
			lagging, missingOne, missingMany,
			"observed visit", "observed sync", "observed refresh", "observed webhook", "observed reconcile",
		},
		clerkFaults)
	for _, k := range []kind{
		visit, syncNow, forget, reconcile, runRefresh,
		deliver, deliverAny, deliverAll, dropHook, doubleHook, delayHook, replayHook,
		signUp, update, silent, silentSignIn, ban, unban, signIn, exchange, deleteUser,
		pass, clerkDown, storeDown, restart,
	} {
		all = append(all, string(k))
	}
	if w.opts.UniqueEmail {
		all = append(all, emailConflict)
	}
	if w.opts.UniqueEmail && !w.opts.Erases {
		all = append(all, emailGivenUp)
	}
	if w.legacyStore != nil {
		all = append(all, adoptedByID, adoptedByEmail, unlinkedUser, namedAnothers, legacyTombstone, "Outcome adopted")
	}
	if w.legacyStore != nil && w.opts.UniqueEmail {
		all = append(all, addressBlocks, addressLacks)
	}
	if w.able.jobs {
		all = append(all, jobsNeed...)
	}
	if w.able.restore {
		all = append(all, restoresNeed...)
	}
	if w.opts.Erases {
		all = append(all, erased)
	}
	if w.able.app {
		all = append(all, suspendedDeleted, roleOverEdit, editOverSync)
		all = append(all, string(editApp), string(suspend), string(unsuspend))
	}
	slices.Sort(all)
	return slices.Compact(all)
}
