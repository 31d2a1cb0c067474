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

// reconcileFlags are the choices of a reconcile and of a drift.
type reconcileFlags struct {
	settings
	options  clerksync.ReconcileOptions
	versions bool // drift's
}

// bindShared adds the flags that reconcile and drift have.
func (r *reconcileFlags) bindShared(f *flag.FlagSet) {
	o := &r.options
	f.StringVar(&o.Resume, "resume", "", "go on where an earlier run ended: the `token` that it printed")
	f.StringVar(&o.InstanceID, "instance", "", "refuse to work with another Clerk instance than this `id`, ins_…")
	f.DurationVar(&o.Holdback, "holdback", 0, "never take a record that is younger for one of a deleted user; 0s means none (default 10m0s)")
	f.IntVar(&o.PageSize, "page-size", 0, "`users` in one request to Clerk, from 1 to 500 (default 500)")
	f.IntVar(&o.Writers, "writers", 0, "how many `pages` to compare at one time (default 4)")
	f.Float64Var(&o.RequestsPerSecond, "rate", 0, "`requests` to Clerk in a second; the limit of Clerk's is for your app and this together (default 80 with an sk_live_ key, else 8)")
}

func runReconcile(ctx context.Context, c *call, args []string) error {
	var f flag.FlagSet
	r := &reconcileFlags{}
	r.bindShared(&f)
	f.BoolVar(&r.options.DryRun, "dry-run", false, "write nothing; say what would be written")
	f.BoolVar(&r.options.Force, "force", false, "compare whole records, not only versions: finds what was edited by hand")
	f.BoolVar(&r.options.Restore, "restore", false, "give back records that were marked deleted over an hour ago by mistake")
	f.IntVar(&r.options.MaxDeactivations, "max-deactivations", 0, "mark none deleted where more than this `number` of records are gone from Clerk; -1 lifts the limit (default 10 or 2 % of the records, whichever is more)")
	f.StringVar(&r.defaultRole, "default-role", "", "`role` of a new record: the app's Config.DefaultRole (default STUDENT)")
	f.BoolVar(&r.eraseOnDelete, "erase-on-delete", false, "erase the personal data of records that are marked deleted: the app's mongostore.Options.EraseOnDelete")
	return r.run(ctx, c, &f, args)
}

var (
	isInstance = regexp.MustCompile(`^ins_[A-Za-z0-9_-]{1,64}$`)
	isToken    = regexp.MustCompile(`^[!-~]{1,1000}$`)
)

// check finds what is wrong with the flags, and tells zero from not set.
func (r *reconcileFlags) check(c *call, set map[string]bool) error {
	o := &r.options
	switch {
	case set["page-size"] && (o.PageSize < 1 || o.PageSize > 500):
		return c.wrongFlags("-page-size must be from 1 to 500")
	case set["writers"] && (o.Writers < 1 || o.Writers > 64):
		return c.wrongFlags("-writers must be from 1 to 64")
	case set["rate"] && !(o.RequestsPerSecond > 0 && !math.IsInf(o.RequestsPerSecond, 0)):
		return c.wrongFlags("-rate must be more than 0")
	case set["max-deactivations"] && (o.MaxDeactivations == 0 || o.MaxDeactivations < -1):
		return c.wrongFlags("-max-deactivations must be 1 or more, or -1 for no limit")
	case o.Holdback < 0:
		return c.wrongFlags("-holdback must not be negative; 0s means none")
	case set["instance"] && !isInstance.MatchString(o.InstanceID):
		return c.wrongFlags("-instance must be the id of a Clerk instance, ins_…")
	case set["resume"] && !isToken.MatchString(o.Resume):
		return c.wrongFlags("-resume must be what a run printed after resume= or -resume")
	case set["default-role"] && strings.TrimSpace(r.defaultRole) == "":
		return c.wrongFlags("-default-role must not be empty")
	}
	if set["holdback"] && o.Holdback == 0 {
		o.Holdback = -1
	}
	return nil
}

// run does what reconcile and drift have in common.
func (r *reconcileFlags) run(ctx context.Context, c *call, f *flag.FlagSet, args []string) (err error) {
	arguments, done, err := c.parse(f, &r.settings, args)
	if done || err != nil {
		return err
	}
	if len(arguments) > 0 {
		return c.wrongFlags("it takes no arguments")
	}
	if err := r.check(c, given(f)); err != nil {
		return err
	}
	drift := c.command.name == "drift"
	if drift {
		r.options.Force = !r.versions
	}
	r.writesNothing = r.options.DryRun
	if err := r.resolve(c.env, true); err != nil {
		return err
	}
	config, options := r.configs(c.env)
	db, err := c.env.open(ctx, r.settings, options)
	if err != nil {
		return err
	}
	defer closeDatabase(ctx, db, &err)
	if !r.versions {
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
	show.begin(r.title(drift))
	if r.writesNothing { // else its first record may well be about to be written
		if empty, err := db.empty(ctx); err != nil {
			return err
		} else if empty {
			show.note("the collection " + r.name() + " is empty; is -db right?")
		}
	}
	noted := make(chan struct{})
	notNoted := context.AfterFunc(ctx, func() {
		defer close(noted)
		show.note("interrupted: what is under way is brought to its end; another interrupt ends at once")
	})
	r.options.Progress = show.update
	report, err := c.env.reconcile(syncer, ctx, r.options)
	if !notNoted() {
		<-noted
	}
	show.end(err == nil && report.Complete)
	if err != nil && !r.json && (report.ClerkCalls == 0 || report.Seen == 0 && refusal.MatchString(err.Error())) {
		return err // it has not begun: there is nothing to report
	}
	return r.conclude(ctx, c, f, &report, err, outage.current())
}

// conclude prints the report and decides how the command ends; outage is why Clerk did
// not answer at the end, empty if it did.
func (r *reconcileFlags) conclude(ctx context.Context, c *call, f *flag.FlagSet, report *clerksync.Report, failure error, outage string) error {
	result := result{
		Report:      report,
		drift:       c.command.name == "drift",
		failure:     failure,
		interrupted: ctx.Err() != nil && !report.Complete,
		outage:      outage,
		command:     func(name string, plus ...string) string { return commandLine(f, name, plus...) },
		collection:  r.name(),
	}
	var err error
	if r.json {
		err = printJSON(c.stdout, report)
	} else {
		err = print(c.stdout, result.text())
	}
	if err != nil {
		return err
	}
	switch {
	case result.interrupted:
		if r.json && report.Resume != "" { // the report says it, but who reads it then
			_, _ = fmt.Fprintf(c.stderr, "clerksync: interrupted; go on with:\n  %s\n", result.resumeCommand())
			return errReported
		}
		return errors.New("interrupted")
	case failure != nil:
		return failure
	case !report.Complete:
		if r.json {
			return errors.New("incomplete: " + plain(report.Reason))
		}
		return errReported
	case result.drift && !report.InStep():
		return errDiffer
	case !result.drift && report.Conflicts.Count+report.Failed.Count > 0:
		return errReported
	}
	return nil
}

// title is what the run is about to do.
func (r *reconcileFlags) title(drift bool) string {
	var notes []string
	if r.options.Force {
		notes = append(notes, "whole records")
	} else {
		notes = append(notes, "versions")
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
	name := "reconcile"
	if drift {
		name = "drift"
	}
	return fmt.Sprintf("%s: %s against Clerk (%s)", name, r.name(), strings.Join(notes, ", "))
}

// refuseMapped keeps the standard mapping away from records that the app maps by
// its own: a field that the Map added would be removed from each of them.
func refuseMapped(ctx context.Context, db database, command string) error {
	id, err := db.mapped(ctx)
	if err != nil || id == "" {
		return err
	}
	text := "the app that writes this collection adds fields of its own with Config.Map (the record of " + visible(id) +
		" has extraFields), and this command does not know that Map: it would take them for drift"
	if command == "reconcile" {
		text += " and remove them"
	}
	text += ". Nothing was written. Call Syncer.Reconcile from a program that has the app's Config; drift -versions works here too"
	return errors.New(text)
}

// closeDatabase is deferred.
func closeDatabase(ctx context.Context, db database, err *error) {
	if closing := db.close(ctx); *err == nil {
		*err = closing
	}
}
