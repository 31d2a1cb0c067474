package cli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

const (
	// jobsTimeout bounds a whole run, which may read every record.
	jobsTimeout = 30 * time.Minute
	// maxJobsChanged bounds how many jobs one run changes, and the memory for them.
	maxJobsChanged = 10_000
	// maxJobUsers bounds the ids in one command line; each is a round trip.
	maxJobUsers = 500
	// lateAfter is how long a job may be due before the command asks whether anybody runs jobs.
	lateAfter = 10 * time.Minute
)

// runJobs lists the jobs that are owed or have failed, or changes them. It needs neither Clerk nor
// the app's OnCreate and OnDelete, and never calls them.
func runJobs(ctx context.Context, c *call, args []string) (err error) {
	var f flag.FlagSet
	s := &settings{}
	j := &jobsRun{call: c, flags: &f}
	f.BoolVar(&j.retry, "retry", false, "make the failed jobs due again, with all their attempts; of the users named, also those that wait or were discarded")
	f.BoolVar(&j.discard, "discard", false, "end the failed jobs for good; of the users named, all that are not running")
	f.StringVar(&j.kind, "kind", "", "only jobs of this `kind`: create or delete")
	f.IntVar(&j.limit, "limit", 50, "show at most this many `jobs`; all are counted")
	f.BoolVar(&s.eraseOnDelete, "erase-on-delete", false,
		"with -discard: erase personal data of the deleted records whose job ends: your app's Options.EraseOnDelete")
	ids, done, err := c.parse(&f, s, args)
	if done || err != nil {
		return err
	}
	if err := j.check(ids); err != nil {
		return err
	}
	s.writesNothing = !j.changes()
	if err := s.resolve(c.env, false); err != nil {
		return err
	}
	_, options := s.configs(c.env)
	db, err := c.env.open(ctx, *s, options)
	if err != nil {
		return err
	}
	defer closeDatabase(ctx, db, &err)

	store, keeps := db.store().(clerksync.JobStore)
	if !keeps {
		return errors.New("this Store cannot keep jobs")
	}
	ctx, cancel := context.WithTimeout(ctx, jobsTimeout)
	defer cancel()
	slices.Sort(ids)
	j.ids, j.store, j.now = slices.Compact(ids), store, c.env.now()
	return j.run(ctx, s)
}

// jobsRun is one run of the command jobs.
type jobsRun struct {
	call           *call
	flags          *flag.FlagSet
	retry, discard bool
	kind           string
	limit          int

	ids   []string // only jobs of these users; nil for all
	store clerksync.JobStore
	now   time.Time
}

// changes reports whether the run changes jobs.
func (j *jobsRun) changes() bool { return j.retry || j.discard }

// check checks the flags and the arguments.
func (j *jobsRun) check(ids []string) error {
	switch {
	case j.retry && j.discard:
		return j.call.wrongFlags("-retry and -discard exclude each other")
	case j.kind != "" && j.kind != string(clerksync.JobCreate) && j.kind != string(clerksync.JobDelete):
		return j.call.wrongFlags("-kind must be create or delete")
	case j.limit < 1 || j.limit > 10_000:
		return j.call.wrongFlags("-limit must be from 1 to 10000")
	case len(ids) > maxJobUsers:
		return j.call.wrongFlags("takes at most %d ids of users at a time", maxJobUsers)
	}
	for _, id := range ids {
		if !isUserID.MatchString(id) {
			return j.call.wrongFlags("an argument is not the id of a Clerk user, which looks like user_2abcDEF…")
		}
	}
	return nil
}

// run lists or changes the jobs, and prints the report.
func (j *jobsRun) run(ctx context.Context, s *settings) error {
	report := &jobsReport{limit: j.limit, lateSince: j.now.Add(-lateAfter), done: make(map[string]bool)}
	work := j.list
	if j.changes() {
		work = j.change
	}
	err := work(ctx, report) // what was changed before an error is reported too
	if err != nil && report.Changed == 0 {
		return err
	}
	report.trim()
	show := func() error { return print(j.call.stdout, report.text(s.name(), j)) }
	if s.json {
		show = func() error { return printJSON(j.call.stdout, report) }
	}
	switch err := errors.Join(err, show()); {
	case err != nil:
		return err
	case j.changes() && (report.Left > 0 || report.missed(j.ids)):
		return errReported
	case !j.changes() && report.Failed > 0:
		return errDiffer
	}
	return nil
}

// list counts all jobs.
func (j *jobsRun) list(ctx context.Context, report *jobsReport) error {
	for entry, err := range j.entries(ctx) {
		if err != nil {
			return err
		}
		report.add(rowOf(entry, j.now))
	}
	return nil
}

// entries yields the jobs that the run is about. With ids, jobs that have ended are among them,
// and an entry without a state stands for a user who has none.
func (j *jobsRun) entries(ctx context.Context) iter.Seq2[clerksync.JobEntry, error] {
	if j.ids != nil {
		return j.entriesOf(ctx)
	}
	return func(yield func(clerksync.JobEntry, error) bool) {
		for entry, err := range j.store.Jobs(ctx) {
			if err == nil && !j.isOf(entry.Kind) {
				continue
			}
			if !yield(entry, err) {
				return
			}
		}
	}
}

func (j *jobsRun) isOf(kind clerksync.JobKind) bool { return j.kind == "" || j.kind == string(kind) }

func (j *jobsRun) entriesOf(ctx context.Context) iter.Seq2[clerksync.JobEntry, error] {
	return func(yield func(clerksync.JobEntry, error) bool) {
		for _, id := range j.ids {
			u, err := j.store.User(ctx, id)
			if err != nil && !errors.Is(err, clerksync.ErrNotFound) {
				yield(clerksync.JobEntry{}, err)
				return
			}
			for _, entry := range j.jobsOf(id, u) {
				if !yield(entry, nil) {
					return
				}
			}
		}
	}
}

// jobsOf returns the jobs of a record, which may be nil, or an entry without a state.
func (j *jobsRun) jobsOf(id string, u *clerksync.User) (entries []clerksync.JobEntry) {
	for _, kind := range []clerksync.JobKind{clerksync.JobCreate, clerksync.JobDelete} {
		if u != nil && j.isOf(kind) && u.Jobs.Of(kind) != (clerksync.JobState{}) {
			entries = append(entries, clerksync.JobEntry{ClerkID: id, Kind: kind, State: u.Jobs.Of(kind)})
		}
	}
	if entries == nil {
		entries = []clerksync.JobEntry{{ClerkID: id}}
	}
	return entries
}

// change changes the jobs. It reads all of them first, because a Store may not allow writes while it
// is read.
func (j *jobsRun) change(ctx context.Context, report *jobsReport) error {
	chosen, err := j.choose(ctx, report)
	if err != nil {
		return err
	}
	for _, entry := range chosen {
		to, result := discarded(entry.State), resultDiscarded
		if j.retry {
			to, result = dueAgain(entry.State, j.now), resultDue
		}
		changed, err := j.changeOne(ctx, entry, to)
		if err != nil {
			return err
		}
		if !changed {
			to, result = entry.State, resultMoved
		}
		entry.State = to
		row := rowOf(entry, j.now)
		row.Result = result
		report.add(row)
	}
	return nil
}

// choose returns the jobs to change. It reports those of named users that it leaves alone.
func (j *jobsRun) choose(ctx context.Context, report *jobsReport) (chosen []clerksync.JobEntry, err error) {
	for entry, err := range j.entries(ctx) {
		if err != nil {
			return nil, err
		}
		row := rowOf(entry, j.now)
		switch chooses := j.chooses(row); {
		case chooses && len(chosen) == maxJobsChanged:
			report.Left++
		case chooses:
			chosen = append(chosen, entry)
		case j.ids != nil:
			row.Result = resultLeft
			report.add(row)
		}
	}
	return chosen, nil
}

// chooses reports whether the run changes a job. Without ids it changes those that have failed.
func (j *jobsRun) chooses(row jobRow) bool {
	switch row.State {
	case jobFailed:
		return true
	case jobDue, jobWaiting:
		return j.ids != nil
	case jobDiscarded:
		return j.ids != nil && j.retry
	}
	return false
}

// changeOne changes one job, unless it has changed since it was listed.
func (j *jobsRun) changeOne(ctx context.Context, entry clerksync.JobEntry, to clerksync.JobState) (bool, error) {
	u, err := j.store.User(ctx, entry.ClerkID)
	switch {
	case errors.Is(err, clerksync.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case u.Jobs.Of(entry.Kind) != entry.State:
		return false, nil
	}
	return j.store.ChangeJob(ctx, clerksync.JobChange{
		ClerkID: entry.ClerkID, Kind: entry.Kind, From: entry.State, DeletedAt: u.DeletedAt, To: to,
	})
}

// dueAgain is the state of a job that has all its attempts again. Code goes on to say what went
// wrong last.
func dueAgain(s clerksync.JobState, now time.Time) clerksync.JobState {
	code := s.Code
	if code == codeDiscarded {
		code = ""
	}
	return clerksync.JobState{Due: now, Code: code, DeletedAt: s.DeletedAt}
}

// discarded is the state of a job that was discarded, as if its function had asked for that.
func discarded(s clerksync.JobState) clerksync.JobState {
	return clerksync.JobState{Attempt: s.Attempt, Code: codeDiscarded, DeletedAt: s.DeletedAt}
}

// codeDiscarded is the Code of a job that clerksync.Discard has ended.
const codeDiscarded = "discarded"

// The states of a job. Scripts rely on them.
const (
	jobFailed    = "failed"    // out of attempts
	jobDue       = "due"       // may be attempted now
	jobRunning   = "running"   // until its lease ends
	jobWaiting   = "waiting"   // for its next attempt, or for DeleteDelay
	jobDone      = "done"      // listed only for a user who was named
	jobDiscarded = "discarded" // likewise
	jobNone      = "none"      // the user has no such job
)

// What a run that changes jobs did about one. Scripts rely on these.
const (
	resultDue       = "due again"
	resultDiscarded = "discarded"
	resultMoved     = "changed meanwhile" // by the app, or by another operator
	resultLeft      = "left alone"
)

// jobRow is one job in the report.
type jobRow struct {
	ClerkID  string     `json:"clerkId"`
	Kind     string     `json:"kind,omitempty"`
	State    string     `json:"state"`
	Attempts int        `json:"attempts"` // made so far, the running one included
	Due      *time.Time `json:"due,omitempty"`
	FailedAt *time.Time `json:"failedAt,omitempty"`
	Code     string     `json:"code,omitempty"`   // how the last attempt went wrong: error, panic, timeout, unended, discarded
	Result   string     `json:"result,omitempty"` // with -retry and -discard
}

// rowOf describes a job as it is now.
func rowOf(entry clerksync.JobEntry, now time.Time) jobRow {
	s := entry.State
	row := jobRow{ClerkID: entry.ClerkID, Kind: string(entry.Kind), State: stateOf(s, now), Attempts: s.Attempt, Code: s.Code}
	if s == (clerksync.JobState{}) {
		row.State = jobNone
	}
	if !s.Due.IsZero() {
		row.Due = &s.Due
	}
	if !s.FailedAt.IsZero() {
		row.FailedAt = &s.FailedAt
	}
	return row
}

func stateOf(s clerksync.JobState, now time.Time) string {
	switch {
	case !s.FailedAt.IsZero():
		return jobFailed
	case s.Due.IsZero() && s.Code == codeDiscarded:
		return jobDiscarded
	case s.Due.IsZero():
		return jobDone
	case !s.Due.After(now):
		return jobDue
	case s.Token != "":
		return jobRunning
	}
	return jobWaiting
}

// since is the time by which rows of one state are sorted.
func (r *jobRow) since() time.Time {
	switch {
	case r.FailedAt != nil:
		return *r.FailedAt
	case r.Due != nil:
		return *r.Due
	}
	return time.Time{}
}

// jobsReport is what the command prints.
type jobsReport struct {
	Failed  int `json:"failed"`
	Due     int `json:"due"`
	Running int `json:"running"`
	Waiting int `json:"waiting"`
	// Late are those of Due that have been so for more than ten minutes.
	Late int `json:"late"`
	// Changed are the jobs that -retry or -discard has changed, and Left those for which one run
	// has no room.
	Changed int      `json:"changed"`
	Left    int      `json:"left"`
	Jobs    []jobRow `json:"jobs"`
	Omitted int      `json:"omitted"` // jobs that -limit keeps out of Jobs

	limit     int
	lateSince time.Time
	done      map[string]bool // by ClerkID: whether what -retry or -discard asks for was done
}

// missed reports whether the run has not done what was asked for one of the users named.
func (r *jobsReport) missed(ids []string) bool {
	return slices.ContainsFunc(ids, func(id string) bool { return !r.done[id] })
}

// add counts a job, and keeps its row if it is among the first.
func (r *jobsReport) add(row jobRow) {
	switch row.State {
	case jobFailed:
		r.Failed++
	case jobDue:
		r.Due++
		if row.Due.Before(r.lateSince) {
			r.Late++
		}
	case jobRunning:
		r.Running++
	case jobWaiting:
		r.Waiting++
	}
	r.note(row)
	r.Jobs = append(r.Jobs, row)
	if len(r.Jobs) >= 2*r.limit+1000 {
		r.trim()
	}
}

// note counts what was done about a job.
func (r *jobsReport) note(row jobRow) {
	switch row.Result {
	case resultDue, resultDiscarded:
		r.Changed++
		if _, known := r.done[row.ClerkID]; !known {
			r.done[row.ClerkID] = true
		}
	case resultMoved:
		r.done[row.ClerkID] = false
	case resultLeft:
		if row.State == jobRunning {
			r.done[row.ClerkID] = false
		}
	}
}

// jobOrder is the order of the states in the report: what needs somebody comes first.
var jobOrder = []string{jobFailed, jobDue, jobRunning, jobWaiting, jobDiscarded, jobDone, jobNone}

// trim sorts the rows and drops those beyond limit.
func (r *jobsReport) trim() {
	slices.SortStableFunc(r.Jobs, func(a, b jobRow) int {
		return cmp.Or(
			cmp.Compare(slices.Index(jobOrder, a.State), slices.Index(jobOrder, b.State)),
			a.since().Compare(b.since()),
			cmp.Compare(a.ClerkID, b.ClerkID),
			cmp.Compare(a.Kind, b.Kind),
		)
	})
	if over := len(r.Jobs) - r.limit; over > 0 {
		r.Omitted += over
		r.Jobs = r.Jobs[:r.limit:r.limit]
	}
	if r.Jobs == nil {
		r.Jobs = []jobRow{} // an array for scripts
	}
}

// text is the report for people.
func (r *jobsReport) text(collection string, j *jobsRun) string {
	if j.changes() {
		return r.changesText(collection, j)
	}
	text := fmt.Sprintf("Jobs of %s\n", collection)
	if j.ids == nil {
		text += "\n" + layOut([][]string{
			{jobFailed, number(r.Failed), "out of attempts: nobody tries them again"},
			{jobDue, number(r.Due), "may be attempted now"},
			{jobRunning, number(r.Running), "being attempted, or their process died and the lease has not ended"},
			{jobWaiting, number(r.Waiting), "for the next attempt, or for DeleteDelay"},
		})
	}
	text += r.table(j.ids == nil)
	if r.Late > 0 {
		text += fmt.Sprintf("\n%s been due for more than %d minutes: does a process call RunJobs or DrainJobs?\n",
			have(r.Late), int(lateAfter.Minutes()))
	}
	if r.Failed > 0 {
		command := func(flag string) string {
			return j.call.env.commandLine(j.flags, "jobs", append(slices.Clone(j.ids), flag)...)
		}
		text += "\nTo try the failed ones again, once the cause is gone; or to end them:\n  " +
			command("-retry") + "\n  " + command("-discard") + "\n"
	}
	return text
}

// changesText is the report of a run that changes jobs.
func (r *jobsReport) changesText(collection string, j *jobsRun) string {
	verb := "discarded"
	if j.retry {
		verb = "due again"
	}
	text := fmt.Sprintf("Jobs of %s: %d %s\n", collection, r.Changed, verb) + r.table(false)
	if r.Left > 0 {
		text += fmt.Sprintf("\n%d more have failed: run the command again.\n", r.Left)
	}
	if j.retry && r.Changed > 0 {
		text += "\nThe app's RunJobs attempts them within seconds, and its next DrainJobs does.\n"
	}
	return text
}

// table shows the jobs. counted says that the numbers above it already tell that there are none.
func (r *jobsReport) table(counted bool) string {
	if len(r.Jobs) == 0 {
		if counted {
			return ""
		}
		return "\n  none\n"
	}
	rows := [][]string{{"user", "job", "state", "attempts", "due, or failed at", "last error", "result"}}
	for _, row := range r.Jobs {
		at := ""
		if since := row.since(); !since.IsZero() {
			at = shown(since.UTC())
		}
		rows = append(rows, []string{
			visible(row.ClerkID), row.Kind, row.State, fmt.Sprint(row.Attempts), at, visible(row.Code), row.Result,
		})
	}
	text := "\n" + layOut(rows)
	if r.Omitted > 0 {
		text += fmt.Sprintf("  … and %d more (-limit)\n", r.Omitted)
	}
	return text
}

func have(n int) string {
	if n == 1 {
		return "1 job has"
	}
	return fmt.Sprintf("%d jobs have", n)
}
