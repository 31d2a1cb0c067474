package clerksync_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// without removes a parameter on the way to Clerk, which then does not know it.
func without(r *http.Request, param string) {
	if isList(r) {
		q := r.URL.Query()
		q.Del(param)
		r.URL.RawQuery = q.Encode()
	}
}

// editList has f change the lists that Clerk answers.
func editList(f func(*http.Request, []json.RawMessage) []json.RawMessage) func(*http.Request, *http.Response) {
	return func(r *http.Request, resp *http.Response) {
		var users []json.RawMessage
		if !isList(r) || resp.StatusCode != 200 {
			return
		}
		if json.NewDecoder(resp.Body).Decode(&users) != nil {
			return
		}
		_ = resp.Body.Close()
		body, _ := json.Marshal(f(r, users))
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
	}
}

// beforeList has f called with the number, from 1, of each list that Clerk has made
// the answer to and not sent it.
func (fx *bulkFixture) beforeList(f func(number int)) {
	var lists atomic.Int32
	fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if !isList(r) {
			return nil
		}
		number := int(lists.Add(1))
		return &fakeclerk.Fault{BeforeSend: func() { f(number) }}
	})
}

// bounded is a context that ends where Clerk was asked far more often than any run of
// these tests has reason to: a walk without an end.
func (fx *bulkFixture) bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithCancelCause(t.Context())
	t.Cleanup(func() { cancel(nil) })
	before := fx.request
	fx.request = func(r *http.Request) {
		if fx.clerk.Calls("") > 300 {
			cancel(errors.New("300 calls and no end"))
		}
		if before != nil {
			before(r)
		}
	}
	return ctx
}

// TestReconcileReadsEveryPage has Clerk's list behave oddly, in ways that must not keep
// the run from seeing every user and finding the one ghost.
func TestReconcileReadsEveryPage(t *testing.T) {
	t.Parallel()
	const users = 57
	for name, tt := range map[string]struct {
		size    int
		arrange func(t *testing.T, fx *bulkFixture, ids []string)
		deleted int // users deleted while the run goes on
		lists   int // requests for pages; 0: any number
	}{
		"keyset":                         {size: 10, lists: 6},
		"keyset, one a page":             {size: 1, lists: 58},
		"keyset, the last page is full":  {size: 19, lists: 4},
		"all on one page":                {size: 100, lists: 1},
		"all on one page, which is full": {size: 57, lists: 2},
		"starting_after refused": {size: 10, arrange: func(_ *testing.T, fx *bulkFixture, _ []string) {
			fx.request = func(r *http.Request) { r.Header.Set("Clerk-API-Version", "2025-11-10") }
		}},
		"starting_after refused, one a page": {size: 1, arrange: func(_ *testing.T, fx *bulkFixture, _ []string) {
			fx.request = func(r *http.Request) { r.Header.Set("Clerk-API-Version", "2025-11-10") }
		}},
		"starting_after ignored": {size: 10, arrange: func(_ *testing.T, fx *bulkFixture, _ []string) {
			fx.request = func(r *http.Request) { without(r, "starting_after") }
		}},
		"a page repeats the one before in part": {size: 10, arrange: func(_ *testing.T, fx *bulkFixture, _ []string) {
			var before []json.RawMessage
			fx.answer = editList(func(r *http.Request, page []json.RawMessage) []json.RawMessage {
				if len(before) > 0 && r.URL.Query().Has("starting_after") {
					page = append(before[5:6:6], page[:9]...)
				}
				before = page
				return page
			})
		}},
		"the last of a page is deleted": {size: 10, deleted: 1, lists: 7, arrange: func(t *testing.T, fx *bulkFixture, ids []string) {
			fx.beforeList(func(n int) {
				if n == 2 {
					fx.delete(t, ids[19])
				}
			})
		}},
		"the last two of a page are deleted": {size: 10, deleted: 2, lists: 8, arrange: func(t *testing.T, fx *bulkFixture, ids []string) {
			fx.beforeList(func(n int) {
				if n == 2 {
					fx.delete(t, ids[18:20]...)
				}
			})
		}},
		"the last three of a page are deleted": {size: 10, deleted: 3, arrange: func(t *testing.T, fx *bulkFixture, ids []string) {
			fx.beforeList(func(n int) {
				if n == 2 {
					fx.delete(t, ids[17:20]...)
				}
			})
		}},
		"a page of users is deleted": {size: 10, deleted: 20, arrange: func(t *testing.T, fx *bulkFixture, ids []string) {
			fx.beforeList(func(n int) {
				if n == 2 {
					fx.delete(t, ids[5:25]...)
				}
			})
		}},
		"users deleted between pages by offset": {size: 10, deleted: 17, arrange: func(t *testing.T, fx *bulkFixture, ids []string) {
			fx.request = func(r *http.Request) { r.Header.Set("Clerk-API-Version", "2025-11-10") }
			fx.beforeList(func(n int) {
				switch n {
				case 6:
					fx.delete(t, ids[:5]...)
				case 7:
					fx.delete(t, ids[5:17]...)
				}
			})
		}},
		"all users so far deleted, by offset": {size: 10, deleted: 20, arrange: func(t *testing.T, fx *bulkFixture, ids []string) {
			fx.request = func(r *http.Request) { r.Header.Set("Clerk-API-Version", "2025-11-10") }
			fx.beforeList(func(n int) {
				if n == 7 {
					fx.delete(t, ids[:20]...)
				}
			})
		}},
		"more users sign up at the end": {size: 10, deleted: -15, arrange: func(_ *testing.T, fx *bulkFixture, _ []string) {
			fx.beforeList(func(n int) {
				if n == 6 {
					fx.signUp(15)
				}
			})
		}},
		"all signed up at one moment, by offset": {size: 10, arrange: func(_ *testing.T, fx *bulkFixture, ids []string) {
			fx.request = func(r *http.Request) { r.Header.Set("Clerk-API-Version", "2025-11-10") }
			for _, id := range ids {
				_ = fx.clerk.UpdateUserSilently(id, func(u *fakeclerk.UserObject) { u.CreatedAt = t0.UnixMilli() })
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			ids := fx.signUp(users)
			fx.record(t, ids[0]) // one of theirs, so that the key is the right one
			fx.clock.Advance(2 * time.Hour)
			ghost := fx.ghosts(t, 1)[0]
			if tt.arrange != nil {
				tt.arrange(t, fx, ids)
			}
			var done int
			report, err := fx.Reconcile(fx.bounded(t), clerksync.ReconcileOptions{PageSize: tt.size, Progress: func(p clerksync.Progress) {
				if p.Phase == clerksync.PhaseUsers {
					done = p.Done
				}
			}})
			if err != nil {
				t.Fatalf("%v\n%+v", err, report)
			}
			if left := len(fx.clerk.UserIDs()); left != users-tt.deleted {
				t.Fatalf("the test left %d users", left)
			}
			if !report.Complete || report.Deactivated.Count != 1 || report.Deactivated.IDs[0] != ghost {
				t.Errorf("reports %+v", report)
			}
			for _, id := range fx.clerk.UserIDs() {
				if _, err := fx.store.Store.User(t.Context(), id); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			}
			if n := fx.clerk.Calls("GET /v1/users") - 2; tt.lists != 0 && n != tt.lists { // less the look-ups by id
				t.Errorf("%d lists, want %d", n, tt.lists)
			}
			if n := len(fx.clerk.UserIDs()); report.Seen < n || report.Seen > max(n, users) || done != report.Seen {
				t.Errorf("saw %d users of %d, and Progress told of %d", report.Seen, n, done)
			}
			fx.request, fx.answer = nil, nil
			fx.clerk.SetFault(nil)
			fx.reconcile(t, clerksync.ReconcileOptions{MaxDeactivations: -1, Holdback: -1})
			fx.inStep(t)
		})
	}
}

// TestReconcileIncompleteList has Clerk list less than it counts, which must not make
// those left out look deleted.
func TestReconcileIncompleteList(t *testing.T) {
	t.Parallel()
	const users = 200
	for name, tt := range map[string]struct {
		size    int
		arrange func(fx *bulkFixture)
		want    error
	}{
		"skips one in fifty": {50, func(fx *bulkFixture) {
			fx.answer = editList(func(_ *http.Request, page []json.RawMessage) []json.RawMessage {
				if len(page) == 50 {
					page = slices.Delete(page, 20, 21)
					// A full page all the same.
					page = append(page, page[len(page)-1])
				}
				return page
			})
		}, clerksync.ErrIncomplete},
		"skips one of all": {500, func(fx *bulkFixture) {
			fx.answer = editList(func(_ *http.Request, page []json.RawMessage) []json.RawMessage { return page[min(1, len(page)):] })
		}, nil},
		"ends early": {50, func(fx *bulkFixture) {
			fx.answer = editList(func(r *http.Request, page []json.RawMessage) []json.RawMessage {
				if r.URL.Query().Has("starting_after") {
					return page[:0]
				}
				return page
			})
		}, clerksync.ErrIncomplete},
		"is empty": {50, func(fx *bulkFixture) {
			fx.answer = editList(func(*http.Request, []json.RawMessage) []json.RawMessage { return []json.RawMessage{} })
		}, clerksync.ErrIncomplete},
		"the first page for ever": {50, func(fx *bulkFixture) {
			fx.request = func(r *http.Request) { without(r, "starting_after"); without(r, "offset") }
		}, clerksync.ErrIncomplete},
		"holes, by offset": {50, func(fx *bulkFixture) {
			fx.request = func(r *http.Request) { r.Header.Set("Clerk-API-Version", "2025-11-10") }
			fx.answer = editList(func(r *http.Request, page []json.RawMessage) []json.RawMessage {
				if offset, _ := strconv.Atoi(r.URL.Query().Get("offset")); offset%50 != 0 && len(page) > 20 {
					return page[20:]
				}
				return page
			})
		}, clerksync.ErrIncomplete},
		"users without ids": {50, func(fx *bulkFixture) {
			fx.answer = editList(func(r *http.Request, page []json.RawMessage) []json.RawMessage {
				for i := range page {
					page[i] = json.RawMessage(strings.Replace(string(page[i]), `"id":"user_`, `"id":"usr`, 1))
				}
				return page
			})
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			ids := fx.backfill(t, users)
			ghosts := fx.ghosts(t, 1)
			tt.arrange(fx)
			report, err := fx.Reconcile(fx.bounded(t), clerksync.ReconcileOptions{PageSize: tt.size})
			if strings.Contains(fmt.Sprint(err), "no end") {
				t.Fatal(err)
			}
			if tt.want == nil {
				if err != nil || !report.Complete || !slices.Equal(report.Deactivated.IDs, ghosts) {
					t.Errorf("%v, reports %+v", err, report)
				}
				return
			}
			if !errors.Is(err, tt.want) || report.Complete || report.Reason != err.Error() || report.Resume != "" {
				t.Errorf("%v, reports %+v", err, report)
			}
			if fx.lookups() != 0 || fx.store.count("Deactivate") != 0 || report.Ghosts.Count != 0 {
				t.Errorf("looks for ghosts: %+v", report)
			}
			for id, u := range fx.records(t, append(ids, ghosts...)) {
				if !u.IsActive {
					t.Errorf("%s is %+v", id, u)
				}
			}
		})
	}
}

// A Clerk whose list says of a user another id than the object does.
func TestReconcileUserOfTwoIDs(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.signUp(2)
	page := fmt.Sprintf(`[{"id":"user_a","ID":"user_b","created_at":1,"updated_at":%d}]`, t0.UnixMilli())
	fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if r.URL.Path == "/v1/users" {
			return &fakeclerk.Fault{Status: 200, Body: page}
		}
		return nil
	})
	report, _ := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{})
	if report.Failed.Count != 1 || report.Created.Count != 0 {
		t.Errorf("reports %+v", report)
	}
	for _, id := range []string{"user_a", "user_b"} {
		if _, err := fx.store.Store.User(t.Context(), id); !errors.Is(err, clerksync.ErrNotFound) {
			t.Errorf("%s was written", id)
		}
	}
}
