package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// variables looks settings up in the process's environment and in a .env file.
type variables struct {
	lookup func(string) (string, bool) // os.LookupEnv
	file   string                      // empty: there is none
	vars   map[string]string           // the file's
}

// get returns a variable's value. The process's environment wins, even with an
// empty value.
func (v variables) get(name string) string {
	value, ok := v.lookup(name)
	if !ok {
		value = v.vars[name]
	}
	return strings.TrimSpace(value)
}

// shadowed reports whether the file has a value that an empty one in the process's
// environment hides.
func (v variables) shadowed(name string) bool {
	value, ok := v.lookup(name)
	return ok && strings.TrimSpace(value) == "" && v.vars[name] != ""
}

// loadVariables reads the file; unless it must, it need not exist.
func loadVariables(lookup func(string) (string, bool), file string, must bool) (variables, error) {
	v := variables{lookup: lookup}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return v, nil
	}
	if err != nil {
		return v, usagef("the file of variables cannot be read: %v", err)
	}
	v.file = file
	v.vars, err = parseDotenv(file, string(text))
	return v, err
}

// parseDotenv parses lines of NAME=VALUE. Blank lines and comments are skipped,
// "export " may stand in front. A value in single quotes is taken as it is; in double
// quotes, \n, \r, \t, \", \\ and \$ are escapes; without quotes it ends before " #".
// Errors give file and line and nothing of the text, which may be a secret.
func parseDotenv(file, text string) (map[string]string, error) {
	vars := make(map[string]string)
	text = strings.TrimPrefix(text, "\ufeff") // Windows editors put it there
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, err := parseLine(line)
		if err != nil {
			return nil, usagef("%s:%d: %v", file, i+1, err)
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
