package clerksync

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Report says what a [Syncer.Reconcile] found and did. In a dry run the counts say what a
// run that writes would have done.
type Report struct {
	// DryRun says that nothing was written.
	DryRun bool `json:"dryRun"`
	// Complete says that Clerk's list was read to its end, with at least 99 % of the users
	// that Clerk counts, and that Clerk was asked for the Store's records that were not in
	// it, except those that are too young (see HeldBack). Reason says why not.
	Complete bool   `json:"complete"`
	Reason   string `json:"reason,omitempty"`
	// Resume is the point at which an incomplete run ended, for [ReconcileOptions].Resume.
	// It is empty if resuming would save nothing.
	Resume string `json:"resume,omitempty"`

	// Seen counts the Clerk users that were compared, each once.
	Seen int `json:"seen"`
	// Unchanged counts users whose record was in step.
	Unchanged int `json:"unchanged"`
	// Created are users who did not have a record.
	Created Tally `json:"created"`
	// Adopted are users who were linked to a record that the app had before Clerk; see
	// [AdoptStore].
	Adopted Tally `json:"adopted"`
	// Updated are records that were older than Clerk or, in a run that compares whole
	// records, differed from it.
	Updated Tally `json:"updated"`
	// Stale are records that are newer than what Clerk had answered, because a webhook or a
	// visit came in between.
	Stale Tally `json:"stale"`
	// Ghosts are records, active or suspended, of users that Clerk does not have. Clerk was
	// asked for each by its id.
	Ghosts Tally `json:"ghosts"`
	// Deactivated are the Ghosts that were marked deleted.
	Deactivated Tally `json:"deactivated"`
	// Tombstoned are users whom Clerk has and whose record is marked deleted. A deletion is
	// final, so they stay as they are, unless [ReconcileOptions].Restore is set. A user who
	// was deleted while the run went on may be among them.
	Tombstoned Tally `json:"tombstoned"`
	// Restored are the Tombstoned that were restored.
	Restored Tally `json:"restored"`
	// CleanedUp are the Restored for whom [Config].OnDelete had been called, so that what
	// refers to their record may be gone. Only a run with OnDelete knows.
	CleanedUp Tally `json:"cleanedUp"`
	// Conflicts are users kept out by one of the app's unique indexes; see [ConflictError].
	// If they have a record, all its other fields are in step. If Clerk's users have exchanged
	// the value, the run moves it and does not count a conflict. A dry run counts only the
	// conflicts that an [AdoptStore] foresees for users without a record.
	Conflicts Tally `json:"conflicts"`
	// Unlinked are users who do not have a record and were not created, because a record
	// without a Clerk id has their e-mail address; see [ReconcileOptions].IgnoreUnlinked.
	Unlinked Tally `json:"unlinked"`
	// Failed are users whom the mapping or the Store rejected; the log says why. A ban, and
	// what else could be mapped, is written to the records that they have.
	Failed Tally `json:"failed"`
	// Unknown are records whose clerkId is not the id of a Clerk user. They are left alone.
	Unknown Tally `json:"unknown"`

	// HeldBack counts records that Clerk did not list and that are too young to ask Clerk
	// for; see [ReconcileOptions].Holdback.
	HeldBack int `json:"heldBack"`

	// Fields counts by path in how many of the Updated records a field differed. Only a run
	// that compares whole records knows; see [ReconcileOptions].Force.
	Fields map[string]int `json:"fields,omitempty"`

	// Duration is the time taken, by the Syncer's clock.
	Duration time.Duration `json:"duration"`
	// ClerkCalls counts the requests to Clerk, retries included; Throttled those that Clerk
	// answered 429.
	ClerkCalls int `json:"clerkCalls"`
	Throttled  int `json:"throttled"`
}

// InStep reports whether the run was complete, and found nothing that a writing run with
// the same options would change. Tombstoned and Unknown records are as they have to be.
func (r *Report) InStep() bool {
	toWrite := r.Created.Count + r.Adopted.Count + r.Updated.Count + r.Ghosts.Count + r.Restored.Count
	return r.Complete && toWrite == 0 && r.notWritten() == 0
}

// notWritten counts the users who were, or would be, left out.
func (r *Report) notWritten() int { return r.Conflicts.Count + r.Unlinked.Count + r.Failed.Count }

// unwritten returns an error if users were not written: a caller that looks at the error
// alone must learn of them.
func (r *reconcileRun) unwritten(report *Report) error {
	var errs []error
	if n := report.Conflicts.Count; n > 0 {
		conflict := cmp.Or(r.conflict, &ConflictError{})
		errs = append(errs, &unwrittenError{n, "in conflict with another record, on a field that a unique index allows only once", conflict})
	}
	if n := report.Unlinked.Count; n > 0 {
		errs = append(errs, &unwrittenError{n, "because a record without a Clerk id has the same email: " + legacyAdvice, ErrUnlinked})
	}
	if n := report.Failed.Count; n > 0 {
		errs = append(errs, &unwrittenError{n, "rejected by the mapping or the Store; the log says why", nil})
	}
	return errors.Join(errs...)
}

// unwrittenError says that a run did not write some users.
type unwrittenError struct {
	users int
	why   string
	cause error // may be nil
}

func (e *unwrittenError) Error() string {
	return fmt.Sprintf("clerksync: reconcile: users not written: %d, %s", e.users, e.why)
}

func (e *unwrittenError) Unwrap() error { return e.cause }

// Tally counts users and names the first of them.
type Tally struct {
	Count int `json:"count"`
	// IDs are the Clerk ids of the first hundred.
	IDs []string `json:"ids,omitempty"`
}

// maxTallyIDs bounds the size of a Report.
const maxTallyIDs = 100

func (t *Tally) add(id string) {
	t.Count++
	if id != "" && len(t.IDs) < maxTallyIDs {
		t.IDs = append(t.IDs, id)
	}
}

// tallies are the counts that have ids.
func (r *Report) tallies() []*Tally {
	return []*Tally{
		&r.Created, &r.Adopted, &r.Updated, &r.Stale, &r.Ghosts, &r.Deactivated, &r.Tombstoned,
		&r.Restored, &r.CleanedUp, &r.Conflicts, &r.Unlinked, &r.Failed, &r.Unknown,
	}
}

// add adds the counts of one page.
func (r *Report) add(page *Report) {
	r.Seen += page.Seen
	r.Unchanged += page.Unchanged
	of := page.tallies()
	for i, t := range r.tallies() {
		t.Count += of[i].Count
		t.IDs = append(t.IDs, of[i].IDs[:min(len(of[i].IDs), maxTallyIDs-len(t.IDs))]...)
	}
	for path, n := range page.Fields {
		if r.Fields == nil {
			r.Fields = make(map[string]int)
		}
		r.Fields[path] += n
	}
}

// clone returns a deep copy.
func (r *Report) clone() Report {
	c := *r
	for _, t := range c.tallies() {
		t.IDs = slices.Clone(t.IDs)
	}
	c.Fields = maps.Clone(r.Fields)
	return c
}

// Progress is how far a [Syncer.Reconcile] has come.
type Progress struct {
	// Phase is what the run is doing.
	Phase Phase
	// Done of Total are the users listed in PhaseUsers, and the records looked at in
	// PhaseGhosts. Total is an estimate that Done may exceed.
	Done, Total int
	// Report is what the run found so far, with the point to resume from if it ends now.
	Report Report
	// Throttled says until when the run waits because Clerk asked it to; zero if it does
	// not wait.
	Throttled time.Time
}

// Phase is a part of a Reconcile.
type Phase string

// The phases, in their order.
const (
	PhaseUsers  Phase = "users"  // Clerk's users are compared with the Store's records
	PhaseGhosts Phase = "ghosts" // records of users that Clerk does not have are looked for
	PhaseDone   Phase = "done"
)
