package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/joho/godotenv"
)

// maxEnvFile is the size in bytes above which a .env file is refused.
const maxEnvFile = 64 << 10

// variables are those of the process's environment and of a .env file.
type variables struct {
	lookup func(string) (string, bool) // os.LookupEnv
	file   string                      // empty if there is no file
	vars   map[string]string           // the file's
}

// readVariables reads file, which need not exist.
func readVariables(lookup func(string) (string, bool), file string) (variables, error) {
	text, err := readEnvFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return variables{lookup: lookup}, nil
	}
	if err != nil {
		return variables{}, err
	}
	vars, err := parseEnv(file, text)
	return variables{lookup: lookup, file: file, vars: vars}, err
}

// readEnvFile stops at maxEnvFile, because -env-file may name a file that never ends.
func readEnvFile(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxEnvFile+1))
	if err != nil {
		return "", err
	}
	if len(text) > maxEnvFile {
		return "", fmt.Errorf("%s is larger than %d KiB", file, maxEnvFile>>10)
	}
	return string(text), nil
}

// get returns a variable without the white space around it. The environment wins, even if the
// variable is empty there.
func (v variables) get(name string) string {
	value, ok := v.lookup(name)
	if !ok {
		value = v.vars[name]
	}
	return strings.TrimSpace(value)
}

// shadowed reports whether the file has a value that an empty variable of the environment hides.
func (v variables) shadowed(name string) bool {
	value, ok := v.lookup(name)
	return ok && strings.TrimSpace(value) == "" && v.vars[name] != ""
}

// parseEnv returns the variables in text. Its error names the file and the line. It does not quote
// the text, which contains secrets, as godotenv's errors do.
func parseEnv(file, text string) (map[string]string, error) {
	text = strings.TrimPrefix(text, "\ufeff") // the byte order mark of Windows editors
	vars, ok := unmarshalEnv(text)
	if !ok {
		return nil, fmt.Errorf("%s:%d: the line is not NAME=VALUE, or a quote is not closed", file, faultyLine(text))
	}
	return vars, nil
}

var isVariable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// unmarshalEnv also rejects names that godotenv accepts: from "KEY some:thing" godotenv would make a
// variable "KEY some".
func unmarshalEnv(text string) (map[string]string, bool) {
	vars, err := godotenv.Unmarshal(text)
	if err != nil {
		return nil, false
	}
	for name := range vars {
		if !isVariable.MatchString(name) {
			return nil, false
		}
	}
	return vars, true
}

// faultyLine returns the number of the line at which unmarshalEnv fails. A value in quotes may span
// several lines: then it is the line of the name. So it reads one line, then more if that fails.
func faultyLine(text string) int {
	lines := strings.SplitAfter(text, "\n")
	for first := 0; first < len(lines); {
		end := first + 1
		for length := len(lines[first]); ; end++ {
			if _, ok := unmarshalEnv(text[:length]); ok {
				text = text[length:]
				break
			}
			if end == len(lines) {
				return first + 1
			}
			length += len(lines[end])
		}
		first = end
	}
	return len(lines)
}
