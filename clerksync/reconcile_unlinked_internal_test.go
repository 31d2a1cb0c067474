package clerksync

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestFateOf(t *testing.T) {
	t.Parallel()
	unlinked := fmt.Errorf("mongostore: %w", &ConflictError{Field: "email", Err: ErrUnlinked})
	held := &ConflictError{Field: "externalId", Holder: "user_other"}
	clash := &ConflictError{Field: "banned", Type: "string"}
	rejected := fmt.Errorf("mongostore: %w", ErrRejected)
	for name, tt := range map[string]struct {
		heldBack bool
		adoption Adoption
		want     fate
	}{
		"nobody has the address":              {false, Adoption{}, isCreated},
		"a record has it":                     {true, Adoption{}, isUnlinked},
		"adopted by e-mail":                   {true, Adoption{By: ByEmail}, isAdopted},
		"adopted by external id":              {true, Adoption{By: ByExternalID}, isAdopted},
		"adopted by external id, no address":  {false, Adoption{By: ByExternalID}, isAdopted},
		"ambiguous":                           {true, Adoption{Err: unlinked}, isUnlinked},
		"untrusted":                           {true, Adoption{By: ByEmail, Err: unlinked}, isUnlinked},
		"the Store knows better than the run": {false, Adoption{Err: unlinked}, isUnlinked},
		"another user's external id":          {true, Adoption{By: ByExternalID, Err: held}, isConflict},
		"the app's value in the way":          {false, Adoption{By: ByEmail, Err: clash}, isConflict},
		"rejected":                            {true, Adoption{By: ByEmail, Err: rejected}, isRejected},
		"any other error":                     {true, Adoption{Err: errors.New("no id")}, isRejected},
	} {
		if got := fateOf(tt.heldBack, tt.adoption); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

func TestUnlinkedEmails(t *testing.T) {
	t.Parallel()
	var none *unlinkedEmails
	if none.has("ada@example.com") || none.has("") {
		t.Error("no addresses have one")
	}
	e := newUnlinkedEmails()
	for _, email := range []string{"Ada@Example.COM", "", " grace@example.com ", "ADA@example.com", "jürgen@EXAMPLE.com"} {
		e.add(email)
	}
	if e.records != 5 {
		t.Errorf("%d records", e.records)
	}
	for email, want := range map[string]bool{
		"ada@example.com": true, "ADA@EXAMPLE.COM": true, "grace@example.com": true, "Jürgen@example.com": true,
		"": false, "ada@example.co": false, "aada@example.com": false, "eve@example.com": false,
	} {
		if got := e.has(email); got != want {
			t.Errorf("%q: %t, want %t", email, got, want)
		}
	}
	e.add("eve@example.com")
	for email, want := range map[string]bool{
		"eve@example.com": true, "EVE@example.com": true,
		"ada@example.com": false, "grace@example.com": false, "jürgen@example.com": false,
	} {
		if got := e.hasExactly(email); got != want {
			t.Errorf("%q, exactly: %t, want %t", email, got, want)
		}
	}
	if e.hasExactly(" eve@example.com") {
		t.Error("an address with a space is found exactly")
	}
}

func TestStampYoung(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, time.March, 1, 13, 0, 0, 0, time.UTC)
	after := now.Add(-10 * time.Minute)
	old, recent, future := now.Add(-11*time.Minute), now.Add(-9*time.Minute), now.Add(time.Minute)
	for name, tt := range map[string]struct {
		stamp Stamp
		want  bool
	}{
		"no times":                {Stamp{}, false},
		"all old":                 {Stamp{CreatedAt: old, SyncedAt: old, AdoptedAt: old}, false},
		"just at the limit":       {Stamp{CreatedAt: after, SyncedAt: after, AdoptedAt: after}, false},
		"created":                 {Stamp{CreatedAt: recent, SyncedAt: old}, true},
		"adopted":                 {Stamp{CreatedAt: old, SyncedAt: old, AdoptedAt: recent}, true},
		"confirmed":               {Stamp{CreatedAt: old, SyncedAt: recent}, true},
		"confirmed now":           {Stamp{CreatedAt: old, SyncedAt: now}, true},
		"confirmed in the future": {Stamp{CreatedAt: old, SyncedAt: future}, false},
		"created in the future":   {Stamp{CreatedAt: future}, true},
		"adopted in the future":   {Stamp{CreatedAt: old, AdoptedAt: future}, true},
		"changed in Clerk":        {Stamp{CreatedAt: old, ClerkUpdatedAt: recent}, false},
	} {
		if got := tt.stamp.young(after, now); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
}
