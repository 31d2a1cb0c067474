package cli

import (
	"errors"
	"fmt"
	"testing"

	"github.com/clerksync/clerksync-go/clerksync"
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
