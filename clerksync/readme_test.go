package clerksync_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every Go snippet of the README is, line by line, in an example that is compiled.
func TestReadmeSnippetsAreCompiled(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var sources []string
	for _, pattern := range []string{"example*_test.go", "*/example*_test.go", "../mongostore/example*_test.go",
		"../examples/*/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sources = append(sources, withoutIndent(string(source)))
		}
	}
	snippets := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(snippets) == 0 {
		t.Fatal("the README has no snippet")
	}
	for _, snippet := range snippets {
		compiled := false
		for _, source := range sources {
			compiled = compiled || strings.Contains(source, withoutIndent(snippet[1]))
		}
		if !compiled {
			t.Errorf("no example has this snippet:\n%s", snippet[1])
		}
	}
}

// withoutIndent removes the indentation, which differs between a snippet and its source.
func withoutIndent(code string) string {
	lines := strings.Split(code, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}
