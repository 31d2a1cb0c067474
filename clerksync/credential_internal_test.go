package clerksync

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
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
