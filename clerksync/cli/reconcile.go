package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/clerksync/clerksync-go/clerksync"
)

// reconcileFlags are the flags of reconcile and of drift.
type reconcileFlags struct {
	settings settings
	options  clerksync.ReconcileOptions
	drift    bool
	versions bool
	force    bool // the default, which scripts may name
}

// bindShared adds the flags that reconcile and drift share.
func (r *reconcileFlags) bindShared(f *flag.FlagSet) {
	o := &r.options
	f.BoolVar(&r.versions, "versions", false, "compare only versions, not whole records: reads less, but misses edits by hand")
	f.StringVar(&o.Resume, "resume", "", "continue where an earlier run stopped: the `token` that it printed")
	f.StringVar(&o.InstanceID, "instance", "", "refuse to work with a Clerk instance other than this `id`, ins_…")
	f.DurationVar(&o.Holdback, "holdback", 0,
		"never treat a record as one of a deleted user for this long after it was created, adopted or confirmed; 0s means none (default 10m0s)")
	creates := "create users even if a record without a clerkId has their e-mail address: they then have two records"
	if r.drift {
		creates = "count users as missing even if a record without a clerkId has their e-mail address"
	}
	f.BoolVar(&o.IgnoreUnlinked, "ignore-unlinked", false, creates)
	f.IntVar(&o.PageSize, "page-size", 0, "`users` in one request to Clerk, from 1 to 500 (default 500)")
	f.IntVar(&o.Writers, "writers", 0, "how many `pages` to compare at the same time, from 1 to 64 (default 4)")
	f.Float64Var(&o.RequestsPerSecond, "rate", 0, "`requests` to Clerk per second; Clerk's limit is for your app and this command together "+
		"(default 80 with an sk_live_ key, else 8)")
}

func runReconcile(ctx context.Context, c *call, args []string) error {
	var f flag.FlagSet
	r := &reconcileFlags{}
	r.bindShared(&f)
	f.BoolVar(&r.options.DryRun, "dry-run", false, "write nothing; report what would be written")
	f.BoolVar(&r.force, "force", false, "compare whole records: the default")
	f.BoolVar(&r.options.Restore, "restore", false, "restore records that were marked deleted by mistake more than an hour ago")
	f.IntVar(&r.options.MaxDeactivations, "max-deactivations", 0, "mark no record deleted if more than this `number` are gone from Clerk; "+
		"-1 lifts the limit (default 10 or 2 % of the records, whichever is more)")
	f.StringVar(&r.settings.defaultRole, "default-role", "", "`role` of a new record: your app's Config.DefaultRole (default STUDENT)")
	f.BoolVar(&r.settings.eraseOnDelete, "erase-on-delete", false,
		"erase the personal data of records that are marked deleted: your app's mongostore.Options.EraseOnDelete")
	return r.run(ctx, c, &f, args)
}

// runDrift is a reconcile that writes nothing.
func runDrift(ctx context.Context, c *call, args []string) error {
	var f flag.FlagSet
	r := &reconcileFlags{drift: true}
	r.bindShared(&f)
	r.options.DryRun = true
	r.options.MaxDeactivations = -1 // count all ghosts
	return r.run(ctx, c, &f, args)
}

// run runs reconcile or drift.
func (r *reconcileFlags) run(ctx context.Context, c *call, f *flag.FlagSet, args []string) (err error) {
	if done, err := r.parse(c, f, args); done || err != nil {
		return err
	}
	config, options := r.settings.configs(c.env)
	db, err := c.env.open(ctx, r.settings, options)
	if err != nil {
		return err
	}
	defer closeDatabase(ctx, db, &err)
	if config.Map == nil && (!r.drift || !r.versions) {
		if err := refuseMapped(ctx, db, c.command.name); err != nil {
			return err
		}
	}

	show := newProgress(c.env, c.stderr)
	outage := &outage{env: c.env, note: show.note}
	syncer, err := newSyncer(c.env, *config, db.store(), show, outage)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, syncer.Close()) }()
	show.begin(r.title(c.command.name))
	if err := r.noteIfEmpty(ctx, db, show); err != nil {
		return err
	}
	report, err := r.reconcile(ctx, c, syncer, show)
	begun := report.ClerkCalls > 0 && (report.Seen > 0 || err == nil || !keyRefused.MatchString(err.Error()))
	if err != nil && !begun && !r.settings.json {
		return err // there is nothing to report
	}
	return r.conclude(ctx, c, f, &report, err, outage.current())
}

// parse parses the flags, checks them and completes the settings. If args ask for help, done is
// true.
func (r *reconcileFlags) parse(c *call, f *flag.FlagSet, args []string) (done bool, err error) {
	if done, err := c.parseNoArguments(f, &r.settings, args); done || err != nil {
		return done, err
	}
	if err := r.check(c, given(f)); err != nil {
		return false, err
	}
	r.options.Force = !r.versions
	r.settings.writesNothing = r.options.DryRun
	return false, r.settings.resolve(c.env, true)
}

var (
	isInstance = regexp.MustCompile(`^ins_[A-Za-z0-9_-]{1,64}$`)
	isToken    = regexp.MustCompile(`^[!-~]+$`)
)

// check returns an error for the first wrong flag in set. It also tells -holdback 0s from no
// -holdback.
func (r *reconcileFlags) check(c *call, set map[string]bool) error {
	o := &r.options
	for _, rule := range []struct {
		name string
		ok   bool
		must string
	}{
		{"page-size", o.PageSize >= 1 && o.PageSize <= 500, "be from 1 to 500"},
		{"writers", o.Writers >= 1 && o.Writers <= 64, "be from 1 to 64"},
		{"rate", o.RequestsPerSecond > 0 && !math.IsInf(o.RequestsPerSecond, 0), "be more than 0"},
		{"max-deactivations", o.MaxDeactivations >= 1 || o.MaxDeactivations == -1, "be 1 or more, or -1 for no limit"},
		{"holdback", o.Holdback >= 0, "not be negative; 0s means none"},
		{"instance", isInstance.MatchString(o.InstanceID), "be the id of a Clerk instance, ins_…"},
		{"resume", isToken.MatchString(o.Resume), "be what a run printed after resume= or -resume"},
		{"default-role", strings.TrimSpace(r.settings.defaultRole) != "", "not be empty"},
	} {
		if set[rule.name] && !rule.ok {
			return c.wrongFlags("-%s must %s", rule.name, rule.must)
		}
	}
	if r.force && r.versions {
		return c.wrongFlags("-force and -versions exclude each other")
	}
	if set["holdback"] && o.Holdback == 0 {
		o.Holdback = -1 // none, for ReconcileOptions
	}
	return nil
}

// noteIfEmpty warns of an empty collection if the run writes nothing. An empty collection is normal
// before the first reconcile.
func (r *reconcileFlags) noteIfEmpty(ctx context.Context, db database, show *progress) error {
	if !r.settings.writesNothing {
		return nil
	}
	empty, err := db.empty(ctx)
	if err == nil && empty {
		show.note("the collection " + r.settings.name() + " is empty; is -db right?")
	}
	return err
}

// reconcile calls Reconcile and shows its progress.
func (r *reconcileFlags) reconcile(ctx context.Context, c *call, syncer *clerksync.Syncer, show *progress) (clerksync.Report, error) {
	noted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(noted)
		show.note("interrupted: finishing the work in progress; interrupt again to stop at once")
	})
	r.options.Progress = show.update
	report, err := c.env.reconcile(syncer, ctx, r.options)
	if !stop() {
		<-noted
	}
	show.end(err == nil && report.Complete)
	return report, err
}

// conclude prints the report and returns how the command ends. outage is why Clerk did not answer
// at the end, empty if it did.
func (r *reconcileFlags) conclude(
	ctx context.Context, c *call, f *flag.FlagSet, report *clerksync.Report, failure error, outage string,
) error {
	result := result{
		report:      report,
		drift:       r.drift,
		failure:     failure,
		interrupted: ctx.Err() != nil && !report.Complete,
		outage:      outage,
		command:     func(name string, plus ...string) string { return c.env.commandLine(f, name, plus...) },
		collection:  r.settings.name(),
	}
	if r.settings.json {
		if err := printJSON(c.stdout, reportJSON{report, report.Duration.Seconds()}); err != nil {
			return err
		}
		return result.endOfJSON(c)
	}
	if err := print(c.stdout, result.text()); err != nil {
		return err
	}
	return result.end()
}

// title says what the run is about to do.
func (r *reconcileFlags) title(name string) string {
	notes := []string{"versions"}
	if r.options.Force {
		notes[0] = "whole records"
	}
	if r.options.DryRun {
		notes = append(notes, "nothing is written")
	}
	if r.options.Restore {
		notes = append(notes, "restoring")
	}
	if r.options.Resume != "" {
		notes = append(notes, "resumed")
	}
	return fmt.Sprintf("%s: %s against Clerk (%s)", name, r.settings.name(), strings.Join(notes, ", "))
}

// refuseMapped returns an error if the collection has records to which the app's own Map added
// fields. The standard mapping would remove those fields.
func refuseMapped(ctx context.Context, db database, command string) error {
	id, err := db.mapped(ctx)
	if err != nil || id == "" {
		return err
	}
	harm := "take them for drift"
	if command == "reconcile" {
		harm += " and remove them"
	}
	return fmt.Errorf("the app that writes this collection adds its own fields with Config.Map (the record of %s has extraFields). "+
		"This command does not know that Map and would %s. Nothing was written. "+
		"Run the commands from a program that calls cli.Main with the app's Config. drift -versions works here too", visible(id), harm)
}
