package story

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// chapter is one part of the story. Each has its own users, and does not depend on the others.
type chapter struct {
	title string
	tell  func(*teller) error
}

var chapters = []chapter{
	{"Sign-up: a webhook creates the record", signUp},
	{"Update: Clerk's fields change, the app's own stay", update},
	{"A lost webhook: the first visit creates the record", lostWebhook},
	{"50 first requests at once: one call to Clerk, one record, one welcome", crowded},
	{"Webhooks out of order, each delivered twice", disorder},
	{"Deletion is final", deletion},
}

const crowdSize = 50

func signUp(t *teller) error {
	t.out.say("Ada signs up in Clerk.")
	ada := t.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", LastName: "Byron", Email: "ada@example.com"})
	if err := t.settle(); err != nil {
		return err
	}
	t.deliveries(ada, "user.created 204")
	if _, err := t.oneRecord(ada, "Ada Byron, ada@example.com, STUDENT", "name", "email", "role"); err != nil {
		return err
	}
	if err := t.welcomed(ada); err != nil {
		return err
	}
	if err := t.visit(ada, http.StatusOK, "Ada Byron"); err != nil {
		return err
	}
	t.equal("calls to Clerk", t.userCalls(), 0)
	return nil
}

func update(t *teller) error {
	grace := t.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Grace", LastName: "Murray", Email: "grace@example.com"})
	if err := t.settle(); err != nil {
		return err
	}
	t.out.say("The app sets Grace's role and credits. She changes her name in Clerk.")
	_, err := t.users.UpdateOne(t.ctx, bson.D{{Key: "clerkId", Value: grace}}, bson.D{{Key: "$set", Value: bson.D{
		{Key: "role", Value: "TEACHER"},
		{Key: "location.city", Value: "Arlington"},
		{Key: "credits", Value: 42},
	}}})
	if err != nil {
		return err
	}
	before, err := t.record(t.ctx, grace)
	if err != nil {
		return err
	}
	err = t.clerk.UpdateUser(grace, func(u *fakeclerk.UserObject) { u.LastName = clerk.String("Hopper") })
	if err != nil {
		return err
	}
	if err := t.settle(); err != nil {
		return err
	}
	t.deliveries(grace, "user.created 204, user.updated 204")
	doc, err := t.oneRecord(grace, "grace@example.com", "email")
	if err != nil {
		return err
	}
	t.changed("name", before, doc, "Grace Murray", "Grace Hopper")
	t.equal("the app's role, city and credits", fields(doc, "role", "location.city", "credits"), "TEACHER, Arlington, 42")
	t.sameVersion(grace, doc)
	return t.visit(grace, http.StatusOK, "Grace Hopper")
}

func lostWebhook(t *teller) error {
	t.webhooks.SetPolicy(func(m fakeclerk.Message) fakeclerk.Delivery {
		return fakeclerk.Delivery{Drop: m.Type == "user.created"}
	})
	defer t.webhooks.SetPolicy(nil)
	alan := t.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Alan", LastName: "Turing", Email: "alan@example.com"})
	t.out.say("Alan signs up. The webhook is lost. Then he visits, twice.")
	if err := t.settle(); err != nil {
		return err
	}
	t.deliveries(alan, "user.created dropped")
	if err := t.noRecord(alan); err != nil {
		return err
	}
	if err := t.visit(alan, http.StatusOK, "Alan Turing"); err != nil {
		return err
	}
	doc, err := t.oneRecord(alan, "Alan Turing, alan@example.com", "name", "email")
	if err != nil {
		return err
	}
	t.sameVersion(alan, doc)
	if err := t.visit(alan, http.StatusOK, "Alan Turing"); err != nil {
		return err
	}
	t.equal("calls to Clerk", t.userCalls(), 1)
	return nil
}

func crowded(t *teller) error {
	t.webhooks.SetPolicy(func(fakeclerk.Message) fakeclerk.Delivery { return fakeclerk.Delivery{Drop: true} })
	defer t.webhooks.SetPolicy(nil)
	emmy := t.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Emmy", LastName: "Noether", Email: "emmy@example.com"})
	t.out.say("Emmy signs up. The webhook is lost. Her app sends %d requests at once.", crowdSize)

	// Clerk answers only after all visits have arrived, so that none of them comes too late to
	// share the call.
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
			case <-time.After(6 * time.Second): // a visit waits up to 8 s for Clerk
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
			status, body, err := t.get(t.ctx, "/api/me", token)
			if err == nil {
				err = json.Unmarshal(body, &record)
			}
			answers[i] = answer{status, record.ID, err}
		})
	}
	visits.Wait()
	took := time.Since(start)

	doc, err := t.oneRecord(emmy, "Emmy Noether", "name")
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
	t.holds(!late.Load(), "all requests arrived before Clerk answered")
	t.equal(fmt.Sprintf("answered 200 with this record, in %v", took.Round(time.Millisecond)), served, crowdSize)
	t.equal("calls to Clerk", t.userCalls(), 1)
	return t.welcomed(emmy)
}

func disorder(t *teller) error {
	t.webhooks.SetPolicy(func(fakeclerk.Message) fakeclerk.Delivery { return fakeclerk.Delivery{Copies: 2} })
	defer t.webhooks.SetPolicy(nil)
	t.webhooks.Hold()
	defer func() { _ = t.webhooks.Release() }() // it fails only for an unknown message

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
	t.out.say("Kurt signs up and changes his name twice. The last webhook arrives first.")
	if err := t.release(second); err != nil {
		return err
	}
	before, err := t.oneRecord(kurt, "Kurt Gödel", "name")
	if err != nil {
		return err
	}
	t.sameVersion(kurt, before)
	if err := t.mails.await(t.ctx, kurt); err != nil {
		return err
	}
	if before, err = t.record(t.ctx, kurt); err != nil {
		return err
	}

	t.out.say("Then the other two arrive.")
	if err := t.release(created, first); err != nil {
		return err
	}
	t.deliveries(kurt, "user.created 204 204, user.updated 204 204, user.updated 204 204")
	if err := t.unchanged(kurt, before); err != nil {
		return err
	}
	t.equal("calls to Clerk", t.userCalls(), 0)
	return t.welcomed(kurt)
}

func deletion(t *teller) error {
	if err := t.deletedUser(); err != nil {
		return err
	}
	return t.deletedFirst()
}

// deletedUser tells of a user who deletes his account, and of a user.created that is delivered
// again afterwards.
func (t *teller) deletedUser() error {
	t.out.say("Évariste signs up.")
	id := t.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Évariste", LastName: "Galois", Email: "evariste@example.com"})
	if err := t.settle(); err != nil {
		return err
	}
	before, err := t.oneRecord(id, "Évariste Galois", "name")
	if err != nil {
		return err
	}
	if err := t.mails.await(t.ctx, id); err != nil {
		return err
	}
	t.out.say("Évariste deletes his account. His session token is still valid.")
	if err := t.clerk.DeleteUser(id); err != nil {
		return err
	}
	if err := t.settle(); err != nil {
		return err
	}
	tombstone, err := t.record(t.ctx, id)
	if err != nil {
		return err
	}
	_, err = tombstone.LookupErr("deletedAt")
	t.holds(err == nil, "deletedAt is set")
	t.changed("isActive", before, tombstone, "true", "false")
	if err := t.visit(id, http.StatusForbidden, "user_inactive"); err != nil {
		return err
	}

	t.out.say("His user.created is delivered again.")
	if err := t.webhooks.Replay(t.messages(id)[0].ID); err != nil {
		return err
	}
	if err := t.settle(); err != nil {
		return err
	}
	t.deliveries(id, "user.created 204 204, user.deleted 204")
	if err := t.unchanged(id, tombstone); err != nil {
		return err
	}
	if err := t.visit(id, http.StatusForbidden, "user_inactive"); err != nil {
		return err
	}
	t.equal("calls to Clerk", t.userCalls(), 0)
	return t.welcomed(id)
}

// deletedFirst tells of a user.deleted that arrives before the user.created.
func (t *teller) deletedFirst() error {
	t.out.say("Sophie signs up and deletes her account. The deletion arrives first.")
	t.webhooks.Hold()
	defer func() { _ = t.webhooks.Release() }() // it fails only for an unknown message
	id := t.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Sophie", LastName: "Germain", Email: "sophie@example.com"})
	if err := t.clerk.DeleteUser(id); err != nil {
		return err
	}
	messages := t.messages(id)
	if len(messages) != 2 {
		return fmt.Errorf("%d messages, not 2", len(messages))
	}
	if err := t.release(messages[1].ID); err != nil {
		return err
	}
	tombstone, err := t.oneRecord(id, id, "clerkId")
	if err != nil {
		return err
	}
	text := tombstone.String()
	t.holds(!strings.Contains(text, "Sophie") && !strings.Contains(text, "sophie@"), "the tombstone has no personal data")
	if err := t.release(messages[0].ID); err != nil {
		return err
	}
	t.deliveries(id, "user.created 204, user.deleted 204")
	if err := t.unchanged(id, tombstone); err != nil {
		return err
	}
	return t.visit(id, http.StatusForbidden, "user_inactive")
}
