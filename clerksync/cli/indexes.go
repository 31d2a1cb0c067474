package cli

import (
	"context"
	"flag"
	"fmt"
)

// runIndexes opens the Store, which makes the index on clerkId if needed and checks the others, and
// lists them.
func runIndexes(ctx context.Context, c *call, args []string) (err error) {
	var f flag.FlagSet
	s := &settings{}
	if done, err := c.parseNoArguments(&f, s, args); done || err != nil {
		return err
	}
	if err := s.resolve(c.env, false); err != nil {
		return err
	}
	_, options := s.configs(c.env)
	db, err := c.env.open(ctx, *s, options)
	if err != nil {
		return err
	}
	defer closeDatabase(ctx, db, &err)
	indexes, err := db.indexes(ctx)
	if err != nil {
		return err
	}
	assignRoles(indexes)
	if s.json {
		return printJSON(c.stdout, indexes)
	}
	rows := [][]string{{"index", "keys", "kind", ""}}
	for _, ix := range indexes {
		rows = append(rows, []string{ix.Name, ix.keys(), ix.kind(), ix.Role})
	}
	return print(c.stdout, fmt.Sprintf("Indexes of %s\n\n%s", s.name(), layOut(rows)))
}
