package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

// list is a flag of names, separated by commas or given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	for name := range strings.SplitSeq(value, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			return errors.New("a name is empty")
		}
		*l = append(*l, name)
	}
	return nil
}

// parse adds the flags of s to f, parses args and checks s. Flags may also follow arguments. If
// args ask for help, parse prints it and done is true. s is nil if the command needs no settings.
func (c *call) parse(f *flag.FlagSet, s *settings, args []string) (arguments []string, done bool, err error) {
	f.Init(c.command.name, flag.ContinueOnError)
	f.SetOutput(io.Discard) // flag's own messages print all flags
	if s != nil {
		s.bind(f)
	}
	for {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, true, print(c.stdout, c.command.help(f))
			}
			return nil, false, c.wrongFlags("%s", explainFlag(f, err))
		}
		if f.NArg() == 0 {
			break
		}
		arguments, args = append(arguments, f.Arg(0)), f.Args()[1:]
	}
	switch {
	case s == nil:
	case s.timeout <= 0:
		return nil, false, c.wrongFlags("-timeout must be more than 0, such as 10s")
	case given(f)["batch-size"] && s.batchSize < 1:
		return nil, false, c.wrongFlags("-batch-size must be 1 or more")
	}
	return arguments, false, nil
}

// parseNoArguments is parse for a command that takes flags only.
func (c *call) parseNoArguments(f *flag.FlagSet, s *settings, args []string) (done bool, err error) {
	arguments, done, err := c.parse(f, s, args)
	if err == nil && len(arguments) > 0 {
		err = c.wrongFlags("takes no arguments")
	}
	return done, err
}

// given returns the names of the flags that were set.
func given(f *flag.FlagSet) map[string]bool {
	set := make(map[string]bool)
	f.Visit(func(f *flag.Flag) { set[f.Name] = true })
	return set
}

func (c *call) wrongFlags(format string, args ...any) error {
	return usagef("%s: %s\n%s help %[1]s lists its flags",
		c.command.name, fmt.Sprintf(format, args...), c.env.programName())
}

// explainFlag rewords an error of flag's, because flag quotes the argument, which may be a secret
// in the wrong place. It also explains why there is no flag for a secret.
func explainFlag(f *flag.FlagSet, err error) string {
	text := err.Error()
	if m := wrongValue.FindStringSubmatch(text); m != nil {
		text := fmt.Sprintf("the value of %s is wrong: %s", m[1], m[2])
		if value, ok := f.Lookup(m[1][1:]).Value.(flag.Getter); ok {
			if _, ok := value.Get().(time.Duration); ok {
				text += "; write a duration such as 10m"
			}
		}
		return text
	}
	if strings.HasPrefix(text, "flag needs an argument: ") {
		return text
	}
	name, unknown := strings.CutPrefix(text, "flag provided but not defined: ")
	if !unknown || !isFlag.MatchString(name) {
		return "an argument begins with - but is not a flag of this command"
	}
	for _, word := range []string{"key", "secret", "uri", "url", "token", "password"} {
		if strings.Contains(name, word) {
			return fmt.Sprintf("there is no flag %s: secrets are read from the environment or from .env (%s, %s), never from flags",
				name, secretKeyVar, mongoURIVar)
		}
	}
	var flags []string
	f.VisitAll(func(f *flag.Flag) { flags = append(flags, f.Name) })
	return fmt.Sprintf("there is no flag %s%s", name, didYouMean(strings.TrimLeft(name, "-"), "-", flags))
}

// didYouMean returns "; did you mean NAME?" with the name that is closest to what was typed, or "" if
// none is close: at most a third of its letters may differ, or what was typed is its beginning.
func didYouMean(typed, prefix string, names []string) string {
	typed = strings.ToLower(typed)
	best, distance := "", 0
	for _, name := range names {
		d := editDistance(typed, name)
		if len(typed) >= 3 && strings.HasPrefix(name, typed) {
			d = 1
		}
		if 3*d <= len(name)+1 && (best == "" || d < distance) {
			best, distance = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s%s?", prefix, best)
}

// editDistance counts the letters to insert, delete or replace, and the neighbours to swap, to make b
// of a.
func editDistance(a, b string) int {
	before, last := []int(nil), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replaced := last[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			row[j] = min(replaced, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

var (
	wrongValue = regexp.MustCompile(`^invalid (?:boolean )?value .* for (?:flag )?(-[a-z-]+): (.*)$`)
	isFlag     = regexp.MustCompile(`^-[a-zA-Z-]{1,20}$`)
)

// sharedFlags are the flags that a command line for user, indexes or inspect takes over from another
// command.
var sharedFlags = []string{"env-file", "db", "collection", "timeout", "allow-unique"}

// commandLine returns the command line of the command name for the same collection and choices as
// f, with plus added. No flag holds a secret.
func (e *environment) commandLine(f *flag.FlagSet, name string, plus ...string) string {
	words := []string{e.programName(), name}
	f.Visit(func(f *flag.Flag) {
		if !takenOver(f, name) || slices.Contains(plus, "-"+f.Name) {
			return
		}
		words = append(words, "-"+f.Name)
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); !ok || !b.IsBoolFlag() {
			words = append(words, shellQuote(f.Value.String()))
		} else if f.Value.String() != "true" {
			words[len(words)-1] += "=" + f.Value.String()
		}
	})
	for _, word := range plus {
		words = append(words, shellQuote(word))
	}
	return strings.Join(words, " ")
}

// takenOver reports whether the command line of the command name repeats f.
func takenOver(f *flag.Flag, name string) bool {
	switch f.Name {
	case "resume", "json", "dry-run":
		return false
	}
	return name == "reconcile" || name == "drift" || name == "jobs" || slices.Contains(sharedFlags, f.Name)
}
