package main

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzSettings reads any .env file, in which hunter2 may stand anywhere. Neither its
// faults nor those of the settings in it are told with any of it.
func FuzzSettings(f *testing.F) {
	all := "CLERK_SECRET_KEY=sk_test_hunter2\nCLERK_WEBHOOK_SIGNING_SECRET=whsec_hunter2\nMONGODB_URI="
	for _, seed := range []string{
		"", "hunter2", "A='hunter2", `A="hunter2\`, "=hunter2", "hunter2 hunter2=1", "export hunter2", "A='b'hunter2", "\ufeffA=1\r\n", "CLERK_SECRET_KEY=sk_test_hunter2", "MONGODB_URI=hunter2\nCLERK_WEBHOOK_SECRET=hunter2",
		all + "mongodb://u:hunter2@host/db", all + "mongodb://u:a@hunter2@host/db", all + "mongodb://u:a/hunter2@host/db", all + "mongodb://u:hunter2%zz@host", all + "hunter2://host", all + "mongodb://u:hunter2?@host/db",
		all + "mongodb://host/hunter2\nCLERK_API_URL=hunter2", all + "mongodb://host\nCLERK_API_URL=https://u:hunter2@host", all + "mongodb://host\nCLERK_API_URL=https://[hunter2", all + "mongodb://host\nMONGODB_DATABASE=hunter2",
	} {
		f.Add(seed)
	}
	file := filepath.Join(f.TempDir(), ".env")
	f.Fuzz(func(t *testing.T, text string) {
		writeFile(t, file, text)
		get, err := environment(lookupIn(nil), file)
		if err != nil {
			if err.Error() != "settings: "+file+": not every line is NAME=VALUE or a comment" {
				t.Fatal(err)
			}
			return
		}
		s, err := readSettings(get)
		if err != nil {
			if s != (settings{}) || !errors.Is(err, errSettings) {
				t.Fatalf("%+v beside %v", s, err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Fatal(err)
			}
			return
		}
		if s == (settings{}) {
			return // the demo
		}
		if s.secretKey == "" || s.webhookSecret == "" || s.database == "" || !strings.HasPrefix(s.mongoURI, "mongodb") || s.apiURL != "" && !strings.HasSuffix(s.apiURL, "/v1") && !strings.Contains(s.apiURL, "?") && !strings.Contains(s.apiURL, "#") {
			t.Fatalf("%+v", s)
		}
	})
}

// FuzzArguments parses any arguments, one a line. What is wrong with them is told
// without them: none of hunter2 is on standard error.
func FuzzArguments(f *testing.F) {
	for _, seed := range []string{
		"hunter2", "-hunter2", "--hunter2=1", "---hunter2", "-=hunter2", "-once=hunter2", "-demo\nhunter2", "-cache-ttl\nhunter2", "-refresh-after=hunter2 for flag -x: y", "-cache-ttl", "-h", "--\nhunter2", "-addr\nhunter2\nx", "-\xff=\x00", "sk_test_hunter2",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		// The last one is always wrong, so that nothing is served.
		args := append(strings.Split(text, "\n"), "--", "hunter2!")
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
