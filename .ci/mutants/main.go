// Command mutants shows that the random world of clerksync/storetest/world bites: it puts
// one fault after the other into the library, by an overlay that leaves the files alone,
// and wants a test to fail each time: the world's, on memstore, and for a fault of
// mongostore there, or, where it takes more worlds than these to meet the fault, a test
// of the packages' own. It ends with status 1 if one survives.
//
//	go run ./.ci/mutants            # all, in some twelve minutes
//	go run ./.ci/mutants -run cache # those with "cache" in their name
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	only   = flag.String("run", "", "run the mutants whose name matches")
	checks = flag.Int("checks", 150, "worlds a mutant must survive; on MongoDB a thirtieth")
	seed   = flag.Int("seed", 1, "rapid's seed")
)

func main() {
	flag.Parse()
	dir, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		fatal(err)
	}
	wanted := regexp.MustCompile(*only)
	chosen := slices.DeleteFunc(slices.Clone(mutants), func(m mutant) bool { return !wanted.MatchString(m.name) })
	var errs []error
	for _, m := range chosen { // all apply, before the first is tried
		_, err := m.overlay(dir)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		fatal(err)
	}
	survivors := 0
	for _, m := range chosen {
		start := time.Now()
		by, err := m.try(dir)
		if err != nil {
			fatal(err)
		}
		if by == "" {
			survivors++
			by = "SURVIVES"
		}
		fmt.Printf("%-52s %5.1fs  %s\n", m.name, time.Since(start).Seconds(), by)
	}
	_ = os.RemoveAll(dir)
	fmt.Printf("%d of %d mutants died\n", len(chosen)-survivors, len(chosen))
	if survivors > 0 {
		os.Exit(1)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(2)
}

// try returns what killed the mutant, "" if nothing did.
func (m mutant) try(dir string) (by string, err error) {
	overlay, err := m.overlay(dir)
	if err != nil {
		return "", err
	}
	world, worlds, packages := []string{"./clerksync/storetest/world", "-run=^TestMemstore"}, *checks, []string{"./clerksync", "./clerksync/memstore"}
	if strings.HasPrefix(m.file, "mongostore/") { // a world takes thirty times as long there
		world, worlds, packages = []string{"./mongostore", "-run=^TestWorld"}, (*checks+29)/30, []string{"./mongostore"}
	}
	out, died := test(overlay, append(world, "-rapid.nofailfile", "-rapid.shrinktime=500ms",
		fmt.Sprintf("-rapid.checks=%d", worlds), fmt.Sprintf("-rapid.seed=%d", *seed))...)
	if died {
		if strings.Contains(out, "[build failed]") {
			return "", errors.New(out)
		}
		return "world: " + reason(out), nil
	}
	out, died = test(overlay, packages...)
	if died {
		return "own tests: " + reason(out), nil
	}
	return "", nil
}

// overlay writes the mutated file and the list that puts it in the place of the other.
func (m mutant) overlay(dir string) (string, error) {
	path, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	source, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		return "", fmt.Errorf("%s: %s has the text to change %d times", m.name, m.file, n)
	}
	mutated := filepath.Join(dir, "mutated.go")
	if err := os.WriteFile(mutated, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600); err != nil {
		return "", err
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutated}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o600)
}

func test(overlay string, args ...string) (out string, failed bool) {
	cmd := exec.CommandContext(context.Background(), "go", append([]string{"test", "-vet=off", "-count=1", "-timeout=3m", "-failfast", "-ldflags=-s -w", "-overlay", overlay}, args...)...)
	b, err := cmd.CombinedOutput()
	// That a run was short of something is no verdict on the mutant.
	short := strings.Contains(string(b), "these never happened") && !strings.Contains(string(b), "[rapid] failed")
	return string(b), err != nil && !short
}

var failure = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^panic: (.*)$`),
	regexp.MustCompile(`(?m)\[rapid\] (?:failed|panic) after (\d+ tests?: .*)$`),
	regexp.MustCompile(`(?m)^\s+--- FAIL: \S+/(\S+)`),
	regexp.MustCompile(`(?m)^--- FAIL: (\S+)`),
}

// reason is what a test's output says of its first failure.
func reason(out string) string {
	for _, f := range failure {
		if found := f.FindStringSubmatch(out); found != nil {
			return fmt.Sprintf("%.100s", found[1])
		}
	}
	return "it failed"
}
