package clerksync

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
)

// resumePoint is what [Report].Resume holds. A run can only be resumed with the same DryRun,
// Force, Restore and IgnoreUnlinked: a dry run, for example, has repaired nothing of what it
// passed.
type resumePoint struct {
	clerkapi.Position
	Conflicts []string `json:"conflicts,omitempty"` // users passed who are to be tried again
	DryRun    bool     `json:"dryRun,omitempty"`
	Force     bool     `json:"force,omitempty"`
	Restore   bool     `json:"restore,omitempty"`
	Ignore    bool     `json:"ignoreUnlinked,omitempty"`
	Key       string   `json:"key,omitempty"` // a short hash that identifies the secret key without revealing it
}

func (s *Syncer) resumePoint(opts *ReconcileOptions, at clerkapi.Position, conflicts []string) resumePoint {
	point := resumePoint{
		Position: at, Conflicts: conflicts,
		DryRun: opts.DryRun, Force: opts.Force, Restore: opts.Restore, Ignore: opts.IgnoreUnlinked,
	}
	if s.cfg.SecretKey != "" {
		sum := sha256.Sum256([]byte(s.cfg.SecretKey))
		point.Key = hex.EncodeToString(sum[:4])
	}
	return point
}

// resume is the point up to which everything is done; empty at the beginning. The caller
// holds mu.
func (r *reconcileRun) resume() string {
	if r.until.After == "" {
		return ""
	}
	point := r.syncer.resumePoint(&r.opts, r.until, r.conflicts[:r.resumeConflicts])
	text, _ := json.Marshal(point) // strings, numbers and flags always marshal
	return base64.RawURLEncoding.EncodeToString(text)
}

// parseResume returns the point in opts.Resume, the zero one for none.
func (s *Syncer) parseResume(opts *ReconcileOptions) (point resumePoint, err error) {
	if opts.Resume == "" {
		return point, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(opts.Resume)
	if err != nil || json.Unmarshal(text, &point) != nil || !point.valid() {
		return resumePoint{}, errNoResumePoint
	}
	switch here := s.resumePoint(opts, point.Position, point.Conflicts); {
	case point.Key != here.Key:
		return resumePoint{}, errors.New("comes from a run with another secret key: start over without it")
	case point.DryRun != here.DryRun || point.Force != here.Force || point.Restore != here.Restore || point.Ignore != here.Ignore:
		return resumePoint{}, errors.New("comes from a run with another DryRun, Force, Restore or IgnoreUnlinked: set them as they were, or start over without it")
	}
	return point, nil
}

func (p *resumePoint) valid() bool {
	return clerkapi.ValidUserID(p.After) && p.Passed >= 0 && len(p.Conflicts) <= maxTallyIDs &&
		!slices.ContainsFunc(p.Conflicts, func(id string) bool { return !clerkapi.ValidUserID(id) })
}

var errNoResumePoint = errors.New("is not a Report's Resume: copy it whole, or start over without it")
