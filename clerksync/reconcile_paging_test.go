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

// without removes a parameter from a list request on its way to Clerk.
func without(r *http.Request, param string) {
	if isList(r) {
		q := r.URL.Query()
		q.Del(param)
		r.URL.RawQuery = q.Encode()
	}
}

// editList has f change Clerk's lists on their way back.
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

// beforeList has f called after Clerk has made a list and before it sends it, with the list's
// number from 1.
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

// bounded returns a context that ends if Clerk is called far more often than any run of these tests
// needs.
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

// listCase is a way in which Clerk's list behaves.
type listCase struct {
	size    int // of a page
	arrange func(t *testing.T, fx *bulkFixture, ids []string)
	deleted int // users deleted while the run goes on; negative: signed up
	lists   int // requests for pages; 0: any number
}

// withoutKeyset has Clerk refuse starting_after, so that the run goes by offset.
func withoutKeyset(_ *testing.T, fx *bulkFixture, _ []string) {
	fx.request = func(r *http.Request) { r.Header.Set("Clerk-API-Version", "2025-11-10") }
}

// atList has f called before the answer to the list of this number.
func atList(number int, f func(t *testing.T, fx *bulkFixture, ids []string)) func(*testing.T, *bulkFixture, []string) {
	return func(t *testing.T, fx *bulkFixture, ids []string) {
		fx.beforeList(func(n int) {
			if n == number {
				f(t, fx, ids)
			}
		})
	}
}

// deleting deletes the users from one to another, by the order of their sign-up.
func deleting(from, to int) func(*testing.T, *bulkFixture, []string) {
	return func(t *testing.T, fx *bulkFixture, ids []string) { fx.delete(t, ids[from:to]...) }
}

// orderlyLists stand still while the run goes on.
func orderlyLists() map[string]listCase {
	return map[string]listCase{
		"keyset":                             {size: 10, lists: 6},
		"keyset, one a page":                 {size: 1, lists: 58},
		"keyset, the last page is full":      {size: 19, lists: 4},
		"all on one page":                    {size: 100, lists: 1},
		"all on one page, which is full":     {size: 57, lists: 2},
		"starting_after refused":             {size: 10, arrange: withoutKeyset},
		"starting_after refused, one a page": {size: 1, arrange: withoutKeyset},
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
		"all signed up at one moment, by offset": {size: 10,
			arrange: func(t *testing.T, fx *bulkFixture, ids []string) {
				withoutKeyset(t, fx, ids)
				for _, id := range ids {
					fx.updateSilently(t, id, func(u *fakeclerk.UserObject) { u.CreatedAt = t0.UnixMilli() })
				}
			}},
	}
}

// movingLists lose or gain users while the run goes on.
func movingLists() map[string]listCase {
	return map[string]listCase{
		"the last of a page is deleted":        {size: 10, deleted: 1, lists: 7, arrange: atList(2, deleting(19, 20))},
		"the last two of a page are deleted":   {size: 10, deleted: 2, lists: 8, arrange: atList(2, deleting(18, 20))},
		"the last three of a page are deleted": {size: 10, deleted: 3, arrange: atList(2, deleting(17, 20))},
		"a page of users is deleted":           {size: 10, deleted: 20, arrange: atList(2, deleting(5, 25))},
		"users deleted between pages by offset": {
			size: 10, deleted: 17,
			arrange: func(t *testing.T, fx *bulkFixture, ids []string) {
				withoutKeyset(t, fx, ids)
				fx.beforeList(func(n int) {
					switch n {
					case 6:
						fx.delete(t, ids[:5]...)
					case 7:
						fx.delete(t, ids[5:17]...)
					}
				})
			},
		},
		"all users so far deleted, by offset": {
			size: 10, deleted: 20,
			arrange: func(t *testing.T, fx *bulkFixture, ids []string) {
				withoutKeyset(t, fx, ids)
				atList(7, deleting(0, 20))(t, fx, ids)
			},
		},
		"more users sign up at the end": {
			size: 10, deleted: -15,
			arrange: atList(6, func(_ *testing.T, fx *bulkFixture, _ []string) { fx.signUp(15) }),
		},
	}
}

// TestReconcileReadsEveryPage makes Clerk's list behave oddly. The run must still see every user and
// find the one ghost.
func TestReconcileReadsEveryPage(t *testing.T) {
	t.Parallel()
	for _, group := range []map[string]listCase{orderlyLists(), movingLists()} {
		for name, tt := range group {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				tt.run(t)
			})
		}
	}
}

func (tt listCase) run(t *testing.T) {
	const users = 57
	fx := newBulkFixture(t, nil)
	ids := fx.signUp(users)
	fx.record(t, ids[0]) // one of Clerk's users, so that the key is the right one
	fx.clock.Advance(2 * time.Hour)
	ghost := fx.ghosts(t, 1)[0]
	if tt.arrange != nil {
		tt.arrange(t, fx, ids)
	}
	var done int
	report, err := fx.Reconcile(fx.bounded(t), options{PageSize: tt.size, Progress: func(p clerksync.Progress) {
		if p.Phase == clerksync.PhaseUsers {
			done = p.Done
		}
	}})
	if err != nil {
		t.Fatalf("%v\n%+v", err, report)
	}
	left := len(fx.clerk.UserIDs())
	if left != users-tt.deleted {
		t.Fatalf("the test left %d users", left)
	}
	if !report.Complete || report.Deactivated.Count != 1 || report.Deactivated.IDs[0] != ghost {
		t.Errorf("reports %+v", report)
	}
	for _, id := range fx.clerk.UserIDs() {
		fx.get(t, id)
	}
	if n := fx.clerk.Calls("GET /v1/users") - 2; tt.lists != 0 && n != tt.lists { // less the queries by id
		t.Errorf("%d lists, want %d", n, tt.lists)
	}
	if report.Seen < left || report.Seen > max(left, users) || done != report.Seen {
		t.Errorf("saw %d users of %d, and Progress was told of %d", report.Seen, left, done)
	}
	fx.request, fx.answer = nil, nil
	fx.clerk.SetFault(nil)
	fx.reconcile(t, options{MaxDeactivations: -1, Holdback: -1})
	fx.inStep(t)
}

// shortList is a way in which Clerk lists fewer users than it counts.
type shortList struct {
	size    int // of a page
	arrange func(fx *bulkFixture)
	want    error
}

func shortLists() map[string]shortList {
	type page = []json.RawMessage
	edit := func(f func(r *http.Request, p page) page) func(fx *bulkFixture) {
		return func(fx *bulkFixture) { fx.answer = editList(f) }
	}
	incomplete := clerksync.ErrIncomplete
	return map[string]shortList{
		"skips one in fifty": {50, edit(func(_ *http.Request, p page) page {
			if len(p) == 50 {
				p = slices.Delete(p, 20, 21)
				p = append(p, p[len(p)-1]) // still a full page
			}
			return p
		}), incomplete},
		"skips one of all": {500, edit(func(_ *http.Request, p page) page { return p[min(1, len(p)):] }), nil},
		"ends early": {50, edit(func(r *http.Request, p page) page {
			if r.URL.Query().Has("starting_after") {
				return p[:0]
			}
			return p
		}), incomplete},
		"is empty": {50, edit(func(*http.Request, page) page { return page{} }), incomplete},
		"the first page for ever": {50, func(fx *bulkFixture) {
			fx.request = func(r *http.Request) { without(r, "starting_after"); without(r, "offset") }
		}, incomplete},
		"holes, by offset": {50, func(fx *bulkFixture) {
			withoutKeyset(nil, fx, nil)
			fx.answer = editList(func(r *http.Request, p page) page {
				if offset, _ := strconv.Atoi(r.URL.Query().Get("offset")); offset%50 != 0 && len(p) > 20 {
					return p[20:]
				}
				return p
			})
		}, incomplete},
		"users without ids": {50, edit(func(_ *http.Request, p page) page {
			for i := range p {
				p[i] = json.RawMessage(strings.Replace(string(p[i]), `"id":"user_`, `"id":"usr`, 1))
			}
			return p
		}), nil},
	}
}

// TestReconcileIncompleteList makes Clerk list fewer users than it counts. The users
// that it leaves out are not ghosts.
func TestReconcileIncompleteList(t *testing.T) {
	t.Parallel()
	for name, tt := range shortLists() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			ids := fx.backfill(t, 200)
			ghosts := fx.ghosts(t, 1)
			tt.arrange(fx)
			report, err := fx.Reconcile(fx.bounded(t), options{PageSize: tt.size})
			if strings.Contains(fmt.Sprint(err), "no end") {
				t.Fatal(err)
			}
			if tt.want == nil {
				if !report.Complete || !slices.Equal(report.Deactivated.IDs, ghosts) {
					t.Errorf("%v, reports %+v", err, report)
				}
				if report.Failed.Count > 0 { // those without ids
					wantUnwritten(t, &report, err)
				} else if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, tt.want) || report.Complete || report.Reason != err.Error() || report.Resume != "" {
				t.Errorf("%v, reports %+v", err, report)
			}
			if fx.userCalls() != 0 || fx.store.count("Deactivate") != 0 || report.Ghosts.Count != 0 {
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

// A user whose object has two ids, in "id" and in "ID", fails.
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
	report, _ := fx.Reconcile(t.Context(), options{})
	if report.Failed.Count != 1 || report.Created.Count != 0 {
		t.Errorf("reports %+v", report)
	}
	for _, id := range []string{"user_a", "user_b"} {
		if _, err := fx.store.Store.User(t.Context(), id); !errors.Is(err, clerksync.ErrNotFound) {
			t.Errorf("%s was written", id)
		}
	}
}
