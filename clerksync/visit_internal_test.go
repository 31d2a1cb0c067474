package clerksync

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/maypok86/otter/v2"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
	"github.com/clerksync/clerksync-go/clerksync/internal/sessiontoken"
)

// An invalidation waits for a put that has read the generation but not written yet, even
// if nothing was cached before.
func TestInvalidationInTheMiddleOfAPut(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := newRecordCache(1000, time.Hour)
	before := c.generation("user_1").Load()
	invalidated := make(chan struct{})
	c.records.Compute("user_1", func(*cachedRecord, bool) (*cachedRecord, otter.ComputeOp) {
		go func() {
			c.invalidate("user_1", now, func(*User, uint64) *User { return nil })
			close(invalidated)
		}()
		for c.generation("user_1").Load() == before {
			runtime.Gosched()
		}
		for range 10_000 { // time enough to return too early
			runtime.Gosched()
		}
		return &cachedRecord{user: &User{ClerkID: "user_1", IsActive: true}, loadedAt: now}, otter.WriteOp
	})
	<-invalidated
	if _, ok := c.fresh("user_1", now); ok {
		t.Error("a record loaded before the invalidation is served after it")
	}
}

// A record that bars its user ends the loads that began before: they may have read the
// record before the deletion, the suspension or the ban.
func TestBarredRecordEndsOtherLoads(t *testing.T) {
	t.Parallel()
	now := time.Now()
	active := &User{ClerkID: "user_1", IsActive: true, ClerkUpdatedAt: now}
	for name, barred := range map[string]*User{
		"deleted":   {ClerkID: "user_1", DeletedAt: now},
		"suspended": {ClerkID: "user_1", ClerkUpdatedAt: now},
		"banned":    {ClerkID: "user_1", IsActive: true, Banned: true, ClerkUpdatedAt: now},
	} {
		for _, ttl := range []time.Duration{time.Hour, -1} {
			c := newRecordCache(1000, ttl)
			gen := c.generation("user_1").Load()
			if _, current := c.put(load{id: "user_1", gen: gen}, barred, now); !current {
				t.Fatalf("%s, TTL %v: its own load is not current", name, ttl)
			}
			if _, current := c.put(load{id: "user_1", gen: gen}, active, now); current {
				t.Errorf("%s, TTL %v: a load that began before replaces it", name, ttl)
			}
			if u, ok := c.standby("user_1", now); !ok || u != barred {
				t.Errorf("%s, TTL %v: the cache has %+v", name, ttl, u)
			}
			gen = c.generation("user_1").Load()
			if _, current := c.put(load{id: "user_1", gen: gen}, active, now); !current {
				t.Errorf("%s, TTL %v: a load that began after does not count", name, ttl)
			}
		}
	}
}

// A suspended user who keeps trying does not end the loads of other users.
func TestKnownBarredRecordEndsNoLoads(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, ttl := range []time.Duration{time.Hour, -1} {
		c := newRecordCache(1000, ttl)
		suspended := &User{ClerkID: "user_1", ClerkUpdatedAt: now}
		c.put(load{id: "user_1", gen: c.generation("user_1").Load()}, suspended, now)
		gen := c.generation("user_1").Load()
		for range 3 {
			c.put(load{id: "user_1", gen: gen}, &User{ClerkID: "user_1", ClerkUpdatedAt: now}, now)
		}
		if c.generation("user_1").Load() != gen {
			t.Errorf("TTL %v: loads ended although the suspension was known", ttl)
		}
		banned := &User{ClerkID: "user_1", Banned: true, ClerkUpdatedAt: now}
		if c.put(load{id: "user_1", gen: gen}, banned, now); c.generation("user_1").Load() == gen {
			t.Errorf("TTL %v: no loads ended although a ban is new", ttl)
		}
	}
}

// Which of two records the cache keeps, if a load ends while another is cached.
func TestPutKeepsTheLaterState(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(version int, change func(*User)) *User {
		u := &User{ClerkID: "user_1", IsActive: true, ClerkUpdatedAt: start.Add(time.Duration(version) * time.Second)}
		if change != nil {
			change(u)
		}
		return u
	}
	banned := func(u *User) { u.Banned = true }
	suspended := func(u *User) { u.IsActive = false }
	deleted := func(u *User) { u.IsActive, u.DeletedAt = false, start }
	confirmed := func(u *User) { u.SyncedAt = start }
	for name, tt := range map[string]struct {
		cached, loaded *User
		keep           bool // the cached one
	}{
		"an older version":                       {at(2, nil), at(1, nil), true},
		"a newer version":                        {at(1, nil), at(2, nil), false},
		"the same version, confirmed later":      {at(1, nil), at(1, confirmed), false},
		"the same version, confirmed earlier":    {at(1, confirmed), at(1, nil), true},
		"a late ban over its end":                {at(2, nil), at(1, banned), true},
		"a new ban":                              {at(1, nil), at(2, banned), false},
		"a late active record over a ban":        {at(2, banned), at(1, nil), true},
		"the end of a ban":                       {at(1, banned), at(2, nil), false},
		"a suspension, which has no version":     {at(2, nil), at(1, suspended), false},
		"the end of a suspension":                {at(2, suspended), at(1, nil), false},
		"a deletion, which has no version":       {at(2, nil), at(1, deleted), false},
		"a restored record, which has a version": {at(2, deleted), at(1, nil), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newRecordCache(1000, time.Hour)
			c.put(load{id: "user_1", gen: c.generation("user_1").Load()}, tt.cached, start)
			served, current := c.put(load{id: "user_1", gen: c.generation("user_1").Load()}, tt.loaded, start)
			want := tt.loaded
			if tt.keep {
				want = tt.cached
			}
			if cached, _ := c.fresh("user_1", start); served != want || cached != want || !current {
				t.Errorf("served %+v, cached %+v, current %v; want %+v", served, cached, current, want)
			}
		})
	}
}

// A visit with a newer token does not join a lookup that began before an invalidation.
func TestLookupKeyChangesAtAnInvalidation(t *testing.T) {
	t.Parallel()
	s := &Syncer{cache: newRecordCache(1000, time.Hour), clock: clock.System(time.Now)}
	token := sessiontoken.Version{At: time.Now()}
	key := func(newer bool) string {
		return load{id: "user_1", gen: s.cache.generation("user_1").Load(), token: visitToken{version: token}, newer: newer}.key()
	}
	before := key(true)
	if key(true) != before || key(false) == before {
		t.Error("the key does not depend on the user, the token version, and whether it is newer")
	}
	s.invalidate("user_1", func(*User, uint64) *User { return nil })
	if key(true) == before {
		t.Error("a lookup that began before the invalidation is joined")
	}
}

// After a visit got a record that could not be cached, nothing earlier is served, neither from the
// cache nor by a load that began before.
func TestNothingEarlierIsServedAfterwards(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at := func(version int, change ...func(*User)) *User {
		u := standbyUser(version)
		for _, c := range change {
			c(u)
		}
		return u
	}
	for name, tt := range map[string]struct {
		cached, served *User
		fresh, standby bool // whether the cached record stays
		ends           bool // whether the loads that began before are over
	}{
		"nothing is cached":          {nil, at(2), false, false, true},
		"an earlier version":         {at(1), at(2), false, false, true},
		"the same record":            {at(2), at(2), true, true, false},
		"a later version":            {at(3), at(2), true, true, false},
		"confirmed earlier":          {at(2), at(2, confirmed), false, false, true},
		"an earlier ban":             {at(1, banned), at(2), false, false, true},
		"a ban that came later":      {at(2, banned), at(1), false, true, true},
		"a suspension":               {at(1, suspended), at(2), false, true, true},
		"a deletion":                 {at(1, deleted), at(2), false, true, true},
		"the visit found a deletion": {at(1), at(1, deleted), false, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newRecordCache(1000, time.Hour)
			if tt.cached != nil {
				c.put(load{id: "user_1", gen: c.generation("user_1").Load()}, tt.cached, now)
			}
			gen := c.generation("user_1").Load()
			c.overtake("user_1", tt.served)
			_, fresh := c.fresh("user_1", now)
			_, standby := c.standby("user_1", now)
			if ends := c.generation("user_1").Load() != gen; fresh != tt.fresh || standby != tt.standby || ends != tt.ends {
				t.Errorf("fresh %t, on standby %t, other loads end %t; want %+v", fresh, standby, ends, tt)
			}
		})
	}
}

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

// In whatever order visits leave and lookups fail, a failure is reported once, if no visit heard of it.
func TestAudiences(t *testing.T) {
	t.Parallel()
	failure := errors.New("down")
	for _, tt := range []struct {
		steps string // join, hear (the end of a lookup), give up, fail (a lookup)
		at    int    // the step that reports the failure; -1 for none
	}{
		{"join hear", -1},
		{"join give-up", -1},
		{"join fail hear", -1},
		{"join give-up fail", 2},
		{"join fail give-up", 2},
		{"join join fail give-up hear", -1},
		{"join join fail hear give-up", -1},
		{"join join fail give-up give-up", 4},
		{"join join give-up fail give-up", 4},
		{"join join give-up give-up fail", 4},
		{"join give-up fail fail", 3}, // two lookups; the first is reported too
		{"join fail hear join give-up", -1},
		{"join give-up join fail hear", -1},
		{"fail", 0},
	} {
		var a audiences
		for i, step := range strings.Fields(tt.steps) {
			var got error
			switch step {
			case "join":
				a.join("user_1")
			case "hear":
				got = a.leave("user_1", true)
			case "give-up":
				got = a.leave("user_1", false)
			case "fail":
				got = a.ended("user_1", failure)
			}
			first := strings.Contains(tt.steps, "fail fail") && i == tt.at-1
			if (got != nil) != (i == tt.at || first) {
				t.Errorf("%s: step %d reports %v", tt.steps, i, got)
			}
		}
		if len(a.of) != 0 {
			t.Errorf("%s: %d users are left", tt.steps, len(a.of))
		}
	}
}

// Users do not share their audiences.
func TestAudiencesOfTwoUsers(t *testing.T) {
	t.Parallel()
	var a audiences
	a.join("user_1")
	if err := a.ended("user_2", ErrUnavailable); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a lookup that only another user's visit waits for: %v", err)
	}
	if err := a.leave("user_1", false); err != nil {
		t.Errorf("another user's failure: %v", err)
	}
}

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
