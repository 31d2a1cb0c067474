package storetest

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

func TestRunOnAGoodStore(t *testing.T) {
	t.Run("with everything", func(t *testing.T) {
		Run(t, func(*testing.T) clerksync.Store { return newDocStore("") })
	})
	t.Run("memstore", func(t *testing.T) {
		Run(t, func(*testing.T) clerksync.Store { return memstore.New() })
	})
	t.Run("a Store and no more", func(t *testing.T) {
		Run(t, func(*testing.T) clerksync.Store { return struct{ clerksync.Store }{newDocStore("")} })
	})
}

// broken maps each fault to the cases that must find it.
var broken = map[fault][]string{
	"last write wins": {
		"OlderVersionIsStale", "AnyOrderConverges", "ConcurrentVersionsOfANewUser",
		"NoVersionOverVersionIsStale", "RandomHistories",
	},
	"strictly newer": {
		"EqualVersionOfOtherContentIsWritten", "EveryClerkFieldIsWritten", "HandEditsAreHealed",
	},
	"no tombstone": {
		"DeletionBeforeTheRecord", "AnyOrderWithADeletionEndsDeleted", "TombstoneHoldsNothingElse",
	},
	"deletes the record": {"DeletionMarksTheRecord", "DeletionIsFinal"},
	"resurrects": {
		"DeletionIsFinal", "DeletionBeforeTheRecord", "AnyOrderWithADeletionEndsDeleted",
		"ConcurrentDeletion",
	},
	"replaces the document": {
		"UnknownFieldsSurvive", "RoleIsTheApps", "LocationIsTheApps", "RoleOfTheAppSurvives",
		"LocationOfTheAppSurvives", "OneUpsertTouchesNoMore",
	},
	"replaces the profile": {"UnknownFieldsSurvive"},
	"check then insert": {
		"ConcurrentFirstVisits", "ConcurrentVersionsOfANewUser", "ConcurrentManyUsers",
		"ConcurrentBatches",
	},
	"check then update":        {"ConcurrentVersionsOfAKnownUser", "ConcurrentEvidence"},
	"check then delete":        {"ConcurrentDeletions"},
	"cleared fields stay":      {"ClearedFieldsAreRemoved", "ClearedFieldsAreAbsent"},
	"cleared fields are empty": {"ClearedFieldsAreAbsent"},
	"forgets banned":           {"EveryClerkFieldIsWritten"},
	"lastSignInAt goes back":   {"LastSignInNeverGoesBack"},
	"syncedAt goes back":       {"SyncedAtNeverGoesBack"},
	"seconds":                  {"VersionsAreMilliseconds", "TimesComeBackInMilliseconds"},
	"local time":               {"TimesComeBackInMilliseconds"},
	"ids without case":         {"IDsAreCaseSensitive", "IDsArePlainData"},
	"ids trimmed":              {"IDsArePlainData"},
	"keeps the argument":       {"ArgumentsAreNotKept", "BatchArgumentsAreTheCallers"},
	"drops nanoseconds of the argument": {
		"ArgumentsAreNotModified", "BatchArgumentsAreTheCallers",
	},
	"modifies what it returned": {"ReturnedRecordsStay"},
	"echoes the argument":       {"ResultHoldsTheStoredRecord", "OlderVersionIsStale"},
	"role on every sync":        {"RoleIsTheApps", "RoleOfTheAppSurvives"},
	"role from Clerk once":      {"RoleFromClerkIsWritten", "RoleFromClerkOverridesAHandEdit"},
	"location on every sync":    {"LocationIsTheApps", "LocationOfTheAppSurvives"},
	"reactivates":               {"SuspensionSurvives"},
	"inactive until confirmed":  {"NewUserIsCreated"},
	"batch ignores versions": {
		"BatchEqualsOneByOne", "BatchOfOneUser", "BatchKeepsTheRules", "BatchOfMany",
	},
	"batch sorts":                  {"BatchOfOneUser", "BatchEqualsOneByOne"},
	"batch stops at an error":      {"BatchErrorSaysWhich"},
	"batch swallows errors":        {"BatchErrorSaysWhich"},
	"a hundred at most":            {"BatchOfMany"},
	"half a stamp":                 {"BatchUsersAndStamps"},
	"Users leaves out the deleted": {"BatchUsersAndStamps"},
	"suspended is deleted":         {"SuspendedIsNotDeleted"},
	"Undeleted yields all":         {"BatchUndeleted"},
	"Undeleted yields some twice":  {"BatchUndeleted", "BatchOfMany"},
	"Undeleted ends quietly":       {"BatchUndeletedIsNeverCutShort", "BatchDoneContext"},
	"Extra is not removed":         {"ExtraIsToldFromTheAppsFields", "ClearedFieldsAreAbsent"},
	"compares no Extra":            {"ExtraIsGainedChangedAndLost"},
	"accepts any Extra":            {"InvalidExtraWritesNothing"},
	"numbers are floats":           {"ExtraRoundTrips", "ExtraIsCanonical"},
	"numbers as they are":          {"ExtraThatOthersWroteIsCanonical"},
	"the app's fields are Extra": {
		"ExtraIsToldFromTheAppsFields", "UnknownFieldsOfOldRecordsSurvive",
	},
	"tells personal data": {"InvalidExtraWritesNothing"},
	"ignores the context": {
		"DoneContextChangesNothing", "BatchDoneContext", "RestoreChecksItsArguments",
	},
	"accepts an empty id":              {"EmptyIDIsRejected", "RestoreChecksItsArguments"},
	"unknown is nil":                   {"NoRecordIsErrNotFound"},
	"dense unique e-mail":              {"NewUserWithNothingIsCreated"},
	"personal data into the tombstone": {"DeletionBeforeTheRecord", "TombstoneHoldsNothingElse"},
	"the last deletion counts":         {"DeletionTwiceKeepsTheFirst"},
	"zero deletes nothing":             {"DeletionWithoutATimeDeletes"},
	"deleted but active":               {"DeletionMarksTheRecord"},
	"stale confirms":                   {"OlderVersionIsStale"},
	"never confirms":                   {"EqualVersionOfSameContentIsUnchanged"},
	"updatedAt on every call":          {"UpdatedAtMovesOnChangeOnly"},
	"updatedAt stays":                  {"UpdatedAtMovesOnChangeOnly"},
	"createdAt moves":                  {"CreatedAtStays"},
	"late evidence undoes": {
		"EqualVersionOlderEvidenceIsIgnored", "AnyOrderConverges", "ConcurrentEvidence",
	},
	"believes the future":         {"ConfirmationFromTheFutureIsDisbelieved"},
	"a missing version is newest": {"NoVersionOverVersionIsStale"},
	"rejects the future":          {"VersionAheadOfTheClockIsAVersion"},
	"adopts nothing": {
		"VersionOverNoVersion", "OldRecordsAreAdopted", "ALostVersionIsOlderThanAny",
	},
	"absent is inactive":     {"OldRecordsAreAdopted"},
	"nulls break writes":     {"NullsReadAsAbsent"},
	"null is deleted":        {"NullsReadAsAbsent"},
	"wrong types are errors": {"WrongTypesReadAsAbsent"},
	"first write wins": {
		"NewerVersionIsWritten", "EveryClerkFieldIsWritten", "VersionOverNoVersion",
	},
	"same content is Unchanged":           {"NewerVersionOfSameContentIsWritten"},
	"a missing syncedAt is old":           {"EqualVersionWithoutEvidenceIsWritten"},
	"two missing versions differ":         {"NoVersionOverNoVersion"},
	"nothing before 1970":                 {"TimesBefore1970AreTimes", "DeletionAtTheEpochDeletes"},
	"text trimmed":                        {"TextIsKeptAsItIs"},
	"believes the argument":               {"FieldsOfTheStoreHaveNoEffect"},
	"stale drops Extra":                   {"ExtraIsLeftByStale"},
	"unbanning revives":                   {"DeletionOfABannedUser"},
	"stores bookkeeping":                  {"RecordHasTheFieldsOfTheContract"},
	"any deletedAt counts":                {"StrangeRecordsCanBeDeleted"},
	"field by field":                      {"ConcurrentEqualVersions", "ConcurrentVersionsOfAKnownUser"},
	"reads, modifies, writes":             {"ConcurrentWritesOfTheApp"},
	"a batch needs users":                 {"BatchMayBeEmpty"},
	"Undeleted ends at a write":           {"BatchUndeletedMayStop"},
	"Extra is merged":                     {"ExtraIsGainedChangedAndLost"},
	"restores nothing":                    {"RestoreBringsBack"},
	"restored but inactive":               {"RestoreBringsBack"},
	"restores quietly":                    {"RestoreBringsBack"},
	"restores any deletion":               {"RestoreLeavesLaterDeletions"},
	"restores the undeleted":              {"RestoreLeavesTheOthers", "RestoreLeavesTheSuspended"},
	"restores whoever is missing":         {"RestoreLeavesTheOthers"},
	"lifts suspensions":                   {"RestoreLeavesTheSuspended"},
	"restores an equal version":           {"RestoredRecordIsLikeAny"},
	"restores versions only":              {"RestoredTombstoneBecomesWhole"},
	"restoring drops an app's field":      {"RestoreTouchesNoMore"},
	"restored to a null deletedAt":        {"RestoreTouchesNoMore"},
	"check then restore":                  {"ConcurrentRestores"},
	"writes what is omitted":              {"OmitLeavesAField", "OmitKeepsABan", "OmitInExtra", "BatchOmit", "ConcurrentOmit"},
	"creates with Omit":                   {"OmitCreatesNothing", "BatchOmit"},
	"the whole version with Omit":         {"OmitLeavesAVersionInBetween", "OmitLeavesAField"},
	"no version with Omit":                {"OmitKeepsABan", "BatchOmit", "ConcurrentOmit", "AnyOrderWithOmitConverges"},
	"confirms with Omit":                  {"OmitConfirmsNoNewRecord"},
	"forgets the names of omitted fields": {"OmitInExtra"},
	"compares what is omitted":            {"OmitIsNotCompared"},
	"a repeat with Omit is written":       {"OmitLeavesAVersionInBetween"},
	"overwrites other types":              {"TypesOfTheAppAreConflicts"},
	"every name must be right":            {"NamesOfTheAppDoNotConflict"},
	"a right type conflicts":              {"RightTypesOfTheAppAreWritten"},
	"its own Extra conflicts":             {"RightTypesOfTheAppAreWritten"},
	"confuses nested names":               {"ExtraTakesAnyNestedName"},
	"batch forgets Omit":                  {"BatchOmit"},
	"restores field by field":             {"ConcurrentRestoreAndDeletion"},
	"takes any address for proven":        {"AdoptRefuses", "AdoptBatch"},
	"inserts beside an unlinked record":   {"AdoptRefuses", "AdoptBatch"},
	"inserts beside another's record":     {"AdoptRefuses", "AdoptBatch", "ConcurrentAdopt"},
	"adopts the first":                    {"AdoptRefuses"},
	"counts the trusted only":             {"AdoptRefuses"},
	"trusts all":                          {"AdoptRefuses"},
	"adopts the deleted":                  {"AdoptRefuses"},
	"adopts other types":                  {"AdoptRefuses"},
	"adopts with Omit":                    {"AdoptOmit"},
	"adopts quietly":                      {"AdoptByExternalIDAndEmail"},
	"adopted anew":                        {"AdoptByExternalIDAndEmail"},
	"fills nothing in":                    {"AdoptFillsIn"},
	"tries the address first":             {"AdoptPrefersTheExternalID"},
	"batch does not adopt":                {"AdoptBatch"},
	"Adoptions adopts":                    {"AdoptBatch"},
	"deletes beside the named":            {"AdoptDeactivateExternal"},
	"check then adopt":                    {"ConcurrentAdopt"},
	"owes no create job":                  {"JobsCreateIsOwedByTheFirstInsert", "JobsCreateInABatch"},
	"any write owes a job":                {"JobsAreNotOwedByOthers", "JobsCreateIsOwedByTheFirstInsert"},
	"owes no delete job":                  {"JobsDeleteIsOwedByTheDeletion"},
	"a tombstone owes a job":              {"JobsTombstoneOwesNone"},
	"claims whatever was read":            {"JobsChangeIsGuarded", "ConcurrentJobs"},
	"claims any deletion":                 {"JobsClaimOfTheDeletion"},
	"ends any attempt":                    {"JobsEndOfAnAttempt"},
	"an end needs the deletion":           {"JobsEndOfAnAttempt"},
	"an ended job stays":                  {"JobsAreRemoved"},
	"a write forgets the jobs":            {"JobsSurviveSyncs"},
	"all jobs are due":                    {"JobsDue"},
	"deletes beside a creation":           {"JobsDeleteWaitsForCreate"},
	"lists the ended":                     {"JobsAreListed"},
	"restores a running job":              {"JobsRestoreTakesBack"},
	"restores without the job":            {"JobsRestoreTakesBack"},
	"jobs replace what is there":          {"JobsHaveNoRoom"},
	"jobs ignore the context":             {"JobsCheckTheirArguments"},
}

// Each fault must be found by the cases that are meant for it. A Store without a fault must pass in
// the same harness.
func TestEveryFaultIsFound(t *testing.T) {
	all := func(string) bool { return true }
	for name, failures := range failing(t, func() clerksync.Store { return newDocStore("") }, all) {
		t.Errorf("%s fails on a Store without a fault:\n%v", name, failures)
	}
	for f, want := range broken {
		t.Run(string(f), func(t *testing.T) {
			for _, name := range want {
				if !findsFault(t, name, f) {
					t.Errorf("%s does not find the fault", name)
				}
			}
		})
	}
}

// findsFault reports whether a case finds a fault. A concurrent case needs the goroutines to meet, which
// a busy machine may prevent: it gets ten tries.
func findsFault(t *testing.T, name string, f fault) bool {
	tries := 1
	if strings.HasPrefix(name, "Concurrent") {
		tries = 10
	}
	wanted := func(other string) bool { return other == name }
	for range tries {
		if failing(t, func() clerksync.Store { return newDocStore(f) }, wanted)[name] != nil {
			return true
		}
	}
	return false
}

// A case that has found no fault might be unable to fail.
func TestEveryCaseFindsAFault(t *testing.T) {
	finds := make(map[string]bool)
	for _, want := range broken {
		for _, name := range want {
			finds[name] = true
		}
	}
	names := make(map[string]bool)
	for _, k := range cases {
		if names[k.name] {
			t.Errorf("two cases are named %s", k.name)
		}
		names[k.name] = true
		if !finds[k.name] {
			t.Errorf("no fault is listed for %s", k.name)
		}
	}
	for name := range finds {
		if !names[name] {
			t.Errorf("there is no case %s", name)
		}
	}
}

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

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder collects the failures of a case instead of failing the test.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	failures []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// failing runs the wanted cases against a Store, as Run does. It returns the messages of those
// that fail, by name.
func failing(t *testing.T, newStore func() clerksync.Store, wanted func(name string) bool) map[string][]string {
	failed := make(map[string][]string)
	able := abilities(t, newStore())
	for _, k := range cases {
		if k.needs&^able != 0 || !wanted(k.name) {
			continue
		}
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			k.run(&check{t: r, rule: k.rule, newStore: newStore})
		}()
		<-done
		if len(r.failures) > 0 {
			failed[k.name] = r.failures
		}
	}
	return failed
}
