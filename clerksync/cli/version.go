package cli

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
)

// modulePath is the module whose version the program has.
const modulePath = "github.com/clerksync/clerksync-go"

// version is what the program was built from.
type version struct {
	Version  string `json:"version"`            // of the module; "(devel)" if it was built from a clone
	Revision string `json:"revision,omitempty"` // the commit, if it was built from a clone
	Modified bool   `json:"modified"`           // the clone had changes that were not committed
	Go       string `json:"go"`
	Platform string `json:"platform"` // such as linux/amd64
}

// runVersion prints the version.
func runVersion(_ context.Context, c *call, args []string) error {
	var f flag.FlagSet
	asJSON := f.Bool("json", false, "print one JSON value on standard output, and nothing else there")
	if done, err := c.parseNoArguments(&f, nil, args); done || err != nil {
		return err
	}
	built, ok := c.env.buildInfo()
	v := versionOf(built, ok)
	if *asJSON {
		return printJSON(c.stdout, v)
	}
	return print(c.stdout, v.String()+"\n")
}

// versionOf finds the version in what the build recorded. An app's own program has the module among
// its dependencies, possibly replaced.
func versionOf(built *debug.BuildInfo, ok bool) version {
	v := version{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if !ok {
		return v
	}
	if built.Main.Path != modulePath {
		for _, m := range built.Deps {
			if m.Path == modulePath {
				for m.Replace != nil {
					m = m.Replace
				}
				v.Version = cmp.Or(m.Version, "(devel)")
			}
		}
		return v // the revision is the app's
	}
	v.Version = cmp.Or(built.Main.Version, "(devel)")
	for _, s := range built.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

// String is the version for people.
func (v version) String() string {
	text := "clerksync " + v.Version
	if v.Revision != "" {
		text += fmt.Sprintf(", revision %.12s", v.Revision)
	}
	if v.Modified {
		text += " with changes"
	}
	return fmt.Sprintf("%s, %s %s", text, v.Go, v.Platform)
}
