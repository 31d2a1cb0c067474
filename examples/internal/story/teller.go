package story

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

const chapterTimeout = 30 * time.Second

// tell tells the chapters and returns how many checks failed. The error means that a chapter could
// not be told.
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
		if err != nil && !errors.Is(err, errCheckFailed) {
			return failed, fmt.Errorf("chapter %d, %s: %w", i+1, c.title, err)
		}
	}
	return failed, nil
}

// teller tells one chapter and checks what it tells.
type teller struct {
	*demo
	ctx    context.Context
	failed int
}

// errCheckFailed ends a chapter that cannot go on after a failed check.
var errCheckFailed = errors.New("a check failed")

// holds prints a check and counts it if it failed.
func (t *teller) holds(ok bool, format string, args ...any) {
	t.out.check(ok, format, args...)
	if !ok {
		t.failed++
	}
}

// equal checks that got is want.
func (t *teller) equal(what string, got, want any) {
	if got == want {
		t.holds(true, "%s: %v", what, got)
	} else {
		t.holds(false, "%s: %v, want %v", what, got, want)
	}
}

// settle waits until the app has answered the webhooks that were sent.
func (t *teller) settle() error { return t.clerk.Settle(t.ctx) }

// release delivers held messages in this order.
func (t *teller) release(messageIDs ...string) error {
	for _, id := range messageIDs {
		if err := errors.Join(t.webhooks.Release(id), t.settle()); err != nil {
			return err
		}
	}
	return nil
}

// visit makes a request as the user, and checks the status and the answer: the user's name, or the
// code of a refused request.
func (t *teller) visit(clerkID string, status int, want string) error {
	got, body, err := t.get(t.ctx, "/api/me", t.clerk.SessionToken(clerkID))
	if err != nil {
		return err
	}
	var answer struct{ Name, Code string }
	_ = json.Unmarshal(body, &answer) // without JSON both stay empty, and the check fails
	t.equal("GET /api/me", fmt.Sprint(got, " ", answer.Name+answer.Code), fmt.Sprint(status, " ", want))
	return nil
}

// welcomed checks that the user has got one welcome mail, once the record says so.
func (t *teller) welcomed(clerkID string) error {
	if err := t.mails.await(t.ctx, clerkID); err != nil {
		return err
	}
	t.equal("welcome mails", t.mails.sent(clerkID), 1)
	return nil
}

// userCalls returns how often the app called Clerk for a user in this chapter.
func (t *teller) userCalls() int { return t.clerk.Calls("GET /v1/users/{id}") }

// deliveries checks the answers to the webhooks about a user. For one that was never sent it checks
// the state.
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

// noRecord checks that the user does not have a record.
func (t *teller) noRecord(clerkID string) error {
	n, err := t.users.CountDocuments(t.ctx, bson.D{{Key: "clerkId", Value: clerkID}})
	if err != nil {
		return err
	}
	t.equal("records", n, int64(0))
	return nil
}

// oneRecord checks that the user has exactly one record, with these values. The error is
// errCheckFailed if there is not exactly one.
func (t *teller) oneRecord(clerkID, want string, paths ...string) (bson.Raw, error) {
	n, err := t.users.CountDocuments(t.ctx, bson.D{{Key: "clerkId", Value: clerkID}})
	if err != nil {
		return nil, err
	}
	doc, err := t.record(t.ctx, clerkID)
	if err != nil {
		return nil, err
	}
	if n != 1 || doc == nil {
		t.equal("records", n, int64(1))
		return nil, errCheckFailed
	}
	t.equal("one record", fields(doc, paths...), want)
	return doc, nil
}

// changed checks what a field was and what it is now.
func (t *teller) changed(path string, before, now bson.Raw, was, is string) {
	gotWas, gotIs := field(before, path), field(now, path)
	if gotWas == was && gotIs == is {
		t.holds(true, "%s: %s → %s", path, gotWas, t.out.highlight(gotIs))
	} else {
		t.holds(false, "%s: %s → %s, want %s → %s", path, gotWas, gotIs, was, is)
	}
}

// unchanged checks that the record is the same as before, byte for byte.
func (t *teller) unchanged(clerkID string, before bson.Raw) error {
	now, err := t.record(t.ctx, clerkID)
	if err != nil {
		return err
	}
	t.holds(bytes.Equal(now, before), "the record is unchanged, byte for byte")
	return nil
}

// sameVersion checks that the record has Clerk's version.
func (t *teller) sameVersion(clerkID string, doc bson.Raw) {
	var user struct {
		UpdatedAt int64 `json:"updated_at"`
	}
	object, _ := t.clerk.User(clerkID)
	_ = json.Unmarshal(object, &user)
	at, ok := doc.Lookup("clerkUpdatedAt").TimeOK()
	t.holds(ok && at.UnixMilli() == user.UpdatedAt, "clerkUpdatedAt is Clerk's updated_at")
}

// fields returns the values at these dotted paths, as one text.
func fields(doc bson.Raw, paths ...string) string {
	values := make([]string, len(paths))
	for i, path := range paths {
		values[i] = field(doc, path)
	}
	return strings.Join(values, ", ")
}

func field(doc bson.Raw, path string) string {
	v, err := doc.LookupErr(strings.Split(path, ".")...)
	if err != nil {
		return "(none)"
	}
	if s, ok := v.StringValueOK(); ok {
		return s
	}
	if id, ok := v.ObjectIDOK(); ok {
		return id.Hex()
	}
	if n, ok := v.AsInt64OK(); ok {
		return fmt.Sprint(n)
	}
	return v.String()
}
