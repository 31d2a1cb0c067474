package clerksync

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// JobStore is a [Store] that can keep jobs: what is to be done once for a user. It is optional;
// only [Config].OnCreate and OnDelete need it.
//
// A record has at most one job of each [JobKind]. A job is owed by the write that creates or
// deletes the record, so that no crash separates the two:
//
//   - An Upsert, or an UpsertBatch, of a user with CreateDue owes a create job if it creates the
//     record: the job's Due is CreateDue. That is all it does. It owes none if it adopts a
//     record, updates one or finds it unchanged.
//   - DeactivateOwing owes a delete job.
//
// The records that User, Users, Upsert and UpsertBatch return have the state of their jobs in
// [User].Jobs. What is there that cannot be a job counts as none. No other method changes a job,
// except Restore ([RestoreStore]): it takes a delete job back, see there.
//
// The Syncer decides what becomes of a job, by its own clock, and the Store compares and writes.
// So each method takes the times that it needs, and all of them are idempotent.
type JobStore interface {
	Store

	// DeactivateOwing is Deactivate, or DeactivateExternal ([AdoptStore]) if externalID is not
	// empty and the Store adopts, and the deletion owes a delete job: its Due is due, and its
	// DeletedAt that of the record. An earlier delete job of the record is replaced.
	//
	// It owes none if there was no record and the call leaves a tombstone, or if the record was
	// already deleted. If the database cannot hold the job, because something else
	// is in its place, the deletion is written without it.
	//
	// A Store that erases deleted records does not erase this one before its job ends; see
	// ChangeJob. If no job is owed, it erases at once.
	DeactivateOwing(ctx context.Context, clerkID, externalID string, at, due time.Time) (Result, Owing, error)

	// ChangeJob replaces the state of a job, if it is still as c says. It reports whether the
	// job has the new state by this call.
	//
	// A Store that erases deleted records erases the record in the same write if the record is
	// deleted and the change ends its delete job: To has no Due.
	ChangeJob(ctx context.Context, c JobChange) (bool, error)

	// DueJobs returns up to limit jobs of a kind whose Due is not after by, in any order. It
	// leaves out the delete jobs of records whose create job is running: it has a Token, and a
	// Due after by.
	DueJobs(ctx context.Context, kind JobKind, by time.Time, limit int) ([]JobEntry, error)

	// Jobs yields all jobs that are owed, with any Due, and those that have failed, in any
	// order. It may read the whole database: it is for operators. After an error it stops, and
	// only starting over yields the rest.
	Jobs(ctx context.Context) iter.Seq2[JobEntry, error]

	// PrepareJobs makes what DueJobs needs to be quick, such as an index. It is called before
	// the first DueJobs of a process, and after its first write that owes a job of this kind.
	// If it fails, the other methods work all the same.
	PrepareJobs(ctx context.Context, kind JobKind) error
}

// JobKind is what a job is for.
type JobKind string

// The kinds of jobs.
const (
	JobCreate JobKind = "create" // Config.OnCreate
	JobDelete JobKind = "delete" // Config.OnDelete
)

// JobState is the state of a job as a record has it. The zero JobState is none.
//
//	waiting    Due is when it may be claimed
//	running    Token is that of the attempt, Due when somebody else may claim the job
//	failed     FailedAt is set, and Due is zero
//	ended      Due and FailedAt are zero, and Attempt is not, or Code is set
type JobState struct {
	// Due is zero for a job that is not owed any more. Times are kept in milliseconds.
	Due time.Time
	// Attempt is how many attempts were made, the running one included.
	Attempt int
	// Token is of the attempt that is running; each has another one.
	Token string
	// FailedAt is when the job failed for good.
	FailedAt time.Time
	// Code says how the last attempt went wrong, in a word; empty if none did.
	Code string
	// DeletedAt is the record's DeletedAt for which a delete job is owed. A delete job without
	// it is for any.
	DeletedAt time.Time
}

// Jobs are the states of a record's jobs.
type Jobs struct {
	Create, Delete JobState
}

// Of returns the state of one job; the zero JobState if there is none. j may be nil.
func (j *Jobs) Of(kind JobKind) JobState {
	switch {
	case j == nil:
		return JobState{}
	case kind == JobDelete:
		return j.Delete
	}
	return j.Create
}

// JobEntry is a job of a user.
type JobEntry struct {
	ClerkID string
	Kind    JobKind
	State   JobState
}

// JobChange replaces the state of one job.
type JobChange struct {
	ClerkID string
	Kind    JobKind
	// From is the state that the job must still have. All its fields are compared.
	From JobState
	// DeletedAt is that of the record as it was read, zero if it was not deleted: that must
	// not have changed either. It has no effect on the end of an attempt, whose From has a
	// Token that no other state has, and whose To has none.
	DeletedAt time.Time
	// To is the new state. The zero JobState removes the job.
	To JobState
}

// Ends reports whether the change ends the job.
func (c JobChange) Ends() bool { return c.To.Due.IsZero() }

// EndsAttempt reports whether the change is the end of an attempt.
func (c JobChange) EndsAttempt() bool { return c.From.Token != "" && c.To.Token == "" }

// Owing says whether a deletion owes a job.
type Owing int

const (
	// OwesNone means that there was no record, or that it was deleted before.
	OwesNone Owing = iota
	// OwesJob means that the record owes the job that the call asked for.
	OwesJob
	// OwesNoRoom means that something else is in the place of the job, so that the deletion was
	// written without it.
	OwesNoRoom
)

// String returns the name of o in lower case.
func (o Owing) String() string {
	names := [...]string{"none", "job", "no room"}
	if o < 0 || int(o) >= len(names) {
		return fmt.Sprintf("Owing(%d)", int(o))
	}
	return names[o]
}

// clone returns a copy with the precision of Stores; nil for nil and for no job.
func (j *Jobs) clone() *Jobs {
	if j == nil || *j == (Jobs{}) {
		return nil
	}
	c := *j
	for _, state := range []*JobState{&c.Create, &c.Delete} {
		*state = state.Canonical()
	}
	return &c
}

// Canonical returns the state with times in UTC and in milliseconds, as Stores keep them.
func (j JobState) Canonical() JobState {
	j.Due, j.FailedAt, j.DeletedAt = canonicalTime(j.Due), canonicalTime(j.FailedAt), canonicalTime(j.DeletedAt)
	return j
}
