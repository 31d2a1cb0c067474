package memstore

import (
	"testing"

	"github.com/clerksync/clerksync-go/clerksync"
)

// If Clerk comes to own another field, this package must know it.
func TestEveryClerkFieldIsKnown(t *testing.T) {
	u := &clerksync.User{RoleFromClerk: true, Role: clerksync.RoleAdmin}
	seen := make(map[any]string)
	for path := range u.ClerkFields() {
		f := field(u, path)
		if f == nil {
			t.Errorf("field does not know %s", path)
		} else if other, ok := seen[f]; ok {
			t.Errorf("%s and %s are the same field", path, other)
		}
		seen[f] = path
	}
	if len(seen) < 14 {
		t.Errorf("ClerkFields yields %d paths", len(seen))
	}
}
