package clerksync_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// pickyStore is a Store in memory that refuses some writes to records that exist.
type pickyStore struct {
	*memstore.Store
	mu     sync.Mutex
	refuse func(*clerksync.User) error
	offers []*clerksync.User
}

func (s *pickyStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	s.mu.Lock()
	refuse := s.refuse
	s.offers = append(s.offers, u)
	s.mu.Unlock()
	if refuse != nil {
		if err := refuse(u); err != nil {
			return clerksync.Result{}, err
		}
	}
	return s.Store.Upsert(ctx, u)
}

func (s *pickyStore) UpsertBatch(ctx context.Context, us []*clerksync.User) ([]clerksync.Result, error) {
	results, errs := make([]clerksync.Result, len(us)), make(map[int]error)
	for i, u := range us {
		var err error
		if results[i], err = s.Upsert(ctx, u); err != nil {
			errs[i] = err
		}
	}
	if len(errs) > 0 {
		return results, &clerksync.BatchError{Errs: errs}
	}
	return results, nil
}

func (s *pickyStore) setRefuse(f func(*clerksync.User) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = f
}

// writeFixture is a fixture whose Map, RoleOf and Store fail while broken is set.
type writeFixture struct {
	*fixture
	picky   *pickyStore
	broken  bool // only changed while nothing runs
	webhook http.Handler
}

func newWriteFixture(t testing.TB, fault writeFault) *writeFixture {
	t.Helper()
	w := &writeFixture{}
	w.fixture = newFixture(t, func(c *clerksync.Config) {
		w.picky = &pickyStore{Store: c.Store.(*countingStore).Store}
		c.Store = w.picky
		if fault.mapping != nil {
			c.Map = func(cu *clerk.User, u *clerksync.User) error {
				u.Extra = map[string]any{"plan": "pro"}
				if w.broken {
					return fault.mapping(cu, u)
				}
				return nil
			}
		}
		if fault.roleOf != nil {
			c.RoleOf = func(cu *clerk.User) clerksync.Role {
				if w.broken {
					return fault.roleOf(cu)
				}
				return "MEMBER"
			}
		}
	})
	var err error
	w.webhook, err = w.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *writeFixture) breakIt(fault writeFault, broken bool) {
	w.broken = broken
	w.picky.setRefuse(nil)
	if broken && fault.refuse != nil {
		w.picky.setRefuse(fault.refuse)
	}
}

// deliver sends an event with this user, at the clock's time.
func (w *writeFixture) deliver(t *testing.T, raw json.RawMessage) answer {
	t.Helper()
	body := fmt.Appendf(nil, `{"object":"event","type":"user.updated","timestamp":%d,"data":%s}`, w.clock.Now().UnixMilli(), raw)
	return answerOf(w.webhook, signed(t, "/", testSecret, w.clock.Now(), body))
}

func (w *writeFixture) user(t *testing.T, id string) json.RawMessage {
	t.Helper()
	raw, ok := w.clerk.User(id)
	if !ok {
		t.Fatal("no such user")
	}
	return raw
}

// updatedAt is the user's version in Clerk, whatever the other fields are.
func (w *writeFixture) updatedAt(t *testing.T, id string) time.Time {
	t.Helper()
	var u struct {
		UpdatedAt int64 `json:"updated_at"`
	}
	if err := json.Unmarshal(w.user(t, id), &u); err != nil {
		t.Fatal(err)
	}
	return time.UnixMilli(u.UpdatedAt)
}

// writeFault is a way in which a user cannot be written as a whole.
type writeFault struct {
	mapping func(*clerk.User, *clerksync.User) error
	roleOf  func(*clerk.User) clerksync.Role
	refuse  func(*clerksync.User) error
	change  func(*fakeclerk.UserObject) // of Clerk's user, without a new version
	restore func(*fakeclerk.UserObject)

	status  int // of the webhook
	code    string
	onlyBan bool     // nothing but the ban is written
	omits   []string // or all but these
}

// refusing refuses every user who writes one of these fields, as a unique index on it does.
func refusing(err error, fields ...string) func(*clerksync.User) error {
	return func(u *clerksync.User) error {
		for path := range u.ClerkFields() {
			if slices.Contains(fields, path) {
				return err
			}
		}
		return nil
	}
}

// conflictsOn refuses users one field after the other.
func conflictsOn(fields ...string) func(*clerksync.User) error {
	return func(u *clerksync.User) error {
		for _, field := range fields {
			if err := refusing(&clerksync.ConflictError{Field: field}, field)(u); err != nil {
				return err
			}
		}
		return nil
	}
}

func extraOf(name string, value any) func(*clerk.User, *clerksync.User) error {
	return func(_ *clerk.User, u *clerksync.User) error { u.Extra[name] = value; return nil }
}

func writeFaults() map[string]writeFault {
	type clerkUser = clerk.User
	type user = clerksync.User
	fails := func(f func(*clerkUser, *user) error) writeFault {
		return writeFault{mapping: f, status: 500, code: "mapping_failed", onlyBan: true}
	}
	unstorable := func(name string, value any) writeFault {
		return writeFault{mapping: extraOf(name, value), status: 204, omits: []string{name}}
	}
	odd := func(name string, value any, omits ...string) writeFault {
		return writeFault{
			change:  func(u *fakeclerk.UserObject) { u.Extra = map[string]any{name: value, "passkeys": 7} },
			restore: func(u *fakeclerk.UserObject) { u.Extra = nil },
			status:  204, omits: omits,
		}
	}
	rejected := fmt.Errorf("store: %w", clerksync.ErrRejected)
	var nested any = "leaf"
	for range 40 {
		nested = []any{nested}
	}
	return map[string]writeFault{
		"Map fails":            fails(func(*clerkUser, *user) error { return errors.New("no plan") }),
		"Map panics":           fails(func(*clerkUser, *user) error { panic("no plan") }),
		"Map changes the id":   fails(func(_ *clerkUser, u *user) error { u.ClerkID = "user_x"; return nil }),
		"Map sets Omit":        fails(func(_ *clerkUser, u *user) error { u.Omit = []string{"banned"}; return nil }),
		"Map lifts, and fails": fails(func(_ *clerkUser, u *user) error { u.Banned = false; return errors.New("no plan") }),
		"RoleOf panics": {
			roleOf: func(*clerkUser) clerksync.Role { panic("no role") },
			status: 500, code: "mapping_failed", onlyBan: true,
		},
		"a name with a dot":         unstorable("a.b", 1),
		"a name with a dollar sign": unstorable("$set", 1),
		"an empty name":             unstorable("", 1),
		"a name with NUL":           unstorable("a\x00", 1),
		"a name that is not UTF-8":  unstorable("\xff", 1),
		"a reserved name":           unstorable("email", "x"),
		"our bookkeeping's name":    unstorable("clerkUpdatedAt", "x"),
		"a type that has no form":   unstorable("tags", make(chan int)),
		"a value nested too deeply": unstorable("tags", nested),

		"the e-mail is taken":      {refuse: conflictsOn("email"), status: 204, omits: []string{"email", "emailVerified"}},
		"emailVerified is refused": {refuse: conflictsOn("emailVerified"), status: 204, omits: []string{"email", "emailVerified"}},
		"the number is taken": {
			refuse: conflictsOn("profile.phoneNumber"), status: 204, omits: []string{"profile.phoneNumber", "phoneVerified"},
		},
		"the name is taken":         {refuse: conflictsOn("name"), status: 204, omits: []string{"name"}},
		"a value of Extra is taken": {mapping: extraOf("handle", "ada"), refuse: conflictsOn("handle"), status: 204, omits: []string{"handle"}},
		"the role is taken": {
			roleOf: func(*clerkUser) clerksync.Role { return "OWNER" }, refuse: conflictsOn("role"),
			status: 204, omits: []string{"role"},
		},
		"two fields are taken": {
			refuse: conflictsOn("email", "name"), status: 204, omits: []string{"email", "emailVerified", "name"},
		},
		"all fields are taken": {
			refuse: conflictsOn("email", "name", "profile.firstName", "profile.lastName", "profile.fullName",
				"profile.imageUrl", "profile.birthday", "profile.phoneNumber"),
			status: 204, onlyBan: true,
		},
		"some field is taken": {
			refuse: refusing(&clerksync.ConflictError{}, "email", "name"), status: 204, onlyBan: true,
		},
		"a field of the app's is taken": {
			refuse: refusing(&clerksync.ConflictError{Field: "tenant"}, "email", "name"), status: 204, onlyBan: true,
		},
		"a conflict that is wrapped": {
			refuse: refusing(fmt.Errorf("store: %w", &clerksync.ConflictError{Field: "name"}), "name"),
			status: 204, omits: []string{"name"},
		},
		"the Store rejects the record": {
			refuse: refusing(rejected, "email"), status: 422, code: "rejected", onlyBan: true,
		},

		"a name with a dot, and the rest is rejected": {
			mapping: extraOf("a.b", 1), refuse: refusing(rejected, "email"), status: 422, code: "rejected", onlyBan: true,
		},
		"an odd image, and the rest is rejected": {
			change:  func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"image_url": 7} },
			restore: func(u *fakeclerk.UserObject) { u.Extra = nil },
			refuse:  refusing(rejected, "email"), status: 422, code: "rejected", onlyBan: true,
		},
		"the e-mail is taken, and the rest is rejected": {
			refuse: func(u *user) error {
				if err := conflictsOn("email")(u); err != nil {
					return err
				}
				return refusing(rejected, "name")(u)
			},
			status: 409, code: "conflict", onlyBan: true,
		},

		"an odd first name":    odd("first_name", []string{"A"}, "profile.firstName", "profile.fullName", "name"),
		"an odd image":         odd("image_url", 7, "profile.imageUrl"),
		"odd addresses":        odd("email_addresses", map[string]any{}, "email", "emailVerified"),
		"an odd address":       odd("email_addresses", []any{7}, "email", "emailVerified"),
		"an odd primary":       odd("primary_email_address_id", 7, "email", "emailVerified"),
		"odd numbers":          odd("phone_numbers", "none", "profile.phoneNumber", "phoneVerified"),
		"an odd sign-up":       odd("created_at", "2026-03-01", "clerkCreatedAt"),
		"an odd sign-in":       odd("last_sign_in_at", "2026-03-01"),
		"an odd deprovisioned": odd("deprovisioned", "yes"),
	}
}

// banPaths are the ways in which the news of a ban comes. They return the webhook's answer.
var banPaths = map[string]func(t *testing.T, w *writeFixture, id string) answer{
	"webhook": func(t *testing.T, w *writeFixture, id string) answer { return w.deliver(t, w.user(t, id)) },
	"Sync": func(t *testing.T, w *writeFixture, id string) answer {
		_, _ = w.Sync(t.Context(), id)
		return answer{}
	},
	"refresh": func(t *testing.T, w *writeFixture, id string) answer {
		w.clock.Advance(2 * time.Hour)
		visit(t, w.Syncer, id)
		w.waitForRefreshes()
		return answer{}
	},
	"visit with a newer token": func(t *testing.T, w *writeFixture, id string) answer {
		h := w.RequireUser(&me{})
		token := w.token(t, id, fakeclerk.TokenOptions{Claims: map[string]any{"updated_at": w.updatedAt(t, id).UnixMilli()}})
		checkProblem(t, answerOf(h, bearing("Bearer "+token)), 403, "user_inactive")
		return answer{}
	},
	"Reconcile": func(t *testing.T, w *writeFixture, _ string) answer {
		_, _ = w.Reconcile(t.Context(), clerksync.ReconcileOptions{})
		return answer{}
	},
	"Reconcile, whole records": func(t *testing.T, w *writeFixture, _ string) answer {
		_, _ = w.Reconcile(t.Context(), clerksync.ReconcileOptions{Force: true})
		return answer{}
	},
}

// TestBanCannotBeEvaded bans a user who cannot be written as a whole, on every path.
func TestBanCannotBeEvaded(t *testing.T) {
	t.Parallel()
	for name, fault := range writeFaults() {
		for path, arrives := range banPaths {
			t.Run(name+", "+path, func(t *testing.T) {
				t.Parallel()
				fault.run(t, arrives)
			})
		}
	}
}

func (fault writeFault) run(t *testing.T, arrives func(*testing.T, *writeFixture, string) answer) {
	w := newWriteFixture(t, fault)
	id := w.clerk.CreateUser(fakeclerk.NewUser{
		FirstName: "Ada", LastName: "Lovelace", Email: "ada@example.com", Phone: "+15555550100",
		ImageURL: "https://img.example.com/1", Birthday: "1815-12-10",
	})
	created := visit(t, w.Syncer, id)
	w.clock.Advance(time.Minute)
	w.rename(t, id, "Late")
	late := w.user(t, id)
	w.clock.Advance(time.Minute)
	w.rename(t, id, "Augusta")
	_ = w.clerk.BanUser(id)
	if fault.change != nil {
		_ = w.clerk.UpdateUserSilently(id, fault.change)
	}
	w.breakIt(fault, true)

	if a := arrives(t, w, id); a.status != 0 {
		checkProblem(t, a, fault.status, fault.code)
	}
	w.checkBanned(t, id, "after it arrived")
	fault.checkPart(t, created, w.stored(t, id))
	if want := w.updatedAt(t, id).Add(-time.Millisecond); len(fault.omits)+len(fault.code) > 0 && !w.stored(t, id).ClerkUpdatedAt.Equal(want) {
		t.Errorf("version %v, want %v", w.stored(t, id).ClerkUpdatedAt, want)
	}
	before := w.stored(t, id)
	arrives2 := w.deliver(t, w.user(t, id)) // again
	checkProblem(t, arrives2, fault.status, fault.code)
	if diff := gocmp.Diff(before, w.stored(t, id), cmpopts.IgnoreFields(clerksync.User{}, "SyncedAt")); diff != "" {
		t.Errorf("the same again changed the record (-before +after):\n%s", diff)
	}

	// A late event from before the ban, which can be written.
	w.breakIt(fault, false)
	checkProblem(t, w.deliver(t, late), 204, "")
	w.checkBanned(t, id, "after a late event")

	// The same version repairs the record.
	if fault.restore != nil {
		_ = w.clerk.UpdateUserSilently(id, fault.restore)
	}
	checkProblem(t, w.deliver(t, w.user(t, id)), 204, "")
	w.checkBanned(t, id, "after the repair")
	whole, err := clerksync.MapUser(w.Syncer, w.user(t, id), w.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	if got := w.stored(t, id); clerksync.Decide(got, whole, w.clock.Now()) != clerksync.Unchanged {
		t.Errorf("not repaired: %+v", got)
	}
	_ = w.clerk.UnbanUser(id)
	checkProblem(t, w.deliver(t, w.user(t, id)), 204, "")
	visit(t, w.Syncer, id)
}

func (w *writeFixture) checkBanned(t *testing.T, id, when string) {
	t.Helper()
	if u := w.stored(t, id); !u.Banned || !u.IsActive {
		t.Fatalf("%s the record is not banned: %+v", when, u)
	}
	visitFails(t, w.Syncer, id, clerksync.ErrUserInactive)
}

// checkPart checks which fields of the record were written. Before, the user's first name was Ada.
func (fault writeFault) checkPart(t *testing.T, before, after *clerksync.User) {
	t.Helper()
	want := "Augusta"
	if fault.onlyBan || slices.Contains(fault.omits, "profile.firstName") {
		want = "Ada"
	}
	if got := after.Profile.FirstName; got != want {
		t.Errorf("first name %q, want %q", got, want)
	}
	if after.SyncedAt.Before(before.SyncedAt.Add(time.Minute)) {
		t.Errorf("SyncedAt is %v, and before it was %v", after.SyncedAt, before.SyncedAt)
	}
	was := make(map[string]any)
	for path, value := range before.ClerkFields() {
		was[path] = value
	}
	for path, value := range after.ClerkFields() {
		if slices.Contains(fault.omits, path) && !gocmp.Equal(value, was[path]) {
			t.Errorf("%s became %v", path, value)
		}
	}
}

// If Map failed, a ban is never lifted. If only RoleOf failed, it is.
func TestFailedMappingAndLiftedBan(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault  writeFault
		banned bool
	}{
		"Map":    {writeFault{mapping: func(*clerk.User, *clerksync.User) error { return errors.New("no") }}, true},
		"RoleOf": {writeFault{roleOf: func(*clerk.User) clerksync.Role { panic("no") }}, false},
		"RoleOf and Map": {writeFault{
			roleOf:  func(*clerk.User) clerksync.Role { panic("no") },
			mapping: func(*clerk.User, *clerksync.User) error { return errors.New("no") },
		}, true},
		"RoleOf, and Map bans": {writeFault{
			roleOf:  func(*clerk.User) clerksync.Role { panic("no") },
			mapping: func(_ *clerk.User, u *clerksync.User) error { u.Banned = true; return nil },
		}, true},
		"RoleOf, and the flag is odd": {writeFault{
			roleOf: func(*clerk.User) clerksync.Role { panic("no") },
			change: func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"banned": "no"} },
		}, true},
		"the flag is odd": {writeFault{
			change: func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"banned": "no"} },
		}, true},
		"a name of Extra": {writeFault{mapping: extraOf("a.b", 1)}, false},
		"the e-mail":      {writeFault{refuse: conflictsOn("email")}, false},
		"some field":      {writeFault{refuse: refusing(&clerksync.ConflictError{}, "email")}, false},
	} {
		for path, arrives := range banPaths {
			if strings.HasPrefix(path, "visit") || path == "refresh" {
				continue // these are about users who are let in at first
			}
			t.Run(name+", "+path, func(t *testing.T) {
				t.Parallel()
				w := newWriteFixture(t, tt.fault)
				id := w.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "ada@example.com"})
				_ = w.clerk.BanUser(id)
				visitFails(t, w.Syncer, id, clerksync.ErrUserInactive)
				w.clock.Advance(time.Minute)
				_ = w.clerk.UnbanUser(id)
				if tt.fault.change != nil {
					_ = w.clerk.UpdateUserSilently(id, tt.fault.change)
				}
				w.breakIt(tt.fault, true)
				arrives(t, w, id)
				if got := w.stored(t, id).Banned; got != tt.banned {
					t.Errorf("banned %t, want %t", got, tt.banned)
				}
			})
		}
	}
}

// A ban that Map itself sets counts even if Map then fails.
func TestMapBansAndFails(t *testing.T) {
	t.Parallel()
	fault := writeFault{mapping: func(_ *clerk.User, u *clerksync.User) error {
		u.Banned = true
		return errors.New("no plan")
	}}
	w := newWriteFixture(t, fault)
	id := w.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, w.Syncer, id)
	w.clock.Advance(time.Minute)
	w.rename(t, id, "Augusta")
	w.breakIt(fault, true)
	checkProblem(t, w.deliver(t, w.user(t, id)), 500, "mapping_failed")
	w.checkBanned(t, id, "after the event")
}

// TestBanWithoutAVersion bans a user whose version cannot be used. The time of the event stands in
// for it, so that older events do not lift the ban and the next change does.
func TestBanWithoutAVersion(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		updatedAt any
		status    int
		code      string
	}{
		"far ahead": {t0.AddDate(1, 0, 0).UnixMilli(), 422, "invalid_event"},
		"text":      {"2026-03-01", 422, "invalid_event"},
		"a float":   {1.5, 422, "invalid_event"},
		"null":      {nil, 204, ""},
		"negative":  {-1, 204, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWriteFixture(t, writeFault{})
			id := w.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
			visit(t, w.Syncer, id)
			w.clock.Advance(time.Minute)
			w.rename(t, id, "Late")
			late := w.user(t, id)
			w.clock.Advance(time.Minute)
			_ = w.clerk.BanUser(id)
			_ = w.clerk.UpdateUserSilently(id, func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"updated_at": tt.updatedAt} })
			checkProblem(t, w.deliver(t, w.user(t, id)), tt.status, tt.code)
			w.checkBanned(t, id, "after the event")
			checkProblem(t, w.deliver(t, late), 204, "")
			w.checkBanned(t, id, "after a late event")
			w.clock.Advance(time.Minute)
			_ = w.clerk.UpdateUserSilently(id, func(u *fakeclerk.UserObject) { u.Extra = nil })
			_ = w.clerk.UnbanUser(id)
			checkProblem(t, w.deliver(t, w.user(t, id)), 204, "")
			visit(t, w.Syncer, id)
		})
	}
}

// A Reconcile sets such a ban too, and only then.
func TestReconcileBanWithoutAVersion(t *testing.T) {
	t.Parallel()
	for name, updatedAt := range map[string]any{
		"far ahead": t0.AddDate(1, 0, 0).UnixMilli(), "text": "2026-03-01", "a float": 1.5, "null": nil, "negative": -1,
	} {
		for _, banned := range []bool{true, false} {
			for _, force := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, banned %t, force %t", name, banned, force), func(t *testing.T) {
					t.Parallel()
					w := newWriteFixture(t, writeFault{})
					id := w.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
					visit(t, w.Syncer, id)
					w.clock.Advance(time.Minute)
					w.rename(t, id, "Late")
					late := w.user(t, id)
					w.clock.Advance(time.Minute)
					if banned {
						_ = w.clerk.BanUser(id)
					}
					_ = w.clerk.UpdateUserSilently(id, func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"updated_at": updatedAt} })
					before := w.stored(t, id)
					opts := clerksync.ReconcileOptions{Force: force}
					_, _ = w.Reconcile(t.Context(), opts)
					if !banned {
						if diff := gocmp.Diff(before, w.stored(t, id)); diff != "" {
							t.Errorf("the record changed (-before +after):\n%s", diff)
						}
						return
					}
					w.checkBanned(t, id, "after the run")
					checkProblem(t, w.deliver(t, late), 204, "")
					w.checkBanned(t, id, "after a late event")
				})
			}
		}
	}
}

// If the Store rejects the record, and fails as the ban is written alone, trying again helps.
func TestBanAloneThatFails(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]error{
		"rejected":    clerksync.ErrRejected,
		"in conflict": &clerksync.ConflictError{Field: "name"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWriteFixture(t, writeFault{})
			id := w.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
			visit(t, w.Syncer, id)
			w.clock.Advance(time.Minute)
			_ = w.clerk.BanUser(id)
			w.picky.setRefuse(func(u *clerksync.User) error {
				if len(u.Omit) > 0 {
					return errDown
				}
				return first
			})
			checkProblem(t, w.deliver(t, w.user(t, id)), 503, "unavailable")
		})
	}
}

// A user who is not banned is not written without a version, and nothing lifts a ban.
func TestNoBanWithoutAVersion(t *testing.T) {
	t.Parallel()
	w := newWriteFixture(t, writeFault{})
	id := w.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	_ = w.clerk.BanUser(id)
	visitFails(t, w.Syncer, id, clerksync.ErrUserInactive)
	before := w.stored(t, id)
	w.clock.Advance(time.Second)
	_ = w.clerk.UnbanUser(id)
	for _, updatedAt := range []any{nil, "x", t0.AddDate(1, 0, 0).UnixMilli()} {
		_ = w.clerk.UpdateUserSilently(id, func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"updated_at": updatedAt} })
		w.deliver(t, w.user(t, id))
	}
	if diff := gocmp.Diff(before, w.stored(t, id)); diff != "" {
		t.Errorf("the record changed (-before +after):\n%s", diff)
	}
}

// TestFirstInsertThatCannotHappen is about users without a record: nothing is created without a
// field, and whom Clerk bans is refused as banned.
func TestFirstInsertThatCannotHappen(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault   writeFault
		banned  bool
		webhook int
		hook    string
		visit   int
		code    string
	}{
		"conflict": {fault: writeFault{refuse: conflictsOn("email")}, webhook: 409, hook: "conflict", visit: 409, code: "conflict"},
		"conflict, banned": {
			fault: writeFault{refuse: conflictsOn("email")}, banned: true, webhook: 409, hook: "conflict",
			visit: 403, code: "user_inactive",
		},
		"Map": {
			fault:   writeFault{mapping: func(*clerk.User, *clerksync.User) error { return errors.New("no") }},
			webhook: 500, hook: "mapping_failed", visit: 503, code: "mapping_failed",
		},
		"Map, banned": {
			fault:  writeFault{mapping: func(*clerk.User, *clerksync.User) error { return errors.New("no") }},
			banned: true, webhook: 500, hook: "mapping_failed", visit: 403, code: "user_inactive",
		},
		"a value of Extra": {
			fault:   writeFault{mapping: extraOf("a.b", 1)},
			webhook: 500, hook: "mapping_failed", visit: 503, code: "mapping_failed",
		},
		"an odd field": {
			fault:   writeFault{change: func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"first_name": 7} }},
			webhook: 422, hook: "invalid_event", visit: 503, code: "unavailable",
		},
		"rejected, banned": {
			fault: writeFault{refuse: refusing(clerksync.ErrRejected, "email")}, banned: true,
			webhook: 422, hook: "rejected", visit: 403, code: "user_inactive",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWriteFixture(t, tt.fault)
			id := w.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "ada@example.com"})
			if tt.banned {
				_ = w.clerk.BanUser(id)
			}
			if tt.fault.change != nil {
				_ = w.clerk.UpdateUserSilently(id, tt.fault.change)
			}
			w.breakIt(tt.fault, true)
			checkProblem(t, w.deliver(t, w.user(t, id)), tt.webhook, tt.hook)
			h := w.RequireUser(&me{})
			checkProblem(t, answerOf(h, bearing("Bearer "+w.clerk.SessionToken(id))), tt.visit, tt.code)
			if n := w.picky.Len(); n != 0 {
				t.Errorf("%d records", n)
			}
		})
	}
}

// A conflict of types is about a record that clerksync has never written: nothing is written.
func TestConflictOfTypesWritesNothing(t *testing.T) {
	t.Parallel()
	for path, arrives := range banPaths {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			conflict := &clerksync.ConflictError{Field: "profile", Type: "array"}
			fault := writeFault{refuse: func(*clerksync.User) error { return conflict }}
			w := newWriteFixture(t, fault)
			id := w.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "ada@example.com"})
			visit(t, w.Syncer, id)
			before := w.stored(t, id)
			w.clock.Advance(time.Minute)
			_ = w.clerk.BanUser(id)
			w.breakIt(fault, true)
			w.picky.offers = nil
			if a := arrives(t, w, id); a.status != 0 {
				checkProblem(t, a, 409, "conflict")
			}
			for _, u := range w.picky.offers {
				if len(u.Omit) > 0 {
					t.Errorf("it was offered with Omit %v", u.Omit)
				}
			}
			if diff := gocmp.Diff(before, w.stored(t, id)); diff != "" {
				t.Errorf("the record changed (-before +after):\n%s", diff)
			}
		})
	}
}

// The log names what was left out, whom it is about and why, and nothing else of the user.
func TestOmittedFieldsAreLogged(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault writeFault
		want  string
	}{
		"the e-mail": {writeFault{refuse: refusing(&clerksync.ConflictError{Field: "email", Holder: "user_holder"}, "email")}, "user_holder"},
		"Extra":      {writeFault{mapping: extraOf("tags", make(chan int))}, "tags"},
		"a name of the user's": {writeFault{mapping: func(_ *clerk.User, u *clerksync.User) error {
			u.Extra["Hunter2 @home"], u.Extra["tags"] = make(chan int), make(chan int)
			return nil
		}}, "tags"},
		"odd": {writeFault{change: func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"first_name": []string{"hunter2"}} }}, "first_name"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWriteFixture(t, tt.fault)
			id := w.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Hunter2", Email: "hunter2@example.com"})
			visit(t, w.Syncer, id)
			w.clock.Advance(time.Minute)
			w.rename(t, id, "Hunter2 too")
			if tt.fault.change != nil {
				_ = w.clerk.UpdateUserSilently(id, tt.fault.change)
			}
			w.breakIt(tt.fault, true)
			for range 50 {
				checkProblem(t, w.deliver(t, w.user(t, id)), 204, "")
			}
			logs := w.logs.String()
			if n := strings.Count(logs, "without some of its fields"); n == 0 || n > 20 {
				t.Errorf("%d lines", n)
			}
			_, line, _ := strings.Cut(logs, "without some of its fields")
			line, _, _ = strings.Cut(line, "\n")
			if !strings.Contains(line, id) || !strings.Contains(line, tt.want) {
				t.Errorf("the line is %s", line)
			}
			if strings.Contains(strings.ToLower(logs), "hunter2") {
				t.Errorf("the log shows the user's data:\n%s", logs)
			}
		})
	}
}

// An event whose envelope has a field of another type still does its work.
func TestOddEnvelopes(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]string{
		"instance":    `"instance_id":7`,
		"timestamp":   `"timestamp":{"at":1}`,
		"attributes":  `"event_attributes":[1]`,
		"object":      `"object":{}`,
		"no instance": `"instance_id":null`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWriteFixture(t, writeFault{})
			id := w.clerk.CreateUser(fakeclerk.NewUser{})
			visit(t, w.Syncer, id)
			body := fmt.Appendf(nil, `{"type":"user.deleted",%s,"data":{"id":%q,"slug":7,"object":[],"deleted":"yes"}}`, more, id)
			checkProblem(t, answerOf(w.webhook, signed(t, "/", testSecret, w.clock.Now(), body)), 204, "")
			if w.stored(t, id).DeletedAt.IsZero() {
				t.Error("the deletion is lost")
			}
		})
	}
}

// A run counts a user whose mapping failed as failed, although the ban is written.
func TestReconcileCountsWhatIsWrittenInPart(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault writeFault
		want  tally
	}{
		"Map":    {writeFault{mapping: func(*clerk.User, *clerksync.User) error { return errors.New("no") }}, tally{"seen": 1, "failed": 1}},
		"Extra":  {writeFault{mapping: extraOf("a.b", 1)}, tally{"seen": 1, "failed": 1}},
		"e-mail": {writeFault{refuse: conflictsOn("email")}, tally{"seen": 1, "conflicts": 1}},
		"reject": {writeFault{refuse: refusing(clerksync.ErrRejected, "email")}, tally{"seen": 1, "failed": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWriteFixture(t, tt.fault)
			id := w.clerk.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
			visit(t, w.Syncer, id)
			w.clock.Advance(time.Minute)
			_ = w.clerk.BanUser(id)
			w.breakIt(tt.fault, true)
			for range 2 {
				report, _ := w.Reconcile(t.Context(), clerksync.ReconcileOptions{})
				wantCounts(t, report, tt.want)
				w.checkBanned(t, id, "after the run")
			}
			dry, _ := w.Reconcile(t.Context(), clerksync.ReconcileOptions{DryRun: true})
			if want := cmp.Or(tt.want["failed"], 1); dry.Failed.Count+dry.Updated.Count != want {
				t.Errorf("the dry run says %v", counts(&dry))
			}
		})
	}
}

// The end of a ban is written as the ban was, even if the Store rejects all the rest.
func TestEndOfABanIsWrittenAlone(t *testing.T) {
	t.Parallel()
	w := newWriteFixture(t, writeFault{})
	id := w.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "ada@example.com"})
	visit(t, w.Syncer, id)
	w.picky.setRefuse(refusing(fmt.Errorf("store: %w", clerksync.ErrRejected), "email"))
	for _, banned := range []bool{true, false} {
		w.clock.Advance(time.Minute)
		change := w.clerk.UnbanUser
		if banned {
			change = w.clerk.BanUser
		}
		if err := change(id); err != nil {
			t.Fatal(err)
		}
		checkProblem(t, w.deliver(t, w.user(t, id)), 422, "rejected")
		if got := w.stored(t, id).Banned; got != banned {
			t.Errorf("banned %t in Clerk, %t in the Store", banned, got)
		}
	}
}

// An event without a version is acknowledged only after its ban is written.
func TestUndatedBanThatFails(t *testing.T) {
	t.Parallel()
	w := newWriteFixture(t, writeFault{})
	id := w.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	visit(t, w.Syncer, id)
	w.clock.Advance(time.Minute)
	if err := w.clerk.BanUser(id); err != nil {
		t.Fatal(err)
	}
	undated := func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"updated_at": nil} }
	if err := w.clerk.UpdateUserSilently(id, undated); err != nil {
		t.Fatal(err)
	}
	w.picky.setRefuse(func(u *clerksync.User) error {
		if len(u.Omit) > 0 {
			return errDown
		}
		return nil
	})
	checkProblem(t, w.deliver(t, w.user(t, id)), 503, "unavailable")
}

// A ban that could not be written ends as one that was: within minutes, even if its event is lost.
func TestUnwrittenBanEnds(t *testing.T) {
	t.Parallel()
	w := newWriteFixture(t, writeFault{})
	id := w.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	visit(t, w.Syncer, id)
	w.clock.Advance(2 * time.Hour)
	if err := w.clerk.BanUser(id); err != nil {
		t.Fatal(err)
	}
	w.picky.setRefuse(func(*clerksync.User) error { return errDown })
	visit(t, w.Syncer, id) // refreshes behind
	w.waitForRefreshes()
	visitFails(t, w.Syncer, id, clerksync.ErrUserInactive)
	w.picky.setRefuse(nil)
	if err := w.clerk.UnbanUser(id); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.clock.Advance(time.Minute + time.Second)
		_, _ = w.User(t.Context(), id)
		w.waitForRefreshes()
	}
	visit(t, w.Syncer, id)
}

// The same while the Store can be read but not written.
func TestUnwrittenBanEndsWhileWritesFail(t *testing.T) {
	t.Parallel()
	w := newWriteFixture(t, writeFault{})
	id := w.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	visit(t, w.Syncer, id)
	w.clock.Advance(time.Minute)
	w.picky.setRefuse(func(*clerksync.User) error { return errDown })
	_ = w.clerk.BanUser(id)
	checkProblem(t, w.deliver(t, w.user(t, id)), 503, "unavailable")
	visitFails(t, w.Syncer, id, clerksync.ErrUserInactive)
	w.clock.Advance(2 * time.Minute)
	visitFails(t, w.Syncer, id, clerksync.ErrUserInactive) // Clerk confirms the ban
	if err := w.clerk.UnbanUser(id); err != nil {
		t.Fatal(err)
	}
	w.clock.Advance(time.Minute + time.Second)
	visit(t, w.Syncer, id)
}
