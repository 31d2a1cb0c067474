package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/clerksync/clerksync-go/clerksync"
)

// nextSteps say what to do about the findings, the most urgent first.
func (r *result) nextSteps() []string {
	var steps []string
	add := func(text string, commands ...string) {
		for _, c := range commands {
			text += "\n  " + c
		}
		steps = append(steps, text)
	}
	if !r.report.Complete {
		add(r.continuation())
	}
	if errors.Is(r.failure, clerksync.ErrWrongInstance) {
		add("If the secret key is the right one, name its instance: -instance ins_…")
	}
	if n := r.report.Failed.Count; n > 0 {
		add(count(n, "user") + " could not be mapped or written. The warnings of this run say why.")
	}
	if n := r.report.Conflicts.Count; n > 0 {
		add(users(n, "was", "were")+" not written, because another record has the same value in a unique index. "+
			"Merge the records. This lists the indexes:", r.command("indexes"))
	}
	if errors.Is(r.failure, clerksync.ErrTooManyGhosts) {
		n := r.report.Ghosts.Count
		add(users(n, "is", "are")+" in the collection but not in Clerk. That is more than one run may mark deleted, so none was. Look at one:",
			r.command("user", firstID(r.report.Ghosts)))
		add("If they are gone from Clerk for good, allow that many:", r.command("reconcile", "-max-deactivations", strconv.Itoa(n)))
	}
	if changes := r.pendingChanges(); changes > 0 {
		var plus []string
		if r.drift && len(r.report.Fields) > 0 { // found only by comparing whole records
			plus = append(plus, "-force")
		}
		add(fmt.Sprintf("To bring %s in step:", count(changes, "record")), r.command("reconcile", plus...))
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
	return r.report.Created.Count + r.report.Updated.Count + r.report.Ghosts.Count + r.report.Restored.Count
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
