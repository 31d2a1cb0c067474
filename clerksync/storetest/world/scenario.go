package world

import (
	"testing"
	"time"
)

// scenario is one of the interleavings by itself, the shortest way into it. Both endings
// follow. It is run where what happens in it can.
type scenario struct {
	name     string
	happened string // what must have been counted
	kind     int    // of world
	ops      []op
}

// The proxy's 404 among the faults.
const proxy404Fault = 2

var scenarios = []scenario{
	{name: "EqualVersionWithOtherContent", happened: equalVersion, ops: []op{
		{kind: deliverAll}, {kind: visit},
		{kind: silent}, {kind: deliverAny}, // by its webhook
		{kind: silent, n: 4}, {kind: dropHook}, // by a read, its webhook lost
	}},
	{name: "ReadFromClerkRacesAWebhook", happened: readRacesWebhook, ops: []op{
		{kind: dropHook},
		{kind: visit, breaks: []interrupt{{call: 1, after: true, do: &op{kind: update, user: sameUser, lands: true}}}},
		{kind: syncNow, breaks: []interrupt{{call: 0, after: true, do: &op{kind: silent, n: 4, user: sameUser, lands: true, proc: 1}}}},
		{kind: syncNow, breaks: []interrupt{{call: 0, after: true, do: &op{kind: deleteUser, user: sameUser, lands: true, proc: 1}}}},
		{kind: visit}, {kind: visit, proc: 1},
		// A change that comes between Clerk's answer and its arrival is not in it.
		{kind: syncNow, user: 1, breaks: []interrupt{{call: 0, after: true, do: &op{kind: silent, n: 4, user: sameUser, d: 2 * time.Second}}}},
	}},
	{name: "InvalidationDuringALoad", happened: invalidatedLoad, ops: []op{
		{kind: deliverAll}, {kind: restart},
		{kind: visit, breaks: []interrupt{{call: 0, after: true, do: &op{kind: update, user: sameUser, lands: true}}}},
		{kind: visit}, {kind: restart},
		{kind: visit, breaks: []interrupt{
			{call: 0, after: true, do: &op{kind: editApp, user: sameUser, n: 1}},
			{call: 0, after: true, do: &op{kind: forget, user: sameUser}},
		}},
		{kind: visit}, {kind: restart},
		{kind: visit, breaks: []interrupt{{call: 0, after: true, do: &op{kind: deleteUser, user: sameUser, lands: true}}}},
		{kind: visit},
	}},
	{name: "OldWebhookAfterALostNewerOne", happened: oldAfterLost, ops: []op{
		{kind: deliverAll}, {kind: update}, {kind: pass, d: time.Second}, {kind: update, n: 4},
		{kind: dropHook, n: 1}, {kind: visit}, {kind: pass, d: 2 * time.Hour}, {kind: visit}, {kind: deliverAny}, {kind: visit},
		{kind: pass, d: 80 * time.Hour}, {kind: replayHook, n: 1},
	}},
	{name: "BanWhoseLiftingWasLost", happened: banLiftingLost, ops: []op{
		{kind: deliverAll}, {kind: visit}, {kind: ban}, {kind: deliverAll}, {kind: visit},
		{kind: unban, flag: true}, {kind: visit}, {kind: pass, d: 61 * time.Second}, {kind: visit},
	}},
	{name: "SuspendedUserDeletedInClerk", happened: suspendedDeleted, ops: []op{
		{kind: deliverAll}, {kind: visit}, {kind: suspend}, {kind: deleteUser}, {kind: deliverAll}, {kind: visit}, {kind: replayHook, n: 1},
		{kind: suspend, user: 1}, {kind: deleteUser, user: 1, flag: true}, // for Reconcile to find
	}},
	{name: "TwoUpdatesInASecondUnderAClaimInSeconds", happened: twoInASecond, ops: []op{
		{kind: deliverAll}, {kind: pass, d: 3 * time.Second}, {kind: update}, {kind: deliverAll}, {kind: visit, claim: claimSeconds},
		{kind: pass, d: 10 * time.Millisecond}, {kind: update, n: 4}, {kind: dropHook},
		{kind: visit, claim: claimSeconds}, {kind: quiet, n: 24 + 32}, {kind: visit, claim: claimSeconds},
	}},
	{name: "TokenOlderThanTheRecord", happened: endingClaims, ops: []op{
		{kind: deliverAll}, {kind: update}, {kind: deliverAll}, {kind: pass, d: time.Second}, {kind: update, n: 4}, {kind: dropHook}, {kind: quiet, n: 26},
	}},
	{name: "FirstWaiterLeaves", happened: firstWaiterLeaves, ops: []op{
		{kind: visit, breaks: []interrupt{
			{call: 1, do: &op{kind: visit, user: sameUser}},
			{call: 1, do: &op{kind: leave}},
		}},
		{kind: visit},
		{kind: visit, user: 1, breaks: []interrupt{{call: 0, do: &op{kind: leave}}}}, // nobody stays
		{kind: visit, user: 1},
	}},
	{name: "ClockAhead", happened: clockAhead, kind: 4, ops: []op{
		{kind: visit, proc: 1}, {kind: silent}, {kind: pass, d: time.Second}, {kind: syncNow}, {kind: visit}, {kind: pass, d: 61 * time.Second}, {kind: visit}, {kind: deliverAll},
		{kind: update}, {kind: deliverAll, proc: 1}, {kind: syncNow, proc: 1}, {kind: visit},
	}},
	{name: "NotFoundFromAProxy", happened: proxysNotFound, ops: []op{
		{kind: visit, breaks: []interrupt{{call: 1, fault: proxy404Fault}}}, {kind: visit},
		{kind: syncNow, breaks: []interrupt{{call: 0, fault: proxy404Fault}}},
		{kind: reconcile, n: 32 + 64, breaks: []interrupt{{call: 0, fault: proxy404Fault, repeat: 40}}},
	}},
	{name: "AccountMadeAnewWithTheSameEmail", happened: madeAnew, ops: []op{
		{kind: visit}, {kind: deleteUser}, {kind: makeAnew}, {kind: deliverAny, user: 1}, {kind: deliverAny, user: 1}, {kind: visit},
		{kind: deleteUser, flag: true}, {kind: makeAnew}, {kind: visit}, // whose deletion nobody hears of
	}},
	{name: "EmailOfADeletedRecord", happened: emailGivenUp, ops: []op{
		{kind: deliverAll}, {kind: visit}, {kind: deleteUser}, {kind: deliverAll}, {kind: makeAnew}, {kind: deliverAll}, {kind: visit},
		{kind: deleteUser}, {kind: deliverAll}, {kind: makeAnew}, {kind: dropHook}, {kind: reconcile, n: 32 + 64}, {kind: visit}, // by the batch
	}},
	{name: "EmailOfARecordInTheWay", happened: emailConflict, ops: []op{
		{kind: deliverAll}, {kind: deleteUser}, {kind: makeAnew}, {kind: visit}, {kind: syncNow}, {kind: deliverAny},
		{kind: deliverAny, user: 1}, {kind: visit}, // the way is free
	}},
	{name: "RecordErased", happened: erased, ops: []op{
		{kind: deliverAll}, {kind: signIn}, {kind: update, n: 11}, {kind: editApp, n: 5}, {kind: deliverAll},
		{kind: deleteUser}, {kind: deliverAll}, {kind: visit}, {kind: replayHook, n: 1},
		{kind: deleteUser, user: 1, flag: true}, // for Reconcile to find
	}},
	{name: "RoleOfClerksOverAnEdit", happened: roleOverEdit, kind: 16, ops: []op{
		{kind: deliverAll}, {kind: editApp, n: 5}, {kind: update, n: 11}, {kind: deliverAll}, {kind: visit},
		{kind: editApp, n: 5}, {kind: syncNow}, {kind: visit}, // at the same version
		{kind: editApp, n: 5}, {kind: replayHook, n: 1}, {kind: visit}, // for an ending to find
	}},
	{name: "EditOfARoleThatClerkHasNotOutlivesASync", happened: editOverSync, kind: 16, ops: []op{
		{kind: deliverAll}, {kind: update, n: 11}, {kind: deliverAll}, {kind: update, n: 12}, {kind: deliverAll}, // Clerk gives it up
		{kind: visit}, {kind: editApp, n: 5}, {kind: update}, {kind: deliverAll}, {kind: visit}, {kind: syncNow}, {kind: visit},
	}},
}

func runScenario(t *testing.T, newStore NewStore, opts Options, s scenario) {
	w := newWorld(t, newStore, opts, 1, s.kind)
	defer w.close()
	for _, o := range s.ops {
		w.step(t, o)
	}
	w.step(t, op{kind: quiet, n: 16})
	w.step(t, op{kind: quiet})
	if w.counts.n[s.happened] == 0 {
		t.Errorf("it did not happen:\n%v\n%s", w.counts, w.story())
	}
}
