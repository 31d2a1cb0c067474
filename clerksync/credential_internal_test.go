package clerksync

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

func TestBearerToken(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		lines   []string
		token   string
		several bool
	}{
		{nil, "", false},
		{[]string{""}, "", false},
		{[]string{"Bearer a"}, "a", false},
		{[]string{"bEARER   a  "}, "a", false},
		{[]string{"Bearer"}, "", false},
		{[]string{"Bearer "}, "", false},
		{[]string{"Bearera"}, "", false},
		{[]string{"Bearer: a"}, "", false},
		{[]string{"a"}, "", false},
		{[]string{"Token a"}, "", false},
		{[]string{"Bearer a b"}, "a b", false}, // the verifier refuses it
		{[]string{"Bearer a", "Bearer b"}, "", true},
		{[]string{"Bearer a", "bearer  a "}, "a", false},
		{[]string{"Bearer a, Bearer a"}, "a", false},
		{[]string{"Bearer a, Basic x, Bearer a", "Bearer a"}, "a", false},
		{[]string{"Bearer a", "Bearer A"}, "", true},
		{[]string{"Bearer a", "Bearer a", "Bearer b"}, "", true},
		{[]string{"Bearer a, Bearer b"}, "", true},
		{[]string{"Basic x", "Bearer a"}, "a", false},
		{[]string{"Bearer a", "Basic x"}, "a", false},
		{[]string{"Basic x", "Negotiate y"}, "", false},
		{[]string{"Basic x, Bearer a"}, "a", false},
		{[]string{"Basic x,Bearer a"}, "a", false},
		{[]string{"Basic x ,\tBearer a , Negotiate y"}, "a", false},
		{[]string{"Basic x, Bearer a", "Bearer b"}, "", true},
		{[]string{`Digest username="a", realm="b c", uri="/", Bearer a`}, "a", false},
		{[]string{"Basic x, Basic y, bearer null, BEARER a"}, "a", false},
		{[]string{"Bearer null"}, "", false},
		{[]string{"Bearer Undefined"}, "", false},
		{[]string{"Bearer NULL", "Bearer undefined", "Bearer nil", "Bearer None", "Bearer"}, "", false},
		{[]string{"Bearer nullable"}, "nullable", false},
		{[]string{"Bearer a,"}, "a,", false},
		{[]string{"Bearer a,b"}, "a,b", false},
		{[]string{",,,", ",Bearer a"}, "a", false},
		{[]string{strings.Repeat(",", 10_000) + "Bearer a"}, "a", false},
	} {
		token, ok := bearerToken(tt.lines)
		if token != tt.token || ok == tt.several {
			t.Errorf("%.80q: %q, %t", tt.lines, token, ok)
		}
	}
}

// The header is from a client that need not be signed in: its work must be linear.
func TestLongAuthorizationHeader(t *testing.T) {
	for _, line := range []string{
		"a" + strings.Repeat(",", 1<<20), strings.Repeat(" ", 1<<19) + "a" + strings.Repeat(",", 1<<19),
		strings.Repeat("a b,", 1<<18), strings.Repeat(",", 1<<20), strings.Repeat("Bearer null,", 1<<16) + "x y",
	} {
		allocs := testing.AllocsPerRun(1, func() {
			if token, _ := bearerToken([]string{line}); token != "" {
				t.Errorf("%.20q… has the token %.20q", line, token)
			}
		})
		if allocs > 10 {
			t.Errorf("%.20q… takes %v allocations", line, allocs)
		}
	}
}

// The pairs are from the tests of Clerk's JavaScript SDK.
func TestCookieSuffix(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"":                               "",
		"pk_test_Y2xlcmsuY2xlcmsuZGV2JA": "QvfNY2dr",
		"pk_live_Y2xlcmsuY2xlcmsuZGV2JA": "1Z8AzTQD",
		"pk_live_ZmFrZS1jbGVyay10ZXN0LmNsZXJrLmFjY291bnRzLmRldiQ=":             "qReyu04C",
		"pk_test_ZW5vdWdoLWFscGFjYS04Mi5jbGVyay5hY2NvdW50cy5sY2xjbGVyay5jb20k": "jtYvyt_H",
		"pk_test_eHh4eHh4LXhhYWFhYS1hYS5jbGVyay5hY2NvdW50cy5sY2xjbGVyay5jb20k": "tZJdb-5s",
	} {
		if got := cookieSuffix(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

func TestSessionCookies(t *testing.T) {
	t.Parallel()
	many := func(name string, n int) (lines []string) {
		for i := range n {
			lines = append(lines, fmt.Sprintf("%s=%d", name, i))
		}
		return lines
	}
	for name, tt := range map[string]struct {
		lines  []string
		suffix string
		want   string
	}{
		"none":              {[]string{"theme=dark"}, "AAAAAAAA", ""},
		"one":               {[]string{"theme=dark; __session=a; x=y"}, "AAAAAAAA", "a"},
		"repeated":          {[]string{"__session=a; __session=b"}, "AAAAAAAA", "a b"},
		"in two lines":      {[]string{"__session=a", "__session=b"}, "AAAAAAAA", "a b"},
		"the suffixed":      {[]string{"__session=a; __session_AAAAAAAA=b"}, "AAAAAAAA", "b a"},
		"only the suffixed": {[]string{"__session_AAAAAAAA=b"}, "AAAAAAAA", "b"},
		"another suffix":    {[]string{"__session_BBBBBBBB=c; __session=a"}, "AAAAAAAA", "a"},
		"in another case":   {[]string{"__Session=c; __session_aaaaaaaa=d"}, "AAAAAAAA", ""},
		"no suffix known":   {[]string{"__session_BBBBBBBB=c; __session=a; __session_AAAAAAAA=b"}, "", "a c b"},
		"not a suffix":      {[]string{"__session_=c; __session_user=d; __sessions=e; my__session=f"}, "", ""},
		"the same token":    {[]string{"__session=a; __session_AAAAAAAA=a; __session=a"}, "AAAAAAAA", "a"},
		"nothing":           {[]string{"__session=; __session=null; __session=undefined; __session=a"}, "", "a"},
		"quoted":            {[]string{`__session="a"`}, "", "a"},
		"too many":          {append(many("__session", 100), "__session_AAAAAAAA=b"), "AAAAAAAA", "b 0 1 2 3 4 5 6"},
	} {
		r := &http.Request{Header: http.Header{"Cookie": tt.lines}}
		if got := sessionCookies(r, tt.suffix); !slices.Equal(got, strings.Fields(tt.want)) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

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

// Each kind has its burst and then one line a minute, which says how many were left out.
func TestLogLimit(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	l := newLogLimit(clock.System(func() time.Time { return now }))
	for i := range logBurst {
		if suppressed, ok := l.allow("a"); !ok || suppressed != 0 {
			t.Errorf("line %d: %t, %d suppressed", i, ok, suppressed)
		}
	}
	for range 7 {
		if _, ok := l.allow("a"); ok {
			t.Error("a line above the burst was allowed")
		}
	}
	if _, ok := l.allow("b"); !ok {
		t.Error("the lines of one kind count for another")
	}
	now = now.Add(logInterval)
	if suppressed, ok := l.allow("a"); !ok || suppressed != 7 {
		t.Errorf("a minute later: %t, %d suppressed", ok, suppressed)
	}
	if _, ok := l.allow("a"); ok {
		t.Error("two lines in the minute after the burst")
	}
	now = now.Add(-time.Hour)
	if _, ok := l.allow("a"); ok {
		t.Error("a clock that went back allowed a line")
	}
}

// Kinds without end take neither memory nor lines without end.
func TestLogLimitIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	l := newLogLimit(clock.System(func() time.Time { return now }))
	lines := 0
	for i := range 10_000 {
		if _, ok := l.allow(fmt.Sprint("kind ", i)); ok {
			lines++
		}
	}
	if lines != maxLogKinds+logBurst || len(l.kinds) != maxLogKinds+1 {
		t.Errorf("%d lines, %d kinds", lines, len(l.kinds))
	}
}
