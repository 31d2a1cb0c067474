package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// violation is a finding.
type violation struct {
	lost bool // what was acknowledged or served is gone, or an older state replaced it
	text string
}

func (v *violation) Error() string {
	if v.lost {
		return "lost: " + v.text
	}
	return "violated: " + v.text
}

func violated(format string, args ...any) error {
	return &violation{text: fmt.Sprintf(format, args...)}
}

func lost(format string, args ...any) error {
	return &violation{lost: true, text: fmt.Sprintf(format, args...)}
}

// record is a record in the database.
type record struct {
	ID      bson.ObjectID `bson:"_id"`
	ClerkID string        `bson:"clerkId"`
	Email   string        `bson:"email"`
	Name    string        `bson:"name"`
	Profile struct {
		FirstName   string `bson:"firstName"`
		LastName    string `bson:"lastName"`
		FullName    string `bson:"fullName"`
		ImageURL    string `bson:"imageUrl"`
		PhoneNumber string `bson:"phoneNumber"`
		Nickname    string `bson:"nickname"` // app-owned
	} `bson:"profile"`
	EmailVerified  bool      `bson:"emailVerified"`
	PhoneVerified  bool      `bson:"phoneVerified"`
	Banned         bool      `bson:"banned"`
	IsActive       bool      `bson:"isActive"`
	LastSignInAt   time.Time `bson:"lastSignInAt"`
	ClerkCreatedAt time.Time `bson:"clerkCreatedAt"`
	ClerkUpdatedAt time.Time `bson:"clerkUpdatedAt"`
	DeletedAt      time.Time `bson:"deletedAt"`

	Jobs struct {
		Create jobState `bson:"create"`
		Delete jobState `bson:"delete"`
	} `bson:"clerkJobs"`

	// App-owned.
	Role string `bson:"role"`
	Edit int    `bson:"edit"`
}

// jobState is what a record says of one of its jobs.
type jobState struct {
	Due      time.Time `bson:"due"`
	Attempt  int       `bson:"attempt"`
	Token    string    `bson:"token"`
	FailedAt time.Time `bson:"failedAt"`
}

// edit is what the app's n-th edit of a record sets: role, a field inside profile, and a field that
// clerksync does not know.
func edit(n int) bson.D {
	return bson.D{
		{Key: "role", Value: roleOf(n)},
		{Key: "profile.nickname", Value: nicknameOf(n)},
		{Key: "edit", Value: n},
	}
}

func roleOf(n int) string {
	if n == 0 {
		return "STUDENT"
	}
	return fmt.Sprintf("ROLE-%d", n)
}

func nicknameOf(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("nick-%d", n)
}

// audit compares the database with what was acknowledged before it reads. It returns the records by
// user. An error that is not a violation comes from the database.
func audit(ctx context.Context, users *mongo.Collection, l *ledger) (map[string]record, error) {
	promises := l.promises()
	all, err := readAll(ctx, users)
	if err != nil {
		return nil, err
	}
	states := l.states()
	records := make(map[string]record, len(all))
	for _, r := range all {
		if other, twice := records[r.ClerkID]; twice && other.ID != r.ID {
			return nil, lost("the unique index: %s has two records, %s and %s", r.ClerkID, other.ID.Hex(), r.ID.Hex())
		}
		records[r.ClerkID] = r
		s, known := states[r.ClerkID]
		if !known {
			return nil, violated("there is a record of %q, whom nobody created", r.ClerkID)
		}
		if err := s.allows(r); err != nil {
			return nil, err
		}
		if err := l.bury(r); err != nil {
			return nil, err
		}
	}
	for id, p := range promises {
		r, found := records[id]
		if err := p.kept(id, r, found); err != nil {
			return nil, err
		}
	}
	return records, nil
}

func readAll(ctx context.Context, users *mongo.Collection) ([]record, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cursor, err := users.Find(ctx, bson.D{})
	if err != nil {
		return nil, err
	}
	var all []record
	return all, cursor.All(ctx, &all)
}

// allows checks that the record holds only what was true at some time.
func (s state) allows(r record) error {
	revision, err := revisionOf(r.ClerkID, r.Profile.LastName, r.Email)
	switch {
	case err != nil:
		return violated("the record of %s mixes revisions: %v", r.ClerkID, err)
	case revision > s.revisions:
		return violated("the record of %s has revision %d of %d", r.ClerkID, revision, s.revisions)
	case !r.DeletedAt.IsZero() && !s.deleted:
		return violated("%s is deleted in the database but not in Clerk", r.ClerkID)
	case r.IsActive != r.DeletedAt.IsZero():
		return violated("the record of %s has deletedAt %v and isActive %t", r.ClerkID, r.DeletedAt, r.IsActive)
	case s.recordID != "" && s.recordID != r.ID.Hex():
		return lost("the record of %s has _id %s but was served with %s: it was created anew",
			r.ClerkID, r.ID.Hex(), s.recordID)
	case r.Edit > s.edits:
		return violated("the record of %s has edit %d of %d", r.ClerkID, r.Edit, s.edits)
	case revision > 0 && r.Role != roleOf(r.Edit), r.Profile.Nickname != nicknameOf(r.Edit):
		return lost("the record of %s has edit %d, role %q and nickname %q: an edit of the app was overwritten",
			r.ClerkID, r.Edit, r.Role, r.Profile.Nickname)
	}
	return nil
}

// bury remembers a tombstone when it is first seen, and then checks that no late webhook writes to
// it.
func (l *ledger) bury(r record) error {
	if r.DeletedAt.IsZero() {
		return nil
	}
	r.Role, r.Profile.Nickname, r.Edit = "", "", 0 // app-owned fields may still change
	r.Jobs.Create, r.Jobs.Delete = jobState{}, jobState{}
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.users[r.ClerkID]
	if a.tombstone == nil {
		a.tombstone = &r
	}
	if *a.tombstone != r {
		return lost("the record of %s was written to after its deletion: it was %+v and is %+v", r.ClerkID, *a.tombstone, r)
	}
	return nil
}

// kept checks that the record still holds what was acknowledged.
func (p promise) kept(id string, r record, found bool) error {
	revision, _ := revisionOf(id, r.Profile.LastName, r.Email)
	tombstone := !r.DeletedAt.IsZero()
	switch {
	case !found && (p.revision > 0 || p.deletion || p.edit > 0):
		return lost("%s has no record, but revision %d, deletion %t and edit %d were acknowledged",
			id, p.revision, p.deletion, p.edit)
	case p.deletion && !tombstone:
		return lost("%s has no tombstone, but the deletion was acknowledged", id)
	case r.Edit < p.edit:
		return lost("the record of %s has edit %d, but %d was acknowledged", id, r.Edit, p.edit)
	case tombstone:
		return nil
	case revision < p.revision:
		return lost("the record of %s has revision %d, but %d was acknowledged or served", id, revision, p.revision)
	case found && r.ClerkUpdatedAt.UnixMilli() < p.version:
		return lost("the record of %s has version %d, but %d was acknowledged", id, r.ClerkUpdatedAt.UnixMilli(), p.version)
	}
	return nil
}

// converged checks that the records equal Clerk's users. It is for the end of the run, when every
// webhook was acknowledged and nothing changes any more.
func converged(records map[string]record, clerk *fakeclerk.Server, l *ledger) error {
	for id, s := range l.states() {
		r, found := records[id]
		switch {
		case !s.existing:
			return violated("the sign-up of %s did not end", id)
		case !found:
			return violated("%s has no record at the end", id)
		case s.deleted && r.DeletedAt.IsZero():
			return violated("%s is deleted in Clerk but has no tombstone at the end", id)
		case s.deleted:
			continue
		}
		raw, ok := clerk.User(id)
		if !ok {
			return violated("%s is not in Clerk", id)
		}
		if err := equal(id, raw, r); err != nil {
			return err
		}
	}
	return nil
}

// equal compares a record with the user in Clerk, field by field.
func equal(id string, raw json.RawMessage, r record) error {
	var u struct {
		FirstName    string `json:"first_name"`
		LastName     string `json:"last_name"`
		ImageURL     string `json:"image_url"`
		Banned       bool   `json:"banned"`
		LastSignInAt *int64 `json:"last_sign_in_at"`
		CreatedAt    int64  `json:"created_at"`
		UpdatedAt    int64  `json:"updated_at"`
		Emails       []struct {
			Address      string `json:"email_address"`
			Verification struct {
				Status string `json:"status"`
			} `json:"verification"`
		} `json:"email_addresses"`
	}
	if err := json.Unmarshal(raw, &u); err != nil {
		return err
	}
	signIn := time.Time{}
	if u.LastSignInAt != nil {
		signIn = time.UnixMilli(*u.LastSignInAt)
	}
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"clerkUpdatedAt", r.ClerkUpdatedAt.UnixMilli(), u.UpdatedAt},
		{"clerkCreatedAt", r.ClerkCreatedAt.UnixMilli(), u.CreatedAt},
		{"lastSignInAt", r.LastSignInAt.UnixMilli(), signIn.UnixMilli()},
		{"name", r.Name, u.FirstName + " " + u.LastName},
		{"profile.fullName", r.Profile.FullName, u.FirstName + " " + u.LastName},
		{"profile.firstName", r.Profile.FirstName, u.FirstName},
		{"profile.lastName", r.Profile.LastName, u.LastName},
		{"profile.imageUrl", r.Profile.ImageURL, u.ImageURL},
		{"profile.phoneNumber", r.Profile.PhoneNumber, ""},
		{"email", r.Email, u.Emails[0].Address},
		{"emailVerified", r.EmailVerified, u.Emails[0].Verification.Status == "verified"},
		{"phoneVerified", r.PhoneVerified, false},
		{"banned", r.Banned, u.Banned},
	} {
		if f.got != f.want {
			return violated("%s of the record of %s is %v at the end, but %v in Clerk", f.name, id, f.got, f.want)
		}
	}
	return nil
}

// readLogs looks for panics and data races in the apps' logs.
func readLogs(folder string) error {
	logs, err := filepath.Glob(filepath.Join(folder, "app-*.log"))
	if err != nil {
		return err
	}
	for _, name := range logs {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, bad := range []string{"WARNING: DATA RACE", "panic:", "fatal error:"} {
			if i := bytes.Index(text, []byte(bad)); i >= 0 {
				return violated("%s contains %q: %.2000s", name, bad, text[i:])
			}
		}
	}
	return nil
}
