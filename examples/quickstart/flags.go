package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
)

type flags struct {
	once, demo             bool
	addr, data, envFile    string
	cacheTTL, refreshAfter time.Duration
}

// parseFlags prints what is wrong, and the usage.
func parseFlags(args []string, stderr io.Writer) (flags, error) {
	var f flags
	set := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	set.BoolVar(&f.once, "once", false, "end after the demo's story, with status 1 if a check failed")
	set.BoolVar(&f.demo, "demo", false, "run the demo even if the variables are set")
	set.StringVar(&f.addr, "addr", "", "serve the app on this `address`; default 127.0.0.1:8080, in the demo a free port (its page has another one)")
	set.StringVar(&f.data, "data", "data", "`folder` of the demo's database, which each run empties")
	set.DurationVar(&f.cacheTTL, "cache-ttl", 0, "clerksync's CacheTTL, not in the demo; default clerksync's own")
	set.DurationVar(&f.refreshAfter, "refresh-after", 0, "clerksync's RefreshAfter, not in the demo; default clerksync's own")
	set.StringVar(&f.envFile, "env", "", "`file` with variables; default quickstart/.env or .env, if one exists")

	set.SetOutput(io.Discard) // Parse prints the arguments
	err := set.Parse(args)
	set.SetOutput(stderr)
	if err == nil && set.NArg() > 0 {
		err = errors.New("unexpected argument " + word(set.Arg(0)))
	}
	if err == nil {
		return f, nil
	}
	if !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintln(stderr, "quickstart:", explainFlag(err))
	}
	set.Usage()
	return f, err
}

// explainFlag replaces package flag's errors, which quote arguments: one in the wrong place may be
// a secret.
func explainFlag(err error) string {
	text := err.Error()
	if m := wrongValue.FindStringSubmatch(text); m != nil {
		return "the value of " + m[1] + " is wrong: " + m[2]
	}
	if name, unknown := strings.CutPrefix(text, "flag provided but not defined: "); unknown {
		return "unknown flag " + word(name)
	}
	if strings.HasPrefix(text, "bad flag syntax: ") {
		return "an argument begins with - but is not a flag"
	}
	return text
}

var (
	wrongValue = regexp.MustCompile(`^invalid (?:boolean )?value .* for (?:flag )?(-[a-z-]+): (.*)$`)
	isWord     = regexp.MustCompile(`^[a-zA-Z-]{1,20}$`)
)

// word quotes a word. It hides anything else, which might be a secret.
func word(argument string) string {
	if isWord.MatchString(argument) {
		return strconv.Quote(argument)
	}
	return "(not shown: it may be a secret)"
}
