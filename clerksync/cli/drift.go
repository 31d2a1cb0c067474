package cli

import (
	"context"
	"flag"
)

// runDrift is a reconcile that writes nothing.
func runDrift(ctx context.Context, c *call, args []string) error {
	var f flag.FlagSet
	r := &reconcileFlags{drift: true}
	r.bindShared(&f)
	f.BoolVar(&r.versions, "versions", false, "compare only versions, not whole records: faster, but misses edits by hand")
	r.options.DryRun = true
	r.options.MaxDeactivations = -1 // count all ghosts
	return r.run(ctx, c, &f, args)
}
