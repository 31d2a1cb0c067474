package cli

import (
	"context"
	"errors"
	"flag"
	"regexp"

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

	record, err := db.store().User(ctx, id)
	if err != nil && !errors.Is(err, clerksync.ErrNotFound) {
		return err
	}
	inClerk, err := askClerk(ctx, c, *config, id)
	if err != nil {
		return err
	}
	cmp := compare(id, record, inClerk)
	cmp.judge(record, inClerk, func(name string, plus ...string) string { return commandLine(&f, name, plus...) })
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
	store := memstore.New()
	store.Now = c.env.now
	syncer, err := newSyncer(c.env, config, store, newProgress(c.env, c.stderr), nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, syncer.Close()) }()
	res, err := syncer.Sync(ctx, id)
	if errors.Is(err, clerksync.ErrUserUnknown) {
		return nil, nil
	}
	return res.User, err
}
