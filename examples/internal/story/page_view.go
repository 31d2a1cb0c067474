package story

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// This file decides what the page says. All of it is pure functions.

// scene is everything that the page's words depend on.
type scene struct {
	now      time.Time
	signedUp bool
	user     clerkUser
	inClerk  bool // false: deleted
	messages []fakeclerk.Message
	record   bson.Raw // nil: none
	records  int64
	mails    int
	changed  map[string]string // by row, as row.Changed

	next                          treatment
	kept                          map[string]*keptBack
	results                       map[string][]string
	visited, clerkDown, mongoDown bool
}

// clerkUser is a user as the page needs her, in Clerk's API or in a webhook.
type clerkUser struct {
	ID        string `json:"id"`
	First     string `json:"first_name"`
	Last      string `json:"last_name"`
	Banned    bool   `json:"banned"`
	UpdatedAt int64  `json:"updated_at"` // milliseconds
	Emails    []struct {
		Address string `json:"email_address"`
	} `json:"email_addresses"`
}

func (u clerkUser) name() string { return strings.TrimSpace(u.First + " " + u.Last) }

func (u clerkUser) email() string {
	if len(u.Emails) == 0 {
		return ""
	}
	return u.Emails[0].Address
}

// contentOf returns the user that a webhook is about.
func contentOf(m fakeclerk.Message) clerkUser {
	var event struct{ Data clerkUser }
	_ = json.Unmarshal(m.Body, &event) // the zero user is nobody
	return event.Data
}

// view is what the browser gets.
type view struct {
	Status     string          `json:"status"` // nobody, in or out
	Headline   string          `json:"headline"`
	Why        string          `json:"why"`
	Hint       string          `json:"hint"`
	Press      string          `json:"press"` // the action that the hint names
	Clerk      []row           `json:"clerk"`
	ClerkNote  string          `json:"clerkNote"`
	Record     []row           `json:"record"`
	RecordNote string          `json:"recordNote"`
	Document   string          `json:"document"`
	Deliveries []delivery      `json:"deliveries"`
	Pressed    map[string]bool `json:"pressed"`  // by action: toggles
	Disabled   map[string]bool `json:"disabled"` // by action
	Ban        string          `json:"ban"`      // the button's text
	Facts      []string        `json:"facts"`
	Lines      []line          `json:"lines"`
}

// row is one field of the user or of the record.
type row struct {
	Key     string `json:"key"`
	Label   string `json:"label"`
	Value   string `json:"value"`
	Owner   string `json:"owner,omitempty"`   // app: the app's own
	Changed string `json:"changed,omitempty"` // by the last change of the record: "new" or "changed"
	Clerk   string `json:"clerk,omitempty"`   // what Clerk says, if that differs
}

// delivery is one webhook.
type delivery struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Content string `json:"content"`
	State   string `json:"state"` // way, arrived, lost, late or failed
	Text    string `json:"text"`
	Button  string `json:"button"`
}

// line is one thing that happened.
type line struct {
	Number int    `json:"number"`
	At     string `json:"at"`
	Tone   tone   `json:"tone"`
	Text   string `json:"text"`
}

type tone string

const (
	toneDo   tone = "do" // somebody did something
	toneGood tone = "good"
	toneBad  tone = "bad"
)

func (s scene) view() view {
	v := view{
		Clerk: s.clerkRows(), ClerkNote: s.clerkNote(), Record: s.recordRows(), RecordNote: s.recordNote(), Ban: "Ban",
		Deliveries: s.deliveries(), Facts: s.facts(),
		Pressed:  map[string]bool{"clerk": s.clerkDown, "mongo": s.mongoDown},
		Disabled: map[string]bool{"visit": !s.signedUp},
	}
	v.Status, v.Headline, v.Why = s.verdict()
	v.Hint, v.Press = s.hint()
	for _, t := range []treatment{dropped, doubled, delayed, reorders} {
		v.Pressed[string(t)] = s.next == t
	}
	for _, action := range []string{"rename", "ban", "delete"} {
		v.Disabled[action] = !s.inClerk
	}
	if s.user.Banned {
		v.Ban = "Unban"
	}
	if s.record != nil {
		text, _ := bson.MarshalExtJSONIndent(s.record, false, false, "", "  ")
		v.Document = string(text)
	}
	return v
}

const clock = "15:04:05.000"

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (s scene) clerkRows() []row {
	if !s.inClerk {
		return nil
	}
	return []row{
		{Key: "name", Label: "Name", Value: s.user.name()},
		{Key: "email", Label: "E-mail", Value: s.user.email()},
		{Key: "banned", Label: "Banned", Value: yesNo(s.user.Banned)},
		{Key: "version", Label: "Last change", Value: time.UnixMilli(s.user.UpdatedAt).Format(clock)},
	}
}

func (s scene) clerkNote() string {
	switch {
	case !s.signedUp:
		return "Nobody has signed up yet."
	case !s.inClerk:
		return "The account is deleted."
	}
	return ""
}

func (s scene) recordNote() string {
	switch {
	case !s.signedUp:
		return "No record yet. A sign-up will make one."
	case s.record == nil:
		return "No record."
	}
	return ""
}

// rowsOf returns the fields of a record that the page shows.
func rowsOf(doc bson.Raw) []row {
	if doc == nil {
		return nil
	}
	at := func(name string) (string, bool) {
		t, ok := doc.Lookup(name).TimeOK()
		return t.Local().Format(clock), ok
	}
	version, _ := at("clerkUpdatedAt")
	deleted, ok := at("deletedAt")
	if !ok {
		deleted = "no"
	} else {
		deleted = "at " + deleted
	}
	banned, _ := doc.Lookup("banned").BooleanOK()
	return []row{
		{Key: "name", Label: "Name", Value: field(doc, "name")},
		{Key: "email", Label: "E-mail", Value: field(doc, "email")},
		{Key: "banned", Label: "Banned", Value: yesNo(banned)},
		{Key: "version", Label: "Last change", Value: version},
		{Key: "deleted", Label: "Deleted", Value: deleted},
		{Key: "role", Label: "Role", Value: field(doc, "role"), Owner: "app"},
	}
}

// recordRows says of each field whether it changed last, and what Clerk says if it differs.
func (s scene) recordRows() []row {
	rows, want := rowsOf(s.record), s.clerkRows()
	for i := range rows {
		r := &rows[i]
		r.Changed = s.changed[r.Key]
		for _, w := range want {
			if w.Key == r.Key && w.Value != r.Value && w.Value != "" {
				r.Clerk = w.Value
			}
		}
		if r.Key == "deleted" && r.Value == "no" && !s.inClerk {
			r.Clerk = "yes"
		}
	}
	return rows
}

// changedRows says which rows differ between two states of a record, as row.Changed.
func changedRows(before, now bson.Raw) map[string]string {
	if bytes.Equal(before, now) {
		return nil
	}
	changed := make(map[string]string)
	old := rowsOf(before)
	for i, r := range rowsOf(now) {
		if old == nil {
			changed[r.Key] = "new"
		} else if old[i].Value != r.Value {
			changed[r.Key] = "changed"
		}
	}
	return changed
}

// verdict says whether the record is in step with Clerk, and why not.
func (s scene) verdict() (status, headline, why string) {
	const out = "Not yet in step"
	if !s.signedUp {
		return "nobody", "Nobody yet", "There is nothing to keep in step."
	}
	if s.record == nil {
		if !s.inClerk {
			return "in", "In step", "Clerk has no such user any more, and MongoDB has no record."
		}
		return "out", out, "Clerk has the user, MongoDB has no record."
	}
	var differ []string
	for _, r := range s.recordRows() {
		if r.Clerk != "" {
			differ = append(differ, strings.ToLower(r.Label))
		}
	}
	switch {
	case len(differ) == 0 && !s.inClerk:
		return "in", "In step", "Clerk deleted the user, and the record is marked deleted."
	case len(differ) == 0:
		return "in", "In step", "The record says what Clerk says."
	case !s.inClerk:
		return "out", out, "Clerk deleted the user. The record does not know."
	case len(differ) > 1: // the time of the last change goes without saying
		differ = slices.DeleteFunc(differ, func(label string) bool { return label == "last change" })
	}
	return "out", out, "The record still has the old " + strings.Join(differ, " and the old ") + "."
}

// hint says what to try next, and which button that is.
func (s scene) hint() (text, press string) {
	status, _, _ := s.verdict()
	switch {
	case status == "nobody":
		return "Press “Sign up” and watch the three boxes.", "signup"
	case status == "out":
		return s.hintOut()
	case s.next != ordinary && !s.inClerk:
		return "Now press “Sign up” and see what becomes of the webhook.", "signup"
	case s.next != ordinary:
		return "Now change the user: press “Rename” and see what becomes of the webhook.", "rename"
	case !s.inClerk:
		return "A deleted user never comes back: press “Send again” beside user.created, and the record stays deleted.", "send"
	case s.clerkDown || s.mongoDown:
		return "Change the user during the outage: press “Rename”.", "rename"
	case len(s.messages) == 1 && s.messages[0].State == fakeclerk.Delivered:
		return "The webhook made the record. Now lose one: press “Drop”, then “Rename”.", "drop"
	}
	return "It has converged. Make it harder: delay or reorder a webhook, break Clerk or MongoDB, delete the user.", ""
}

// hintOut is the hint while the record is not in step.
func (s scene) hintOut() (text, press string) {
	state := "lost"
	for _, d := range s.deliveries() {
		if d.State != "arrived" {
			state = d.State
			break
		}
	}
	switch {
	case s.mongoDown:
		return "Nothing can be written without MongoDB. Press “MongoDB down” again to end the outage: Clerk repeats the webhook.", "mongo"
	case state == "way":
		return "The webhook is on its way.", ""
	case s.clerkDown && (s.visited || !s.inClerk):
		return "clerksync could not ask Clerk. Press “Clerk down” again to end the outage.", "clerk"
	case !s.inClerk:
		return "A visit never deletes a record, but “Reconcile” asks Clerk about all of them. Press it.", "reconcile"
	case s.visited:
		return "That visit did not reach Clerk, and the next one asks only after a pause. Press “Reconcile”.", "reconcile"
	case state == "late":
		return "The webhook is late. A visit does not need it: press “Visit”.", "visit"
	case state == "failed":
		return "The webhook failed, and Clerk will repeat it. No need to wait: press “Visit”.", "visit"
	}
	return "The webhook is lost. Press “Visit”: the user opens your app, and clerksync asks Clerk first.", "visit"
}

// facts are the counts below the record.
func (s scene) facts() []string {
	if !s.signedUp {
		return nil
	}
	return []string{fmt.Sprintf("Records of this user: %d", s.records), fmt.Sprintf("Welcome mails sent: %d", s.mails)}
}

// deliveries lists the webhooks about the user, newest first.
func (s scene) deliveries() []delivery {
	list := make([]delivery, 0, len(s.messages))
	for _, m := range slices.Backward(s.messages) {
		list = append(list, s.delivery(m))
	}
	return list
}

func (s scene) delivery(m fakeclerk.Message) delivery {
	d := delivery{ID: m.ID, Type: m.Type, Button: "Send again"}
	u := contentOf(m)
	d.Content = u.name()
	if u.Banned {
		d.Content += ", banned"
	}
	switch k := s.kept[m.ID]; {
	case k != nil && k.how == delayed:
		d.State, d.Button = "late", "Deliver now"
		d.Text = "late: arrives in " + pause(k.due.Sub(s.now))
	case k != nil:
		d.State, d.Button = "late", "Deliver now"
		d.Text = "waits until the next one has gone"
	case m.State == fakeclerk.Dropped:
		d.State, d.Text = "lost", "lost on its way"
	case m.State == fakeclerk.Delivered:
		d.State, d.Text = "arrived", arrived(s.results[m.ID])
	case len(m.Attempts) > 0 && !m.Next.IsZero() && m.Attempts[len(m.Attempts)-1].Status/100 != 2:
		d.State, d.Button = "failed", "Deliver now"
		d.Text = fmt.Sprintf("failed: Clerk tries again in %s", pause(m.Next.Sub(s.now)))
	default:
		d.State, d.Text = "way", "on its way"
	}
	return d
}

// arrived says how often a webhook has arrived, and what the last three times did.
func arrived(results []string) string {
	latest := strings.Join(results[max(0, len(results)-3):], "; then ")
	switch len(results) {
	case 0:
		return "arrived"
	case 1:
		return "arrived: " + latest
	}
	return fmt.Sprintf("arrived %d times: %s", len(results), latest)
}

func seconds(d time.Duration) int { return int(math.Ceil(max(0, d.Seconds()))) }

func pause(d time.Duration) string {
	if d > time.Minute {
		return fmt.Sprintf("%d min", (seconds(d)+59)/60)
	}
	return fmt.Sprintf("%d s", seconds(d))
}

// outcomeText says what a webhook or a refresh did to the record.
func outcomeText(o clerksync.Observation) string {
	var problem *clerksync.Problem
	if errors.As(o.Err, &problem) {
		return fmt.Sprintf("your app answered %d (%s)", problem.Status, problem.Code)
	}
	switch o.Outcome {
	case clerksync.Created:
		return "record created"
	case clerksync.Updated:
		return "record updated"
	case clerksync.Unchanged:
		return "record already in step"
	case clerksync.Stale:
		return "older than the record, ignored"
	case clerksync.Deactivated:
		if o.EventType == "user.deleted" {
			return "record marked deleted"
		}
		return "the user is deleted, ignored"
	}
	return "nothing to do"
}

func visitText(o clerksync.Observation) string {
	var problem *clerksync.Problem
	switch {
	case errors.As(o.Err, &problem) && problem.RetryAfter > 0:
		return fmt.Sprintf("refused with %d (%s), try again in %d s", problem.Status, problem.Code, seconds(problem.RetryAfter))
	case errors.As(o.Err, &problem):
		return fmt.Sprintf("refused with %d (%s)", problem.Status, problem.Code)
	case o.Outcome != 0:
		return "your app asked Clerk first: " + outcomeText(o)
	case o.Source == clerksync.SourceCache:
		return "answered with the record from your app's memory"
	}
	return "answered with the record as it is in MongoDB"
}

// toneOf is good also for a refusal: a banned user has to be refused.
func toneOf(o clerksync.Observation) tone {
	var problem *clerksync.Problem
	if errors.As(o.Err, &problem) && problem.Status >= 500 {
		return toneBad
	}
	return toneGood
}

// reportText says what a reconcile did.
func reportText(r clerksync.Report) string {
	var done []string
	for _, did := range []struct {
		count int
		what  string
	}{
		{r.Created.Count, "created"}, {r.Updated.Count, "updated"}, {r.Deactivated.Count, "marked deleted"},
	} {
		if did.count > 0 {
			done = append(done, fmt.Sprintf("%s %s", plural(did.count, "record"), did.what))
		}
	}
	if done == nil {
		return "all records were in step already"
	}
	return strings.Join(done, ", ")
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
