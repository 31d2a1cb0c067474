package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var complete = map[string]string{
	secretKeyVar:     "sk_test_key",
	webhookSecretVar: "whsec_c2VjcmV0",
	mongoURIVar:      "mongodb://localhost/fromuri",
}

// with returns the complete settings, changed; an empty value removes a variable.
func with(changes map[string]string) map[string]string {
	vars := maps.Clone(complete)
	maps.Copy(vars, changes)
	maps.DeleteFunc(vars, func(_, v string) bool { return v == "" })
	return vars
}

func TestReadSettings(t *testing.T) {
	t.Parallel()
	full := settings{secretKey: "sk_test_key", webhookSecret: "whsec_c2VjcmV0", mongoURI: "mongodb://localhost/fromuri", database: "fromuri"}
	and := func(f func(*settings)) settings {
		s := full
		f(&s)
		return s
	}
	for _, tt := range []struct {
		name string
		vars map[string]string
		want settings
	}{
		{"none: the demo", nil, settings{}},
		{"blank: the demo", map[string]string{secretKeyVar: " "}, settings{}},
		{"only optional ones: the demo", map[string]string{databaseVar: "app", apiURLVar: "https://api.clerk.com"}, settings{}},
		{"complete", complete, full},
		{"the secret's older name", with(map[string]string{webhookSecretVar: "", webhookSecretOther: "whsec_b2xk"}), and(func(s *settings) { s.webhookSecret = "whsec_b2xk" })},
		{"both names", with(map[string]string{webhookSecretOther: "whsec_b2xk"}), full},
		{"database", with(map[string]string{databaseVar: "app"}), and(func(s *settings) { s.database = "app" })},
		{"no database", with(map[string]string{mongoURIVar: "mongodb://u:p%40@a,b:1/?w=majority"}), and(func(s *settings) {
			s.mongoURI, s.database = "mongodb://u:p%40@a,b:1/?w=majority", defaultDatabase
		})},
		{"API URL", with(map[string]string{apiURLVar: "https://api.clerk.com"}), and(func(s *settings) { s.apiURL = "https://api.clerk.com/v1" })},
		{"API URL, with a slash", with(map[string]string{apiURLVar: "https://api.clerk.com/"}), and(func(s *settings) { s.apiURL = "https://api.clerk.com/v1" })},
		{"API URL, with the version", with(map[string]string{apiURLVar: "https://proxy.example/clerk/v1/"}), and(func(s *settings) { s.apiURL = "https://proxy.example/clerk/v1" })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := readSettings(valueIn(tt.vars))
			if err != nil || got != tt.want {
				t.Errorf("readSettings = %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func TestReadSettingsFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		vars map[string]string
		want []string
	}{
		{
			"one missing", with(map[string]string{webhookSecretVar: ""}),
			[]string{"beside CLERK_SECRET_KEY and MONGODB_URI these are missing", "CLERK_WEBHOOK_SIGNING_SECRET: whsec_…, in the Clerk Dashboard under Configure > Webhooks"},
		},
		{
			"two missing", map[string]string{mongoURIVar: "mongodb://SECRET"},
			[]string{"beside MONGODB_URI these are missing", "CLERK_SECRET_KEY: sk_test_…", "CLERK_WEBHOOK_SIGNING_SECRET: "},
		},
		{"publishable key", with(map[string]string{secretKeyVar: "pk_test_SECRET"}), []string{"CLERK_SECRET_KEY does not begin with sk_"}},
		{"no signing secret", with(map[string]string{webhookSecretVar: "SECRET"}), []string{"CLERK_WEBHOOK_SIGNING_SECRET does not begin with whsec_"}},
		{"no URI", with(map[string]string{mongoURIVar: "SECRET:27017"}), []string{"MONGODB_URI does not begin with mongodb://"}},
		{"@ in the password", with(map[string]string{mongoURIVar: "mongodb://u:a@SECRET@host/db"}), []string{"MONGODB_URI", "percent-encoded"}},
		{"@ and / in the password", with(map[string]string{mongoURIVar: "mongodb://u:a@/SECRET@host/db"}), []string{"MONGODB_URI", "percent-encoded"}},
		{"/ in the password", with(map[string]string{mongoURIVar: "mongodb://u:a/SECRET@host/db"}), []string{"MONGODB_URI", "percent-encoded"}},
		{": in the password", with(map[string]string{mongoURIVar: "mongodb://u:a:SECRET@host/db"}), []string{"MONGODB_URI", "percent-encoded"}},
		{"% in the password", with(map[string]string{mongoURIVar: "mongodb://u:SECRET%zz@host/db"}), []string{"MONGODB_URI", "percent-encoded"}},
		{"API URL", with(map[string]string{apiURLVar: "api.clerk.com"}), []string{"CLERK_API_URL is no URL"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := readSettings(valueIn(tt.vars))
			if !errors.Is(err, errSettings) {
				t.Fatalf("readSettings: %v, want errSettings", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
			for _, secret := range []string{"SECRET@", "mongodb://u", "pk_test", "sk_test_key", "sk_test_SECRET", "whsec_c2"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error says %q: %v", secret, err)
				}
			}
		})
	}
}

func TestWithoutPassword(t *testing.T) {
	t.Parallel()
	const uri = "mongodb+srv://user:p%40ss%2Fword@host/db"
	err := errors.New(uri + ": p@ss/word is wrong")
	if got, want := withoutPassword(err, uri), "mongodb+srv://user:…@host/db: … is wrong"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := withoutPassword(err, "mongodb://host/db"); got != err.Error() {
		t.Errorf("%q, want %q", got, err.Error())
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second, third := filepath.Join(dir, "missing", ".env"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
	writeFile(t, second, "export A='file' # first\nB=file\nC= file\n")
	writeFile(t, third, "D=another file\n")
	get, err := environment(lookupIn(map[string]string{"A": " process ", "B": ""}), first, second, third)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"A": "process", "B": "file", "C": "file", "D": ""} {
		if got := get(name); got != want {
			t.Errorf("get(%s) = %q, want %q", name, got, want)
		}
	}

	// A program named quickstart stands where the folder is looked for.
	if get, err := environment(lookupIn(nil), filepath.Join(second, ".env"), third); err != nil || get("D") != "another file" {
		t.Errorf("below a file: %v", err)
	}

	for _, text := range []string{"A=1\nSECRET\n", "SECRET", "A='SECRET"} {
		writeFile(t, second, text)
		if _, err := environment(lookupIn(nil), second); !errors.Is(err, errSettings) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestEnvExample(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("env.example")
	if err != nil {
		t.Fatal(err)
	}
	get, err := environment(lookupIn(nil), "env.example")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := readSettings(get); err != nil || s != (settings{}) {
		t.Errorf("as it is, env.example does not mean the demo: %+v, %v", s, err)
	}
	for _, name := range []string{secretKeyVar, webhookSecretVar, webhookSecretOther, mongoURIVar, databaseVar, apiURLVar} {
		if !strings.Contains(string(text), name) {
			t.Errorf("env.example does not have %s", name)
		}
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

func valueIn(vars map[string]string) func(string) string {
	return func(name string) string { return strings.TrimSpace(vars[name]) }
}
