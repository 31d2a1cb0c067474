package cli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// runInspect says whether the collection is ready for clerksync. It opens no Store: that would
// make the index on clerkId.
func runInspect(ctx context.Context, c *call, args []string) (err error) {
	var f flag.FlagSet
	s := &settings{looksOnly: true}
	var accept list
	f.Var(&accept, "accept", "take the findings of these `kinds` or fields of the records as decided; "+
		"-json shows the kinds; separate them with commas, or repeat the flag")
	if done, err := c.parseNoArguments(&f, s, args); done || err != nil {
		return err
	}
	if err := s.resolve(c.env, false); err != nil {
		return err
	}
	config, options := s.configs(c.env)
	ofTheApp := config.APIURL != s.apiURL
	askClerk := config.SecretKey != ""
	if askClerk {
		if err := s.checkClerk(true); err != nil {
			return err
		}
		if !ofTheApp {
			config.APIURL = s.apiURL // with the API's version
		}
	}
	db, err := c.env.open(ctx, *s, options)
	if err != nil {
		return err
	}
	defer closeDatabase(ctx, db, &err)

	show := newProgress(c.env, c.stderr)
	look := mongostore.InspectOptions{Accept: accept, Progress: func(read, of int) {
		show.update(clerksync.Progress{Phase: phaseRecords, Done: read, Total: of})
	}}
	title := "inspect: " + s.name() + " (nothing is written)"
	if askClerk {
		title = "inspect: " + s.name() + " and Clerk's users (nothing is written)"
		look.Users = func(ctx context.Context, visit visitor) error {
			return eachUser(ctx, c.env, *config, show, visit)
		}
	}
	show.begin(title)
	found, err := db.inspect(ctx, look)
	show.end(err == nil)
	if err != nil {
		return err
	}
	if s.json {
		err = printJSON(c.stdout, found)
	} else {
		err = print(c.stdout, inspectionText(s.name(), &found, len(options.Fields) > 0))
	}
	if err == nil && !found.Ready {
		err = errDiffer
	}
	return err
}

// visitor is called with some of Clerk's users, as the app maps them.
type visitor = func(context.Context, []*clerksync.User) error

// eachUser calls visit with all of Clerk's users. It is a Reconcile with a Store that has no
// records, so it maps, pages and waits as every other run.
func eachUser(ctx context.Context, env environment, config clerksync.Config, show *progress, visit visitor) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	outage := &outage{env: env, note: show.note}
	config.OnCreate, config.OnDelete = nil, nil // nothing is made
	syncer, err := newSyncer(env, config, usersOnly{visit: visit, fail: cancel}, show, outage)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, syncer.Close()) }()
	report, err := env.reconcile(syncer, ctx, clerksync.ReconcileOptions{Writers: 1, Progress: show.update})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if n := report.Failed.Count; n > 0 {
		show.note(users(n, "was", "were") + " not counted, because the mapping rejects them")
		if report.Complete {
			return nil
		}
	}
	return err
}

// usersOnly is a Store without records that hands what it is to create to visit.
type usersOnly struct {
	visit visitor
	fail  func(error) // ends the run
}

func (s usersOnly) UpsertBatch(ctx context.Context, us []*clerksync.User) ([]clerksync.Result, error) {
	results := make([]clerksync.Result, len(us))
	whole := us[:0:0]
	for i, u := range us {
		results[i] = clerksync.Result{Outcome: clerksync.Created}
		if len(u.Omit) == 0 { // otherwise it is what is left of one that the mapping rejects
			whole = append(whole, u)
		}
	}
	if err := s.visit(ctx, whole); err != nil {
		s.fail(err)
		return nil, err
	}
	return results, nil
}

func (s usersOnly) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	results, err := s.UpsertBatch(ctx, []*clerksync.User{u})
	if err != nil {
		return clerksync.Result{}, err
	}
	return results[0], nil
}

func (usersOnly) User(context.Context, string) (*clerksync.User, error) {
	return nil, clerksync.ErrNotFound
}

func (usersOnly) Deactivate(context.Context, string, time.Time) (clerksync.Result, error) {
	return clerksync.Result{Outcome: clerksync.Deactivated}, nil
}

func (usersOnly) Users(context.Context, []string) (map[string]*clerksync.User, error) {
	return nil, nil
}

func (usersOnly) Stamps(context.Context, []string) (map[string]clerksync.Stamp, error) {
	return nil, nil
}

func (usersOnly) Undeleted(context.Context) iter.Seq2[clerksync.Stamp, error] {
	return func(func(clerksync.Stamp, error) bool) {}
}

// inspectionText is an Inspection for people. hasFields means that the program has Fields, to
// which new ones are added.
func inspectionText(collection string, found *mongostore.Inspection, hasFields bool) string {
	var b strings.Builder
	decisions := 0
	for _, f := range found.Findings {
		if f.Decision {
			decisions++
		}
	}
	switch {
	case decisions > 0:
		fmt.Fprintf(&b, "%s is not ready: %s to make\n\n", collection, count(decisions, "decision"))
	case found.Records == 0:
		fmt.Fprintf(&b, "%s has no records: clerksync can start with it\n\n", collection)
	default:
		fmt.Fprintf(&b, "%s is ready\n\n", collection)
	}
	b.WriteString(layOut(recordRows(found)))
	if a := found.Adoption; a != nil {
		b.WriteString("\n" + adoptionText(a))
	}
	for i, f := range found.Findings {
		switch {
		case i == 0 && f.Decision:
			b.WriteString("\nTo decide:\n")
		case !f.Decision && (i == 0 || found.Findings[i-1].Decision):
			b.WriteString("\nGood to know:\n")
		}
		b.WriteString(findingText(i+1, &f))
	}
	return b.String() + proposal(found.Fields, hasFields)
}

// proposal is Go code for an Options o that gives it the fields, empty if there are none.
func proposal(fields mongostore.Fields, hasFields bool) string {
	if len(fields) == 0 {
		return ""
	}
	var b strings.Builder
	if hasFields {
		b.WriteString("\nTo add to mongostore.Options.Fields, all together:\n")
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			fmt.Fprintf(&b, "  o.Fields[%q] = %q\n", name, fields[name])
		}
		return b.String()
	}
	b.WriteString("\nThe lines for mongostore.Options.Fields together:\n  o.Fields = mongostore.Fields{\n")
	for _, line := range fieldLines(fields) {
		b.WriteString("  \t" + line + "\n")
	}
	return b.String() + "  }\n"
}

func recordRows(found *mongostore.Inspection) [][]string {
	read := "all were read"
	if found.Sample {
		read = fmt.Sprintf("a sample: the first %d were read, and the counts are of these", found.Read)
	}
	writes := map[string]string{
		"accepted":    "the server takes them as the connection string says: retryable ones, unless it has retryWrites=false",
		"refused":     "the server refuses them",
		"not checked": "not checked: this user may not write",
	}[found.Writes]
	return [][]string{
		{"records", number(found.Records), read},
		{"linked", number(found.Linked), "have a Clerk id"},
		{"unlinked", number(found.Unlinked), "have none"},
		{"never synced", number(found.Unsynced), "clerksync has never written these"},
		{"writes", "", writes},
	}
}

func adoptionText(a *mongostore.AdoptionCounts) string {
	way := func(w mongostore.AdoptionWay) string {
		text := fmt.Sprintf("of %d who have one would adopt a record by %s", w.Has, w.Field)
		if w.Refuses > 0 {
			text += fmt.Sprintf("; %d would be refused", w.Refuses)
		}
		if !w.On {
			text += " (Adopt does not have this way)"
		}
		return text
	}
	external := way(a.ByExternalID)
	if w := a.ByExternalID; w.Has > 0 && w.Adopts+w.Refuses == 0 {
		external += "; if another field holds them, set Adopt.ByExternalID to it"
	}
	return fmt.Sprintf("Clerk has %s:\n", count(a.Users, "user")) + layOut([][]string{
		{"linked", number(a.Linked), "have a record"},
		{"by external id", number(a.ByExternalID.Adopts), external},
		{"by e-mail", number(a.ByEmail.Adopts), way(a.ByEmail)},
		{"either way", number(a.Either), "would adopt a record"},
		{"new", number(a.New), "would get a new record"},
	})
}

// findingText is one of the findings, the nth.
func findingText(n int, f *mongostore.Finding) string {
	head := []string{}
	if f.Field != "" {
		head = append(head, visible(f.Field))
	}
	if f.Records > 0 {
		head = append(head, count(f.Records, "record"))
	}
	text := f.Text
	if len(head) > 0 {
		text = strings.Join(head, ", ") + ": " + text
	}
	lines := []string{text}
	if len(f.IDs) > 0 {
		ids := strings.Join(f.IDs[:min(len(f.IDs), maxIDs)], ", ")
		if rest := f.Records - min(len(f.IDs), maxIDs); rest > 0 {
			ids += fmt.Sprintf(" and %d more", rest)
		}
		lines = append(lines, "_id: "+ids)
	}
	if len(f.Fields) > 0 {
		lines = append(lines, "Fields: "+strings.Join(fieldLines(f.Fields), " "))
	}
	if f.Fix != "" {
		lines = append(lines, strings.Split(f.Fix, "\n")...)
	}
	if accept := acceptance(f); f.Decision && accept != "" {
		lines = append(lines, "or, if that is all right: -accept "+accept)
	}
	return fmt.Sprintf("%3d. %s\n", n, strings.Join(lines, "\n     "))
}

// acceptance is what -accept takes to accept a finding, empty if nothing does.
func acceptance(f *mongostore.Finding) string {
	switch f.Kind {
	case "index", "writes":
		return ""
	case "replaced", "type", "extra", "other_name": // there may be several
		return visible(cmp.Or(f.Field, f.Kind))
	}
	return f.Kind
}

// fieldLines are the lines of a Go map.
func fieldLines(fields mongostore.Fields) []string {
	lines := make([]string, 0, len(fields))
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		lines = append(lines, fmt.Sprintf("%q: %q,", name, fields[name]))
	}
	return lines
}
