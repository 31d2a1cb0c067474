package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

func TestPlain(t *testing.T) {
	t.Parallel()
	const refused = "Clerk refuses the secret key; check that it is this instance's"
	for _, tt := range []struct{ name, text, want string }{
		{"prefix", "clerksync: reconcile: clerksync: it failed", "reconcile: it failed"},
		{
			"unavailable",
			fmt.Sprintf("clerksync: reconcile: clerksync: 503 unavailable: %v: giving up: dial tcp", clerksync.ErrUnavailable),
			"reconcile: giving up: dial tcp",
		},
		{
			"key refused by Clerk",
			"clerk: get user: status 403 forbidden (trace a-1): " + refused + "\nmore",
			"Clerk refuses CLERK_SECRET_KEY (403 forbidden): check that it is this instance's\n  more",
		},
		{
			"key refused without a code of Clerk's",
			"clerk: get user: status 403: " + refused + ": the answer is not in Clerk's form",
			"clerk: get user: status 403: " + refused + ": the answer is not in Clerk's form",
		},
		{"several lines", errors.Join(errors.New("one"), errors.New("two")).Error(), "one\n  two"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := plain(tt.text); got != tt.want {
				t.Errorf("plain(%q)\n is %q\nwant %q", tt.text, got, tt.want)
			}
		})
	}
}

// If Clerk fails, the run says so while it waits, and again in the report of an interrupted run.
func TestClerkFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return fakeclerk.ErrorFault(502, "bad_gateway") })
	ctx, interrupt := context.WithCancel(t.Context())
	stderr := &trigger{text: "waiting for Clerk", fire: interrupt}
	var stdout bytes.Buffer
	if code := run(ctx, f.env, []string{"drift", quick}, &stdout, stderr); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	if n := strings.Count(stderr.String(), "waiting for Clerk: status 502; giving up at 12:05 UTC\n"); n != 1 {
		t.Errorf("standard error:\n%s", stderr)
	}
	if !strings.Contains(stdout.String(), "only in part; Clerk did not answer: status 502\n") {
		t.Errorf("standard output:\n%s", &stdout)
	}
}

// A wrong CLERK_API_URL ends each command at once, and the error says what to check.
func TestWrongAPIURL(t *testing.T) {
	t.Parallel()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if strings.HasPrefix(r.URL.Path, "/missing/") {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, "<html>"+password)
	}))
	t.Cleanup(page.Close)
	for name, tt := range map[string]struct{ url, want string }{
		"refused":  {"http://127.0.0.1:1", "connection refused"},
		"no host":  {"https://clerksync.invalid", "no such host"},
		"a page":   {page.URL, "status 200"},
		"no page":  {page.URL + "/missing", "status 404"},
		"not TLS":  {strings.Replace(page.URL, "http:", "https:", 1), "HTTP response to HTTPS client"},
		"with /v1": {page.URL + "/v1", "status 200"},
	} {
		for _, args := range [][]string{{"drift", quick}, {"reconcile", quick}} {
			t.Run(name+" "+args[0], func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				f.vars[apiURLVar] = tt.url
				o := f.run(t, args...)
				o.want(t, exitFailed, "Check CLERK_API_URL: Clerk's is https://api.clerk.com", tt.want)
				o.lacks(t, "waiting for Clerk", "Config.")
			})
		}
	}
}

func TestClerkAnswersAgain(t *testing.T) {
	t.Parallel()
	f := population(t, 2)
	calls := 0
	f.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		if calls++; calls <= 2 {
			return fakeclerk.ErrorFault(502, "bad_gateway")
		}
		return nil
	})
	o := f.run(t, "drift", quick)
	o.want(t, exitDone, "Z waiting for Clerk: status 502; giving up at 13:05 UTC\n", "Z Clerk answers again\n")
	if strings.Count(o.stderr, "waiting for Clerk") != 1 {
		t.Error(o)
	}
}

func TestUnanswered(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"no answer in time": context.DeadlineExceeded,
		"no answer":         errors.New("malformed HTTP response \"hush\""),
	} {
		if got := unanswered(err); got != want {
			t.Errorf("unanswered(%v) = %q, want %q", err, got, want)
		}
	}
}
