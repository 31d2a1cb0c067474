package fakeclerk_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// parseYAML reads the part of YAML that Clerk's OpenAPI files are written in: block
// mappings and sequences, literal blocks, {} and [], plain and quoted scalars on one or
// several lines. A library for it would be a requirement of everyone who uses the
// module.
func parseYAML(text string) (value any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("line %v", r)
		}
	}()
	p := &yamlParser{lines: strings.Split(text, "\n")}
	p.skip()
	value = p.block(0)
	if p.skip(); p.at < len(p.lines) {
		panic(p.at + 1)
	}
	return value, nil
}

// yamlParser panics with the number of a line that it does not understand.
type yamlParser struct {
	lines []string
	at    int
}

func indentation(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// skip goes to the next line that says something.
func (p *yamlParser) skip() {
	for p.at < len(p.lines) && strings.TrimSpace(p.lines[p.at]) == "" {
		p.at++
	}
}

// block parses the mapping or sequence whose lines begin at the given column.
func (p *yamlParser) block(column int) any {
	if strings.HasPrefix(p.lines[p.at][column:], "- ") {
		list := []any{}
		for p.here(column) && strings.HasPrefix(p.lines[p.at][column:], "- ") {
			// What follows the dash is a block of its own, two columns to the right.
			p.lines[p.at] = strings.Repeat(" ", column+2) + p.lines[p.at][column+2:]
			if _, _, ok := cutKey(p.lines[p.at][column+2:]); ok {
				list = append(list, p.block(column+2))
				continue
			}
			rest := p.lines[p.at][column+2:]
			p.at++
			list = append(list, p.value(rest, column))
		}
		return list
	}
	mapping := map[string]any{}
	for p.here(column) {
		key, rest, ok := cutKey(p.lines[p.at][column:])
		if !ok {
			panic(p.at + 1)
		}
		p.at++
		mapping[key] = p.value(rest, column)
	}
	return mapping
}

// here reports whether the next line that says something begins at the column.
func (p *yamlParser) here(column int) bool {
	p.skip()
	return p.at < len(p.lines) && indentation(p.lines[p.at]) == column
}

// cutKey splits "key: value" and "key:".
func cutKey(s string) (key, rest string, ok bool) {
	if s != "" && (s[0] == '\'' || s[0] == '"') {
		end := strings.IndexByte(s[1:], s[0]) + 1
		if end < 1 || !strings.HasPrefix(s[end+1:], ":") {
			return "", "", false
		}
		return s[1:end], strings.TrimSpace(s[end+2:]), true
	}
	if key, ok = strings.CutSuffix(s, ":"); ok {
		return key, "", true
	}
	return cutString(s)
}

func cutString(s string) (key, rest string, ok bool) {
	key, rest, ok = strings.Cut(s, ": ")
	return key, strings.TrimSpace(rest), ok
}

// value parses what follows a key or a dash at the given column.
func (p *yamlParser) value(rest string, column int) any {
	switch rest {
	case "":
		p.skip()
		if p.at < len(p.lines) {
			if in := indentation(p.lines[p.at]); in > column || in == column && strings.HasPrefix(p.lines[p.at][in:], "- ") {
				return p.block(in)
			}
		}
		return nil
	case "|", "|-":
		text := p.deeper(column, func(line string, indent int) string { return line[min(indent, len(line)):] + "\n" })
		text = strings.TrimRight(text, "\n")
		if rest == "|" {
			text += "\n"
		}
		return text
	}
	if rest[0] != '\'' && rest[0] != '"' || len(rest) < 2 || rest[len(rest)-1] != rest[0] {
		more := p.deeper(column, func(line string, _ int) string { return " " + strings.TrimSpace(line) })
		rest += strings.TrimRight(more, " ")
	}
	return scalar(rest)
}

// deeper consumes the lines that are indented deeper than the column.
func (p *yamlParser) deeper(column int, each func(line string, indent int) string) string {
	var text strings.Builder
	indent := -1
	for ; p.at < len(p.lines); p.at++ {
		line := p.lines[p.at]
		if strings.TrimSpace(line) != "" {
			if indentation(line) <= column {
				break
			}
			if indent < 0 {
				indent = indentation(line)
			}
		}
		text.WriteString(each(line, max(indent, 0)))
	}
	return text.String()
}

func scalar(s string) any {
	switch s {
	case "null", "~":
		return nil
	case "true":
		return true
	case "false":
		return false
	case "{}":
		return map[string]any{}
	case "[]":
		return []any{}
	}
	if len(s) > 1 && s[0] == '\'' {
		return strings.ReplaceAll(s[1:len(s)-1], "''", "'")
	}
	if len(s) > 1 && s[0] == '"' {
		unquoted, err := strconv.Unquote(s)
		if err != nil {
			return s[1 : len(s)-1]
		}
		return unquoted
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		return n
	}
	return s
}

func TestParseYAML(t *testing.T) {
	t.Parallel()
	got, err := parseYAML(`
a: 1
b:
  c: plain text
    that goes on
  'd': 'it''s quoted: yes'
  "e": {}
list:
  - one
  - name: two
    text: |-
      literal: text

        deeper
    more: []
  - $ref: '#/x'
empty:
text: |
  ends in a newline
flag: true
`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"a": 1.0,
		"b": map[string]any{"c": "plain text that goes on", "d": "it's quoted: yes", "e": map[string]any{}},
		"list": []any{
			"one",
			map[string]any{"name": "two", "text": "literal: text\n\n  deeper", "more": []any{}},
			map[string]any{"$ref": "#/x"},
		},
		"empty": nil, "text": "ends in a newline\n", "flag": true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := parseYAML("a: 1\nno key"); err == nil {
		t.Error("no error")
	}
}
