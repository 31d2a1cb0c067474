// Package dotenv looks variables up in the process's environment and in a .env file. No
// general library does it here because those quote the file, which has secrets in it, in
// their errors, and some expand $ in values.
package dotenv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// Variables are those of the process and of a file.
type Variables struct {
	Lookup func(string) (string, bool) // os.LookupEnv
	File   string                      // empty: none was found
	Vars   map[string]string           // the file's
}

// Load reads the first of the files that exists; none need exist.
func Load(lookup func(string) (string, bool), files ...string) (Variables, error) {
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // its folder may be a file
			continue
		}
		if err != nil {
			return Variables{}, err
		}
		vars, err := Parse(file, string(text))
		return Variables{Lookup: lookup, File: file, Vars: vars}, err
	}
	return Variables{Lookup: lookup}, nil
}

// Get returns a variable's value without the space around it. The process's environment
// wins, even with an empty value.
func (v Variables) Get(name string) string {
	value, ok := v.Lookup(name)
	if !ok {
		value = v.Vars[name]
	}
	return strings.TrimSpace(value)
}

// Shadowed reports whether the file has a value that an empty one in the process's
// environment hides.
func (v Variables) Shadowed(name string) bool {
	value, ok := v.Lookup(name)
	return ok && strings.TrimSpace(value) == "" && v.Vars[name] != ""
}

// Parse parses lines of NAME=VALUE. Blank lines and comments are skipped, "export " may
// stand in front. A value in single quotes is taken as it is; in double quotes, \n, \r,
// \t, \", \\ and \$ are escapes; without quotes it ends before " #". Errors give file and
// line and nothing of the text, which may be a secret.
func Parse(file, text string) (map[string]string, error) {
	vars := make(map[string]string)
	text = strings.TrimPrefix(text, "\ufeff") // Windows editors put it there
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, i+1, err)
		}
		vars[name] = value
	}
	return vars, nil
}

func parseLine(line string) (name, value string, err error) {
	if rest, ok := strings.CutPrefix(line, "export"); ok && rest != "" && (rest[0] == ' ' || rest[0] == '\t') {
		line = strings.TrimSpace(rest)
	}
	name, value, ok := strings.Cut(line, "=")
	if !ok {
		return "", "", errors.New("no =; a line is NAME=VALUE")
	}
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if !isName(name) {
		return "", "", errors.New("what stands before the = is no name of a variable")
	}
	if value == "" || value[0] != '\'' && value[0] != '"' {
		return name, unquoted(value), nil
	}
	value, rest, err := quoted(value)
	if err != nil {
		return "", "", err
	}
	if rest = strings.TrimSpace(rest); rest != "" && rest[0] != '#' {
		return "", "", errors.New("text after the closing quote")
	}
	return name, value, nil
}

func isName(s string) bool {
	for i, c := range []byte(s) {
		switch {
		case c == '_', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		case '0' <= c && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return s != ""
}

// unquoted cuts a comment off.
func unquoted(value string) string {
	for i := range len(value) {
		if value[i] == '#' && (i == 0 || value[i-1] == ' ' || value[i-1] == '\t') {
			return strings.TrimSpace(value[:i])
		}
	}
	return value
}

// quoted decodes the value at the beginning of s, which is a quote, and returns what follows it.
func quoted(s string) (value, rest string, err error) {
	quote := s[0]
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		c := s[i]
		switch {
		case c == quote:
			return b.String(), s[i+1:], nil
		case c == '\\' && quote == '"' && i+1 < len(s):
			i++
			switch s[i] {
			case 'n':
				b.WriteByte('\n')
			case 'r':
				b.WriteByte('\r')
			case 't':
				b.WriteByte('\t')
			case '"', '\\', '$':
				b.WriteByte(s[i])
			default:
				b.WriteByte('\\')
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", "", fmt.Errorf("no closing %c in the line", quote)
}
