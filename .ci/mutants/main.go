// Command mutants checks that the tests notice faults. It puts one fault after another into
// the library and runs the tests until one fails. First comes the random world of
// clerksync/storetest/world, on memstore, or on mongostore if the fault is there. Then come
// the packages' own tests, for faults that the world meets too rarely. An overlay holds the
// changed file, so the source tree stays as it is. The exit status is 1 if a mutant survives.
//
//	go run ./.ci/mutants            # all, in about an hour
//	go run ./.ci/mutants -run cache # those with "cache" in their name
//	go test ./.ci/mutants           # do all of them apply and compile? "go test ./..." skips this directory
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
	only   = flag.String("run", "", "run only the mutants whose name matches this regular expression")
	checks = flag.Int("checks", 150, "number of random worlds to try; a thirtieth of that on MongoDB")
	seed   = flag.Int("seed", 1, "seed of the random worlds")
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
	for _, m := range chosen { // each must apply before the first is tried
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
		fmt.Printf("%-62s %5.1fs  %s\n", m.name, time.Since(start).Seconds(), by)
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
	world, worlds := []string{"./clerksync/storetest/world", "-run=^TestMemstore"}, *checks
	packages := []string{"./clerksync", "./clerksync/memstore"}
	if strings.HasPrefix(m.in.dir+"/", "mongostore/") { // a world takes thirty times as long there
		world, worlds = []string{"./mongostore", "-run=^TestWorld", "-rounds=2"}, (*checks+29)/30
		packages = []string{"./mongostore"}
	}
	if own := "./" + m.in.dir; !slices.Contains(packages, own) {
		packages = append(packages, own)
	}
	out, died := test(overlay, append(world, "-rapid.nofailfile", "-rapid.shrinktime=500ms",
		fmt.Sprintf("-rapid.checks=%d", worlds), fmt.Sprintf("-rapid.seed=%d", *seed))...)
	if died {
		if strings.Contains(out, "[build failed]") {
			return "", fmt.Errorf("mutant %q: %s", m.name, out)
		}
		return "world: " + reason(out), nil
	}
	out, died = test(overlay, packages...)
	if died {
		return "own tests: " + reason(out), nil
	}
	return "", nil
}

// overlay writes the changed file, and the list for -overlay that puts it in the place of
// the original. It returns the list's path.
func (m mutant) overlay(dir string) (string, error) {
	path, text, err := m.apply(".")
	if err != nil {
		return "", err
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return "", err
	}
	mutated := filepath.Join(dir, "mutated.go")
	if err := os.WriteFile(mutated, text, 0o600); err != nil {
		return "", err
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutated}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o600)
}

// test runs go test with the overlay, and reports whether a test failed.
func test(overlay string, args ...string) (out string, failed bool) {
	args = append([]string{"test", "-vet=off", "-count=1", "-timeout=10m", "-failfast", "-ldflags=-s -w",
		"-overlay", overlay}, args...)
	cmd := exec.CommandContext(context.Background(), "go", args...)
	b, err := cmd.CombinedOutput()
	// A world that was too short to reach everything says nothing about the mutant.
	short := strings.Contains(string(b), "these never happened") && !strings.Contains(string(b), "[rapid] failed")
	return string(b), err != nil && !short
}

var failure = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^panic: (.*)$`),
	regexp.MustCompile(`(?m)\[rapid\] (?:failed|panic) after (\d+ tests?: .*)$`),
	regexp.MustCompile(`(?m)^\s+--- FAIL: \S+/(\S+)`),
	regexp.MustCompile(`(?m)^--- FAIL: (\S+)`),
}

// reason returns what a test's output says about its first failure.
func reason(out string) string {
	for _, f := range failure {
		if found := f.FindStringSubmatch(out); found != nil {
			return fmt.Sprintf("%.100s", found[1])
		}
	}
	return "it failed"
}
