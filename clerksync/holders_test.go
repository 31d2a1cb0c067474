package clerksync_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// uniqueStore is a Store in memory with a unique index on each of some fields. Its conflicts name
// the holder.
type uniqueStore struct {
	*pickyStore
	fields []string
	ids    []string // of the users who may have records
}

func (s *uniqueStore) refuse(u *clerksync.User) error {
	ctx := context.Background()
	stored, _ := s.Store.User(ctx, u.ClerkID)
	if o := clerksync.Decide(stored, u, t0.AddDate(10, 0, 0)); o != clerksync.Created && o != clerksync.Updated {
		return nil
	}
	for path, value := range u.ClerkFields() {
		if value == nil || !slices.Contains(s.fields, path) {
			continue
		}
		for _, id := range s.ids {
			other, err := s.Store.User(ctx, id)
			if err != nil || id == u.ClerkID || !other.DeletedAt.IsZero() {
				continue
			}
			for p, v := range other.ClerkFields() {
				if p == path && v == value {
					return &clerksync.ConflictError{Field: path, Holder: id}
				}
			}
		}
	}
	return nil
}

// movers is an app with a unique index on e-mail addresses and numbers, and users who exchange them.
type movers struct {
	*writeFixture
	store *uniqueStore
	ids   []string
}

// newMovers makes n users, each with a record. The addresses are 0@example.com, 1@example.com …
func newMovers(t testing.TB, n int) *movers {
	t.Helper()
	return newMoversWith(t, n, writeFault{})
}

// newMoversWith is newMovers whose mapping fails as in fault, once broken is set.
func newMoversWith(t testing.TB, n int, fault writeFault) *movers {
	t.Helper()
	m := &movers{writeFixture: newWriteFixture(t, fault)}
	m.store = &uniqueStore{pickyStore: m.picky, fields: []string{"email", "profile.phoneNumber"}}
	m.picky.setRefuse(m.store.refuse)
	for i := range n {
		m.join(t, fmt.Sprintf("%d@example.com", i), fmt.Sprintf("+1555010%04d", i))
		visit(t, m.Syncer, m.ids[i])
	}
	m.clock.Advance(time.Minute)
	m.clerk.ResetCalls()
	return m
}

// join makes a user who does not have a record.
func (m *movers) join(t testing.TB, email, phone string) string {
	t.Helper()
	id := m.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: email, Phone: phone})
	m.ids = append(m.ids, id)
	m.store.ids = m.ids
	return id
}

// give changes users' addresses and numbers in Clerk: user i gets those of user of[i]. The events
// are lost.
func (m *movers) give(t testing.TB, of ...int) {
	t.Helper()
	for i, from := range of {
		m.setEmail(t, m.ids[i], fmt.Sprintf("%d@example.com", from))
	}
	m.clock.Advance(time.Second)
}

func (m *movers) setEmail(t testing.TB, id, address string) {
	t.Helper()
	err := m.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.EmailAddresses[0].EmailAddress = address })
	if err != nil {
		t.Fatal(err)
	}
}

func (m *movers) setPhone(t testing.TB, id, number string) {
	t.Helper()
	err := m.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.PhoneNumbers[0].PhoneNumber = number })
	if err != nil {
		t.Fatal(err)
	}
}

// addresses are those in the records, by the number of the user.
func (m *movers) addresses(t testing.TB) []string {
	t.Helper()
	all := make([]string, len(m.ids))
	for i, id := range m.ids {
		u, err := m.store.Store.User(t.Context(), id)
		if err == nil {
			all[i], _, _ = strings.Cut(u.Email, "@")
		}
	}
	return all
}

// inStep checks that records and visits say what Clerk says.
func (m *movers) inStep(t testing.TB) {
	t.Helper()
	for i, id := range m.ids {
		raw, exists := m.clerk.User(id)
		if !exists {
			continue
		}
		want, err := clerksync.MapUser(m.Syncer, raw, m.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		stored, err := m.store.Store.User(t.Context(), id)
		if err != nil || clerksync.Decide(stored, want, m.clock.Now()) != clerksync.Unchanged {
			t.Errorf("user %d has %+v, %v; want %+v", i, stored, err, want)
		}
		if got := visit(t, m.Syncer, id); got.Email != want.Email {
			t.Errorf("a visit of user %d gets %q, want %q", i, got.Email, want.Email)
		}
	}
}

const listRoute = "GET /v1/users"

// arrivals are the ways in which a change of one user arrives.
var arrivals = map[string]func(t *testing.T, m *movers, id string){
	"webhook": func(t *testing.T, m *movers, id string) {
		checkProblem(t, m.deliver(t, m.user(t, id)), 204, "")
	},
	"Sync": func(t *testing.T, m *movers, id string) {
		if _, err := m.Sync(t.Context(), id); err != nil {
			t.Error(err)
		}
	},
	"visit": func(t *testing.T, m *movers, id string) {
		m.visitWith(t, m.Syncer, id, m.updatedAt(t, id).UnixMilli())
	},
	"refresh": func(t *testing.T, m *movers, id string) {
		m.clock.Advance(2 * time.Hour)
		visit(t, m.Syncer, id)
		m.waitForRefreshes()
	},
}

// TestMovedAddresses lets users exchange addresses, whose events are lost, and one change arrive.
// The others follow.
func TestMovedAddresses(t *testing.T) {
	t.Parallel()
	for name, of := range map[string][]int{
		"exchanged":             {1, 0},
		"rotated among three":   {1, 2, 0},
		"rotated among five":    {1, 2, 3, 4, 0},
		"taken from one of two": {1, 7},
		"handed down":           {1, 2, 3, 9},
	} {
		for path, arrives := range arrivals {
			t.Run(name+", "+path, func(t *testing.T) {
				t.Parallel()
				m := newMovers(t, len(of))
				m.give(t, of...)
				arrives(t, m, m.ids[0])
				m.waitForRefreshes()
				m.inStep(t)
				if n := m.clerk.Calls(listRoute); n == 0 || n > len(of) {
					t.Errorf("%d questions to Clerk", n)
				}
			})
		}
	}
}

// TestMovedAddressesAndNumbers has two unique indexes in the way.
func TestMovedAddressesAndNumbers(t *testing.T) {
	t.Parallel()
	for path, arrives := range arrivals {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			m := newMovers(t, 3)
			m.give(t, 1, 0, 2)
			m.setPhone(t, m.ids[0], "+15550100002")
			m.setPhone(t, m.ids[1], "+15550100000")
			m.setPhone(t, m.ids[2], "+15550100001")
			m.clock.Advance(time.Second)
			arrives(t, m, m.ids[0])
			m.inStep(t)
		})
	}
}

// TestAddressFreedByALostDeletion is about a new account with the address of one that was deleted.
func TestAddressFreedByALostDeletion(t *testing.T) {
	t.Parallel()
	for path, arrives := range arrivals {
		if path == "refresh" {
			continue // only a user who has a record is refreshed
		}
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			m := newMovers(t, 1)
			before := m.stored(t, m.ids[0])
			_ = m.clerk.DeleteUser(m.ids[0])
			heir := m.join(t, "0@example.com", "+15550109999")
			m.clock.Advance(time.Second)
			arrives(t, m, heir)
			m.inStep(t)
			after := m.stored(t, m.ids[0])
			before.Email, before.EmailVerified, before.UpdatedAt = "", false, after.UpdatedAt
			if diff := gocmp.Diff(before, after); diff != "" {
				t.Errorf("the deleted user's record lost more than the address (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNothingIsReleased covers conflicts in which the value may still be the holder's. The record
// that exists is written without it, and a new one is refused.
func TestNothingIsReleased(t *testing.T) {
	t.Parallel()
	fault := func(f *fakeclerk.Fault) func(*testing.T, *movers) {
		return func(_ *testing.T, m *movers) {
			m.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
				if isPair(r) {
					return f
				}
				return nil
			})
		}
	}
	for name, arrange := range map[string]func(*testing.T, *movers){
		"Clerk has both with it": func(t *testing.T, m *movers) { m.setEmail(t, m.ids[1], "1@example.com") },
		"in another case":        func(t *testing.T, m *movers) { m.setEmail(t, m.ids[1], "1@EXAMPLE.com") },
		"Clerk has neither":      fault(&fakeclerk.Fault{Status: 200, Body: "[]"}),
		"Clerk has only the holder": func(t *testing.T, m *movers) {
			raw := m.user(t, m.ids[1])
			fault(&fakeclerk.Fault{Status: 200, Body: "[" + string(raw) + "]"})(t, m)
		},
		"Clerk fails":               fault(fakeclerk.ErrorFault(500, "internal_clerk_error")),
		"Clerk limits":              fault(&fakeclerk.Fault{Status: 429, Header: http.Header{"Retry-After": {"30"}}}),
		"an answer that is no list": fault(&fakeclerk.Fault{Status: 200, Body: "{}"}),
		"the holder cannot be mapped": func(t *testing.T, m *movers) {
			_ = m.clerk.UpdateUserSilently(m.ids[1], func(u *fakeclerk.UserObject) {
				u.Extra = map[string]any{"email_addresses": 7}
			})
		},
		"the holder's id is not one of Clerk's": func(_ *testing.T, m *movers) {
			m.picky.setRefuse(func(u *clerksync.User) error {
				var conflict *clerksync.ConflictError
				if err := m.store.refuse(u); errors.As(err, &conflict) {
					return &clerksync.ConflictError{Field: conflict.Field, Holder: "../jwks?x"}
				}
				return nil
			})
		},
		"the Store cannot tell": func(_ *testing.T, m *movers) {
			m.picky.setRefuse(func(u *clerksync.User) error {
				var conflict *clerksync.ConflictError
				if err := m.store.refuse(u); errors.As(err, &conflict) {
					return &clerksync.ConflictError{Field: conflict.Field}
				}
				return nil
			})
		},
		"the holder was never written by clerksync": func(t *testing.T, m *movers) {
			_ = m.clerk.DeleteUser(m.ids[1])
			err := m.store.Edit(m.ids[1], func(u *clerksync.User) { u.SyncedAt, u.ClerkUpdatedAt = time.Time{}, time.Time{} })
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		for path, arrives := range arrivals {
			t.Run(name+", "+path, func(t *testing.T) {
				t.Parallel()
				m := newMovers(t, 2)
				m.setEmail(t, m.ids[0], "1@example.com")
				m.clock.Advance(time.Second)
				arrange(t, m)
				before := m.stored(t, m.ids[1])
				arrives(t, m, m.ids[0])
				if diff := gocmp.Diff(before, m.stored(t, m.ids[1])); diff != "" {
					t.Errorf("the holder's record changed (-before +after):\n%s", diff)
				}
				after := m.stored(t, m.ids[0])
				if after.Email == "1@example.com" || !after.ClerkUpdatedAt.Equal(m.updatedAt(t, m.ids[0]).Add(-time.Millisecond)) {
					t.Errorf("the writer has %+v", after)
				}

				heir := m.join(t, "1@example.com", "+15550109999")
				checkProblem(t, m.deliver(t, m.user(t, heir)), 409, "conflict")
				if got := m.stored(t, m.ids[1]).Email; got != before.Email {
					t.Errorf("the holder has %q after a new user", got)
				}
			})
		}
	}
}

// isPair reports whether a request asks for users by their ids.
func isPair(r *http.Request) bool { return r.URL.Query().Has("user_id") }

// TestBanDoesNotWaitForTheHolder looks into the Store while Clerk is asked about the holder.
func TestBanDoesNotWaitForTheHolder(t *testing.T) {
	t.Parallel()
	for path, arrives := range arrivals {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			m := newMovers(t, 2)
			m.give(t, 1, 0)
			_ = m.clerk.BanUser(m.ids[0])
			asked := false
			m.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
				if isPair(r) {
					asked = true
					if !m.stored(t, m.ids[0]).Banned {
						t.Error("the ban waits")
					}
					return fakeclerk.ErrorFault(500, "internal_clerk_error")
				}
				return nil
			})
			if path == "visit" { // which is refused
				_, _ = m.Sync(t.Context(), m.ids[0])
			} else {
				arrives(t, m, m.ids[0])
			}
			if !asked {
				t.Error("Clerk was not asked about the holder")
			}
			m.checkBanned(t, m.ids[0], "afterwards")
		})
	}
}

// TestSlowClerkKeepsTheDeadline lets Clerk not answer the question about the holder at all.
func TestSlowClerkKeepsTheDeadline(t *testing.T) {
	t.Parallel()
	m := newMovers(t, 2)
	m.give(t, 1, 0)
	_ = m.clerk.BanUser(m.ids[0])
	start := m.clock.Now()
	m.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if !isPair(r) {
			return nil
		}
		go m.clock.Advance(3 * time.Second) // as long as one question may take
		return &fakeclerk.Fault{Delay: time.Hour}
	})
	checkProblem(t, m.deliver(t, m.user(t, m.ids[0])), 204, "")
	m.checkBanned(t, m.ids[0], "afterwards")
	if took := m.clock.Now().Sub(start); took > clerksync.CallTimeout {
		t.Errorf("it took %v", took)
	}
}

// TestHandoversAreRemembered bounds the questions about one user and value.
func TestHandoversAreRemembered(t *testing.T) {
	t.Parallel()
	m := newMovers(t, 2)
	m.setEmail(t, m.ids[0], "1@example.com")
	heir := m.join(t, "1@example.com", "+15550109999")
	ask := func(want int) {
		t.Helper()
		m.clerk.ResetCalls()
		for range 20 {
			checkProblem(t, m.deliver(t, m.user(t, m.ids[0])), 204, "")
			checkProblem(t, m.deliver(t, m.user(t, heir)), 409, "conflict")
			_, _ = m.Sync(t.Context(), heir)
		}
		if n := m.clerk.Calls(listRoute); n != want {
			t.Errorf("%d questions, want %d", n, want)
		}
	}
	ask(2) // one for each user
	m.clock.Advance(59 * time.Second)
	ask(0)
	m.setEmail(t, m.ids[0], "0@example.com") // a value that is not remembered, and free
	checkProblem(t, m.deliver(t, m.user(t, m.ids[0])), 204, "")
	m.clock.Advance(time.Second)
	ask(1) // only the new user is in conflict
	m.clock.Advance(time.Minute)
	m.setEmail(t, m.ids[1], "free@example.com")
	checkProblem(t, m.deliver(t, m.user(t, heir)), 204, "")
	m.inStep(t)
}

// TestHandoverIsBounded rotates addresses among more users than one handover writes. The next sync
// of the one that is left goes on.
func TestHandoverIsBounded(t *testing.T) {
	t.Parallel()
	m := newMovers(t, 8)
	m.give(t, 1, 2, 3, 4, 5, 6, 7, 0)
	checkProblem(t, m.deliver(t, m.user(t, m.ids[0])), 204, "")
	if n := m.clerk.Calls(listRoute); n != 4 {
		t.Errorf("%d questions to Clerk, want 4", n)
	}
	if diff := gocmp.Diff([]string{"1", "2", "3", "4", "", "5", "6", "7"}, m.addresses(t)); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	checkProblem(t, m.deliver(t, m.user(t, m.ids[4])), 204, "")
	m.inStep(t)
}

// TestHandoverDoesNotOverwriteLaterStates lets the holder change while Clerk's answer is on its way.
func TestHandoverDoesNotOverwriteLaterStates(t *testing.T) {
	t.Parallel()
	m := newMovers(t, 2)
	m.give(t, 1, 0)
	m.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if !isPair(r) {
			return nil
		}
		m.clerk.SetFault(nil)
		old := [2]json.RawMessage{m.user(t, m.ids[0]), m.user(t, m.ids[1])}
		m.clock.Advance(time.Second)
		m.rename(t, m.ids[1], "Later")
		_ = m.clerk.BanUser(m.ids[1])
		checkProblem(t, m.deliver(t, m.user(t, m.ids[1])), 204, "")
		return &fakeclerk.Fault{Status: 200, Body: fmt.Sprintf("[%s,%s]", old[0], old[1])}
	})
	checkProblem(t, m.deliver(t, m.user(t, m.ids[0])), 204, "")
	if u := m.stored(t, m.ids[1]); !u.Banned || u.Profile.FirstName != "Later" {
		t.Errorf("the holder's later state is lost: %+v", u)
	}
	m.clock.Advance(time.Minute)
	for _, id := range m.ids {
		_, _ = m.Sync(t.Context(), id)
	}
	if diff := gocmp.Diff([]string{"1", "0"}, m.addresses(t)); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

// TestHandoverThatEnds stops a handover at each write. Later syncs bring all in step.
func TestHandoverThatEnds(t *testing.T) {
	t.Parallel()
	for end := range 12 {
		t.Run(fmt.Sprint(end), func(t *testing.T) {
			t.Parallel()
			m := newMovers(t, 3)
			m.give(t, 1, 2, 0)
			left := end
			m.picky.setRefuse(func(u *clerksync.User) error {
				if left--; left < 0 {
					return errDown
				}
				return m.store.refuse(u)
			})
			m.deliver(t, m.user(t, m.ids[0]))
			m.picky.setRefuse(m.store.refuse)
			m.clock.Advance(time.Minute)
			for range 2 {
				for _, id := range m.ids {
					if _, err := m.Sync(t.Context(), id); err != nil {
						t.Error(err)
					}
				}
				m.clock.Advance(time.Minute)
			}
			m.inStep(t)
		})
	}
}

// TestReconcileMovedAddresses reconciles after events that are lost. No record is in conflict
// afterwards, however the addresses moved.
func TestReconcileMovedAddresses(t *testing.T) {
	t.Parallel()
	for name, of := range map[string][]int{
		"exchanged":           {1, 0, 2},
		"rotated among three": {1, 2, 0},
		"rotated among eight": {1, 2, 3, 4, 5, 6, 7, 0},
		"handed down":         {1, 2, 3, 9},
		"two pairs":           {1, 0, 3, 2},
	} {
		for _, opts := range []clerksync.ReconcileOptions{{}, {Force: true}, {PageSize: 2, Writers: 1}} {
			t.Run(fmt.Sprintf("%s, force %t, pages of %d", name, opts.Force, opts.PageSize), func(t *testing.T) {
				t.Parallel()
				m := newMovers(t, len(of))
				m.give(t, of...)
				report, err := m.Reconcile(t.Context(), opts)
				if err != nil {
					t.Fatal(err)
				}
				wantCounts(t, report, tally{"seen": len(of), "updated": len(of)})
				m.inStep(t)
			})
		}
	}
}

// TestReconcileAsksForFiftyPairsAtATime exchanges the addresses of many pairs.
func TestReconcileAsksForFiftyPairsAtATime(t *testing.T) {
	t.Parallel()
	const users = 240
	m := newMovers(t, users)
	of := make([]int, users)
	for i := range of {
		of[i] = i ^ 1
	}
	m.give(t, of...)
	byID := 0
	m.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if isPair(r) {
			byID++
		}
		return nil
	})
	report, err := m.Reconcile(t.Context(), clerksync.ReconcileOptions{RequestsPerSecond: 1e6})
	if err != nil {
		t.Fatal(err)
	}
	wantCounts(t, report, tally{"seen": users, "updated": users})
	// One for the instance, three for the second try, and at most five for the pairs. The second
	// half of the pairs is written with the first.
	if byID > 9 {
		t.Errorf("%d calls by id for %d users in conflict", byID, users)
	}
	m.inStep(t)
}

// TestReconcileCannotFreeWhatIsTaken keeps a user in conflict whose address Clerk gives to another.
func TestReconcileCannotFreeWhatIsTaken(t *testing.T) {
	t.Parallel()
	m := newMovers(t, 4)
	m.give(t, 1, 0, 2, 2) // the last one has an address that is taken for good
	report, _ := m.Reconcile(t.Context(), clerksync.ReconcileOptions{})
	wantCounts(t, report, tally{"seen": 4, "updated": 3, "conflicts": 1})
	if diff := gocmp.Diff([]string{"1", "0", "2", "3"}, m.addresses(t)); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

// TestAnyMoveConverges moves addresses at random, delivers some of the events late, and reconciles.
func TestAnyMoveConverges(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			m := newMovers(t, 6)
			var late []json.RawMessage
			for range 30 {
				m.clock.Advance(time.Duration(rng.IntN(90)) * time.Second)
				i := rng.IntN(len(m.ids))
				switch rng.IntN(5) {
				case 0: // addresses rotate among some users
					some := rng.Perm(len(m.ids))[:2+rng.IntN(3)]
					first := m.emailInClerk(t, some[0])
					for k, j := range some {
						next := first
						if k+1 < len(some) {
							next = m.emailInClerk(t, some[k+1])
						}
						m.setEmail(t, m.ids[j], next)
						late = append(late, m.user(t, m.ids[j]))
					}
				case 1:
					m.setEmail(t, m.ids[i], fmt.Sprintf("new%d@example.com", rng.IntN(1e6)))
				case 2:
					m.deliver(t, m.user(t, m.ids[i]))
				case 3:
					_, _ = m.User(t.Context(), m.ids[i])
				case 4:
					if len(late) > 0 {
						m.deliver(t, late[rng.IntN(len(late))])
					}
				}
			}
			m.waitForRefreshes()
			m.clock.Advance(time.Hour)
			if report, err := m.Reconcile(t.Context(), clerksync.ReconcileOptions{}); err != nil || report.Conflicts.Count > 0 {
				t.Errorf("%v, %v", counts(&report), err)
			}
			m.inStep(t)
		})
	}
}

func (m *movers) emailInClerk(t testing.TB, i int) string {
	t.Helper()
	raw, _ := m.clerk.User(m.ids[i])
	u, err := clerksync.MapUser(m.Syncer, raw, m.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	return u.Email
}

// TestMovedAddressOnMemstore has memstore's own unique index.
func TestMovedAddressOnMemstore(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) {
		c.Store = c.Store.(*countingStore).Store
		c.Store.(*memstore.Store).UniqueEmail = true
	})
	var ids [2]string
	for i := range ids {
		ids[i] = fx.clerk.CreateUser(fakeclerk.NewUser{Email: fmt.Sprintf("%d@example.com", i)})
		visit(t, fx.Syncer, ids[i])
	}
	fx.clock.Advance(time.Minute)
	for i, id := range ids {
		_ = fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) {
			u.EmailAddresses[0].EmailAddress = fmt.Sprintf("%d@example.com", 1-i)
		})
	}
	if _, err := fx.Sync(t.Context(), ids[0]); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, id := range ids {
		got[id] = visit(t, fx.Syncer, id).Email
	}
	if want := map[string]string{ids[0]: "1@example.com", ids[1]: "0@example.com"}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Clerk's list may lag behind the event. What it says then frees nothing and replaces nothing.
func TestHandoverWithAnOldList(t *testing.T) {
	t.Parallel()
	m := newMovers(t, 2)
	before := "[" + string(m.user(t, m.ids[0])) + "," + string(m.user(t, m.ids[1])) + "]"
	m.give(t, 1, 0)
	m.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if isPair(r) {
			return &fakeclerk.Fault{Status: 200, Body: before}
		}
		return nil
	})
	version := m.updatedAt(t, m.ids[0])
	if a := m.deliver(t, m.user(t, m.ids[0])); a.status != 204 {
		t.Errorf("the event got %d %s", a.status, a.body)
	}
	if got := m.stored(t, m.ids[0]).ClerkUpdatedAt; !got.Equal(version.Add(-time.Millisecond)) {
		t.Errorf("the record has version %v, the event %v", got, version)
	}
	if log := m.logs.String(); !strings.Contains(log, "without some of its fields") {
		t.Errorf("the omission is not in the log:\n%s", log)
	}
}

// troubles are what else can be wrong with users of whom two exchange their addresses. They return
// the addresses that follow.
var troubles = map[string]struct {
	arrange func(t *testing.T, m *movers)
	extra   []int // users with a value that cannot be stored
	noRole  []int // users for whom RoleOf fails
	want    []string
}{
	"none":                                {want: []string{"1", "0", "2"}},
	"a value of the writer's":             {extra: []int{0}, want: []string{"1", "0", "2"}},
	"a value of the holder's":             {extra: []int{1}, want: []string{"1", "0", "2"}},
	"values of both":                      {extra: []int{0, 1}, want: []string{"1", "0", "2"}},
	"an odd name of the writer's":         {arrange: oddName(0), want: []string{"1", "0", "2"}},
	"an odd name of the holder's":         {arrange: oddName(1), want: []string{"1", "0", "2"}},
	"a number of the writer's that stays": {arrange: takenNumber(0), want: []string{"1", "0", "2"}},
	"a number of the holder's that stays": {arrange: takenNumber(1), want: []string{"1", "0", "2"}},
	"a number, and a value": {
		arrange: takenNumber(0), extra: []int{0, 1}, want: []string{"1", "0", "2"},
	},
	"a name of the writer's": {arrange: refusedName(0), want: []string{"1", "0", "2"}},
	"a name of the holder's": {arrange: refusedName(1), want: []string{"1", "0", "2"}},
	"the role of the writer": {noRole: []int{0}, want: []string{"0", "1", "2"}},
	"the role of the holder": {noRole: []int{1}, want: []string{"0", "1", "2"}},
}

func oddName(i int) func(*testing.T, *movers) {
	return func(_ *testing.T, m *movers) {
		_ = m.clerk.UpdateUserSilently(m.ids[i], func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"first_name": 7} })
	}
}

// takenNumber gives user i the number that user 2 has and keeps.
func takenNumber(i int) func(*testing.T, *movers) {
	return func(t *testing.T, m *movers) { m.setPhone(t, m.ids[i], "+15550100002") }
}

// refusedName has an index refuse the name of user i. It comes before the address, and the Store
// cannot tell who has it.
func refusedName(i int) func(*testing.T, *movers) {
	return func(_ *testing.T, m *movers) {
		m.picky.setRefuse(func(u *clerksync.User) error {
			if u.ClerkID == m.ids[i] && !slices.Contains(u.Omit, "name") {
				return &clerksync.ConflictError{Field: "name"}
			}
			return m.store.refuse(u)
		})
	}
}

// TestOneTroubleDoesNotBlockAHandover exchanges the addresses of users one of whose other fields
// cannot be written.
func TestOneTroubleDoesNotBlockAHandover(t *testing.T) {
	t.Parallel()
	paths := maps.Clone(arrivals)
	for _, opts := range []clerksync.ReconcileOptions{{}, {Force: true}} {
		paths[fmt.Sprint("Reconcile, force ", opts.Force)] = func(t *testing.T, m *movers, _ string) {
			if _, err := m.Reconcile(t.Context(), opts); errors.Is(err, clerksync.ErrUnavailable) {
				t.Error(err)
			}
		}
	}
	for name, trouble := range troubles {
		for path, arrives := range paths {
			if len(trouble.noRole) > 0 && path != "webhook" && !strings.HasPrefix(path, "Reconcile") {
				continue // the user is not written at all
			}
			t.Run(name+", "+path, func(t *testing.T) {
				t.Parallel()
				var m *movers
				has := func(users []int, id string) bool {
					return slices.ContainsFunc(users, func(i int) bool { return m.ids[i] == id })
				}
				m = newMoversWith(t, 3, writeFault{
					mapping: func(cu *clerk.User, u *clerksync.User) error {
						if has(trouble.extra, cu.ID) {
							u.Extra["tags"] = make(chan int)
						}
						return nil
					},
					roleOf: func(cu *clerk.User) clerksync.Role {
						if has(trouble.noRole, cu.ID) {
							panic("no role")
						}
						return "MEMBER"
					},
				})
				m.give(t, 1, 0)
				if trouble.arrange != nil {
					trouble.arrange(t, m)
				}
				m.broken = true
				if path == "webhook" && len(trouble.noRole) > 0 {
					m.deliver(t, m.user(t, m.ids[0]))
				} else {
					arrives(t, m, m.ids[0])
				}
				m.waitForRefreshes()
				if diff := gocmp.Diff(trouble.want, m.addresses(t)); diff != "" {
					t.Errorf("addresses (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// A handover during which the Store fails ends in a 503, so that Svix delivers again.
func TestStoreFailsDuringAHandover(t *testing.T) {
	t.Parallel()
	for name, create := range map[string]bool{"a new user": true, "a user with a record": false} {
		for end := range 3 {
			t.Run(fmt.Sprint(name, ", write ", end), func(t *testing.T) {
				t.Parallel()
				m := newMovers(t, 2)
				m.setEmail(t, m.ids[1], "free@example.com")
				writer := m.ids[0]
				if create {
					writer = m.join(t, "1@example.com", "+15550109999")
				} else {
					m.setEmail(t, writer, "1@example.com")
				}
				m.clock.Advance(time.Second)
				left := -1 // writes until the Store fails, once Clerk was asked
				m.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
					if isPair(r) {
						left = end
					}
					return nil
				})
				m.picky.setRefuse(func(u *clerksync.User) error {
					if left == 0 {
						return errDown
					}
					left--
					return m.store.refuse(u)
				})
				a := m.deliver(t, m.user(t, writer))
				if end < 2 { // neither the holder's first write nor the writer's succeeded
					checkProblem(t, a, 503, "unavailable")
				} else {
					checkProblem(t, a, 204, "")
				}
				m.picky.setRefuse(m.store.refuse)
				m.clock.Advance(time.Minute)
				checkProblem(t, m.deliver(t, m.user(t, writer)), 204, "")
				checkProblem(t, m.deliver(t, m.user(t, m.ids[1])), 204, "")
				m.inStep(t)
			})
		}
	}
}

// TestReconcileOutageDuringAHandover lets the Store fail while a Reconcile moves addresses: for a
// moment, or for good.
func TestReconcileOutageDuringAHandover(t *testing.T) {
	t.Parallel()
	for name, lasts := range map[string]bool{"for a moment": false, "for good": true} {
		for at := range 3 {
			t.Run(fmt.Sprint(name, ", write ", at), func(t *testing.T) {
				t.Parallel()
				fx := newBulkFixture(t, nil)
				ids := fx.backfill(t, 2)
				fx.store.UniqueEmail = true
				fx.setEmail(t, ids[0], "ada1@example.com")
				fx.setEmail(t, ids[1], "ada0@example.com")
				left, failed := at, false
				fx.store.fault = func(op string) error {
					switch {
					case failed && !lasts:
						return nil
					case op == "Upsert": // only a handover writes single users
						left--
					}
					if failed = failed || left < 0; failed {
						return errDown
					}
					return nil
				}
				report, err := fx.Reconcile(t.Context(), options{})
				if !failed {
					t.Fatal("the Store did not fail")
				}
				if lasts {
					var conflict *clerksync.ConflictError
					if !errors.Is(err, clerksync.ErrUnavailable) || errors.As(err, &conflict) || report.Complete {
						t.Errorf("%v, %+v", err, report)
					}
					return
				}
				if err != nil {
					t.Error(err)
				}
				wantCounts(t, report, tally{"seen": 2, "updated": 2})
				fx.inStep(t)
			})
		}
	}
}

// Clerk fails for good while a Reconcile asks about the holder of a further value.
func TestReconcileClerkFailsDuringAHandover(t *testing.T) {
	t.Parallel()
	m := newMovers(t, 3)
	m.give(t, 1, 0)
	m.setPhone(t, m.ids[0], "+15550100002")
	m.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if ids := r.URL.Query()["user_id"]; len(ids) == 2 && slices.Contains(ids, m.ids[2]) {
			return fakeclerk.ErrorFault(500, "internal_clerk_error")
		}
		return nil
	})
	report, err := m.Reconcile(t.Context(), clerksync.ReconcileOptions{})
	if !errors.Is(err, clerksync.ErrUnavailable) || report.Complete {
		t.Errorf("%v, %+v", err, report)
	}
}
