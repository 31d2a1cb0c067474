package main

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// source is a package to change.
const source = `package p

func plain(a, b int) int {
	if a > b { // larger
		return a
	}
	return b
}

type value struct{ n int }

func (v value) get() int { return v.n }

type pointer struct{ n int }

func (p *pointer) get() int { return p.n }

type generic[K comparable, V any] struct{ n int }

func (g *generic[K, V]) get() int { return g.n }

func get() int { return 0 }

func choose(a, b, c int) (n int) {
	switch {
	case a > b, /* or */ a > c:
		n = 1
		n++
	case b > c:
	default:
		n = 1
	}
	add := func(x, y int) int { return x + y }
	if n = add(n, n); n < 0 && add(a, b) > c {
		n--
	}
	return add(
		n,
		2, // two
	)
}
`

func TestApply(t *testing.T) {
	tests := []struct {
		name     string
		function string
		change   change
		old, new string // what changes in source: old is in it once
	}{
		{"an expression", "plain", replace("a > b", "false"), "a > b {", "false {"},
		{"an operator around a replacement", "choose", replace("n < 0", "n < 0 || true"), "n < 0", "(n < 0 || true)"},
		{"part of an expression", "choose", replace("add(a, b)", "0"), "add(a, b)", "0"},
		{"an expression over several lines", "choose", replace("add(n, 2)", "n"), "add(\n\t\tn,\n\t\t2, // two\n\t)", "n"},
		{"a function literal", "choose", replace("func(x, y int) int {\nreturn x + y\n}", "min[int]"),
			"func(x, y int) int { return x + y }", "min[int]"},
		{"a statement", "plain", replace("return a", "return 0"), "return a\n", "return 0\n"},
		{"other spaces and a comment", "plain", remove("if  a>b {return a /* here */}"),
			"if a > b { // larger\n\t\treturn a\n\t}", ""},
		{"statements in a row", "choose", replace("n = 1; n++", "n = 2"), "n = 1\n\t\tn++", "n = 2"},
		{"a statement before another", "choose", insertBefore("n--", "n = 7"), "n--", "n = 7\nn--"},
		{"the line with case", "choose", replace("case a > b, a > c:", "case false:"),
			"case a > b, /* or */ a > c:", "case false:"},
		{"a case before another", "choose", insertBefore("case b > c:", "case c == 0: return 0"),
			"case b > c:", "case c == 0: return 0\ncase b > c:"},
		{"a whole case", "choose", replace("case a > b, a > c: n = 1; n++", ""),
			"case a > b, /* or */ a > c:\n\t\tn = 1\n\t\tn++", ""},
		{"the line with default", "choose", replace("default:", "case true:"), "default:", "case true:"},
		{"a method of a value", "value.get", replace("v.n", "1"), "v.n", "1"},
		{"a method of a pointer", "pointer.get", replace("p.n", "1"), "p.n", "1"},
		{"a method of a generic type", "generic.get", replace("g.n", "1"), "g.n", "1"},
		{"a function with the name of methods", "get", replace("return 0", "return 1"), "return 0", "return 1"},
	}
	root := writePackage(t, source)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if n := strings.Count(source, tt.old); n != 1 {
				t.Fatalf("the source has %q %d times, want once", tt.old, n)
			}
			path, got, err := mutant{"m", in("p", tt.function), tt.change}.apply(root)
			if err != nil {
				t.Fatal(err)
			}
			if want := filepath.Join(root, "p", "p.go"); path != want {
				t.Errorf("changed %s, want %s", path, want)
			}
			if want := strings.Replace(source, tt.old, tt.new, 1); string(got) != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
	if unchanged, err := os.ReadFile(filepath.Join(root, "p", "p.go")); err != nil || string(unchanged) != source {
		t.Errorf("the file itself has changed, or: %v", err)
	}
}

func TestApplyFails(t *testing.T) {
	tests := []struct {
		name   string
		in     function
		change change
		want   string
	}{
		{"not found", in("p", "plain"), remove("return c"), `not found in plain in p: "return c"`},
		{"found elsewhere", in("p", "plain"), remove("n--"),
			`not found in plain in p, but found in choose (p.go:35): "n--"`},
		{"found twice", in("p", "choose"), replace("n = 1", "n = 2"),
			`choose in p has this 2 times, at p.go:27, p.go:31: "n = 1"`},
		{"in a comment only", in("p", "plain"), replace("larger", "smaller"), `not found in plain in p: "larger"`},
		{"in another order", in("p", "choose"), remove("n++; n = 1"), `not found in choose in p: "n++; n = 1"`},
		{"part of a longer case", in("p", "choose"), replace("case a > b:", "case false:"),
			`not found in choose in p: "case a > b:"`},
		{"no such function", in("p", "none"), remove("n--"), "p has no function none"},
		{"only methods of that name", in("p", "other.get"), remove("n--"),
			"p has no function other.get, but value.get, pointer.get, generic.get, get"},
		{"only in the tests", in("p", "inTest"), remove("n--"), "p has no function inTest"},
		{"no such package", in("q", "plain"), remove("n--"), "no Go files in q"},
		{"not Go", in("p", "plain"), remove("return return"), `not an expression, statement or case: "return return"`},
		{"nothing", in("p", "plain"), remove(""), "nothing to look for"},
		{"the result is not Go", in("p", "plain"), replace("a > b", ""), "the changed file does not parse: "},
	}
	root := writePackage(t, source)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := mutant{"m", tt.in, tt.change}.apply(root)
			if want := `mutant "m": ` + tt.want; err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got error  %v\nwant prefix %s", err, want)
			}
		})
	}
}

// The package may have its functions in any of its files.
func TestApplyFindsTheFile(t *testing.T) {
	root := writePackage(t, source)
	second := filepath.Join(root, "p", "second.go")
	writeFile(t, second, "package p\n\nfunc second() int { return 0 }\n")
	path, text, err := mutant{"m", in("p", "second"), replace("0", "1")}.apply(root)
	if err != nil {
		t.Fatal(err)
	}
	if want := "package p\n\nfunc second() int { return 1 }\n"; path != second || string(text) != want {
		t.Errorf("got %s with %q, want %s with %q", path, text, second, want)
	}
	writeFile(t, second, "package p\n\nfunc get() int { return 1 }\n")
	_, _, err = mutant{"m", in("p", "get"), remove("return 1")}.apply(root)
	if want := `mutant "m": p has 2 functions get`; err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
}

// Every mutant of the list applies to the tree as it is, and compiles.
func TestMutants(t *testing.T) {
	const root = "../.."
	names := make(map[string]bool)
	imports := newImporter(t, root)
	for _, m := range mutants {
		if names[m.name] {
			t.Errorf("two mutants have the name %q", m.name)
		}
		names[m.name] = true
		path, text, err := m.apply(root)
		if err != nil {
			t.Error(err)
			continue
		}
		if err := compile(path, text, imports); err != nil {
			t.Errorf("mutant %q does not compile: %v", m.name, err)
		}
		unchanged, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if syntax(t, unchanged) == syntax(t, text) {
			t.Errorf("mutant %q changes nothing", m.name)
		}
	}
}

// newImporter returns an importer of all packages that the library imports.
func newImporter(t *testing.T, root string) types.Importer {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-f", "{{.ImportPath}}={{.Export}}",
		"./clerksync/...", "./mongostore/...")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	exported := make(map[string]string) // the file with a package's compiled declarations, by import path
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "=")
		exported[path] = file
	}
	open := func(path string) (io.ReadCloser, error) { return os.Open(exported[path]) }
	return importer.ForCompiler(token.NewFileSet(), "gc", open)
}

// compile checks the types of a package in which the file at path has another text.
func compile(path string, text []byte, imports types.Importer) error {
	paths, err := sourceFiles(filepath.Dir(path))
	if err != nil {
		return err
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, p := range paths {
		var source any // nil: what is in the file
		if p == path {
			source = text
		}
		file, err := parser.ParseFile(fset, p, source, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, file)
	}
	config := types.Config{Importer: imports}
	_, err = config.Check(filepath.Dir(path), fset, files, nil)
	return err
}

// syntax returns a file's normal form.
func syntax(t *testing.T, text []byte) string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "", text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return normal(file)
}

// writePackage writes the package p, with a test file, and returns the directory above it.
func writePackage(t *testing.T, source string) (root string) {
	t.Helper()
	root = t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "p"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(root, "p", "p.go"), source)
	writeFile(t, filepath.Join(root, "p", "p_test.go"), "package p\n\nfunc inTest(n int) { n-- }\n")
	return root
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
