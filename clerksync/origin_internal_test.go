package clerksync

import (
	"net/http"
	"strings"
	"testing"
)

func TestNormalOrigin(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"https://app.example.com":         "https://app.example.com",
		"https://APP.Example.COM":         "https://app.example.com",
		"HTTPS://app.example.com/":        "https://app.example.com",
		"https://app.example.com//":       "https://app.example.com",
		"https://app.example.com:443":     "https://app.example.com",
		"https://app.example.com:443/":    "https://app.example.com",
		"https://app.example.com:0443":    "https://app.example.com",
		"https://app.example.com:":        "https://app.example.com",
		"https://app.example.com:80":      "https://app.example.com:80",
		"https://app.example.com:8443":    "https://app.example.com:8443",
		"http://app.example.com:80":       "http://app.example.com",
		"http://app.example.com:443":      "http://app.example.com:443",
		"http://localhost:3000":           "http://localhost:3000",
		"http://LOCALHOST:03000":          "http://localhost:3000",
		"http://my_app:3000":              "http://my_app:3000",
		"http://127.0.0.1:5173":           "http://127.0.0.1:5173",
		"https://[::1]:8443":              "https://[::1]:8443",
		"https://[::1]:443":               "https://[::1]",
		"https://[2001:DB8:0:0:0:0:0:1]/": "https://[2001:db8::1]",
		"https://[::ffff:192.0.2.1]":      "https://[::ffff:c000:201]",
		"https://xn--bcher-kva.example":   "https://xn--bcher-kva.example",
		"https://app.example.com.":        "https://app.example.com.",
		"capacitor://localhost":           "capacitor://localhost",
		"tauri://localhost":               "tauri://localhost",
		"chrome-extension://abcdefghijkl": "chrome-extension://abcdefghijkl",
		"exp://192.0.2.1:8081":            "exp://192.0.2.1:8081",
	} {
		got, fault := normalOrigin(value)
		if got != want || fault != "" {
			t.Errorf("%s: %q, %q; want %q", value, got, fault, want)
		}
		if err := http.NewCrossOriginProtection().AddTrustedOrigin(got); err != nil {
			t.Errorf("%s: %v", value, err)
		}
		if again, _ := normalOrigin(got); again != got {
			t.Errorf("%s becomes %s and then %s", value, got, again)
		}
	}
}

// Each error says what to write, and none shows what may be a secret.
func TestNoOrigin(t *testing.T) {
	t.Parallel()
	const example = "https://app.example.com"
	for value, want := range map[string]string{
		"":                                            example,
		"*":                                           "wildcards are not supported",
		"https://*.example.com":                       "wildcards are not supported",
		"https://app.example.com:*":                   "wildcards are not supported",
		"null":                                        "missing value",
		"undefined":                                   example,
		`"https://app.example.com"`:                   "quotation marks",
		"app.example.com":                             "write https://app.example.com",
		"App.Example.com/":                            "write https://app.example.com",
		"//app.example.com":                           "write https://app.example.com",
		"app.example.com:8443":                        "write https://app.example.com:8443",
		"localhost:3000":                              "write http://localhost:3000",
		"localhost":                                   "write http://localhost",
		"https:app.example.com":                       "no scheme or no host",
		"https:///login":                              "no scheme or no host",
		"https//app.example.com":                      "no scheme or no host",
		"https://":                                    "no scheme or no host",
		"https://:443":                                "not a host's name",
		"https://https://app.example.com":             "path",
		"https://App.example.com/login":               "path, query or fragment; write https://app.example.com",
		"https://app.example.com/?":                   "path, query or fragment; write https://app.example.com",
		"https://app.example.com?a=1":                 "path, query or fragment; write https://app.example.com",
		"https://app.example.com/#":                   "path, query or fragment; write https://app.example.com",
		"https://me:hunter2@app.example.com":          "user in it; write https://app.example.com",
		"mongodb://me:hunter2@db.example.com/app":     "user in it; write mongodb://db.example.com",
		"https://app.example.com:0":                   "port is not between 1 and 65535; write https://app.example.com",
		"https://app.example.com:65536":               "port is not between 1 and 65535",
		"https://app.example.com:http":                "cannot be read as a URL",
		"https://a.example.com,https://b.example.com": "one origin for each entry",
		"https://a.example.com https://b.example.com": "one origin for each entry",
		`https:\\app.example.com`:                     "one origin for each entry",
		"https://bücher.example":                      "Punycode",
		"https://.example.com":                        "not a host's name",
		"https://app..example.com":                    "not a host's name",
		"https://app.example.com..":                   "not a host's name",
		"https://app$.example.com":                    "not a host's name",
		"https://127.1":                               "IP address",
		"https://0x7f.0.0.1":                          "IP address",
		"http://256.0.0.1":                            "IP address",
		"http://2130706433":                           "IP address",
		"http://[fe80::1%25eth0]":                     "zone",
		"wss://app.example.com":                       "no page has the scheme wss",
		"file:///index.html":                          "no scheme or no host",
		"file://host/index.html":                      "no page has the scheme file",
		"sk_live_hunter2":                             example,
		"sk_live_hunter2.example":                     example,
		"user:hunter2@db":                             example,
		"data:text/plain,hunter2":                     "one origin for each entry",
	} {
		got, fault := normalOrigin(value)
		if got != "" || !strings.Contains(fault, want) {
			t.Errorf("%q: %q, %q; want %q", value, got, fault, want)
		}
		if strings.Contains(fault, "hunter2") {
			t.Errorf("%q: the error shows it: %s", value, fault)
		}
		if !strings.Contains(fault, "write ") && !strings.Contains(fault, example) {
			t.Errorf("%q: the error does not say what to write: %s", value, fault)
		}
	}
}
