package memstore

import (
	"testing"

	"github.com/clerksync/clerksync-go/clerksync"
)

// A field that clerksync begins to own must be known here too.
func TestEveryClerkFieldIsKnown(t *testing.T) {
	u := &clerksync.User{RoleFromClerk: true, Role: clerksync.RoleAdmin}
	seen := make(map[any]string)
	for path := range u.ClerkFields() {
		f := field(u, path)
		if f == nil {
			t.Errorf("field does not know %s", path)
		} else if other, ok := seen[f]; ok {
			t.Errorf("%s and %s are one field", path, other)
		}
		seen[f] = path
	}
	if len(seen) < 14 {
		t.Errorf("ClerkFields yields %d paths", len(seen))
	}
}
