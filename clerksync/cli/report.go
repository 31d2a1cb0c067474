package cli

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/internal/setting"
)

// result is a Report and what its reader needs to know besides.
type result struct {
	report      *clerksync.Report
	drift       bool
	failure     error
	interrupted bool
	outage      string // why Clerk did not answer when the run ended
	collection  string
	// command returns the command line of a command for the same collection.
	command func(name string, plus ...string) string
}

// reportJSON is a Report as JSON. The Report's own duration is a number of nanoseconds, which its
// name does not say.
type reportJSON struct {
	*clerksync.Report
	DurationSeconds float64 `json:"durationSeconds"`
}

// end returns how the command ends after it printed the report as text.
func (r *result) end() error {
	switch {
	case r.interrupted:
		return errors.New("interrupted")
	case r.drift && r.report.Complete && !r.report.InStep():
		return errDiffer
	case r.failure != nil:
		return r.failure
	case !r.report.Complete:
		return errReported
	case !r.drift && r.unwritten() > 0:
		return errReported
	}
	return nil
}

// endOfJSON is end after the report was printed as JSON. It also prints what a person needs at
// once.
func (r *result) endOfJSON(c *call) error {
	switch {
	case r.interrupted && r.report.Resume != "":
		_, _ = fmt.Fprintf(c.stderr, "clerksync: interrupted; continue with:\n  %s\n", r.resumeCommand())
		return errReported
	case !r.interrupted && r.failure == nil && !r.report.Complete:
		return errors.New("incomplete: " + plain(r.report.Reason))
	}
	return r.end()
}

// unwritten counts the users who were, or would be, left out.
func (r *result) unwritten() int {
	return r.report.Conflicts.Count + r.report.Unlinked.Count + r.report.Failed.Count
}

// maxIDs is how many ids the report names of each kind.
const maxIDs = 5

// text is the report for people.
func (r *result) text() string {
	var b strings.Builder
	b.WriteString(r.headline() + "\n\n")
	b.WriteString(layOut(r.counts()))
	if len(r.report.Fields) > 0 {
		b.WriteString("\nFields that differ, and in how many records:\n" + layOut(r.fields()))
	}
	took := r.report.Duration
	precision := max(time.Millisecond, took.Truncate(time.Second)/100)
	fmt.Fprintf(&b, "\n%s, %s to Clerk", took.Round(precision), count(r.report.ClerkCalls, "request"))
	if r.report.Throttled > 0 {
		fmt.Fprintf(&b, ", %d of them throttled", r.report.Throttled)
	}
	b.WriteString("\n")
	for _, step := range r.nextSteps() {
		b.WriteString("\n" + step + "\n")
	}
	return b.String()
}

func (r *result) headline() string {
	dry := ""
	if r.report.DryRun && !r.drift {
		dry = " (dry run)"
	}
	inPart := r.collection + " was compared with Clerk only in part" + dry
	switch {
	case r.interrupted && r.outage != "":
		return "Interrupted: " + inPart + "; Clerk did not answer: " + r.outage
	case r.interrupted:
		return "Interrupted: " + inPart
	case !r.report.Complete && r.report.Reason != "":
		return "Incomplete: " + inPart + ": " + strings.TrimPrefix(plain(r.report.Reason), "reconcile: ")
	case !r.report.Complete:
		return "Incomplete: " + inPart
	}
	return r.verdict()
}

// verdict is the headline of a complete run.
func (r *result) verdict() string {
	unwritten := r.failure != nil || r.unwritten() > 0
	switch {
	case r.drift && r.report.InStep():
		return r.collection + " is in step with Clerk"
	case r.drift:
		return r.collection + " has drifted from Clerk"
	case unwritten && r.report.DryRun:
		return r.collection + " was compared with Clerk, but a reconcile could not write everything (dry run)"
	case unwritten:
		return r.collection + " was compared with Clerk, but not everything was written"
	case r.report.DryRun && r.report.InStep():
		return r.collection + " is in step with Clerk; there is nothing to write"
	case r.report.DryRun:
		return "Dry run: this is what a reconcile of " + r.collection + " would do"
	}
	return r.collection + " was reconciled with Clerk"
}

// counts are the rows of the table. Some rows are left out if their count is 0.
func (r *result) counts() [][]string {
	either := func(done, dry string) string {
		if r.report.DryRun {
			return dry
		}
		return done
	}
	rows := [][]string{
		{"seen", number(r.report.Seen), "users in Clerk"},
		{"unchanged", number(r.report.Unchanged), "in step"},
	}
	for _, row := range []struct {
		name   string
		tally  clerksync.Tally
		always bool
		what   string
	}{
		{"created", r.report.Created, true, either("had no record", "have no record")},
		{"adopted", r.report.Adopted, false,
			either("were linked to a record without a clerkId", "would be linked to a record without a clerkId")},
		{"updated", r.report.Updated, true, either("were older or differed", "are older or differ")},
		{"ghosts", r.report.Ghosts, true, "records whose user Clerk does not have"},
		{"deactivated", r.report.Deactivated, false, either("ghosts were marked deleted", "ghosts would be marked deleted")},
		{"tombstoned", r.report.Tombstoned, false, "users in Clerk whose record is marked deleted"},
		{"restored", r.report.Restored, false, either("tombstoned records were restored", "tombstoned records would be restored")},
		{"cleaned up", r.report.CleanedUp, false, "of the restored: OnDelete was called for them, so what refers to their record may be gone"},
		{"stale", r.report.Stale, false, "records that changed during the run"},
		{"conflicts", r.report.Conflicts, false, "blocked by a unique index"},
		{"unlinked", r.report.Unlinked, false, "not created, because a record without a clerkId has their e-mail address"},
		{"failed", r.report.Failed, false, "rejected by the mapping or the database"},
		{"unknown", r.report.Unknown, false, "records whose clerkId is not the id of a Clerk user"},
	} {
		if row.tally.Count == 0 && !row.always {
			continue
		}
		what := row.what
		if ids := someIDs(row.tally); ids != "" {
			what += ": " + ids
		}
		rows = append(rows, []string{row.name, number(row.tally.Count), what})
	}
	if r.report.HeldBack > 0 {
		rows = append(rows, []string{"held back", number(r.report.HeldBack),
			"records that Clerk did not list, too new to count as ghosts (-holdback)"})
	}
	return rows
}

// someIDs are the first ids of a tally.
func someIDs(t clerksync.Tally) string {
	ids := make([]string, 0, maxIDs)
	for _, id := range t.IDs[:min(len(t.IDs), maxIDs)] {
		ids = append(ids, visible(id))
	}
	text := strings.Join(ids, ", ")
	if rest := t.Count - len(ids); rest > 0 && len(ids) > 0 {
		text += fmt.Sprintf(" and %d more", rest)
	}
	return text
}

// fields are the rows of the fields that differ, the most frequent first.
func (r *result) fields() [][]string {
	counts := r.report.Fields
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	rows := make([][]string, len(names))
	for i, name := range names {
		rows[i] = []string{number(counts[name]), visible(name)}
	}
	return rows
}

// nextSteps say what to do about the findings, the most urgent first.
func (r *result) nextSteps() []string {
	var steps []string
	add := func(text string, commands ...string) {
		for _, c := range commands {
			text += "\n  " + c
		}
		steps = append(steps, text)
	}
	wrongInstance := errors.Is(r.failure, clerksync.ErrWrongInstance)
	if wrongInstance {
		add("Nothing was written. Look up which instance's users are in "+r.collection+", and run this with its key in "+secretKeyVar+":",
			r.command(r.name()))
		add("If the secret key is the right one, name its instance: -instance ins_… (" + setting.InstanceIDPlace + ")")
	}
	if !r.report.Complete && !wrongInstance {
		add(r.continuation())
	}
	if n := r.report.Failed.Count; n > 0 {
		add(count(n, "user") + " could not be mapped or written. The warnings of this run say why.")
	}
	if n := r.report.Conflicts.Count; n > 0 {
		add(users(n, "was", "were")+" not written, because another record has the same value in a unique index. "+
			"Merge the records. This lists the indexes:", r.command("indexes"))
	}
	if n := r.report.Unlinked.Count; n > 0 {
		add(users(n, "has", "have")+" no record, but a record without a clerkId is probably theirs. "+
			"The guide \"Existing users\" (mongostore/EXISTING_USERS.md) says how to link them. This looks at the collection:", r.command("inspect"))
		add("To create them all the same, so that each has two records:", r.command("reconcile", "-ignore-unlinked"))
	}
	if errors.Is(r.failure, clerksync.ErrTooManyGhosts) {
		n := r.report.Ghosts.Count
		add(users(n, "is", "are")+" in the collection but not in Clerk. That is more than one run may mark deleted, so none was. Look at one:",
			r.command("user", firstID(r.report.Ghosts)))
		add("If they are gone from Clerk for good, allow that many:", r.command("reconcile", "-max-deactivations", strconv.Itoa(n)))
		add("There may be more, because the run ended at the limit. This counts all, and writes nothing:",
			r.command("reconcile", "-dry-run", "-max-deactivations", "-1"))
	}
	if changes := r.pendingChanges(); changes > 0 {
		add(fmt.Sprintf("To bring %s in step:", count(changes, "record")), r.command("reconcile"))
	}
	if n := r.report.Tombstoned.Count; n > 0 && r.report.Restored.Count == 0 {
		add(users(n, "is", "are")+" in Clerk although the record is marked deleted. A deletion is final. "+
			"To restore the records if they were marked by mistake:", r.command("reconcile", "-restore"))
	}
	return steps
}

// continuation says how to continue a run that is incomplete.
func (r *result) continuation() string {
	if r.report.Resume != "" {
		return "Continue where it stopped:\n  " + r.resumeCommand()
	}
	text := "There is nothing to resume. Run it again:"
	var plus []string
	if !r.report.DryRun {
		text = "There is nothing to resume. Run it again; what was written stays written:"
	} else if !r.drift {
		plus = []string{"-dry-run"}
	}
	return text + "\n  " + r.command(r.name(), plus...)
}

func (r *result) resumeCommand() string {
	plus := []string{"-resume", r.report.Resume}
	if r.report.DryRun && !r.drift {
		plus = slices.Insert(plus, 0, "-dry-run")
	}
	return r.command(r.name(), plus...)
}

// pendingChanges is how many records a reconcile would write after a complete dry run or drift.
func (r *result) pendingChanges() int {
	if !r.report.Complete || !r.report.DryRun {
		return 0
	}
	return r.report.Created.Count + r.report.Adopted.Count + r.report.Updated.Count + r.report.Ghosts.Count + r.report.Restored.Count
}

func (r *result) name() string {
	if r.drift {
		return "drift"
	}
	return "reconcile"
}

func firstID(t clerksync.Tally) string {
	if len(t.IDs) == 0 {
		return "USER_ID"
	}
	return t.IDs[0]
}

// users is a number of users with its verb.
func users(n int, is, are string) string {
	if n == 1 {
		return "1 user " + is
	}
	return count(n, "user") + " " + are
}
