package clerksync_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every Go snippet of the documentation is part of an example in this repository, so it compiles.
func TestSnippetsAreCompiled(t *testing.T) {
	t.Parallel()
	var sources []string
	for _, file := range glob(t, "example*_test.go", "*/example*_test.go", "../mongostore/example*_test.go", "../examples/*/*.go", "../examples/*/*/*.go") {
		sources = append(sources, withoutIndent(file.text))
	}
	snippets := 0
	for _, page := range glob(t, "../README.md", "*.md", "../mongostore/*.md", "cmd/clerksync/*.md", "storetest/*.md", "otelsync/*.md") {
		for _, snippet := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(page.text, -1) {
			snippets++
			if !slices.ContainsFunc(sources, func(source string) bool { return strings.Contains(source, withoutIndent(snippet[1])) }) {
				t.Errorf("%s: no example contains this snippet:\n%s", page.name, snippet[1])
			}
		}
	}
	if snippets < 8 {
		t.Errorf("only %d snippets were found", snippets)
	}
}

// Every relative link of the documentation leads to a file, and to a heading if it names one.
func TestLinksLeadToFiles(t *testing.T) {
	t.Parallel()
	code := regexp.MustCompile("(?s)```.*?```") // a type argument looks like a link, a comment like a heading
	links := 0
	for _, page := range glob(t, "../*.md", "../.github/*.md", "*.md", "../mongostore/*.md", "cmd/clerksync/*.md", "storetest/*.md", "otelsync/*.md") {
		text := code.ReplaceAllString(page.text, "")
		for _, link := range regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`).FindAllStringSubmatch(text, -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			links++
			file, anchor := filepath.Join(filepath.Dir(page.name), link[1]), link[2]
			if link[1] == "" {
				file = page.name
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: the link %s leads nowhere: %v", page.name, link[1], err)
				continue
			}
			if anchor == "" || filepath.Ext(file) != ".md" {
				continue
			}
			target, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(anchors(code.ReplaceAllString(string(target), "")), anchor) {
				t.Errorf("%s: %s has no heading for %s", page.name, file, anchor)
			}
		}
	}
	if links < 20 {
		t.Errorf("only %d links were found", links)
	}
}

// anchors are the fragments by which GitHub links to the headings of a page.
func anchors(page string) (found []string) {
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		found = append(found, "#"+strings.ReplaceAll(name, " ", "-"))
	}
	return found
}

type textFile struct{ name, text string }

// glob reads the files that match, at least one for each pattern.
func glob(t *testing.T, patterns ...string) (files []textFile) {
	t.Helper()
	for _, pattern := range patterns {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(names), err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, textFile{name, string(text)})
		}
	}
	return files
}

// withoutIndent removes the indentation, which differs between a snippet and its source.
func withoutIndent(code string) string {
	lines := strings.Split(code, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}
