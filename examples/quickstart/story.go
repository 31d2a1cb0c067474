package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// chapter is one step of the story. Each stands for itself, with users of its own.
type chapter struct {
	title string
	tell  func(*teller) error
}

var chapters = []chapter{
	{"Sign-up: a webhook brings the record", signUp},
	{"Update: Clerk's fields follow, the app's own stay", update},
	{"A lost user.created: the first visit repairs it", lostWebhook},
	{"50 first requests at once: one call to Clerk, one record", crowded},
	{"Webhooks out of order, and each of them twice", disorder},
	{"Deletion is final", deletion},
}

const (
	crowdSize      = 50
	chapterTimeout = 30 * time.Second
)

// tell tells the chapters and returns how many statements did not hold. The error
// is that one could not be told.
func (d *demo) tell(ctx context.Context, chapters []chapter) (failed int, err error) {
	for i, c := range chapters {
		d.out.title("%d. %s", i+1, c.title)
		t := &teller{demo: d}
		var cancel context.CancelFunc
		t.ctx, cancel = context.WithTimeout(ctx, chapterTimeout)
		d.clerk.ResetCalls()
		err := c.tell(t)
		cancel()
		failed += t.failed
		if err != nil && !errors.Is(err, errDidNotHold) {
			return failed, fmt.Errorf("chapter %d, %s: %w", i+1, c.title, err)
		}
	}
	return failed, nil
}

// teller tells one chapter and checks what it says.
type teller struct {
	*demo
	ctx    context.Context
	failed int
}

// errDidNotHold ends a chapter that makes no sense any more.
var errDidNotHold = errors.New("a statement did not hold")

func signUp(t *teller) error {
	ada := t.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", LastName: "Byron", Email: "ada@example.com"})
	t.out.say("Ada signs up in Clerk, which sends the app a webhook. She has not visited the app yet.")
	if err := t.settle(); err != nil {
		return err
	}
	t.deliveries(ada, "user.created 204")
	doc, err := t.showRecord(ada)
	if err != nil {
		return err
	}
	t.equal("name, email, role", fields(doc, "name", "email", "role"), "Ada Byron, ada@example.com, STUDENT")
	t.equal("isActive, emailVerified", fields(doc, "isActive", "emailVerified"), "true, true")

	t.out.say("She visits: the record is there.")
	if err := t.visit(ada, http.StatusOK, "Ada Byron"); err != nil {
		return err
	}
	t.equal("calls to Clerk for the user", t.userCalls(), 0)
	return nil
}

func update(t *teller) error {
	grace := t.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Grace", LastName: "Murray", Email: "grace@example.com"})
	if err := t.settle(); err != nil {
		return err
	}
	t.out.say("Grace has signed up. The app makes her a teacher, notes her city, and keeps a field of its own in her record.")
	_, err := t.users.UpdateOne(t.ctx, bson.D{{Key: "clerkId", Value: grace}}, bson.D{{Key: "$set", Value: bson.D{
		{Key: "role", Value: "TEACHER"},
		{Key: "location.city", Value: "Arlington"},
		{Key: "credits", Value: 42},
	}}})
	if err != nil {
		return err
	}
	t.out.say("Then she changes her name in Clerk.")
	err = t.clerk.UpdateUser(grace, func(u *fakeclerk.UserObject) { u.LastName = clerk.String("Hopper") })
	if err != nil {
		return err
	}
	if err := t.settle(); err != nil {
		return err
	}
	t.deliveries(grace, "user.created 204, user.updated 204")
	doc, err := t.showRecord(grace)
	if err != nil {
		return err
	}
	t.equal("Clerk's: name, profile.lastName", fields(doc, "name", "profile.lastName"), "Grace Hopper, Hopper")
	t.equal("the app's: role, location.city, credits", fields(doc, "role", "location.city", "credits"), "TEACHER, Arlington, 42")
	t.sameVersion(grace, doc)
	return t.visit(grace, http.StatusOK, "Grace Hopper")
}

func lostWebhook(t *teller) error {
	t.webhooks.SetPolicy(func(m fakeclerk.Message) fakeclerk.Delivery {
		return fakeclerk.Delivery{Drop: m.Type == "user.created"}
	})
	defer t.webhooks.SetPolicy(nil)
	alan := t.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Alan", LastName: "Turing", Email: "alan@example.com"})
	t.out.say("Alan signs up, and the webhook gets lost.")
	if err := t.settle(); err != nil {
		return err
	}
	t.deliveries(alan, "user.created dropped")
	if err := t.records(alan, 0); err != nil {
		return err
	}
	t.out.say("He visits: his record is read from Clerk and created before the app's handler runs.")
	if err := t.visit(alan, http.StatusOK, "Alan Turing"); err != nil {
		return err
	}
	doc, err := t.showRecord(alan)
	if err != nil {
		return err
	}
	t.sameVersion(alan, doc)
	if err := t.visit(alan, http.StatusOK, "Alan Turing"); err != nil {
		return err
	}
	t.equal("calls to Clerk for the user, after two visits", t.userCalls(), 1)
	return nil
}

func crowded(t *teller) error {
	t.webhooks.SetPolicy(func(fakeclerk.Message) fakeclerk.Delivery { return fakeclerk.Delivery{Drop: true} })
	defer t.webhooks.SetPolicy(nil)
	emmy := t.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Emmy", LastName: "Noether", Email: "emmy@example.com"})
	t.out.say("Emmy is new, her webhook is lost, and her browser sends %d requests at once.", crowdSize)

	// Clerk answers only once all the visits have arrived: none of them is late.
	crowd := newBarrier(crowdSize)
	t.crowd.Store(crowd)
	defer t.crowd.Store(nil)
	var late atomic.Bool
	t.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if !strings.HasPrefix(r.URL.Path, "/v1/users/") {
			return nil
		}
		return &fakeclerk.Fault{BeforeSend: func() {
			select {
			case <-crowd.full:
			case <-time.After(3 * time.Second): // the chapter must not hang, whatever is wrong
				late.Store(true)
			}
		}}
	})
	defer t.clerk.SetFault(nil)

	type answer struct {
		status int
		id     string
		err    error
	}
	answers := make([]answer, crowdSize)
	token := t.clerk.SessionToken(emmy)
	start := time.Now()
	var visits sync.WaitGroup
	for i := range answers {
		visits.Go(func() {
			var record struct {
				ID string `json:"_id"`
			}
			status, body, err := t.get("/api/me", token)
			if err == nil {
				err = json.Unmarshal(body, &record)
			}
			answers[i] = answer{status, record.ID, err}
		})
	}
	visits.Wait()
	took := time.Since(start)

	doc, err := t.showRecord(emmy)
	if err != nil {
		return err
	}
	served := 0
	for _, a := range answers {
		if a.err != nil {
			return a.err
		}
		if a.status == http.StatusOK && a.id == fields(doc, "_id") {
			served++
		}
	}
	t.holds(!late.Load(), "all had arrived before Clerk answered the first")
	t.equal(fmt.Sprintf("answered 200 with this record, in %v", took.Round(time.Millisecond)), served, crowdSize)
	t.equal("calls to Clerk for the user", t.userCalls(), 1)
	return nil
}

func disorder(t *teller) error {
	t.webhooks.SetPolicy(func(fakeclerk.Message) fakeclerk.Delivery { return fakeclerk.Delivery{Copies: 2} })
	defer t.webhooks.SetPolicy(nil)
	t.webhooks.Hold()
	defer func() { _ = t.webhooks.Release() }() // without names it has no error

	kurt := t.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Kurt", Email: "kurt@example.com"})
	for _, name := range []string{"Goedel", "Gödel"} {
		if err := t.clerk.UpdateUser(kurt, func(u *fakeclerk.UserObject) { u.LastName = clerk.String(name) }); err != nil {
			return err
		}
	}
	messages := t.messages(kurt)
	if len(messages) != 3 {
		return fmt.Errorf("%d messages, not 3", len(messages))
	}
	created, first, second := messages[0].ID, messages[1].ID, messages[2].ID
	t.out.say("Kurt signs up and changes his name twice. The last of the three webhooks arrives first, two times.")
	if err := t.release(second); err != nil {
		return err
	}
	before, err := t.showRecord(kurt)
	if err != nil {
		return err
	}
	t.equal("name", fields(before, "name"), "Kurt Gödel")
	t.sameVersion(kurt, before)

	t.out.say("Then the sign-up and the first change arrive, two times each.")
	if err := t.release(created, first); err != nil {
		return err
	}
	t.deliveries(kurt, "user.created 204 204, user.updated 204 204, user.updated 204 204")
	if err := t.unchanged(kurt, before); err != nil {
		return err
	}
	if err := t.records(kurt, 1); err != nil {
		return err
	}
	t.equal("calls to Clerk for the user", t.userCalls(), 0)
	return nil
}

func deletion(t *teller) error {
	leave := t.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Évariste", LastName: "Galois", Email: "evariste@example.com"})
	if err := t.settle(); err != nil {
		return err
	}
	if err := t.visit(leave, http.StatusOK, "Évariste Galois"); err != nil {
		return err
	}
	t.out.say("Évariste deletes his account. His session token is good for another minute.")
	if err := t.clerk.DeleteUser(leave); err != nil {
		return err
	}
	if err := t.settle(); err != nil {
		return err
	}
	before, err := t.showRecord(leave)
	if err != nil {
		return err
	}
	_, err = before.LookupErr("deletedAt")
	t.holds(err == nil, "deletedAt is set")
	t.equal("isActive", fields(before, "isActive"), "false")
	if err := t.visit(leave, http.StatusForbidden, "user_inactive"); err != nil {
		return err
	}

	t.out.say("The user.created is delivered once more, late.")
	if err := t.webhooks.Replay(t.messages(leave)[0].ID); err != nil {
		return err
	}
	if err := t.settle(); err != nil {
		return err
	}
	t.deliveries(leave, "user.created 204 204, user.deleted 204")
	if err := t.unchanged(leave, before); err != nil {
		return err
	}
	if err := t.visit(leave, http.StatusForbidden, "user_inactive"); err != nil {
		return err
	}
	t.equal("calls to Clerk for the user", t.userCalls(), 0)

	t.out.say("Sophie signs up and leaves at once, and her two webhooks arrive the wrong way round.")
	t.webhooks.Hold()
	defer func() { _ = t.webhooks.Release() }() // without names it has no error
	sophie := t.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Sophie", LastName: "Germain", Email: "sophie@example.com"})
	if err := t.clerk.DeleteUser(sophie); err != nil {
		return err
	}
	messages := t.messages(sophie)
	if len(messages) != 2 {
		return fmt.Errorf("%d messages, not 2", len(messages))
	}
	if err := t.release(messages[1].ID); err != nil {
		return err
	}
	tombstone, err := t.showRecord(sophie)
	if err != nil {
		return err
	}
	t.holds(!strings.Contains(tombstone.String(), "Sophie") && !strings.Contains(tombstone.String(), "sophie@"), "the tombstone has nothing personal in it")
	if err := t.release(messages[0].ID); err != nil {
		return err
	}
	t.deliveries(sophie, "user.created 204, user.deleted 204")
	if err := t.unchanged(sophie, tombstone); err != nil {
		return err
	}
	return t.visit(sophie, http.StatusForbidden, "user_inactive")
}

// holds checks a statement.
func (t *teller) holds(ok bool, format string, args ...any) {
	t.out.check(ok, format, args...)
	if !ok {
		t.failed++
	}
}

// equal checks that something is as the story has it.
func (t *teller) equal(what string, got, want any) {
	if got == want {
		t.holds(true, "%s: %v", what, got)
	} else {
		t.holds(false, "%s: %v, and not %v", what, got, want)
	}
}

// settle waits until the app has answered the webhooks that are on their way.
func (t *teller) settle() error { return t.clerk.Settle(t.ctx) }

// release has held messages delivered, in this order.
func (t *teller) release(messageIDs ...string) error {
	for _, id := range messageIDs {
		if err := errors.Join(t.webhooks.Release(id), t.settle()); err != nil {
			return err
		}
	}
	return nil
}

// get sends the app a request, with a session token unless that is empty.
func (t *teller) get(path, token string) (status int, body []byte, err error) {
	r, err := http.NewRequestWithContext(t.ctx, http.MethodGet, t.appURL+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := t.client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// visit has the user call the app, and checks the status and what the answer says:
// a name, or the code of a refusal.
func (t *teller) visit(clerkID string, status int, says string) error {
	got, body, err := t.get("/api/me", t.clerk.SessionToken(clerkID))
	if err != nil {
		return err
	}
	var answer struct{ Name, Code string }
	_ = json.Unmarshal(body, &answer) // what is no JSON has neither
	t.equal("GET /api/me", fmt.Sprint(got, " ", answer.Name+answer.Code), fmt.Sprint(status, " ", says))
	return nil
}

// userCalls returns how often the app has asked Clerk for a user in this chapter.
func (t *teller) userCalls() int { return t.clerk.Calls("GET /v1/users/{id}") }

// messages returns what the app's endpoint was sent about a user, oldest first.
func (t *teller) messages(clerkID string) []fakeclerk.Message {
	var of []fakeclerk.Message
	for _, m := range t.webhooks.Messages() {
		var event struct{ Data struct{ ID string } }
		if json.Unmarshal(m.Body, &event) == nil && event.Data.ID == clerkID {
			of = append(of, m)
		}
	}
	return of
}

// deliveries checks what became of the messages about a user: the app's answers, or
// the state of a message that it never got.
func (t *teller) deliveries(clerkID, want string) {
	var parts []string
	for _, m := range t.messages(clerkID) {
		part := m.Type
		for _, a := range m.Attempts {
			part += fmt.Sprintf(" %d", a.Status)
		}
		if len(m.Attempts) == 0 {
			part += " " + string(m.State)
		}
		parts = append(parts, part)
	}
	t.equal("webhooks", strings.Join(parts, ", "), want)
}

// records checks how many records the user has.
func (t *teller) records(clerkID string, want int64) error {
	n, err := t.users.CountDocuments(t.ctx, bson.D{{Key: "clerkId", Value: clerkID}})
	if err != nil {
		return err
	}
	t.equal("records in the database", n, want)
	return nil
}

// showRecord prints the user's record, which has to exist, and be the only one.
func (t *teller) showRecord(clerkID string) (bson.Raw, error) {
	if err := t.records(clerkID, 1); err != nil {
		return nil, err
	}
	doc, err := t.record(t.ctx, clerkID)
	if err != nil {
		return nil, err
	}
	if doc == nil {
		return nil, errDidNotHold
	}
	t.out.record(doc)
	return doc, nil
}

// unchanged checks that the record is byte for byte what it was.
func (t *teller) unchanged(clerkID string, before bson.Raw) error {
	now, err := t.record(t.ctx, clerkID)
	if err != nil {
		return err
	}
	t.holds(bytes.Equal(now, before), "the record is what it was, byte for byte")
	return nil
}

// sameVersion checks that the record is of the version that Clerk has.
func (t *teller) sameVersion(clerkID string, doc bson.Raw) {
	var user struct {
		UpdatedAt int64 `json:"updated_at"`
	}
	object, _ := t.clerk.User(clerkID)
	_ = json.Unmarshal(object, &user)
	at, ok := doc.Lookup("clerkUpdatedAt").TimeOK()
	t.holds(ok && at.UnixMilli() == user.UpdatedAt, "clerkUpdatedAt is Clerk's updated_at")
}

// fields returns the values at dotted paths of a record, as one text.
func fields(doc bson.Raw, paths ...string) string {
	values := make([]string, len(paths))
	for i, path := range paths {
		v, err := doc.LookupErr(strings.Split(path, ".")...)
		if err != nil {
			values[i] = "(none)"
		} else if s, ok := v.StringValueOK(); ok {
			values[i] = s
		} else if id, ok := v.ObjectIDOK(); ok {
			values[i] = id.Hex()
		} else if b, ok := v.BooleanOK(); ok {
			values[i] = fmt.Sprint(b)
		} else if n, ok := v.AsInt64OK(); ok {
			values[i] = fmt.Sprint(n)
		} else {
			values[i] = v.String()
		}
	}
	return strings.Join(values, ", ")
}
