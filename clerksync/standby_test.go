package clerksync

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// standbyStart is the time of the records in these tests; the writes come an hour later.
var standbyStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// standbyUser is user_1 in a version, changed.
func standbyUser(version int, change ...func(*User)) *User {
	u := &User{ClerkID: "user_1", IsActive: true, ClerkUpdatedAt: standbyStart.Add(time.Duration(version) * time.Minute), SyncedAt: standbyStart}
	for _, c := range change {
		c(u)
	}
	return u
}

func banned(u *User)      { u.Banned = true }
func suspended(u *User)   { u.IsActive = false }
func deleted(u *User)     { u.IsActive, u.DeletedAt = false, standbyStart }
func confirmed(u *User)   { u.SyncedAt = standbyStart.Add(time.Minute) }
func inTheFuture(u *User) { u.SyncedAt = standbyStart.Add(2 * time.Hour) }
func onlyClerkID(u *User) { *u = User{ClerkID: u.ClerkID} }

func TestStandbyAfterUpsert(t *testing.T) {
	t.Parallel()
	now := standbyStart.Add(time.Hour)
	tombstone := func(u *User) { onlyClerkID(u); u.DeletedAt = now }
	banOnly := func(u *User) { u.Banned = true } // all that an Upsert without a record tells
	one, two, three := standbyUser(1), standbyUser(2), standbyUser(3)
	ban1, ban2, ban3 := standbyUser(1, banned), standbyUser(2, banned), standbyUser(3, banned)
	made := func(u *User) { u.Record = "made" }
	made1, made2, madeSusp1 := standbyUser(1, made), standbyUser(2, made), standbyUser(1, suspended, made)
	susp1, gone1 := standbyUser(1, suspended), standbyUser(1, deleted)
	down, rejected, conflict := errors.New("down"), fmt.Errorf("validator: %w", ErrRejected), &ConflictError{Field: "email"}
	unknown := func(u *User) { u.Omit = []string{"banned"} }
	unknownBan, undated := standbyUser(2, banned, unknown), standbyUser(2, banned, func(u *User) { u.ClerkUpdatedAt = time.Time{} })
	for name, tt := range map[string]struct {
		cached, offered *User
		res             Result
		err             error
		kind            string // "no cache", "overtaken", "open"
		want            *User
	}{
		"newer":                               {one, two, Result{Updated, two}, nil, "", two},
		"newer, nobody visits":                {nil, two, Result{Updated, two}, nil, "", nil},
		"newer, not read back":                {one, two, Result{Updated, nil}, nil, "", nil},
		"newer, without a cache":              {one, two, Result{Updated, two}, nil, "no cache", nil},
		"confirmed later":                     {one, one, Result{Unchanged, standbyUser(1, confirmed)}, nil, "", standbyUser(1, confirmed)},
		"created":                             {nil, one, Result{Created, one}, nil, "", nil},
		"a ban":                               {one, ban2, Result{Updated, ban2}, nil, "", ban2},
		"a ban, nobody visits":                {nil, ban2, Result{Updated, ban2}, nil, "", ban2},
		"a ban, without a cache":              {nil, ban2, Result{Updated, ban2}, nil, "no cache", ban2},
		"a ban, not read back":                {one, ban2, Result{Updated, nil}, nil, "", standbyUser(2, banOnly)},
		"a new banned user, not read back":    {nil, ban2, Result{Created, nil}, nil, "", standbyUser(2, banOnly)},
		"adopted, banned, not read back":      {nil, ban2, Result{Adopted, nil}, nil, "", standbyUser(2, banOnly)},
		"with its Record":                     {made1, made2, Result{Updated, made2}, nil, "", made2},
		"without its Record":                  {made1, two, Result{Updated, two}, nil, "", nil},
		"a ban, without its Record":           {made1, ban2, Result{Updated, ban2}, nil, "", ban2},
		"suspended, without its Record":       {madeSusp1, two, Result{Updated, two}, nil, "", madeSusp1},
		"adopted":                             {nil, one, Result{Adopted, one}, nil, "", nil},
		"adopted, not read back":              {one, two, Result{Adopted, nil}, nil, "", nil},
		"the end of a ban":                    {ban1, two, Result{Updated, two}, nil, "", two},
		"the end of a ban, not read back":     {ban1, two, Result{Updated, nil}, nil, "", nil},
		"the end of a ban, without a cache":   {ban1, two, Result{Updated, two}, nil, "no cache", nil},
		"confirmed in the future, replaced":   {standbyUser(1, inTheFuture), standbyUser(1, confirmed), Result{Updated, nil}, nil, "", nil},
		"confirmed later, perhaps replaced":   {standbyUser(1, confirmed), one, Result{Updated, nil}, nil, "", nil},
		"banned later, perhaps replaced":      {standbyUser(1, confirmed, banned), one, Result{Updated, nil}, nil, "", standbyUser(1, confirmed, banned)},
		"overtaken":                           {one, two, Result{Updated, two}, nil, "overtaken", nil},
		"overtaken, by a suspension":          {susp1, two, Result{Updated, two}, nil, "overtaken", susp1},
		"overtaken, a ban":                    {one, ban2, Result{Updated, ban2}, nil, "overtaken", ban2},
		"overtaken, a ban, not read back":     {one, ban2, Result{Updated, nil}, nil, "overtaken", standbyUser(2, banOnly)},
		"overtaken, the end of a ban":         {ban1, two, Result{Updated, two}, nil, "overtaken", nil},
		"overtaken, an error":                 {one, two, Result{}, down, "overtaken", one},
		"overtaken, deleted":                  {one, two, Result{Deactivated, nil}, nil, "overtaken", standbyUser(0, tombstone)},
		"a late event after a ban":            {ban3, one, Result{Stale, nil}, nil, "", ban3},
		"a late event, with the record":       {ban1, one, Result{Stale, three}, nil, "", three},
		"the same event after a ban":          {ban3, ban3, Result{Unchanged, nil}, nil, "", ban3},
		"a late ban after its end":            {three, ban1, Result{Stale, nil}, nil, "", three},
		"an earlier write that ends later":    {ban3, two, Result{Updated, two}, nil, "", ban3},
		"the same, not read back":             {ban3, two, Result{Updated, nil}, nil, "", ban3},
		"an error":                            {one, two, Result{}, down, "", one},
		"an error, nobody visits":             {nil, two, Result{}, down, "", nil},
		"an unwritten ban":                    {one, ban2, Result{}, down, "", standbyUser(2, banOnly)},
		"an unwritten ban, nobody visits":     {nil, ban2, Result{}, down, "", nil},
		"the same, and an outage lets in":     {nil, ban2, Result{}, down, "open", standbyUser(2, banOnly)},
		"an unwritten ban, overtaken":         {one, ban2, Result{}, down, "overtaken", standbyUser(2, banOnly)},
		"an unwritten ban, suspended":         {susp1, ban2, Result{}, down, "", standbyUser(2, banOnly, suspended)},
		"an unwritten ban after another":      {ban1, ban2, Result{}, down, "", standbyUser(2, banOnly)},
		"a late unwritten ban":                {two, ban1, Result{}, down, "", two},
		"a repeated one after its end":        {standbyUser(1, confirmed), ban1, Result{}, down, "", standbyUser(1, confirmed)},
		"an unwritten ban that is undated":    {one, undated, Result{}, down, "", one},
		"an unwritten ban that is unknown":    {one, unknownBan, Result{}, down, "", one},
		"a ban that is rejected":              {one, ban2, Result{}, rejected, "", one},
		"a ban in conflict":                   {one, ban2, Result{}, conflict, "", one},
		"an unwritten end of a ban":           {ban1, two, Result{}, down, "", nil},
		"a late unwritten end":                {ban3, two, Result{}, down, "", ban3},
		"an unwritten end, suspended":         {standbyUser(1, banned, suspended), two, Result{}, down, "", standbyUser(1, banned, suspended)},
		"an unwritten end that is unknown":    {ban1, standbyUser(2, unknown), Result{}, down, "", ban1},
		"suspended, then banned, not re-read": {susp1, ban2, Result{Updated, nil}, nil, "", standbyUser(2, banOnly, suspended)},
		"suspended by the app":                {one, two, Result{Updated, standbyUser(2, suspended)}, nil, "", standbyUser(2, suspended)},
		"suspended before, not read back":     {susp1, two, Result{Updated, nil}, nil, "", susp1},
		"no longer suspended":                 {susp1, two, Result{Updated, two}, nil, "", two},
		"deleted":                             {one, two, Result{Deactivated, nil}, nil, "", standbyUser(0, tombstone)},
		"deleted, nobody visits":              {nil, two, Result{Deactivated, nil}, nil, "no cache", standbyUser(0, tombstone)},
		"deleted, heard again":                {gone1, two, Result{Deactivated, nil}, nil, "", standbyUser(0, tombstone)},
		"deleted during the write":            {gone1, two, Result{Updated, two}, nil, "", gone1},
		"deleted during a write that failed":  {gone1, two, Result{}, down, "", gone1},
		"deleted during a write, not re-read": {gone1, ban2, Result{Created, nil}, nil, "", gone1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := upserted{
				offered: tt.offered, res: tt.res, err: tt.err, at: now,
				overtaken: tt.kind == "overtaken", caching: tt.kind != "no cache", open: tt.kind == "open",
			}
			got := w.standby(tt.cached)
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("standby (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStandbyAfterForget(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cached *User
		keep   bool
	}{
		"nobody":    {nil, false},
		"active":    {standbyUser(1), false},
		"banned":    {standbyUser(1, banned), true}, // until the Store says otherwise
		"suspended": {standbyUser(1, suspended), true},
		"deleted":   {standbyUser(1, deleted), true},
	} {
		want := tt.cached
		if !tt.keep {
			want = nil
		}
		if got := standbyAfterForget(tt.cached); got != want {
			t.Errorf("%s: standby is %+v", name, got)
		}
	}
}

// downStore cannot be read.
type downStore struct{ Store }

func (downStore) User(context.Context, string) (*User, error) { return nil, errors.New("down") }

// A user stays on standby for an hour after it was last known to be right, however many
// writes leave it as it is.
func TestStandbyEnds(t *testing.T) {
	t.Parallel()
	two := standbyUser(2)
	for name, tt := range map[string]struct {
		cached  *User
		written Result
		after   time.Duration // from the load to the write; the visit comes 15 minutes later
		want    error
	}{
		"served":                           {standbyUser(1), Result{Updated, two}, 0, nil},
		"barred":                           {standbyUser(1, suspended), Result{Outcome: Updated}, 0, ErrUserInactive},
		"barred, an hour ago":              {standbyUser(1, suspended), Result{Outcome: Updated}, 50 * time.Minute, ErrUnavailable},
		"barred, a month ago":              {standbyUser(1, suspended), Result{Outcome: Updated}, 30 * 24 * time.Hour, ErrUnavailable},
		"written anew, long after a load":  {standbyUser(1), Result{Updated, two}, 30 * 24 * time.Hour, ErrUnavailable},
		"written anew, shortly after that": {standbyUser(1), Result{Updated, two}, 50 * time.Minute, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := standbyStart
			s, err := New(Config{Store: downStore{}, SecretKey: "sk_test_x", RefreshAfter: -1, Now: func() time.Time { return now }})
			if err != nil {
				t.Fatal(err)
			}
			s.cache.put(load{id: "user_1", gen: s.cache.generation("user_1").Load()}, tt.cached, now)
			now = now.Add(tt.after)
			s.invalidateUpserted(two, s.cache.generation("user_1").Load(), tt.written, nil)
			now = now.Add(15 * time.Minute)
			if _, err := s.User(t.Context(), "user_1"); !errors.Is(err, tt.want) {
				t.Errorf("with the Store down: %v, want %v", err, tt.want)
			}
		})
	}
}

// A Reconcile in the app's process leaves the cache to users who visit.
func TestUpsertsTakeNoPlaceInTheCache(t *testing.T) {
	t.Parallel()
	s, err := New(Config{Store: downStore{}, SecretKey: "sk_test_x", CacheSize: 100})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10_000 {
		u := &User{ClerkID: "user_" + strconv.Itoa(i), IsActive: true}
		s.invalidateUpserted(u, s.cache.generation(u.ClerkID).Load(), Result{Created, u}, nil)
	}
	s.cache.records.CleanUp()
	if n := s.cache.records.EstimatedSize(); n != 0 {
		t.Errorf("%d records that nobody asked for", n)
	}
}
