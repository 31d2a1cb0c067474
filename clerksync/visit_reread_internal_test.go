package clerksync

import (
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/sessiontoken"
)

// A re-read counts only for a record that is at least as new as the one it returned.
func TestWasRereadIsAboutAVersion(t *testing.T) {
	t.Parallel()
	now := time.Now()
	user := func(version time.Time) *User { return &User{ClerkID: "user_1", ClerkUpdatedAt: version} }
	older, returned, newer := user(now), user(now.Add(time.Second)), user(now.Add(2*time.Second))
	token := sessiontoken.Version{At: now.Add(2 * time.Second)}
	log := newRereadLog(10)
	log.recordReread(returned, token, now, true)
	for name, tt := range map[string]struct {
		u    *User
		want bool
	}{"older": {older, false}, "the same": {returned, true}, "newer": {newer, true}} {
		if log.wasReread(tt.u, token, now) != tt.want {
			t.Errorf("%s: wasReread is %v", name, !tt.want)
		}
	}
}
