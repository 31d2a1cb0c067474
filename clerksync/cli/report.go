package cli

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// result is a Report with what a reader of it needs to know besides.
type result struct {
	*clerksync.Report
	drift       bool
	failure     error
	interrupted bool
	outage      string // why Clerk did not answer when the run ended
	collection  string
	// command returns the command line of a command for the same collection.
	command func(name string, plus ...string) string
}

// maxIDs is how many ids the report names of each kind.
const maxIDs = 5

// text is the report for people.
func (r *result) text() string {
	var b strings.Builder
	b.WriteString(r.headline() + "\n\n")
	b.WriteString(layOut(r.counts()))
	if len(r.Fields) > 0 {
		b.WriteString("\nFields that differ, and in how many records:\n" + layOut(r.fields()))
	}
	fmt.Fprintf(&b, "\n%s, %s to Clerk", r.Duration.Round(max(time.Millisecond, r.Duration.Truncate(time.Second)/100)), count(r.ClerkCalls, "request"))
	if r.Throttled > 0 {
		fmt.Fprintf(&b, ", %d of them throttled", r.Throttled)
	}
	b.WriteString("\n")
	for _, step := range r.nextSteps() {
		b.WriteString("\n" + step + "\n")
	}
	return b.String()
}

func (r *result) headline() string {
	switch {
	case r.interrupted && r.outage != "":
		return "Interrupted: " + r.collection + " has been compared with Clerk in part" + r.dry() + "; Clerk did not answer: " + r.outage
	case r.interrupted:
		return "Interrupted: " + r.collection + " has been compared with Clerk in part" + r.dry()
	case !r.Complete && r.Reason != "":
		return "Incomplete: " + r.collection + " has been compared with Clerk in part" + r.dry() + ": " + strings.TrimPrefix(plain(r.Reason), "reconcile: ")
	case !r.Complete:
		return "Incomplete: " + r.collection + " has been compared with Clerk in part" + r.dry()
	case r.failure != nil:
		return r.collection + " has been compared with Clerk, and not all was written" + r.dry()
	case r.drift && r.InStep():
		return r.collection + " is in step with Clerk"
	case r.drift:
		return r.collection + " has drifted from Clerk"
	case r.DryRun && r.InStep():
		return r.collection + " is in step with Clerk; there is nothing to write"
	case r.DryRun:
		return "Dry run: this is what a reconcile of " + r.collection + " would do"
	}
	return r.collection + " has been reconciled with Clerk"
}

func (r *result) dry() string {
	if r.DryRun && !r.drift {
		return " (dry run)"
	}
	return ""
}

// counts are the lines of the table. Those that say that all is well, or what was done,
// are always there; the others where there is something to tell.
func (r *result) counts() [][]string {
	done := func(now, would string) string {
		if r.DryRun {
			return would
		}
		return now
	}
	rows := [][]string{
		{"seen", number(r.Seen), "users in Clerk"},
		{"unchanged", number(r.Unchanged), "in step"},
	}
	for _, line := range []struct {
		name   string
		tally  clerksync.Tally
		always bool
		what   string
	}{
		{"created", r.Created, true, done("had no record", "have no record")},
		{"updated", r.Updated, true, done("were older or differed", "are older or differ")},
		{"ghosts", r.Ghosts, true, "records of users whom Clerk does not have"},
		{"deactivated", r.Deactivated, false, done("of the ghosts were marked deleted", "of the ghosts would be marked deleted")},
		{"tombstoned", r.Tombstoned, false, "users in Clerk whose record is marked deleted"},
		{"restored", r.Restored, false, done("of the tombstoned were given back", "of the tombstoned would be given back")},
		{"stale", r.Stale, false, "records changed while the run went on"},
		{"conflicts", r.Conflicts, false, "kept out by a unique index"},
		{"failed", r.Failed, false, "refused by the mapping or the database"},
		{"unknown", r.Unknown, false, "records whose clerkId is no id of a Clerk user"},
	} {
		if line.tally.Count == 0 && !line.always {
			continue
		}
		row := []string{line.name, number(line.tally.Count), line.what}
		if ids := someIDs(line.tally); ids != "" {
			row[2] += ": " + ids
		}
		rows = append(rows, row)
	}
	if r.HeldBack > 0 {
		rows = append(rows, []string{"held back", number(r.HeldBack), "records that Clerk did not list and that are too young to be called ghosts (-holdback)"})
	}
	return rows
}

// number keeps counts in line.
func number(n int) string { return fmt.Sprintf("%9d", n) }

// someIDs are the first of a tally.
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

// fields are the lines of the fields that differ, the most frequent first.
func (r *result) fields() [][]string {
	names := slices.SortedFunc(maps.Keys(r.Fields), func(a, b string) int {
		return cmp.Or(cmp.Compare(r.Fields[b], r.Fields[a]), cmp.Compare(a, b))
	})
	rows := make([][]string, len(names))
	for i, name := range names {
		rows[i] = []string{number(r.Fields[name]), visible(name)}
	}
	return rows
}

// nextSteps say what to do about what was found, the most urgent first.
func (r *result) nextSteps() []string {
	var steps []string
	add := func(text string, command ...string) {
		for _, c := range command {
			text += "\n  " + c
		}
		steps = append(steps, text)
	}
	switch {
	case r.Complete:
	case r.Resume != "":
		add("Go on where it ended:", r.resumeCommand())
	default:
		var again []string
		text := "Nothing to resume. Run again:"
		if !r.DryRun {
			text = "Nothing to resume. Run again; what has been written stays written:"
		} else if !r.drift {
			again = append(again, "-dry-run")
		}
		add(text, r.command(r.name(), again...))
	}
	if errors.Is(r.failure, clerksync.ErrWrongInstance) {
		add("If the secret key is the right one, name its instance: -instance ins_…")
	}
	if r.Failed.Count > 0 {
		add(fmt.Sprintf("%s could not be mapped or written; the warnings of this run say why.", count(r.Failed.Count, "user")))
	}
	if r.Conflicts.Count > 0 {
		add(fmt.Sprintf("%s kept out by a unique index, as another record has the same value. Merge the records; this lists the indexes:", are(r.Conflicts.Count, "user")),
			r.command("indexes"))
	}
	if errors.Is(r.failure, clerksync.ErrTooManyGhosts) {
		add(fmt.Sprintf("%s in the collection and not in Clerk, more than a run may mark deleted; none was. Look at one:", are(r.Ghosts.Count, "user")),
			r.command("user", firstID(r.Ghosts)))
		add("If they are gone from Clerk for good, allow that many:", r.command("reconcile", "-max-deactivations", fmt.Sprint(r.Ghosts.Count)))
	}
	if r.Complete && r.DryRun {
		if changes := r.Created.Count + r.Updated.Count + r.Ghosts.Count + r.Restored.Count; changes > 0 {
			plus := []string{}
			if r.drift && len(r.Fields) > 0 { // found only by comparing whole records
				plus = append(plus, "-force")
			}
			add(fmt.Sprintf("Bring %s in step:", count(changes, "record")), r.command("reconcile", plus...))
		}
	}
	if left := r.Tombstoned.Count - r.Restored.Count; left > 0 && r.Restored.Count == 0 {
		add(fmt.Sprintf("%s in Clerk, though the record is marked deleted. A deletion is final; if these were marked by mistake, this gives them back:", are(left, "user")),
			r.command("reconcile", "-restore"))
	}
	return steps
}

func firstID(t clerksync.Tally) string {
	if len(t.IDs) == 0 {
		return "USER_ID"
	}
	return t.IDs[0]
}

func (r *result) name() string {
	if r.drift {
		return "drift"
	}
	return "reconcile"
}

func (r *result) resumeCommand() string {
	plus := []string{"-resume", r.Resume}
	if r.DryRun && !r.drift {
		plus = slices.Insert(plus, 0, "-dry-run")
	}
	return r.command(r.name(), plus...)
}

// count is a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// are is count with its verb.
func are(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " is"
	}
	return count(n, noun) + " are"
}
