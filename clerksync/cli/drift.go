package cli

import (
	"context"
	"flag"
)

func runDrift(ctx context.Context, c *call, args []string) error {
	var f flag.FlagSet
	r := &reconcileFlags{}
	r.bindShared(&f)
	f.BoolVar(&r.versions, "versions", false, "compare only versions, not whole records: faster, and blind to what was edited by hand")
	r.options.DryRun = true
	r.options.MaxDeactivations = -1 // count all; nothing is marked
	return r.run(ctx, c, &f, args)
}
