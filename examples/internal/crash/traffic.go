package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// traffic changes users in Clerk, visits the app, and edits the app's own fields in the database.
type traffic struct {
	clerk   *fakeclerk.Server
	ledger  *ledger
	fleet   *fleet
	courier *courier
	users   *mongo.Collection
	client  *http.Client
	target  int // about how many users exist at a time
	tokens  tokens
	// How many more users may sign up or leave. Each kill allows some more. Each such user leaves
	// a record for good, and the embedded database reads all records at each step.
	churn atomic.Int64
	// How many of these are wanted at once, because a kill waits for a job.
	urgent atomic.Int64

	mu   sync.Mutex
	live []string
	gone []string
	made int
}

// backlog is how many webhooks may wait before changes in Clerk pause. The run looks for losses,
// and does not measure load.
const backlog = 40

// change signs users up, changes and deletes them in Clerk until ctx is done.
func (t *traffic) change(ctx context.Context, rng *rand.Rand) error {
	for range t.target {
		t.signUp()
	}
	banned := map[string]bool{}
	for pause(ctx, time.Duration(rng.Int64N(int64(30*time.Millisecond)))) == nil {
		if t.courier.pending.Load() > backlog {
			continue
		}
		id := t.live[rng.IntN(len(t.live))] // only this goroutine changes live
		var err error
		n := rng.IntN(100)
		if t.urgent.Load() > 0 && t.churn.Load() > 0 {
			t.urgent.Add(-1)
			n = 86 + rng.IntN(14)
		}
		switch {
		case n < 70:
			err = t.revise(id, banned[id])
		case n < 80:
			banned[id] = !banned[id]
			err = t.revise(id, banned[id])
		case n < 86:
			err = t.clerk.SignIn(id)
		case t.churn.Add(-1) < 0:
			t.churn.Add(1)
		case n < 92 && len(t.live) > 1 || len(t.live) > t.target+t.target/2:
			err = t.leave(id)
		default:
			t.signUp()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *traffic) signUp() {
	t.mu.Lock()
	t.made++
	id := fmt.Sprintf("user_crash%05d", t.made)
	t.mu.Unlock()
	t.ledger.signUp(id)
	lastName, email := namesOf(id, 1)
	t.clerk.CreateUser(fakeclerk.NewUser{ID: id, FirstName: "Ada", LastName: lastName, Email: email})
	t.ledger.signedUp(id)
	t.mu.Lock()
	t.live = append(t.live, id)
	t.mu.Unlock()
}

// revise changes a user's names and ban.
func (t *traffic) revise(id string, banned bool) error {
	lastName, email := namesOf(id, t.ledger.revise(id, banned))
	return t.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) {
		u.LastName, u.Banned = clerk.String(lastName), banned
		u.EmailAddresses[0].EmailAddress = email
	})
}

func (t *traffic) leave(id string) error {
	t.mu.Lock()
	for i, other := range t.live {
		if other == id {
			t.live[i] = t.live[len(t.live)-1]
			t.live = t.live[:len(t.live)-1]
			break
		}
	}
	t.gone = append(t.gone, id)
	t.mu.Unlock()
	t.ledger.leave(id)
	return t.clerk.DeleteUser(id)
}

// visitor picks who visits: mostly an existing user, often a new one, sometimes a deleted one.
func (t *traffic) visitor(rng *rand.Rand) (id string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	from, lately := t.live, 5
	if len(t.gone) > 0 && rng.IntN(5) == 0 {
		from, lately = t.gone, 10
	}
	if len(from) == 0 {
		return "", false
	}
	if rng.IntN(3) == 0 {
		return from[len(from)-1-rng.IntN(min(lately, len(from)))], true
	}
	return from[rng.IntN(len(from))], true
}

// visit sends visitors to random processes until ctx is done.
func (t *traffic) visit(ctx context.Context, rng *rand.Rand) error {
	for pause(ctx, time.Duration(rng.Int64N(int64(30*time.Millisecond)))) == nil {
		id, ok := t.visitor(rng)
		if !ok {
			continue
		}
		if _, _, err := t.call(ctx, id, t.fleet.slots[rng.IntN(len(t.fleet.slots))].target()); err != nil {
			return err
		}
	}
	return nil
}

// call makes one visit. Status 0 means that there was no answer. The error is a violation.
func (t *traffic) call(ctx context.Context, id string, to target) (status int, body []byte, err error) {
	if to.url == "" {
		return 0, nil, nil
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, to.url+"/api/me", nil)
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+t.tokens.of(t.clerk, id))
	v := t.ledger.visit(id, to.process)
	resp, err := t.client.Do(r)
	if err == nil {
		defer func() { _ = resp.Body.Close() }()
		body, err = io.ReadAll(resp.Body)
	}
	if err != nil {
		if ctx.Err() == nil {
			t.ledger.cutOff()
		}
		return 0, nil, nil // expected of a process that dies
	}
	return resp.StatusCode, body, t.ledger.answered(v, resp.StatusCode, body, to.process.alive())
}

// tokens reuses session tokens for a third of their minute, because signing one costs time.
type tokens struct {
	mu     sync.Mutex
	byUser map[string]token
}

type token struct {
	value string
	until time.Time
}

func (t *tokens) of(clerk *fakeclerk.Server, id string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if have := t.byUser[id]; time.Now().Before(have.until) {
		return have.value
	}
	if t.byUser == nil {
		t.byUser = map[string]token{}
	}
	fresh := token{clerk.SessionToken(id), time.Now().Add(20 * time.Second)}
	t.byUser[id] = fresh
	return fresh.value
}

// edit writes app-owned fields until ctx is done, as the app's own code does. One goroutine makes
// all edits, so that each user's edits are in order.
func (t *traffic) edit(ctx context.Context, rng *rand.Rand) error {
	for pause(ctx, time.Duration(rng.Int64N(int64(100*time.Millisecond)))) == nil {
		id, ok := t.visitor(rng)
		if !ok {
			continue
		}
		n := t.ledger.begin(id)
		// An edit that timed out may reach the database late. The guard keeps it from overwriting a
		// later one.
		notLater := bson.D{{Key: "$not", Value: bson.D{{Key: "$gte", Value: n}}}}
		filter := bson.D{{Key: "clerkId", Value: id}, {Key: "edit", Value: notLater}}
		call, cancel := context.WithTimeout(ctx, 10*time.Second)
		res, err := t.users.UpdateOne(call, filter, bson.D{{Key: "$set", Value: edit(n)}})
		cancel()
		if err == nil && res.MatchedCount == 1 {
			t.ledger.done(id, n)
		}
	}
	return nil
}
