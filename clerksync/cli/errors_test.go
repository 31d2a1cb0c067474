package cli

import (
	"testing"
)

func TestPlain(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"clerksync: reconcile: clerksync: 503 unavailable: clerksync: Clerk or the store is unavailable: giving up after 5m0s: clerk: list users: dial tcp": "reconcile: giving up after 5m0s: clerk: list users: dial tcp",
		"clerksync: Clerk or the store is unavailable": "Clerk or the store is unavailable",
		"clerk: get user: status 403 forbidden (trace a-1): Clerk refuses the secret key; check that it is this instance's\nmore":        "Clerk refuses CLERK_SECRET_KEY (403 forbidden): check that it is this instance's\n  more",
		"clerk: get user: status 403: Clerk refuses the secret key; check that it is this instance's: the answer is not in Clerk's form": "clerk: get user: status 403: Clerk refuses the secret key; check that it is this instance's: the answer is not in Clerk's form",
	} {
		if got := plain(text); got != want {
			t.Errorf("plain(%q)\n is %q\nwant %q", text, got, want)
		}
	}
}
