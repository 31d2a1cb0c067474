package storetest

import (
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// decision is what a docStore decides by, and the right outcome.
type decision struct {
	stored, u *clerksync.User
	now       time.Time
	right     clerksync.Outcome
}

// wrongDecisions are the faults of docStore.decide for a user who has a record.
var wrongDecisions = map[fault]func(decision) clerksync.Outcome{
	"last write wins": func(d decision) clerksync.Outcome {
		if d.right != clerksync.Deactivated {
			return clerksync.Updated
		}
		return d.right
	},
	"first write wins": func(d decision) clerksync.Outcome {
		return d.insteadOfUpdated(true, clerksync.Unchanged)
	},
	"same content is Unchanged": func(d decision) clerksync.Outcome {
		c := d.u.Clone()
		c.ClerkUpdatedAt, c.SyncedAt = d.stored.ClerkUpdatedAt, d.stored.SyncedAt
		same := clerksync.Decide(d.stored, c, d.now) == clerksync.Unchanged
		return d.insteadOfUpdated(same, clerksync.Unchanged)
	},
	"a missing syncedAt is old": func(d decision) clerksync.Outcome {
		return d.insteadOfUpdated(d.u.SyncedAt.IsZero(), clerksync.Unchanged)
	},
	"two missing versions differ": func(d decision) clerksync.Outcome {
		if d.right != clerksync.Deactivated && d.u.ClerkUpdatedAt.IsZero() {
			return clerksync.Stale
		}
		return d.right
	},
	"unbanning revives": func(d decision) clerksync.Outcome {
		if d.stored.Banned && !d.u.Banned && d.right == clerksync.Deactivated {
			return clerksync.Updated
		}
		return d.right
	},
	"strictly newer": func(d decision) clerksync.Outcome {
		return d.insteadOfUpdated(d.stored.ClerkUpdatedAt.Equal(d.u.ClerkUpdatedAt), clerksync.Stale)
	},
	"resurrects": func(d decision) clerksync.Outcome {
		if d.stored.ClerkUpdatedAt.Before(d.u.ClerkUpdatedAt) {
			return clerksync.Updated
		}
		return d.right
	},
	"late evidence undoes": func(d decision) clerksync.Outcome {
		u := d.u.Clone()
		u.SyncedAt = time.Time{}
		return clerksync.Decide(d.stored, u, d.now)
	},
	"believes the future": func(d decision) clerksync.Outcome {
		return clerksync.Decide(d.stored, d.u, d.now.AddDate(100, 0, 0))
	},
	"a missing version is newest": func(d decision) clerksync.Outcome {
		if d.right == clerksync.Stale && d.u.ClerkUpdatedAt.IsZero() {
			return clerksync.Updated
		}
		return d.right
	},
	"rejects the future": func(d decision) clerksync.Outcome {
		return d.insteadOfUpdated(d.u.ClerkUpdatedAt.After(d.now), clerksync.Stale)
	},
	"adopts nothing": func(d decision) clerksync.Outcome {
		return d.insteadOfUpdated(d.stored.ClerkUpdatedAt.IsZero(), clerksync.Stale)
	},
	"compares what is omitted": func(d decision) clerksync.Outcome {
		u := d.u.Clone()
		u.Omit = nil
		return clerksync.Decide(d.stored, u, d.now)
	},
	"a repeat with Omit is written": func(d decision) clerksync.Outcome {
		if d.right == clerksync.Unchanged && d.u.ClerkUpdatedAt.After(d.stored.ClerkUpdatedAt) {
			return clerksync.Updated
		}
		return d.right
	},
	"compares no Extra": func(d decision) clerksync.Outcome {
		if d.right != clerksync.Updated || !d.stored.ClerkUpdatedAt.Equal(d.u.ClerkUpdatedAt) {
			return d.right
		}
		c := *d.u
		c.Extra = d.stored.Extra
		return clerksync.Decide(d.stored, &c, d.now)
	},
}

// insteadOfUpdated returns wrong if the right outcome is Updated and the condition holds.
func (d decision) insteadOfUpdated(condition bool, wrong clerksync.Outcome) clerksync.Outcome {
	if condition && d.right == clerksync.Updated {
		return wrong
	}
	return d.right
}
