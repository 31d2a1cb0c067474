package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseDotenv(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       map[string]string
	}{
		{"nothing", "", map[string]string{}},
		{"plain", "A=1\nB=2", map[string]string{"A": "1", "B": "2"}},
		{"blank lines and comments", "\n  # A=1\n\t\nB=2\n", map[string]string{"B": "2"}},
		{"space around", "  A =  b c  \n", map[string]string{"A": "b c"}},
		{"export", "export A=1\nexport\tB=2", map[string]string{"A": "1", "B": "2"}},
		{"a name that begins with export", "exporter=1\nexport=2", map[string]string{"exporter": "1", "export": "2"}},
		{"empty values", "A=\nB=''\nC=\"\"\nD= # none", map[string]string{"A": "", "B": "", "C": "", "D": ""}},
		{"= in the value", "A=mongodb://h/?w=1&j=true", map[string]string{"A": "mongodb://h/?w=1&j=true"}},
		{"comment after a value", "A=b # c", map[string]string{"A": "b"}},
		{"# in a value", "A=b#c", map[string]string{"A": "b#c"}},
		{"single quotes", `A='b # "c" \n $D' # e`, map[string]string{"A": `b # "c" \n $D`}},
		{"double quotes", `A="b # 'c'\n\t\"\\\$D\x"`, map[string]string{"A": "b # 'c'\n\t\"\\$D\\x"}},
		{"the last one wins", "A=1\nA=2", map[string]string{"A": "2"}},
		{"Windows", "\ufeffA=1\r\nB='2'\r\n", map[string]string{"A": "1", "B": "2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseDotenv(".env", tt.text)
			if err != nil || !maps.Equal(got, tt.want) {
				t.Errorf("parseDotenv(%q) = %q, %v, want %q", tt.text, got, err, tt.want)
			}
		})
	}
}

func TestParseDotenvFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"no =", "A=1\n\nSECRET\n", "dir/.env:3: no ="},
		{"export alone", "export SECRET", "dir/.env:1: no ="},
		{"no name", "=SECRET", "dir/.env:1: what stands before the = is no name"},
		{"a digit first", "1SECRET=1", "dir/.env:1: what stands before the = is no name"},
		{"a name with a space", "SECRET B=1", "dir/.env:1: what stands before the = is no name"},
		{"open single quote", "A='SECRET", "dir/.env:1: no closing '"},
		{"open double quote", `A="SECRET\"`, `dir/.env:1: no closing "`},
		{"backslash at the end", `A="SECRET\`, `dir/.env:1: no closing "`},
		{"text after a quote", "A='b'SECRET", "dir/.env:1: text after the closing quote"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := parseDotenv("dir/.env", tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("parseDotenv(%q): %v, want %q", tt.text, err, tt.want)
			}
			if strings.Contains(err.Error(), "SECRET") {
				t.Errorf("the error quotes the text: %v", err)
			}
			if usage := (*usageError)(nil); !errors.As(err, &usage) {
				t.Errorf("%v is no usageError", err)
			}
		})
	}
}

func TestLoadVariables(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), ".env")
	writeFile(t, file, "A=file\nB=file\nC=file\n")
	v, err := loadVariables(lookupIn(map[string]string{"A": " process ", "B": ""}), file, false)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"A": "process", "B": "", "C": "file", "D": ""} {
		if got := v.get(name); got != want {
			t.Errorf("get(%s) = %q, want %q", name, got, want)
		}
	}
	if !v.shadowed("B") || v.shadowed("A") || v.shadowed("C") {
		t.Errorf("shadowed: A %t, B %t, C %t; want B alone", v.shadowed("A"), v.shadowed("B"), v.shadowed("C"))
	}

	missing := filepath.Join(t.TempDir(), "missing")
	if v, err := loadVariables(lookupIn(nil), missing, false); err != nil || v.file != "" {
		t.Errorf("a file that need not exist: %+v, %v", v, err)
	}
	if _, err := loadVariables(lookupIn(nil), missing, true); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("a file that must exist: %v, want an error that names it", err)
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// lookupIn stands in for os.LookupEnv.
func lookupIn(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}
}
