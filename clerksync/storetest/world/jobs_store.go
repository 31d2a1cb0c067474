package world

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// jobStore has the methods of a clerksync.JobStore, for the wrappers of a Store that is one.
type jobStore struct {
	s     *store
	inner clerksync.JobStore
}

type (
	jobBatchStore struct {
		batchStore
		jobStore
	}
	jobAdoptingStore struct {
		adoptingStore
		jobStore
	}
)

func (j jobStore) DeactivateOwing(
	ctx context.Context, id, externalID string, at, due time.Time,
) (res clerksync.Result, owing clerksync.Owing, err error) {
	if r := runOf(ctx); due.Before(r.start.Add(r.p.skew + r.p.delay)) {
		j.s.w.fail("the clean-up of %s is due at %v, and its DeleteDelay of %v began at %v", id, due, r.p.delay, r.start.Add(r.p.skew))
	}
	res, err = j.s.deactivate(ctx, id, func(ctx context.Context) (res clerksync.Result, err error) {
		before, _ := j.s.inner.User(ctx, id) // nil if there is none
		if res, owing, err = j.inner.DeactivateOwing(ctx, id, externalID, at, due); err == nil {
			j.s.w.deactivated(id, before, due, owing)
		}
		return res, err
	})
	return res, owing, err
}

// deactivated checks what a deletion owes: a job if there was a record that was not deleted.
func (w *world) deactivated(id string, before *clerksync.User, due time.Time, owing clerksync.Owing) {
	u := w.byID[id]
	after, err := w.store.inner.User(context.Background(), id)
	if u == nil || err != nil {
		return // see store.note
	}
	want := clerksync.OwesNone
	if before != nil && before.DeletedAt.IsZero() || before == nil && w.isLegacy(after.ID) {
		want = clerksync.OwesJob
		if j := w.jobs[createKey(id)]; j != nil && slices.ContainsFunc(j.claims, func(c *claimed) bool { return c.called && !c.returned }) {
			w.counts.add(deletedBy)
		}
		w.owe(deleteKey(id, after.DeletedAt), u, clerksync.JobDelete)
	}
	// A Store may take such a job for its own, whose answer was lost.
	again := want == clerksync.OwesNone && before != nil && ms(before.Jobs.Of(clerksync.JobDelete).Due) == ms(due) && owing == clerksync.OwesJob
	if owing != want && !again {
		w.fail("the deletion of %s owes %v, want %v: before, the record was %+v", id, owing, want, before)
	}
}

func (j jobStore) ChangeJob(ctx context.Context, c clerksync.JobChange) (changed bool, err error) {
	w, r := j.s.w, runOf(ctx)
	before, _ := j.s.inner.User(context.Background(), c.ClerkID)
	if job := w.jobOf(c); job != nil && c.EndsAttempt() {
		if own := job.claimBy(r, c.From.Attempt); own != nil {
			own.ending = true
			defer func() { own.ending = false }()
		}
	}
	fault := j.s.call(ctx, "ChangeJob", func(ctx context.Context) error {
		w.endIsLate(r, c)
		if changed, err = j.inner.ChangeJob(ctx, c); changed {
			w.changedJob(r, before, c)
			w.ending = w.jobOf(c)
			j.s.note(c.ClerkID, false)
			w.ending = nil
		}
		return err
	})
	if fault != nil {
		w.excuse(r, c, "the Store failed")
	}
	if r.p.dead { // it does not try again
		return false, fmt.Errorf("%w: %w", clerksync.ErrRejected, errDied)
	}
	return changed && fault == nil, fault
}

// DueJobs returns the jobs in an order that is the same in each run.
func (j jobStore) DueJobs(ctx context.Context, kind clerksync.JobKind, by time.Time, limit int) (due []clerksync.JobEntry, err error) {
	fault := j.s.call(ctx, "", func(ctx context.Context) error {
		due, err = j.inner.DueJobs(ctx, kind, by, limit)
		return err
	})
	if fault != nil {
		return nil, fault
	}
	slices.SortFunc(due, func(a, b clerksync.JobEntry) int { return strings.Compare(a.ClerkID, b.ClerkID) })
	return due, nil
}

func (j jobStore) Jobs(ctx context.Context) iter.Seq2[clerksync.JobEntry, error] {
	return j.inner.Jobs(ctx)
}

// PrepareJobs never fails: a lookup that waited for the job goes on meanwhile.
func (j jobStore) PrepareJobs(ctx context.Context, kind clerksync.JobKind) error {
	return j.inner.PrepareJobs(ctx, kind)
}

// jobOf returns the job that a change is about.
func (w *world) jobOf(c clerksync.JobChange) *job {
	if c.Kind == clerksync.JobDelete {
		return w.jobs[deleteKey(c.ClerkID, c.From.DeletedAt)]
	}
	return w.jobs[createKey(c.ClerkID)]
}

// claimBy returns the claim of attempt by a run, nil if it has none.
func (j *job) claimBy(r *run, attempt int) *claimed {
	i := slices.IndexFunc(j.claims, func(c *claimed) bool { return c.by == r && c.attempt == attempt })
	if i < 0 {
		return nil
	}
	return j.claims[i]
}

// excuse notes why the end of a run's attempt need not have been written.
func (w *world) excuse(r *run, c clerksync.JobChange, why string) {
	j := w.jobOf(c)
	if j == nil {
		return
	}
	if own := j.claimBy(r, max(c.From.Attempt, c.To.Attempt)); own != nil && !own.ended {
		own.excuse = why
		w.counts.add(lostEnd)
	}
}

// endIsLate excuses an end that comes after the lease.
func (w *world) endIsLate(r *run, c clerksync.JobChange) {
	j := w.jobOf(c)
	if j == nil || !c.EndsAttempt() {
		return
	}
	if own := j.claimBy(r, c.From.Attempt); own != nil && w.clock.Now().Sub(own.at) >= lease {
		own.excuse = "it came after the lease"
	}
}

// died excuses what a process that has died leaves behind.
func (w *world) died(p *process) {
	for _, j := range w.jobs {
		for _, c := range j.claims {
			if c.p == p && !c.ended && j.over == "" {
				c.excuse = "the process died"
				w.counts.add(diedClaimed)
			}
		}
	}
}

// changedJob checks a new state of a job. before is the record as it was.
func (w *world) changedJob(r *run, before *clerksync.User, c clerksync.JobChange) {
	j := w.jobOf(c)
	if j == nil {
		w.fail("a job of %s that nobody owes is changed: %+v", c.ClerkID, c)
		return
	}
	wanted := before.DeletedAt.IsZero()
	if j.kind == clerksync.JobDelete {
		wanted = before.DeletedAt.Equal(c.From.DeletedAt)
	}
	switch own := j.claimBy(r, c.From.Attempt); {
	case own != nil && own.ended && c.EndsAttempt() && own.end == c.To: // it was written again: the answer was lost
	case j.over != "":
		w.fail("%s is changed to %+v, and %s", j.key, c.To, j.over)
	case c.To.Token != "":
		w.claimed(r, j, c, wanted)
	case c.To == clerksync.JobState{}:
		j.over = gone
		if j.kind == clerksync.JobCreate {
			w.counts.add(deadEarly)
		}
		if wanted {
			w.fail("%s is dropped, and the record was deleted at %v", j.key, before.DeletedAt)
		}
	case c.To.Code == "unended":
		w.unended(j, c)
	default:
		w.endedAttempt(r, j, c)
	}
	if j.over != "" && j.overAt == 0 {
		w.counts.add("job: " + j.over)
		w.seq++
		j.overAt = w.seq
	}
}

// claimed checks a claim. If an attempt before has not ended, its lease is over, and there is a
// reason why its end is not written.
func (w *world) claimed(r *run, j *job, c clerksync.JobChange, wanted bool) {
	now := w.clock.Now()
	switch n := len(j.claims); {
	case c.To.Attempt != n+1 || c.To.Attempt > maxAttempts:
		w.fail("attempt %d of %s follows %d", c.To.Attempt, j.key, n)
	case !wanted:
		w.fail("%s is claimed for a record that is not in the state for it", j.key)
	case now.Add(r.p.skew).Before(c.From.Due):
		w.fail("%s is claimed by a process before it is due at %v", j.key, c.From.Due)
	case n > 0 && !j.claims[n-1].ended:
		w.checkUnended(j)
	}
	j.claims = append(j.claims, &claimed{by: r, p: r.p, attempt: c.To.Attempt, at: now})
}

// checkUnended checks that the last attempt, which has not ended, may be over.
func (w *world) checkUnended(j *job) {
	last := j.claims[len(j.claims)-1]
	if w.keepsLeases() && w.clock.Now().Before(last.at.Add(lease)) {
		w.fail("the lease of %s is ignored: %+v", j.key, last)
	}
	if last.called && !last.returned && last.excuse == "" {
		last.excuse = "it took longer than its lease"
		w.counts.add(outlived)
	}
	if last.excuse == "" && !last.ending && w.keepsLeases() {
		w.fail("the end of an attempt of %s is missing: %+v", j.key, last)
	}
}

// unended checks that a job has failed because its last attempt has not ended.
func (w *world) unended(j *job, c clerksync.JobChange) {
	j.over = failed
	if len(j.claims) != maxAttempts || c.To.Attempt != maxAttempts {
		w.fail("%s has failed after %d of %d attempts", j.key, len(j.claims), maxAttempts)
		return
	}
	w.checkUnended(j)
}

// endedAttempt checks that the end of an attempt is what its function asked for.
func (w *world) endedAttempt(r *run, j *job, c clerksync.JobChange) {
	own := j.claimBy(r, c.From.Attempt)
	isLate := own != nil && !own.called && c.To.Code == "timeout" // the lease was over before the call
	if isLate {
		own.result, own.called, own.returned = context.DeadlineExceeded, true, true
	}
	if own == nil || own != j.claims[len(j.claims)-1] || !own.returned {
		w.fail("the end of an attempt of %s is written by another, or before the function returned: %+v", j.key, own)
		return
	}
	own.ended, own.end = true, c.To
	after := c.To.Due.Sub(own.at.Add(r.p.skew)) // the write may have taken a while
	var right bool
	switch {
	case own.result == nil:
		j.over = succeeded
		right = c.To == clerksync.JobState{Attempt: own.attempt, DeletedAt: c.From.DeletedAt}
	case errors.Is(own.result, errDiscarded):
		j.over = discarded
		right = c.To == clerksync.JobState{Attempt: own.attempt, DeletedAt: c.From.DeletedAt, Code: "discarded"}
	case own.attempt == maxAttempts:
		j.over = failed
		right = c.To.Due.IsZero() && !c.To.FailedAt.IsZero() && c.To.Code != ""
	default:
		right = after > 0 && c.To.FailedAt.IsZero() && c.To.Code != ""
	}
	if !right || c.To.Attempt != own.attempt || !c.To.DeletedAt.Equal(c.From.DeletedAt) {
		w.fail("the function's error for %s was %v, and the job is %+v", j.key, own.result, c.To)
	}
}
