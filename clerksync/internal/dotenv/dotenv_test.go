package dotenv_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/clerksync/internal/dotenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
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
			got, err := dotenv.Parse(".env", tt.text)
			if err != nil || !maps.Equal(got, tt.want) {
				t.Errorf("dotenv.Parse(%q) = %q, %v, want %q", tt.text, got, err, tt.want)
			}
		})
	}
}

func TestParseFaults(t *testing.T) {
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
			_, err := dotenv.Parse("dir/.env", tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("dotenv.Parse(%q): %v, want %q", tt.text, err, tt.want)
			}
			if strings.Contains(err.Error(), "SECRET") {
				t.Errorf("the error quotes the text: %v", err)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second, third := filepath.Join(dir, "missing", ".env"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
	writeFile(t, second, "A=file\nB=file\nC=file\n")
	writeFile(t, third, "D=another file\n")
	e, err := dotenv.Load(lookupIn(map[string]string{"A": " process ", "B": ""}), first, second, third)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"A": "process", "B": "", "C": "file", "D": ""} {
		if got := e.Get(name); got != want {
			t.Errorf("get(%s) = %q, want %q", name, got, want)
		}
	}
	if e.File != second || !e.Shadowed("B") || e.Shadowed("A") || e.Shadowed("C") {
		t.Errorf("file = %s, shadowed: A %t, B %t, C %t; want %s and B alone", e.File, e.Shadowed("A"), e.Shadowed("B"), e.Shadowed("C"), second)
	}

	// A program named quickstart stands where the folder is looked for.
	if e, err := dotenv.Load(lookupIn(nil), filepath.Join(second, ".env"), third); err != nil || e.File != third {
		t.Errorf("below a file: %q, %v, want %q", e.File, err, third)
	}
}

// fault are all the texts that dotenv.Parse may fail with.
var fault = regexp.MustCompile(`^dir/\.env:[0-9]+: (no =; a line is NAME=VALUE|what stands before the = is no name of a variable|text after the closing quote|no closing ['"] in the line)$`)

// FuzzParse: an error holds nothing of the file, and what was read is read again
// where it is written by the rules.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "A=1\nB='2'\nexport C=\"3\\n\" # c", "\ufeffA=1\r\n", "A='", `A="\`, "A=#", "=x", "A B=1", "export", "export=", "export A", "A=\x00", "A='b'c", "\xff=\xff", "A=1\rB=2", "#\n \t\n", "A==", "A=\"\\$\\\"\"",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		vars, err := dotenv.Parse("dir/.env", text)
		if err != nil {
			if vars != nil || !fault.MatchString(err.Error()) {
				t.Fatalf("%v beside %v", vars, err)
			}
			return
		}
		for name, value := range vars {
			if !regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(name) {
				t.Fatalf("the name %q", name)
			}
			written := name + "='" + value + "'"
			if strings.ContainsAny(value, "'\n") {
				written = name + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`).Replace(value) + `"`
			}
			again, err := dotenv.Parse("dir/.env", written)
			if err != nil || len(again) != 1 || again[name] != value {
				t.Fatalf("%q is read as %q, %v", written, again, err)
			}
		}
	})
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
