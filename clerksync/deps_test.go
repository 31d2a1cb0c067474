package clerksync_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden lists of dependencies")

// What a package links into an app's build is a decision. To accept a new dependency, run
// go test ./clerksync -run TestDependencies -update.
func TestDependencies(t *testing.T) {
	t.Parallel()
	var got []string
	for _, pkg := range []string{"clerksync", "clerksync/memstore", "clerksync/storetest", "clerksync/fakeclerk", "mongostore"} {
		for _, path := range goList(t, "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "../"+pkg) {
			got = append(got, pkg+" "+path)
		}
	}
	golden := filepath.Join("testdata", "dependencies.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(strings.TrimSpace(string(want)), "\n"), got); diff != "" {
		t.Errorf("dependencies (-golden +now):\n%s", diff)
	}
}

// An app that imports clerksync and mongostore builds at most 20 modules, and lists at most 45.
func TestModuleCounts(t *testing.T) {
	t.Parallel()
	built := goList(t, "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "../clerksync", "../mongostore")
	if len(built) > 20 {
		t.Errorf("%d modules are built:\n%s", len(built), strings.Join(built, "\n"))
	}
	listed := goList(t, "-m", "all")
	if len(listed) > 45-1 { // the app's own module is one more
		t.Errorf("%d modules are listed:\n%s", len(listed), strings.Join(listed, "\n"))
	}
	page, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if fact := fmt.Sprintf("%d modules", len(built)-1); !strings.Contains(string(page), fact) { // all but clerksync itself
		t.Errorf("README.md does not say %q", fact)
	}
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	lines := strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
	slices.Sort(lines)
	return slices.Compact(lines)
}
