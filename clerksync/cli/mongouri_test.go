package cli

import (
	"errors"
	"strings"
	"testing"
)

func TestWithoutSecrets(t *testing.T) {
	t.Parallel()
	uri := "mongodb+srv://app:p%40ss@host/db?tlsCertificateKeyFilePassword=hush%2B1" +
		"&authMechanismProperties=AWS_SESSION_TOKEN:t0ken,SERVICE_NAME:mongo&w=1"
	err := errors.New("cannot parse " + uri + ": p@ss hush+1 t0ken")
	got := withoutSecrets(err, uri)
	for _, secret := range []string{"p%40ss", "p@ss", "hush", "t0ken"} {
		if strings.Contains(got, secret) {
			t.Errorf("%q is in %q", secret, got)
		}
	}
	if !strings.Contains(got, "mongodb+srv://app:…@host/db") {
		t.Errorf("too much is removed: %q", got)
	}
	uri = "mongodb://host/dbtlsCertificateKeyFilePassword=hush" // without the ?
	if got := withoutSecrets(errors.New("cannot parse "+uri), uri); strings.Contains(got, "hush") {
		t.Errorf("got %q", got)
	}
	if got := withoutSecrets(errors.New("plain"), "mongodb://localhost"); got != "plain" {
		t.Errorf("got %q", got)
	}
}

func TestDatabaseOf(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]string{
		"mongodb://localhost":                      "",
		"mongodb://localhost/":                     "",
		"mongodb://localhost/?w=1":                 "",
		"mongodb://localhost/school":               "school",
		"mongodb://a:b@h1:1,h2:2/school?w=1":       "school",
		"mongodb+srv://a:b@h/my%2Ddb?authSource=x": "my-db",
		"postgres://localhost/school":              "",
		"":                                         "",
	} {
		if got := databaseOf(uri); got != want {
			t.Errorf("databaseOf(%q) = %q, want %q", uri, got, want)
		}
	}
}
