package main

import (
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var complete = map[string]string{
	"CLERK_SECRET_KEY":             "sk_test_key",
	"CLERK_WEBHOOK_SIGNING_SECRET": "whsec_c2VjcmV0",
	"MONGODB_URI":                  "mongodb://localhost/fromuri",
}

// with returns the complete variables, changed; an empty value removes a variable.
func with(changes map[string]string) map[string]string {
	vars := maps.Clone(complete)
	maps.Copy(vars, changes)
	maps.DeleteFunc(vars, func(_, v string) bool { return v == "" })
	return vars
}

func TestReadConfig(t *testing.T) {
	t.Parallel()
	full := config{
		secretKey: "sk_test_key", webhookSecret: "whsec_c2VjcmV0",
		mongoURI: "mongodb://localhost/fromuri", database: "fromuri",
	}
	and := func(f func(*config)) config {
		s := full
		f(&s)
		return s
	}
	api := func(url string) map[string]string { return with(map[string]string{"CLERK_API_URL": url}) }
	apiURL := func(url string) config { return and(func(c *config) { c.apiURL = url }) }
	for _, tt := range []struct {
		name string
		vars map[string]string
		want config
	}{
		{"none: the demo", nil, config{}},
		{"blank: the demo", map[string]string{"CLERK_SECRET_KEY": " "}, config{}},
		{"only optional ones: the demo", map[string]string{"MONGODB_DATABASE": "app", "CLERK_API_URL": "x"}, config{}},
		{"complete", complete, full},
		{"the secret's older name", with(map[string]string{
			"CLERK_WEBHOOK_SIGNING_SECRET": "", "CLERK_WEBHOOK_SECRET": "whsec_b2xk",
		}), and(func(s *config) { s.webhookSecret = "whsec_b2xk" })},
		{"both names", with(map[string]string{"CLERK_WEBHOOK_SECRET": "whsec_b2xk"}), full},
		{"database", with(map[string]string{"MONGODB_DATABASE": "app"}), and(func(s *config) { s.database = "app" })},
		{"no database", with(map[string]string{"MONGODB_URI": "mongodb://u:p%40@a,b:1/?w=majority"}), and(func(s *config) {
			s.mongoURI, s.database = "mongodb://u:p%40@a,b:1/?w=majority", "clerksync_quickstart"
		})},
		{"API URL", api("https://api.clerk.com"), apiURL("https://api.clerk.com/v1")},
		{"API URL with a slash", api("https://api.clerk.com/"), apiURL("https://api.clerk.com/v1")},
		{"API URL with a path", api("https://proxy.example/clerk"), apiURL("https://proxy.example/clerk/v1")},
		{"API URL with the version", api("https://proxy.example/clerk/v1/"), apiURL("https://proxy.example/clerk/v1")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := readConfig(valueIn(tt.vars))
			if err != nil || got != tt.want {
				t.Errorf("readConfig = %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func TestReadConfigMissing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		vars map[string]string
		want []string
		not  []string
	}{
		{
			"one missing", with(map[string]string{"CLERK_WEBHOOK_SIGNING_SECRET": ""}),
			[]string{"missing", "CLERK_WEBHOOK_SIGNING_SECRET: whsec_…, in the Clerk Dashboard under Configure > Webhooks"},
			[]string{"CLERK_SECRET_KEY", "MONGODB_URI", "sk_test_key"},
		},
		{
			"two missing", map[string]string{"MONGODB_URI": "mongodb://SECRET"},
			[]string{"missing", "CLERK_SECRET_KEY: sk_test_…", "CLERK_WEBHOOK_SIGNING_SECRET: "},
			[]string{"MONGODB_URI", "SECRET\n"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := readConfig(valueIn(tt.vars))
			if !errors.Is(err, errConfig) {
				t.Fatalf("readConfig: %v, want errConfig", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not contain %q: %v", want, err)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(err.Error(), not) {
					t.Errorf("the error contains %q: %v", not, err)
				}
			}
		})
	}
}

// The driver must reject what is not percent-encoded: otherwise it would take a part of a password
// for a host.
func TestConnectRejects(t *testing.T) {
	t.Parallel()
	for _, uri := range []string{
		"SECRET:27017",
		"mongodb://u:a@SECRET@host/db",
		"mongodb://u:a@/SECRET@host/db",
		"mongodb://u:a/SECRET@host/db",
		"mongodb://u:a:SECRET@host/db",
		"mongodb://u:SECRET%zz@host/db",
		"mongodb://u:SECRET@host/?ssl=maybe",
		"mongodb://u/SECRET@host",
	} {
		client, err := connect(uri)
		if err == nil {
			t.Errorf("%s: no error", uri)
			_ = client.Disconnect(t.Context())
			continue
		}
		if !errors.Is(err, errConfig) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "env")
	writeFile(t, file, "export A='file' # first\nB=file\nC= file\n")
	getenv, err := environment(lookupIn(map[string]string{"A": " process ", "B": ""}), file)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"A": "process", "B": "file", "C": "file", "D": ""} {
		if got := getenv(name); got != want {
			t.Errorf("getenv(%s) = %q, want %q", name, got, want)
		}
	}
	for _, text := range []string{"A=1\nSECRET\n", "SECRET", "A='SECRET"} {
		writeFile(t, file, text)
		if _, err := environment(lookupIn(nil), file); !errors.Is(err, errConfig) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// quickstart/.env is read first, then .env.
func TestEnvironmentFiles(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	want := func(value string) {
		t.Helper()
		getenv, err := environment(lookupIn(nil), "")
		if err != nil {
			t.Fatal(err)
		}
		if got := getenv("A"); got != value {
			t.Errorf("A = %q, want %q", got, value)
		}
	}
	want("")
	writeFile(t, ".env", "A=here\n")
	want("here")
	writeFile(t, "quickstart", "the program") // not a directory
	want("here")
	if err := errors.Join(os.Remove("quickstart"), os.Mkdir("quickstart", 0o700)); err != nil {
		t.Fatal(err)
	}
	want("here")
	writeFile(t, filepath.Join("quickstart", ".env"), "A=there\n")
	want("there")
}

func TestEnvExample(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("env.example")
	if err != nil {
		t.Fatal(err)
	}
	getenv, err := environment(lookupIn(nil), "env.example")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := readConfig(getenv); err != nil || s != (config{}) {
		t.Errorf("env.example unchanged must mean the demo, got %+v, %v", s, err)
	}
	for _, name := range []string{
		"CLERK_SECRET_KEY", "CLERK_WEBHOOK_SIGNING_SECRET", "CLERK_WEBHOOK_SECRET",
		"MONGODB_URI", "MONGODB_DATABASE", "CLERK_API_URL", "JOBS_URL",
	} {
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

// FuzzConfig reads a .env file that may contain the secret hunter2 anywhere. No error may contain it.
func FuzzConfig(f *testing.F) {
	for _, seed := range []string{
		"", "hunter2", "A='hunter2", `A="hunter2\`, "=hunter2", "hunter2 hunter2=1", "export hunter2", "A='b'hunter2",
		"\ufeffA=1\r\n", "CLERK_SECRET_KEY=sk_test_hunter2", "MONGODB_URI=hunter2\nCLERK_WEBHOOK_SECRET=hunter2",
		"CLERK_SECRET_KEY=hunter2\nCLERK_WEBHOOK_SIGNING_SECRET=hunter2\nMONGODB_URI=mongodb://u:hunter2%zz@host/hunter2",
	} {
		f.Add(seed)
	}
	file := filepath.Join(f.TempDir(), ".env")
	f.Fuzz(func(t *testing.T, text string) {
		writeFile(t, file, text)
		getenv, err := environment(lookupIn(nil), file)
		if err != nil {
			if err.Error() != "config: "+file+": not every line is NAME=VALUE or a comment" {
				t.Fatal(err)
			}
			return
		}
		c, err := readConfig(getenv)
		if err != nil {
			if c != (config{}) || !errors.Is(err, errConfig) || strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("%+v with the error %v", c, err)
			}
			return
		}
		if c == (config{}) {
			return // the demo
		}
		if c.secretKey == "" || c.webhookSecret == "" || c.mongoURI == "" || c.database == "" {
			t.Fatalf("%+v", c)
		}
		if c.apiURL != "" && !strings.HasSuffix(c.apiURL, "/v1") {
			t.Fatalf("%+v", c)
		}
	})
}

// FuzzArguments parses arguments, one a line, that may contain the secret hunter2. Standard error
// must not contain it.
func FuzzArguments(f *testing.F) {
	for _, seed := range []string{
		"hunter2", "-hunter2", "--hunter2=1", "---hunter2", "-=hunter2", "-once=hunter2", "-demo\nhunter2",
		"-cache-ttl\nhunter2", "-refresh-after=hunter2 for flag -x: y", "-cache-ttl", "-h", "--\nhunter2",
		"-addr\nhunter2\nx", "-\xff=\x00", "sk_test_hunter2",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		args := append(strings.Split(text, "\n"), "--", "hunter2!") // the last one is always wrong, so that nothing is served
		var stderr strings.Builder
		code := run(t.Context(), args, lookupIn(nil), io.Discard, &stderr)
		if code != 2 && code != 0 || !strings.Contains(stderr.String(), "Usage of quickstart") {
			t.Fatalf("status %d: %s", code, &stderr)
		}
		if strings.Contains(stderr.String(), "hunter2") {
			t.Fatalf("a secret is on standard error: %s", &stderr)
		}
	})
}
