package cli

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// If Clerk does not answer, the run says so after the first failure, and again in the report of an
// interrupted run.
func TestClerkUnreachable(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.vars[apiURLVar] = "http://127.0.0.1:1"
	ctx, interrupt := context.WithCancel(t.Context())
	stderr := &trigger{text: "waiting for Clerk", fire: interrupt}
	var stdout bytes.Buffer
	if code := run(ctx, f.env, []string{"drift", quick}, &stdout, stderr); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	_, cause, _ := strings.Cut(stderr.String(), "waiting for Clerk: ")
	cause, rest, _ := strings.Cut(cause, "; giving up at 12:05 UTC\n")
	if !strings.HasPrefix(cause, "dial tcp 127.0.0.1:1: ") || !strings.Contains(cause, "refused") ||
		strings.Contains(rest, "waiting") {
		t.Errorf("standard error:\n%s", stderr)
	}
	if !strings.Contains(stdout.String(), "only in part; Clerk did not answer: "+cause+"\n") {
		t.Errorf("standard output:\n%s", &stdout)
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
