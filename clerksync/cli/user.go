package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// isUserID matches the ids that Clerk gives to users.
var isUserID = regexp.MustCompile(`^user_[A-Za-z0-9_-]{1,64}$`)

// runUser shows one record beside Clerk's state.
func runUser(ctx context.Context, c *call, args []string) (err error) {
	var f flag.FlagSet
	s := &settings{}
	arguments, done, err := c.parse(&f, s, args)
	if done || err != nil {
		return err
	}
	if len(arguments) != 1 {
		return c.wrongFlags("takes one argument: the id of a Clerk user")
	}
	id := arguments[0]
	if !isUserID.MatchString(id) {
		return c.wrongFlags("the argument is not the id of a Clerk user, which looks like user_2abcDEF…")
	}
	s.writesNothing = true
	if err := s.resolve(c.env, true); err != nil {
		return err
	}
	config, options := s.configs(c.env)
	db, err := c.env.open(ctx, *s, options)
	if err != nil {
		return err
	}
	defer closeDatabase(ctx, db, &err)

	bounded, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	record, err := db.store().User(bounded, id)
	if err != nil && !errors.Is(err, clerksync.ErrNotFound) {
		return err
	}
	inClerk, err := askClerk(ctx, c, *config, id)
	if err != nil {
		return err
	}
	cmp := compare(id, record, inClerk, config.Map != nil, keeps(db.store()))
	command := func(name string, plus ...string) string { return c.env.commandLine(&f, name, plus...) }
	cmp.judge(record, inClerk, command)
	if cmp.Verdict == noRecord {
		adoption, err := adoptionOf(bounded, db.store(), inClerk)
		if err != nil {
			return err
		}
		cmp.judgeAdoption(adoption, command)
	}
	if s.json {
		err = printJSON(c.stdout, cmp)
	} else {
		err = print(c.stdout, cmp.text(s.name()))
	}
	switch {
	case err != nil:
		return err
	case cmp.Verdict == nowhere:
		return errReported
	case !cmp.InStep:
		return errDiffer
	}
	return nil
}

// askClerk returns the record that config makes of Clerk's state, or nil if Clerk does not have the
// user.
func askClerk(ctx context.Context, c *call, config clerksync.Config, id string) (_ *clerksync.User, err error) {
	config.OnCreate, config.OnDelete = nil, nil // nothing is made but this copy in memory
	store := &offered{Store: memstore.New()}
	store.Now = c.env.now
	syncer, err := newSyncer(c.env, config, store, newProgress(c.env, c.stderr), nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, syncer.Close()) }()
	_, err = syncer.Sync(ctx, id)
	if errors.Is(err, clerksync.ErrUserUnknown) {
		return nil, nil
	}
	return store.user, err
}

// offered is a Store that keeps what it was last offered: a record does not say whether its
// role is Clerk's.
type offered struct {
	*memstore.Store
	user *clerksync.User
}

func (s *offered) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	s.user = u.Clone()
	return s.Store.Upsert(ctx, u)
}

// comparison is a record beside Clerk's state of the user.
type comparison struct {
	ClerkID string `json:"clerkId"`
	Verdict string `json:"verdict"` // one of the words below
	InStep  bool   `json:"inStep"`  // whether there is nothing to do
	Advice  string `json:"advice"`
	// Mapped means that the app's own Map added fields to the record and may have changed others,
	// and that this program has no Map. Only the fields of the standard mapping were compared.
	Mapped bool         `json:"mapped"`
	Fields []fieldState `json:"fields"`
}

// fieldState is one field of the record. A value is absent if the field is not set. Clerk's value
// is also absent if Clerk does not own the field.
type fieldState struct {
	Path    string `json:"path"`
	Record  any    `json:"record,omitempty"`
	Clerk   any    `json:"clerk,omitempty"`
	Differs bool   `json:"differs"`
}

// The verdicts. Scripts rely on them.
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

// compare puts the two side by side. Either may be nil. hasMap means that Clerk's side is made
// by the app's Map. kept reports whether the Store keeps a field; others are left out.
func compare(id string, record, inClerk *clerksync.User, hasMap bool, kept func(path string) bool) *comparison {
	c := &comparison{ClerkID: id, Mapped: record != nil && len(record.Extra) > 0 && !hasMap}
	add := func(path string, record, inClerk any, differs bool) {
		c.Fields = append(c.Fields, fieldState{path, record, inClerk, differs})
	}
	defer func() {
		c.Fields = slices.DeleteFunc(c.Fields, func(f fieldState) bool { return !kept(f.Path) })
	}()
	both := record != nil && inClerk != nil

	have, want := clerkFieldsOf(record), clerkFieldsOf(inClerk)
	all := clerkOwned(record, inClerk, hasMap)
	if all.RoleFromClerk && record != nil {
		have["role"] = textOrNil(string(record.Role))
	}
	for path := range all.ClerkFields() {
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
	// lastSignInAt never goes backwards: a later time in the record is not a difference.
	add("lastSignInAt", signIns[0], signIns[1], both && inClerk.LastSignInAt.After(record.LastSignInAt))
	if record == nil {
		return c
	}

	// Clerk does not own these.
	for _, name := range slices.Sorted(maps.Keys(record.Extra)) {
		if _, owned := all.Extra[name]; !owned {
			add(name, record.Extra[name], nil, false)
		}
	}
	location := record.Location
	if location == nil {
		location = &clerksync.Location{}
	}
	if !all.RoleFromClerk {
		add("role", textOrNil(string(record.Role)), nil, false)
	}
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

// keeps reports whether a Store keeps a field. See [clerksync.Store].
func keeps(s clerksync.Store) func(path string) bool {
	if k, ok := s.(interface{ Keeps(path string) bool }); ok {
		return k.Keeps
	}
	return func(string) bool { return true }
}

// clerkOwned returns a User whose ClerkFields list what Clerk owns: the fields of the standard
// mapping, the role if RoleOf gave it, and with a Map what it adds and has added.
func clerkOwned(record, inClerk *clerksync.User, hasMap bool) *clerksync.User {
	all := &clerksync.User{RoleFromClerk: inClerk != nil && inClerk.RoleFromClerk}
	if !hasMap {
		return all
	}
	all.Extra = make(map[string]any)
	for _, u := range []*clerksync.User{record, inClerk} {
		if u != nil {
			maps.Copy(all.Extra, u.Extra)
		}
	}
	return all
}

func clerkFieldsOf(u *clerksync.User) map[string]any {
	if u == nil {
		return make(map[string]any)
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

// judge sets the verdict and the advice, by the rules of [clerksync.Decide]. Either record may be
// nil.
func (c *comparison) judge(record, inClerk *clerksync.User, command func(string, ...string) string) {
	switch {
	case record == nil && inClerk == nil:
		c.conclude(nowhere, "neither Clerk nor the collection has this user: "+
			"check the id, and that %s and the database belong together", secretKeyVar)
	case record == nil:
		c.conclude(noRecord, "Clerk has the user, the collection does not: "+
			"the user's next visit creates the record, and so does %s", command("reconcile"))
	case inClerk == nil && !record.DeletedAt.IsZero():
		c.conclude(deleted, "the user is deleted in Clerk and marked deleted here: there is nothing to do")
		c.InStep = true
	case inClerk == nil:
		c.conclude(ghost, "Clerk does not have the user, but the record is not marked deleted: "+
			"if %s is the right instance's, this marks it: %s", secretKeyVar, command("reconcile"))
	case !record.DeletedAt.IsZero():
		c.conclude(deleted, "Clerk has the user, but the record is marked deleted, which is final: "+
			"if it was marked by mistake, this restores it: %s", command("reconcile", "-restore"))
	default:
		c.judgeVersions(record, inClerk, command)
	}
}

// judgeVersions is judge for a record that is not marked deleted, of a user that Clerk has.
func (c *comparison) judgeVersions(record, inClerk *clerksync.User, command func(string, ...string) string) {
	remedy := "the user's next visit or event brings it in step, and so does " + command("reconcile")
	if c.Mapped { // the command refuses such a collection
		remedy = "the user's next visit or event brings it in step, and so does Syncer.Reconcile called by the app"
	}
	differ := slices.ContainsFunc(c.Fields, func(f fieldState) bool { return f.Differs })
	switch {
	case record.ClerkUpdatedAt.IsZero() && !inClerk.ClerkUpdatedAt.IsZero():
		c.conclude(older, "the record has no version, so it was never synced: %s", remedy)
	case inClerk.ClerkUpdatedAt.After(record.ClerkUpdatedAt):
		c.conclude(older, "the record is older than Clerk: %s", remedy)
	case record.ClerkUpdatedAt.After(inClerk.ClerkUpdatedAt):
		c.conclude(newer, "the record has a version that Clerk does not have yet, and nothing overwrites it: "+
			"if that stays so, something else wrote its clerkUpdatedAt")
	case differ && c.Mapped:
		c.conclude(differs, "the record has Clerk's version but differs from the standard mapping, perhaps because of the app's own Map")
	case differ:
		c.conclude(differs, "the record has Clerk's version but other content, as after an edit by hand: %s", command("reconcile"))
	default:
		c.conclude(inStep, "the record is in step with Clerk: there is nothing to do")
		c.InStep = true
	}
}

// adoptionOf returns what the Store would do to a user who has no record.
func adoptionOf(ctx context.Context, s clerksync.Store, u *clerksync.User) (clerksync.Adoption, error) {
	adopting, ok := s.(clerksync.AdoptStore)
	if !ok {
		return clerksync.Adoption{}, nil
	}
	adoptions, err := adopting.Adoptions(ctx, []*clerksync.User{u})
	if err != nil {
		return clerksync.Adoption{}, err
	}
	return adoptions[0], nil
}

// judgeAdoption is judge for a user without a record whom the Store would link to one of the
// app's, or would not let have one.
func (c *comparison) judgeAdoption(a clerksync.Adoption, command func(string, ...string) string) {
	switch {
	case a.Err != nil:
		c.conclude(noRecord, "Clerk has the user, the collection does not, and the user cannot get a record: %s", plain(a.Err.Error()))
	case a.By != "":
		c.conclude(noRecord, "no record has the user's id: the user's next visit links a record of the app's (%s), and so does %s",
			a.By, command("reconcile"))
	}
}

func (c *comparison) conclude(verdict, advice string, args ...any) {
	c.Verdict, c.Advice = verdict, fmt.Sprintf(advice, args...)
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
		text += "The app's own Map added fields to this record. Only the fields of the standard mapping were compared.\n\n"
	}
	return text + strings.ToUpper(c.Verdict[:1]) + c.Verdict[1:] + ": " + c.Advice + ".\n"
}

// shown is how the table shows a value.
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
