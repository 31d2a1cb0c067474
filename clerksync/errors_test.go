package clerksync_test

import (
	"testing"

	"github.com/clerksync/clerksync-go/clerksync"
)

func TestConflictErrorText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  clerksync.ConflictError
		want string
	}{
		{clerksync.ConflictError{},
			"clerksync: another record has a value that a unique index allows only once"},
		{clerksync.ConflictError{Field: "email"},
			"clerksync: another record has the same email, and a unique index forbids that"},
		{clerksync.ConflictError{Field: "email", Holder: "user_2", Err: errDown},
			"clerksync: the record of user_2 has the same email, and a unique index forbids that"},
		{clerksync.ConflictError{Holder: "user_2"},
			"clerksync: the record of user_2 has a value that a unique index allows only once"},
		{clerksync.ConflictError{Field: "profile", Type: "objectId"},
			"clerksync: the app's record has profile of type objectId, which clerksync would overwrite"},
		{clerksync.ConflictError{Type: "array"},
			"clerksync: the app's record has a field of type array, which clerksync would overwrite"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.err, got, tt.want)
		}
	}
}
