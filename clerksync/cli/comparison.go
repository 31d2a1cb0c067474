package cli

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// comparison is a record beside what Clerk says.
type comparison struct {
	ClerkID string `json:"clerkId"`
	// Verdict is one of the words below; InStep says that there is nothing to do.
	Verdict string `json:"verdict"`
	InStep  bool   `json:"inStep"`
	Advice  string `json:"advice"`
	// Mapped says that the app's own Map wrote fields of the record, and may have
	// changed others: only those of the standard mapping were compared.
	Mapped bool         `json:"mapped"`
	Fields []fieldState `json:"fields"`
}

// fieldState is one field of the record. A value is absent where there is none, and
// Clerk's also where the field is not Clerk's.
type fieldState struct {
	Path    string `json:"path"`
	Record  any    `json:"record,omitempty"`
	Clerk   any    `json:"clerk,omitempty"`
	Differs bool   `json:"differs"`
}

// The verdicts.
const (
	inStep   = "in step"
	older    = "older"
	differs  = "differs"
	deleted  = "deleted"
	ghost    = "ghost"
	noRecord = "no record"
	newer    = "newer than Clerk"
	nowhere  = "unknown"
)

// compare puts the two side by side; either may be nil.
func compare(id string, record, inClerk *clerksync.User) *comparison {
	c := &comparison{ClerkID: id, Mapped: record != nil && len(record.Extra) > 0}
	add := func(path string, record, inClerk any, differs bool) {
		c.Fields = append(c.Fields, fieldState{path, record, inClerk, differs})
	}
	both := record != nil && inClerk != nil

	// What Clerk owns, by the one list of it. The fields that an app's Map adds are
	// in the record's and not in this one.
	have, want := clerkFieldsOf(record), clerkFieldsOf(inClerk)
	for path := range (&clerksync.User{}).ClerkFields() {
		add(path, have[path], want[path], both && !reflect.DeepEqual(have[path], want[path]))
	}
	versions := []any{nil, nil}
	signIns := []any{nil, nil}
	for i, u := range []*clerksync.User{record, inClerk} {
		if u != nil {
			versions[i], signIns[i] = timeOrNil(u.ClerkUpdatedAt), timeOrNil(u.LastSignInAt)
		}
	}
	add("clerkUpdatedAt", versions[0], versions[1], both && !reflect.DeepEqual(versions[0], versions[1]))
	// A sign-in that Clerk has forgotten is none the less true.
	add("lastSignInAt", signIns[0], signIns[1], both && inClerk.LastSignInAt.After(record.LastSignInAt))
	if record == nil {
		return c
	}

	// The app's own, and the record's: Clerk has no say in them.
	for _, name := range slices.Sorted(maps.Keys(record.Extra)) {
		add(name, record.Extra[name], nil, false)
	}
	location := record.Location
	if location == nil {
		location = &clerksync.Location{}
	}
	add("role", textOrNil(string(record.Role)), nil, false)
	add("location.country", textOrNil(location.Country), nil, false)
	add("location.state", textOrNil(location.State), nil, false)
	add("location.city", textOrNil(location.City), nil, false)
	add("location.timezone", textOrNil(location.Timezone), nil, false)
	add("isActive", record.IsActive, nil, false)
	add("createdAt", timeOrNil(record.CreatedAt), nil, false)
	add("updatedAt", timeOrNil(record.UpdatedAt), nil, false)
	add("syncedAt", timeOrNil(record.SyncedAt), nil, false)
	add("deletedAt", timeOrNil(record.DeletedAt), nil, false)
	return c
}

func clerkFieldsOf(u *clerksync.User) map[string]any {
	if u == nil {
		return nil
	}
	return maps.Collect(u.ClerkFields())
}

func textOrNil(text string) any {
	if text == "" {
		return nil
	}
	return text
}

func timeOrNil(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Truncate(time.Millisecond)
}

// judge says how the two stand to each other and what to do about it, by the rules
// of [clerksync.Decide].
func (c *comparison) judge(record, inClerk *clerksync.User, command func(string, ...string) string) {
	verdict := func(verdict string, inStep bool, format string, args ...any) {
		c.Verdict, c.InStep, c.Advice = verdict, inStep, fmt.Sprintf(format, args...)
	}
	differ := slices.ContainsFunc(c.Fields, func(f fieldState) bool { return f.Differs })
	bring := "the user's next visit, event, or this brings it in step: " + command("reconcile")
	if c.Mapped { // the command refuses such a collection
		bring = "the user's next visit or event, or Syncer.Reconcile called by the app, brings it in step"
	}
	switch {
	case record == nil && inClerk == nil:
		verdict(nowhere, false, "neither Clerk nor the collection knows this user: check the id, and that %s and the database belong together", secretKeyVar)
	case record == nil:
		verdict(noRecord, false, "Clerk has the user and the collection does not: the user's next visit creates the record, and so does %s", command("reconcile"))
	case inClerk == nil && !record.DeletedAt.IsZero():
		verdict(deleted, true, "the user is deleted in Clerk and marked deleted here: there is nothing to do")
	case inClerk == nil:
		verdict(ghost, false, "Clerk does not have the user, and the record is not marked deleted: if %s is the right instance's, this marks it: %s", secretKeyVar, command("reconcile"))
	case !record.DeletedAt.IsZero():
		verdict(deleted, false, "Clerk has the user, and the record is marked deleted, which is final: if it was marked by mistake, this gives it back: %s", command("reconcile", "-restore"))
	case record.ClerkUpdatedAt.IsZero() && !inClerk.ClerkUpdatedAt.IsZero():
		verdict(older, false, "the record has no version, so nothing has synced it yet: %s", bring)
	case inClerk.ClerkUpdatedAt.After(record.ClerkUpdatedAt):
		verdict(older, false, "the record is older than Clerk: %s", bring)
	case record.ClerkUpdatedAt.After(inClerk.ClerkUpdatedAt):
		verdict(newer, false, "the record has a version that Clerk does not have yet; nothing overwrites it. If that stays so, its clerkUpdatedAt was written by something else")
	case differ && c.Mapped:
		verdict(differs, false, "the record has Clerk's version and differs from the standard mapping, perhaps by the app's own Map")
	case differ:
		verdict(differs, false, "the record has Clerk's version and other content, as after an edit by hand: %s", command("reconcile", "-force"))
	default:
		verdict(inStep, true, "the record is in step with Clerk: there is nothing to do")
	}
}

// text is the comparison for people.
func (c *comparison) text(collection string) string {
	rows := [][]string{{"field", collection, "", "Clerk"}}
	for _, f := range c.Fields {
		mark := ""
		if f.Differs {
			mark = "≠"
		}
		rows = append(rows, []string{f.Path, shown(f.Record), mark, shown(f.Clerk)})
	}
	text := c.ClerkID + "\n\n"
	if c.Verdict != nowhere {
		text += layOut(rows) + "\n"
	}
	if c.Mapped {
		text += "The app's own Map added fields to this record; only those of the standard mapping were compared.\n\n"
	}
	return text + strings.ToUpper(c.Verdict[:1]) + c.Verdict[1:] + ": " + c.Advice + ".\n"
}

// shown is a value in the table.
func shown(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return visible(v)
	case time.Time:
		return v.Format("2006-01-02 15:04:05.000Z")
	}
	return visible(fmt.Sprint(v))
}
