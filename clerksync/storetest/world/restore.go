package world

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// When a deletion was taken back.
const (
	restoredBefore = "restore: before OnDelete is called"
	restoredAfter  = "restore: after OnDelete was called"
	notRestored    = "restore: not while OnDelete is running"
)

// restorableAfter is how old a deletion must be.
const restorableAfter = time.Hour + time.Minute

// mistake is a deletion of a user whom Clerk has: a forged or misdirected event. It is taken back by a
// Reconcile with Restore, before OnDelete is called, after it, or at first while it is running.
func (w *world) mistake(o op, m moment) {
	s := m.u.last()
	if !w.able.restore || !m.u.lives() || s == nil || s.key.Deleted != 0 || w.opts.UniqueEmail || w.storeOutage.down || w.clerkOutage.down {
		return
	}
	u, p := m.u, m.p
	u.mistaken = true
	r := w.newRun(p, deliver, op{kind: deliver}, u, 0)
	event := clerksync.Event{Type: "user.deleted", Timestamp: w.clock.Now(), Data: fmt.Appendf(nil, `{"id":%q}`, u.id)}
	_, err := p.syncer.Apply(context.WithValue(context.Background(), runKey{}, r), event)
	w.must(err)
	w.invalidated(r)
	w.dropped(p, u, r.wroteAt)
	p.jobsArrived(p.runningJobs)
	w.clock.Advance(restorableAfter + w.disagreement())
	switch o.n % 4 {
	case 0:
	case 1:
		w.clock.Advance(deleteDelay)
		w.drainNow(op{kind: drainJobs}, m)
	case 2:
		w.clock.Advance(deleteDelay)
		w.runJob(op{kind: runJob, breaks: []interrupt{beforeCall(functionCall, op{kind: restore, user: sameUser, proc: o.proc + 1})}}, m)
	default:
		w.clock.Advance(deleteDelay)
		w.drainNow(op{kind: drainJobs, breaks: []interrupt{beforeCall(2+functionCall, op{kind: restore, proc: o.proc + 1})}}, m)
	}
	w.clock.Advance(lease + leaseGrace + w.disagreement()) // a process without OnDelete may have claimed it
	w.restore(op{kind: restore, proc: o.proc + 1}, moment{p: p, u: u})
	if last := u.last(); last.key.Deleted != 0 {
		w.fail("the deletion of %s was not taken back: %+v", u.id, last.key)
	}
	u.mistaken, u.app.Suspended = false, false
}

// restore is one Reconcile with Restore.
func (w *world) restore(o op, m moment) {
	opts := clerksync.ReconcileOptions{
		Restore: true, MaxDeactivations: -1, InstanceID: w.clerk.InstanceID(), RequestsPerSecond: math.Inf(1), Writers: 1,
	}
	m.p = w.procs[o.proc%len(w.procs)]
	report, _, err := w.runReconcile(o, m, opts, omission{})
	if err = w.excuses(err); err != nil {
		w.fail("a Reconcile with Restore failed: %v", err)
	}
	if wrong := report.CleanedUp.Count != w.cleanedUp; wrong && m.p.hooks.delete {
		w.fail("a Reconcile counts %d restored users whose OnDelete ran, and there are %d", report.CleanedUp.Count, w.cleanedUp)
	}
	w.cleanedUp = 0
}

// Restore implements clerksync.RestoreStore.
func (j jobStore) Restore(ctx context.Context, id string, before time.Time) (restored bool, err error) {
	inner, ok := j.inner.(clerksync.RestoreStore)
	if !ok {
		return false, errors.ErrUnsupported
	}
	w := j.s.w
	record, _ := j.s.inner.User(context.Background(), id)
	fault := j.s.call(ctx, "Restore", func(ctx context.Context) error {
		if restored, err = inner.Restore(ctx, id, before); record != nil {
			w.restored(record, restored)
		}
		return err
	})
	return restored && fault == nil, fault
}

// restored checks what a Restore did to a record and its delete job.
func (w *world) restored(record *clerksync.User, restored bool) {
	u, j := w.byID[record.ClerkID], w.deleteJob(record.ClerkID, ms(record.DeletedAt))
	running := j != nil && j.over == "" && len(j.claims) > 0 && !j.claims[len(j.claims)-1].ended &&
		w.clock.Now().Before(j.claims[len(j.claims)-1].at.Add(lease))
	switch {
	case running && w.keepsLeases():
		w.counts.add(notRestored)
		if restored {
			w.fail("the deletion of %s is taken back while OnDelete is running", u.id)
		}
	case !restored:
	case !u.mistaken:
		w.fail("the deletion of %s is taken back, and Clerk does not have the user", u.id)
	case u.cleanUp != nil && len(u.cleanUp.claims) > 0: // perhaps for an earlier deletion: this one owed none
		w.counts.add(restoredAfter)
		w.cleanedUp++
	default:
		w.counts.add(restoredBefore)
	}
	if restored && j != nil && j.over == "" {
		j.over = takenBack
	}
}
