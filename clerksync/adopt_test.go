package clerksync_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

const adaEmail = "ada@example.com"

// legacyRecord is a record that the app had before Clerk.
type legacyRecord struct {
	id, email string
	linked    string // the Clerk id of its user; empty for none
}

// adoptStore is a Store in memory that adopts the app's records, as the contract of AdoptStore
// says. Its Upsert does not return an adopted record.
type adoptStore struct {
	*countingStore
	mu      sync.Mutex
	legacy  []*legacyRecord
	offers  []*clerksync.User
	deleted []string // the external ids of DeactivateExternal

	externalField string // the field that external ids name
}

// heldError says whose record an external id names, as mongostore's does.
type heldError struct{ holder string }

func (e heldError) Error() string        { return "store: " + e.ConflictText() }
func (e heldError) ConflictText() string { return "the external id names the record of " + e.holder }

func (s *adoptStore) UpsertBatch(ctx context.Context, us []*clerksync.User) ([]clerksync.Result, error) {
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

func (s *adoptStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offers = append(s.offers, u.Clone())
	_, err := s.Store.User(ctx, u.ClerkID)
	if !errors.Is(err, clerksync.ErrNotFound) || len(u.Omit) > 0 {
		return s.countingStore.Upsert(ctx, u)
	}
	record, err := s.candidate(u)
	if err != nil {
		return clerksync.Result{}, err
	}
	res, err := s.countingStore.Upsert(ctx, u)
	if record == nil || err != nil {
		return res, err
	}
	record.linked = u.ClerkID
	err = s.Edit(u.ClerkID, func(r *clerksync.User) { r.Role = clerksync.RoleAdmin })
	return clerksync.Result{Outcome: clerksync.Adopted}, err
}

// candidate returns the record that u adopts; nil for none.
func (s *adoptStore) candidate(u *clerksync.User) (*legacyRecord, error) {
	for _, r := range s.legacy {
		switch {
		case u.ExternalID == "" || r.id != u.ExternalID:
		case r.linked != "":
			return nil, &clerksync.ConflictError{Field: s.externalField, Holder: r.linked, Err: heldError{r.linked}}
		default:
			return r, nil
		}
	}
	for _, r := range s.legacy {
		switch {
		case r.linked != "" || u.Email == "" || r.email != u.Email:
		case !u.EmailProven:
			err := fmt.Errorf("%w: the address is not proven", clerksync.ErrUnlinked)
			return nil, &clerksync.ConflictError{Field: "email", Err: err}
		default:
			return r, nil
		}
	}
	return nil, nil
}

func (s *adoptStore) Adoptions(context.Context, []*clerksync.User) ([]clerksync.Adoption, error) {
	return nil, errors.New("not needed")
}

func (s *adoptStore) DeactivateExternal(ctx context.Context, id, externalID string, at time.Time) (clerksync.Result, error) {
	s.mu.Lock()
	s.deleted = append(s.deleted, externalID)
	s.mu.Unlock()
	return s.Deactivate(ctx, id, at)
}

// adoption is an app with a record of Ada's without a Clerk id, and Ada in Clerk.
type adoption struct {
	*fixture
	adopter *adoptStore
	id      string
	webhook http.Handler
}

// newAdoption returns the app. verified says whether Clerk's API has the proof of Ada's address.
func newAdoption(t *testing.T, verified bool) *adoption {
	t.Helper()
	a := &adoption{}
	a.fixture = newFixture(t, func(c *clerksync.Config) {
		a.adopter = &adoptStore{countingStore: c.Store.(*countingStore), legacy: []*legacyRecord{{id: "65f0", email: adaEmail}}}
		c.Store = a.adopter
	})
	a.id = a.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: adaEmail, EmailUnverified: !verified})
	var err error
	if a.webhook, err = a.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret}}); err != nil {
		t.Fatal(err)
	}
	return a
}

// data is Ada as an event has her, with or without the proof that Clerk's API may have.
func (a *adoption) data(proof bool) []byte {
	raw, _ := a.clerk.User(a.id)
	if !proof {
		raw = bytes.ReplaceAll(raw, []byte(`"email_code"`), []byte(`"ticket"`))
	}
	return raw
}

// deliver sends the webhook an event about Ada.
func (a *adoption) deliver(t *testing.T, typ string, data []byte) answer {
	t.Helper()
	return answerOf(a.webhook, signed(t, "/", testSecret, a.clock.Now(), envelope(typ, string(data))))
}

func (a *adoption) wantAdopted(t *testing.T) {
	t.Helper()
	if u := visit(t, a.Syncer, a.id); u.Role != clerksync.RoleAdmin || u.Name != "Ada" {
		t.Errorf("Ada's record is %+v, want the app's, with Clerk's name", u)
	}
	if r := a.adopter.legacy[0]; r.linked != a.id {
		t.Errorf("the app's record is linked to %q, want %q", r.linked, a.id)
	}
}

func (a *adoption) wantNothingWritten(t *testing.T) {
	t.Helper()
	if u, err := a.store.Store.User(t.Context(), a.id); !errors.Is(err, clerksync.ErrNotFound) {
		t.Errorf("Ada has a record: %+v, %v", u, err)
	}
}

func (a *adoption) wantCalls(t *testing.T, want int, when string) {
	t.Helper()
	if got := a.userCalls(); got != want {
		t.Errorf("%s: %d calls to Clerk, want %d", when, got, want)
	}
}

// An event may lack the proof that the API has: the user is read once, and adopted.
func TestEventWithoutTheProof(t *testing.T) {
	t.Parallel()
	for name, event := range map[string]func(t *testing.T, a *adoption) error{
		"webhook": func(t *testing.T, a *adoption) error {
			checkProblem(t, a.deliver(t, "user.created", a.data(false)), http.StatusNoContent, "")
			return nil
		},
		"session": func(t *testing.T, a *adoption) error {
			session := fmt.Appendf(nil, `{"user":%s}`, a.data(false))
			checkProblem(t, a.deliver(t, "session.created", session), http.StatusNoContent, "")
			return nil
		},
		"Apply": func(t *testing.T, a *adoption) error {
			e := clerksync.Event{Type: "user.updated", Timestamp: a.clock.Now(), Data: a.data(false)}
			_, err := a.Apply(t.Context(), e)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAdoption(t, true)
			if err := event(t, a); err != nil {
				t.Fatal(err)
			}
			if o := a.seen.last(); o.Outcome != clerksync.Adopted || o.Err != nil {
				t.Errorf("observed %+v, want the outcome adopted", o)
			}
			a.wantCalls(t, 1, "after the event")
			a.wantAdopted(t)
			a.wantCalls(t, 1, "after the visit")
		})
	}
}

// A Google account proves the address in the API, but not in the event. An administrator's word
// proves it nowhere.
func TestAdoptionByStrategy(t *testing.T) {
	t.Parallel()
	for strategy, tt := range map[string]struct {
		adopted bool
		calls   int // to Clerk, for the event
	}{
		"email_code":                {true, 0},
		"email_link":                {true, 0},
		"from_oauth_google":         {true, 1},
		"from_oauth_github":         {true, 0},
		"admin":                     {false, 1},
		"ticket":                    {false, 1},
		"saml":                      {false, 1},
		"scim":                      {false, 1},
		"reset_password_email_code": {false, 1},
	} {
		t.Run(strategy, func(t *testing.T) {
			t.Parallel()
			a := newAdoption(t, true)
			endpoint := a.clerk.AddEndpoint("http://127.0.0.1:1", fakeclerk.EndpointOptions{})
			endpoint.Hold()
			if err := a.clerk.DeleteUser(a.id); err != nil {
				t.Fatal(err)
			}
			a.id = a.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: adaEmail, EmailStrategy: strategy})
			event := endpoint.Messages()[1]
			got := answerOf(a.webhook, signed(t, "/", testSecret, a.clock.Now(), event.Body))
			a.wantCalls(t, tt.calls, "after the event")
			if !tt.adopted {
				checkProblem(t, got, http.StatusConflict, "conflict")
				a.wantNothingWritten(t)
				return
			}
			checkProblem(t, got, http.StatusNoContent, "")
			a.wantAdopted(t)
		})
	}
}

// What already comes from the API is not read again.
func TestAdoptedFromTheAPI(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(t *testing.T, a *adoption) clerksync.Outcome{
		"visit": func(t *testing.T, a *adoption) clerksync.Outcome {
			if u := visit(t, a.Syncer, a.id); u.Role != clerksync.RoleAdmin {
				t.Errorf("the visit gets %+v, want the adopted record", u)
			}
			return a.seen.last().Outcome
		},
		"Sync": func(t *testing.T, a *adoption) clerksync.Outcome {
			res, err := a.Sync(t.Context(), a.id)
			if err != nil {
				t.Error(err)
			}
			return res.Outcome
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAdoption(t, true)
			if got := read(t, a); got != clerksync.Adopted {
				t.Errorf("outcome %s, want adopted", got)
			}
			a.wantCalls(t, 1, "after it")
			a.wantAdopted(t)
			a.wantCalls(t, 1, "after another visit")
			if n := len(a.adopter.offers); n != 1 {
				t.Errorf("%d Upserts, want 1", n)
			}
		})
	}
}

// A user who may not be linked gets 409 on every path, and costs few calls to Clerk.
func TestUnlinkedUser(t *testing.T) {
	t.Parallel()
	a := newAdoption(t, false)
	for range 3 {
		checkProblem(t, a.deliver(t, "user.created", a.data(false)), http.StatusConflict, "conflict")
		visitFails(t, a.Syncer, a.id, clerksync.ErrUnlinked)
	}
	a.wantCalls(t, 1, "after three deliveries and visits at once")
	a.clock.Advance(10 * time.Second)
	for range 3 {
		visitFails(t, a.Syncer, a.id, clerksync.ErrUnlinked)
	}
	a.wantCalls(t, 2, "after ten seconds")
	a.clock.Advance(49 * time.Second)
	for range 3 {
		checkProblem(t, a.deliver(t, "user.updated", a.data(false)), http.StatusConflict, "conflict")
		visitFails(t, a.Syncer, a.id, clerksync.ErrUnlinked)
	}
	a.wantCalls(t, 2, "within a minute of the first delivery")
	a.clock.Advance(time.Second)
	checkProblem(t, a.deliver(t, "user.updated", a.data(false)), http.StatusConflict, "conflict")
	a.wantCalls(t, 3, "after a minute")
	if _, err := a.Sync(t.Context(), a.id); !errors.Is(err, clerksync.ErrUnlinked) {
		t.Errorf("Sync: %v, want ErrUnlinked", err)
	}
	a.wantCalls(t, 4, "after a Sync")
	a.wantNothingWritten(t)
	for _, u := range a.adopter.offers {
		if len(u.Omit) > 0 {
			t.Errorf("an Upsert without %v: a user without a record has nothing to write", u.Omit)
		}
	}
	logs := a.logs.String()
	if strings.Contains(logs, adaEmail) || strings.Contains(logs, "Ada") {
		t.Errorf("the log shows the user's data:\n%s", logs)
	}
	for _, want := range []string{"the address is not proven", `advice="if the record is this user's`, "check=unlinked", "level=WARN", "level=ERROR"} {
		if !strings.Contains(logs, want) {
			t.Errorf("the log does not have %s:\n%s", want, logs)
		}
	}
}

// The proof may come with a later event, which then needs no call to Clerk, or be found by the
// next visit.
func TestUnlinkedUserProvesTheAddress(t *testing.T) {
	t.Parallel()
	prove := func(t *testing.T, a *adoption) {
		err := a.clerk.UpdateUser(a.id, func(u *fakeclerk.UserObject) { u.EmailAddresses[0].Verification.Status = "verified" })
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Run("event", func(t *testing.T) {
		t.Parallel()
		a := newAdoption(t, false)
		checkProblem(t, a.deliver(t, "user.created", a.data(false)), http.StatusConflict, "conflict")
		visitFails(t, a.Syncer, a.id, clerksync.ErrUnlinked)
		prove(t, a)
		checkProblem(t, a.deliver(t, "user.updated", a.data(true)), http.StatusNoContent, "")
		a.wantAdopted(t)
		a.wantCalls(t, 1, "for the first event only")
	})
	t.Run("visit", func(t *testing.T) {
		t.Parallel()
		a := newAdoption(t, false)
		visitFails(t, a.Syncer, a.id, clerksync.ErrUnlinked)
		prove(t, a)
		a.clock.Advance(10 * time.Second)
		a.wantAdopted(t)
		a.wantCalls(t, 2, "for two visits")
	})
	t.Run("the first event's repetition", func(t *testing.T) {
		t.Parallel()
		a := newAdoption(t, false)
		late := a.data(false)
		visitFails(t, a.Syncer, a.id, clerksync.ErrUnlinked)
		prove(t, a)
		checkProblem(t, a.deliver(t, "user.created", late), http.StatusNoContent, "")
		a.wantAdopted(t)
	})
}

// If Clerk cannot say more, the event stays refused, and the next visit asks for itself.
func TestUnlinkedWhileClerkIsDown(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]*fakeclerk.Fault{
		"down":         fakeclerk.ErrorFault(http.StatusUnauthorized, "clerk_key_invalid"),
		"rate limited": fakeclerk.ErrorFault(http.StatusTooManyRequests, "too_many_requests"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAdoption(t, true)
			a.answerUsersWith(fault)
			event := a.data(false)
			checkProblem(t, a.deliver(t, "user.created", event), http.StatusConflict, "conflict")
			a.wantNothingWritten(t)
			a.clerk.SetFault(nil)
			a.clock.Advance(time.Minute)
			a.wantAdopted(t)
		})
	}
}

// While Clerk asks to be left alone, an event does not ask.
func TestUnlinkedDuringAPause(t *testing.T) {
	t.Parallel()
	a := newAdoption(t, true)
	other := a.clerk.CreateUser(fakeclerk.NewUser{})
	limit := fakeclerk.ErrorFault(http.StatusTooManyRequests, "too_many_requests")
	limit.Header.Set("Retry-After", "30")
	a.answerUsersWith(limit)
	visitFails(t, a.Syncer, other, clerksync.ErrUnavailable)
	a.clerk.SetFault(nil)
	calls := a.userCalls()
	event := a.data(false)
	checkProblem(t, a.deliver(t, "user.created", event), http.StatusConflict, "conflict")
	a.wantCalls(t, calls, "during the pause")
	a.clock.Advance(31 * time.Second)
	checkProblem(t, a.deliver(t, "user.created", event), http.StatusNoContent, "")
	a.wantAdopted(t)
}

// A user whom Clerk says is banned is refused as banned, and nothing is written.
func TestUnlinkedAndBanned(t *testing.T) {
	t.Parallel()
	a := newAdoption(t, false)
	if err := a.clerk.BanUser(a.id); err != nil {
		t.Fatal(err)
	}
	checkProblem(t, a.deliver(t, "user.updated", a.data(false)), http.StatusConflict, "conflict")
	a.clock.Advance(10 * time.Second)
	visitFails(t, a.Syncer, a.id, clerksync.ErrUserInactive)
	a.wantNothingWritten(t)
}

// An external id that leads to another user's record is a conflict that no handover solves: the
// holder loses nothing, even if external ids name a field that Clerk owns.
func TestExternalIDOfAnotherUser(t *testing.T) {
	t.Parallel()
	for _, field := range []string{"_id", "legacyId", "email", "name", "profile.phoneNumber", "role"} {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			a := newAdoption(t, true)
			a.adopter.externalField = field
			a.wantAdopted(t)
			before := a.stored(t, a.id)
			eve := a.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Eve", Email: "eve@example.com", ExternalID: "65f0", Phone: "+15555550123"})
			calls, offers := a.clerk.Calls(""), len(a.adopter.offers)
			raw, _ := a.clerk.User(eve)
			checkProblem(t, a.deliver(t, "user.created", raw), http.StatusConflict, "conflict")
			if n := a.clerk.Calls("") - calls; n != 0 {
				t.Errorf("%d calls to Clerk, want 0: Clerk cannot say whose the app's record is", n)
			}
			if n := len(a.adopter.offers) - offers; n != 1 {
				t.Errorf("%d Upserts, want 1: there is nothing that could be written", n)
			}
			var conflict *clerksync.ConflictError
			if _, err := a.User(t.Context(), eve); !errors.As(err, &conflict) || conflict.Holder != a.id {
				t.Errorf("Eve's visit: %v, want a conflict with %s", err, a.id)
			}
			offers = len(a.adopter.offers)
			if _, err := a.Reconcile(t.Context(), clerksync.ReconcileOptions{}); !errors.As(err, &conflict) || conflict.Holder != a.id {
				t.Errorf("the Reconcile: %v, want a conflict with %s", err, a.id)
			}
			for _, u := range a.adopter.offers[offers:] {
				if len(u.Omit) > 0 {
					t.Errorf("the Reconcile offers %s without %v: no field is in the way", u.ClerkID, u.Omit)
				}
			}
			if after := a.stored(t, a.id); after.Email != before.Email || !after.ClerkUpdatedAt.Equal(before.ClerkUpdatedAt) {
				t.Errorf("the holder's record has become %+v", after)
			}
			if u, err := a.store.Store.User(t.Context(), eve); !errors.Is(err, clerksync.ErrNotFound) {
				t.Errorf("Eve has a record: %+v, %v", u, err)
			}
		})
	}
}

// A deletion leads to a record that was never linked, by its external id.
func TestDeletionByExternalID(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fields string
		plain  bool // the Store does not adopt
		want   []string
	}{
		"with one":                    {`,"external_id":"65f0"`, false, []string{"65f0"}},
		"none":                        {``, false, nil},
		"null":                        {`,"external_id":null`, false, nil},
		"empty":                       {`,"external_id":""`, false, nil},
		"of another type":             {`,"external_id":{"$ne":null}`, false, nil},
		"a Store that does not adopt": {`,"external_id":"65f0"`, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAdoption(t, true)
			if tt.plain {
				a.Syncer = a.syncer(t, nil)
			}
			data := fmt.Sprintf(`{"object":"user","deleted":true,"id":%q%s}`, a.id, tt.fields)
			res, err := a.Apply(t.Context(), clerksync.Event{Type: "user.deleted", Timestamp: a.clock.Now(), Data: []byte(data)})
			if err != nil || res.Outcome != clerksync.Deactivated {
				t.Fatalf("%+v, %v; want deactivated", res, err)
			}
			if !slices.Equal(a.adopter.deleted, tt.want) {
				t.Errorf("DeactivateExternal got %q, want %q", a.adopter.deleted, tt.want)
			}
			visitFails(t, a.Syncer, a.id, clerksync.ErrUserInactive)
		})
	}
}
