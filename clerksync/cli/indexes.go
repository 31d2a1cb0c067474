package cli

import (
	"context"
	"flag"
	"fmt"
)

// runIndexes opens the Store, which makes or checks the indexes, and lists them.
func runIndexes(ctx context.Context, c *call, args []string) (err error) {
	var f flag.FlagSet
	s := &settings{}
	arguments, done, err := c.parse(&f, s, args)
	if done || err != nil {
		return err
	}
	if len(arguments) > 0 {
		return c.wrongFlags("it takes no arguments")
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
