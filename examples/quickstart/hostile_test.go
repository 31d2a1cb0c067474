package main

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

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
