package world

import (
	"slices"
	"testing"
	"time"
)

// scenario is a short way into one interleaving, followed by both endings. It runs if the Store
// makes the interleaving possible.
type scenario struct {
	name     string
	happened string // what must have been counted
	kind     int    // of world
	legacy   bool   // users have records from before Clerk
	ops      []op
}

// proxy404Fault is the interrupt.fault of proxy404.
const proxy404Fault = 2

var scenarios = []scenario{
	{name: "EqualVersionWithOtherContent", happened: equalVersion, ops: []op{
		{kind: deliverAll}, {kind: visit},
		{kind: silent}, {kind: deliverAny}, // found by its webhook
		{kind: silent, n: 4}, {kind: dropHook}, // found by a read: its webhook is lost
	}},
	{name: "ReadFromClerkRacesAWebhook", happened: readRacesWebhook, ops: []op{
		{kind: dropHook},
		{kind: visit, breaks: []interrupt{afterCall(1, op{kind: update, user: sameUser, delivered: true})}},
		{kind: syncNow, breaks: []interrupt{
			afterCall(0, op{kind: silent, n: 4, user: sameUser, delivered: true, proc: 1}),
		}},
		{kind: syncNow, breaks: []interrupt{
			afterCall(0, op{kind: deleteUser, user: sameUser, delivered: true, proc: 1}),
		}},
		{kind: visit}, {kind: visit, proc: 1},
		// A change between Clerk's answer and its arrival is not in the answer.
		{kind: syncNow, user: 1, breaks: []interrupt{
			afterCall(0, op{kind: silent, n: 4, user: sameUser, d: 2 * time.Second}),
		}},
	}},
	{name: "InvalidationDuringALoad", happened: invalidatedLoad, ops: []op{
		{kind: deliverAll}, {kind: restart},
		{kind: visit, breaks: []interrupt{afterCall(0, op{kind: update, user: sameUser, delivered: true})}},
		{kind: visit}, {kind: restart},
		{kind: visit, breaks: []interrupt{
			afterCall(0, op{kind: editApp, user: sameUser, n: 1}),
			afterCall(0, op{kind: forget, user: sameUser}),
		}},
		{kind: visit}, {kind: restart},
		{kind: visit, breaks: []interrupt{afterCall(0, op{kind: deleteUser, user: sameUser, delivered: true})}},
		{kind: visit},
	}},
	{name: "OldWebhookAfterALostNewerOne", happened: oldAfterLost, ops: []op{
		{kind: deliverAll}, {kind: update}, {kind: pass, d: time.Second}, {kind: update, n: 4},
		{kind: dropHook, n: 1}, {kind: visit}, {kind: pass, d: 2 * time.Hour},
		{kind: visit}, {kind: deliverAny}, {kind: visit},
		{kind: pass, d: 80 * time.Hour}, {kind: replayHook, n: 1},
	}},
	{name: "BanWhoseLiftingWasLost", happened: banLiftingLost, ops: []op{
		{kind: deliverAll}, {kind: visit}, {kind: ban}, {kind: deliverAll}, {kind: visit},
		{kind: unban, flag: true}, {kind: visit}, {kind: pass, d: 61 * time.Second}, {kind: visit},
	}},
	{name: "SuspendedUserDeletedInClerk", happened: suspendedDeleted, ops: []op{
		{kind: deliverAll}, {kind: visit}, {kind: suspend}, {kind: deleteUser},
		{kind: deliverAll}, {kind: visit}, {kind: replayHook, n: 1},
		{kind: suspend, user: 1}, {kind: deleteUser, user: 1, flag: true}, // Reconcile finds it
	}},
	{name: "TwoUpdatesInASecondUnderAClaimInSeconds", happened: twoInASecond, ops: []op{
		{kind: deliverAll}, {kind: pass, d: 3 * time.Second}, {kind: update},
		{kind: deliverAll}, {kind: visit, claim: claimSeconds},
		{kind: pass, d: 10 * time.Millisecond}, {kind: update, n: 4}, {kind: dropHook},
		{kind: visit, claim: claimSeconds}, {kind: quiet, n: 24 + 32},
		{kind: visit, claim: claimSeconds},
	}},
	{name: "TokenOlderThanTheRecord", happened: endingClaims, ops: []op{
		{kind: deliverAll}, {kind: update}, {kind: deliverAll},
		{kind: pass, d: time.Second}, {kind: update, n: 4}, {kind: dropHook},
		{kind: quiet, n: 26},
	}},
	{name: "FirstWaiterLeaves", happened: firstWaiterLeaves, ops: []op{
		{kind: visit, breaks: []interrupt{
			beforeCall(1, op{kind: visit, user: sameUser}),
			beforeCall(1, op{kind: leave}),
		}},
		{kind: visit},
		{kind: visit, user: 1, breaks: []interrupt{beforeCall(0, op{kind: leave})}}, // nobody else waits
		{kind: visit, user: 1},
	}},
	{name: "ClockAhead", happened: clockAhead, kind: 4, ops: []op{
		{kind: visit, proc: 1}, {kind: silent}, {kind: pass, d: time.Second},
		{kind: syncNow}, {kind: visit}, {kind: pass, d: 61 * time.Second}, {kind: visit},
		{kind: deliverAll},
		{kind: update}, {kind: deliverAll, proc: 1}, {kind: syncNow, proc: 1}, {kind: visit},
	}},
	{name: "NotFoundFromAProxy", happened: proxysNotFound, ops: []op{
		{kind: visit, breaks: []interrupt{{call: 1, fault: proxy404Fault}}}, {kind: visit},
		{kind: syncNow, breaks: []interrupt{{call: 0, fault: proxy404Fault}}},
		{kind: reconcile, n: 32 + 64, breaks: []interrupt{{call: 0, fault: proxy404Fault, repeat: 40}}},
	}},
	{name: "NewAccountWithTheSameEmail", happened: sameEmail, ops: []op{
		{kind: visit}, {kind: deleteUser}, {kind: signUpAgain}, {kind: deliverAny, user: 1},
		{kind: deliverAny, user: 1}, {kind: visit},
		{kind: deleteUser, flag: true}, {kind: signUpAgain}, {kind: visit}, // nobody is told of the deletion
	}},
	{name: "EmailOfADeletedRecord", happened: emailGivenUp, ops: []op{
		{kind: deliverAll}, {kind: visit}, {kind: deleteUser}, {kind: deliverAll},
		{kind: signUpAgain}, {kind: deliverAll}, {kind: visit},
		{kind: deleteUser}, {kind: deliverAll}, {kind: signUpAgain}, {kind: dropHook},
		{kind: reconcile, n: 32 + 64}, {kind: visit}, // written by the batch
	}},
	{name: "EmailInUse", happened: emailConflict, ops: []op{
		{kind: deliverAll}, {kind: deleteUser}, {kind: signUpAgain}, {kind: visit},
		{kind: syncNow}, {kind: deliverAny},
		{kind: deliverAny, user: 1}, {kind: visit}, // the address is free
	}},
	{name: "AddressesExchanged", happened: exchanged, ops: []op{
		{kind: deliverAll}, {kind: exchange, flag: true}, {kind: pass, d: time.Second},
		{kind: visit, claim: claimMillis}, {kind: visit, user: 2},
		{kind: exchange, n: 1}, {kind: deliverAny, user: 1}, {kind: visit}, {kind: visit, user: 1},
		{kind: exchange, flag: true}, {kind: pass, d: time.Hour}, {kind: syncNow}, {kind: visit, user: 2},
		{kind: exchange, flag: true}, {kind: exchange, n: 1, flag: true}, {kind: reconcile, n: 32 + 64},
	}},
	{name: "RecordErased", happened: erased, ops: []op{
		{kind: deliverAll}, {kind: signIn}, {kind: update, n: 11}, {kind: editApp, n: 5},
		{kind: deliverAll},
		{kind: deleteUser}, {kind: deliverAll}, {kind: visit}, {kind: replayHook, n: 1},
		{kind: deleteUser, user: 1, flag: true}, // Reconcile finds it
	}},
	{name: "RoleFromClerkOverwritesAnEdit", happened: roleOverEdit, kind: 16, ops: []op{
		{kind: deliverAll}, {kind: editApp, n: 5}, {kind: update, n: 11},
		{kind: deliverAll}, {kind: visit},
		{kind: editApp, n: 5}, {kind: syncNow}, {kind: visit}, // at the same version
		{kind: editApp, n: 5}, {kind: replayHook, n: 1}, {kind: visit}, // an ending finds it
	}},
	{name: "EditedRoleSurvivesASyncWithoutOne", happened: editOverSync, kind: 16, ops: []op{
		{kind: deliverAll}, {kind: update, n: 11}, {kind: deliverAll},
		{kind: update, n: 12}, {kind: deliverAll}, // Clerk has no role any more
		{kind: visit}, {kind: editApp, n: 5}, {kind: update}, {kind: deliverAll},
		{kind: visit}, {kind: syncNow}, {kind: visit},
	}},
	{name: "AdoptedByExternalID", happened: adoptedByID, legacy: true, ops: []op{ // the oldest user is named
		{kind: visit, user: 2, breaks: []interrupt{beforeCall(2, op{kind: deliverAny, user: sameUser, proc: 1})}},
		{kind: deliverAll}, {kind: visit, user: 2, proc: 1}, {kind: update, user: 2, n: 5}, {kind: deliverAll},
	}},
	{name: "AdoptedByAddress", happened: adoptedByEmail, legacy: true, ops: []op{
		{kind: deliverAny, user: 1, breaks: []interrupt{{call: 0, fault: 2}}}, {kind: visit, user: 1, proc: 1},
		{kind: reconcile, n: 32 + 64}, {kind: visit, user: 1},
	}},
	{name: "ProofThatOnlyTheAPIHas", happened: adoptedByEmail, kind: 3, legacy: true, ops: []op{
		{kind: deliverAny, user: 2}, {kind: visit, user: 2},
	}},
	{name: "HeldBackUntilProven", happened: unlinkedUser, legacy: true, ops: []op{ // the youngest is an administrator's
		{kind: deliverAny}, {kind: visit}, {kind: syncNow}, {kind: reconcile, n: 32 + 64}, {kind: visit, user: 1},
		{kind: update, n: 16}, {kind: update, n: 16}, {kind: dropHook}, {kind: dropHook}, {kind: visit},
		{kind: pass, d: 61 * time.Second}, {kind: visit}, {kind: deliverAll},
	}},
	{name: "ExternalIDOfADeletedUser", happened: namedAnothers, legacy: true, ops: []op{
		{kind: deliverAll}, {kind: deleteUser, user: 2}, {kind: deliverAll},
		{kind: signUpAgain}, {kind: deliverAny}, {kind: visit}, {kind: syncNow}, {kind: reconcile, n: 32 + 64},
	}},
	{name: "DeletedBeforeTheFirstSync", happened: legacyTombstone, legacy: true, ops: []op{
		{kind: dropHook, user: 2}, {kind: deleteUser, user: 2}, {kind: deliverAll}, {kind: visit, user: 2},
	}},
	{name: "ExternalIDAfterHeldBack", happened: adoptedByID, kind: 7, legacy: true, ops: []op{
		{kind: deliverAny, user: 2}, {kind: visit, user: 2}, {kind: update, user: 2, n: 17}, {kind: deliverAll},
		{kind: visit, user: 2},
	}},
	{name: "DeadAfterTheClaim", happened: diedClaimed, ops: []op{
		{kind: visit}, {kind: runJob, breaks: []interrupt{afterCall(claimCall, op{kind: kill})}},
		{kind: pass, d: lease}, {kind: drainJobs}, {kind: visit},
	}},
	{name: "DeadAfterTheEffect", happened: diedAfter, ops: []op{
		{kind: visit}, {kind: runJob, breaks: []interrupt{afterCall(functionCall, op{kind: kill})}},
		{kind: pass, d: lease + leaseGrace}, {kind: drainJobs}, {kind: deleteUser, delivered: true}, {kind: deliverAll}, {kind: kill},
	}},
	{name: "FunctionOutlivesItsLease", happened: outlived, ops: []op{
		{kind: visit}, {kind: runJob, breaks: []interrupt{
			{call: functionCall, fault: 1 + slices.Index(functionFaults, outlives)}, afterCall(functionCall, op{kind: drainJobs, proc: 1}),
		}},
	}},
	{name: "DeletedWhileOnCreateRuns", happened: deletedBy, ops: []op{
		{kind: visit}, {kind: runJob, breaks: []interrupt{
			beforeCall(functionCall, op{kind: deleteUser, user: sameUser, delivered: true}),
			beforeCall(functionCall, op{kind: drainJobs}), beforeCall(functionCall, op{kind: runJob}),
		}},
	}},
	{name: "DeletedBeforeOnCreate", happened: deadEarly, ops: []op{
		{kind: visit}, {kind: runJob, breaks: []interrupt{
			beforeCall(claimCall, op{kind: deleteUser, user: sameUser, delivered: true}),
		}},
	}},
	{name: "EndThatCannotBeWritten", happened: lostEnd, ops: []op{
		{kind: visit}, {kind: runJob, breaks: []interrupt{{call: functionCall + 1, fault: 4, repeat: 50}}},
		{kind: pass, d: lease}, {kind: drainJobs, breaks: []interrupt{{call: 2 + claimCall, fault: 1}}},
	}},
	{name: "RestoredBeforeOnDelete", happened: restoredBefore, kind: 16, ops: []op{ // with a DeleteDelay
		{kind: deliverAll}, {kind: mistake}, {kind: pass, d: 5 * time.Hour}, {kind: drainJobs}, {kind: visit},
	}},
	{name: "RestoredAfterOnDelete", happened: restoredAfter, ops: []op{
		{kind: deliverAll}, {kind: mistake, n: 1}, {kind: visit}, {kind: deleteUser}, {kind: deliverAll}, {kind: runJob},
	}},
	{name: "NotRestoredWhileOnDeleteRuns", happened: notRestored, kind: 16, ops: []op{
		{kind: deliverAll}, {kind: runJob}, {kind: runJob}, {kind: runJob},
		{kind: mistake, n: 3}, {kind: mistake, user: 1, n: 2}, {kind: visit},
	}},
	{name: "AwaitedByVisits", happened: pendingVisit, kind: 19, ops: []op{ // the first process has Await
		{kind: visit, proc: 1}, {kind: runJob, proc: 1, breaks: []interrupt{
			beforeCall(functionCall, op{kind: visit, user: sameUser}), afterCall(functionCall, op{kind: visit, user: sameUser}),
		}},
		{kind: visit}, {kind: visit, user: 1},
	}},
}

// The calls of a job in the background: it is read, claimed and run, and its end is written.
const (
	claimCall    = 1
	functionCall = 2
)

func beforeCall(call int, do op) interrupt { return interrupt{call: call, do: &do} }

func afterCall(call int, do op) interrupt { return interrupt{call: call, after: true, do: &do} }

// runScenario runs the operations, then both endings.
func runScenario(t *testing.T, newStore NewStore, opts Options, s scenario) {
	if !s.legacy {
		s.kind += plain
	}
	w := newWorld(t, newStore, opts, 1, s.kind)
	defer w.close()
	w.reliable = true
	for _, o := range s.ops {
		w.step(t, o)
	}
	w.step(t, op{kind: quiet, n: 16}) // by visits
	w.step(t, op{kind: quiet})        // by a Reconcile
	if w.counts.n[s.happened] == 0 {
		t.Errorf("the interleaving did not happen:\n%v\n%s", w.counts, w.story())
	}
}
