package clerksync_test

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// macOf is Svix's signature, made without svix.
func macOf(secret, id, timestamp string, body []byte) string {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		panic(err)
	}
	h := hmac.New(sha256.New, key)
	fmt.Fprintf(h, "%s.%s.%s", id, timestamp, body)
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

var nowText = strconv.FormatInt(t0.Unix(), 10)

func deflated(b []byte) []byte {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.DefaultCompression)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

// hostileDelivery is a delivery, and what the handler makes of it.
type hostileDelivery struct {
	body   []byte                       // defaults to an ordinary user.created
	change func(*http.Request)          // of the signed delivery
	status int                          // 204, 400 or 422
	record func(*clerksync.User) string // on 204: what to look at in the record
	want   string                       // what record returns
}

// setHeader replaces a header's values.
func setHeader(name string, values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

// TestHostileWebhooks covers what TestWebhookAnswers does not: bodies that are made to confuse, and
// signatures that are made to look right.
func TestHostileWebhooks(t *testing.T) {
	t.Parallel()
	for _, group := range []map[string]hostileDelivery{
		hostileNesting(), hostileNumbers(), hostileNames(), hostileText(), hostileCompression(), hostileSignatures(),
	} {
		for name, tt := range group {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				tt.run(t)
			})
		}
	}
}

func (tt hostileDelivery) run(t *testing.T) {
	store := memstore.New()
	s := newTestSyncer(t, func(c *clerksync.Config) { c.Store, c.Logger = store, slog.New(slog.DiscardHandler) })
	var events []clerksync.Event
	h, err := s.WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{testSecret},
		OnEvent: func(_ context.Context, e clerksync.Event) error { events = append(events, e); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	body := tt.body
	if body == nil {
		body = createdEvent
	}
	r := signed(t, "/", testSecret, t0, body)
	if tt.change != nil {
		tt.change(r)
	}
	code := map[int]string{400: "invalid_signature", 422: "invalid_event"}[tt.status]
	checkProblem(t, answerOf(h, r), tt.status, code)
	if tt.status != 204 {
		if len(events) != 0 {
			t.Errorf("OnEvent got %+v", events)
		}
		for range store.Undeleted(t.Context()) {
			t.Error("something was written")
		}
		return
	}
	if len(events) != 1 || events[0].ID != "msg_1" {
		t.Errorf("OnEvent got %+v", events)
	}
	u, err := store.User(t.Context(), "user_1")
	if err != nil {
		t.Fatal(err)
	}
	if tt.record != nil && tt.record(u) != tt.want {
		t.Errorf("the record has %q, want %q", tt.record(u), tt.want)
	}
	if _, err := store.User(t.Context(), "user_x"); !errors.Is(err, clerksync.ErrNotFound) {
		t.Error("there is a second record")
	}
}

// userWith is a user.created of user_1 with more members in its JSON.
func userWith(more string) []byte {
	return envelope("user.created", `{"id":"user_1","updated_at":1`+more+`}`)
}

func hostileNesting() map[string]hostileDelivery {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	objects := strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000)
	metadata := func(value string) []byte { return userWith(`,"public_metadata":` + value) }
	return map[string]hostileDelivery{
		"objects nested deeply":         {body: metadata(objects), status: 422},
		"arrays that are never closed":  {body: metadata(strings.Repeat("[", 1<<19)), status: 422},
		"an envelope that is all depth": {body: bytes.Repeat([]byte("["), 1<<20), status: 422},
		"nested as deep as JSON may be": {body: metadata(nested(9_990)), status: 204},
		"an unknown field nested":       {body: userWith(`,"x":` + nested(20_000)), status: 422},
		"100,000 fields":                {body: userWith(strings.Repeat(`,"x":1`, 100_000)), status: 204},
	}
}

func hostileNumbers() map[string]hostileDelivery {
	version := func(number string) []byte {
		return envelope("user.updated", `{"id":"user_1","updated_at":`+number+`}`)
	}
	event := func(typ, timestamp string) []byte {
		return []byte(`{"type":"` + typ + `","timestamp":` + timestamp + `,"data":{"id":"user_1"}}`)
	}
	clerkUpdatedAt := func(u *clerksync.User) string { return u.ClerkUpdatedAt.String() }
	syncedAt := func(u *clerksync.User) string { return u.SyncedAt.String() }
	deletedAt := func(u *clerksync.User) string { return u.DeletedAt.String() }
	zero, now := time.Time{}.String(), t0.String()
	const most, least, tooMuch = "9223372036854775807", "-9223372036854775808", "9223372036854775808"
	return map[string]hostileDelivery{
		"version 1e400":                {body: version("1e400"), status: 422},
		"version 2^63":                 {body: version(tooMuch), status: 422},
		"version 2^63-1":               {body: version(most), status: 422},
		"version -2^63":                {body: version(least), status: 204, record: clerkUpdatedAt, want: zero},
		"version negative":             {body: version("-1"), status: 204, record: clerkUpdatedAt, want: zero},
		"version a float":              {body: version("1.0"), status: 422},
		"version in e notation":        {body: version("1e3"), status: 422},
		"version of 500,000 digits":    {body: version(strings.Repeat("9", 500_000)), status: 422},
		"version a number in quotes":   {body: version(`"1"`), status: 422},
		"timestamp 1e400":              {body: event("user.created", "1e400"), status: 204},
		"timestamp 2^63":               {body: event("user.created", tooMuch), status: 204},
		"timestamp 2^63-1":             {body: event("user.created", most), status: 204, record: syncedAt, want: now},
		"timestamp negative, deletion": {body: event("user.deleted", "-1"), status: 204, record: deletedAt, want: now},
		"timestamp 2^63-1, deletion":   {body: event("user.deleted", most), status: 204, record: deletedAt, want: now},
	}
}

// hostileNames has names that come twice. The last one counts, in the record and in its id alike.
func hostileNames() map[string]hostileDelivery {
	email := func(u *clerksync.User) string { return u.Email }
	birthday := func(u *clerksync.User) string { return u.Profile.Birthday }
	isActive := func(u *clerksync.User) string { return fmt.Sprint(u.IsActive) }
	decisive := func(u *clerksync.User) string { return fmt.Sprint(u.ClerkID, u.Banned, u.Role, u.IsActive) }
	created := func(data string) []byte { return envelope("user.created", data) }
	return map[string]hostileDelivery{
		"id twice":                  {body: created(`{"id":"user_x","id":"user_1"}`), status: 204},
		"id and ID":                 {body: created(`{"id":"user_x","ID":"user_1"}`), status: 204},
		"id, and an operator as ID": {body: created(`{"id":"user_1","ID":{"$ne":null}}`), status: 422},
		"id twice in a deletion":    {body: envelope("user.deleted", `{"id":"user_x","iD":"user_1"}`), status: 204},
		"two types": {
			body:   []byte(`{"type":"user.deleted","TYPE":"user.created","data":{"id":"user_1"}}`),
			status: 204, record: isActive, want: "true",
		},
		"data twice": {
			body:   []byte(`{"type":"user.created","data":{"id":"user_x"},"data":{"id":"user_1"}}`),
			status: 204,
		},
		"metadata's name in other case": {
			body:   userWith(`,"public_metadata":{"Birthday":"x","birthday":"1815"}`),
			status: 204, record: birthday, want: "1815",
		},
		"metadata that names the record's fields": {
			body: userWith(`,"public_metadata":
				{"id":"user_x","banned":true,"role":"ADMIN","isActive":false,"clerkId":"user_x"}`),
			status: 204, record: decisive, want: "user_1falseSTUDENTtrue",
		},
		"an address whose id differs from the primary one's in case": {
			body: userWith(`,"primary_email_address_id":"i","email_addresses":[
				{"id":"I","email_address":"victim@example.com"},{"id":"i","email_address":"own@example.com"}]`),
			status: 204, record: email, want: "own@example.com",
		},
	}
}

func hostileText() map[string]hostileDelivery {
	firstName := func(u *clerksync.User) string { return u.Profile.FirstName }
	email := func(u *clerksync.User) string { return u.Email }
	address := func(value string) []byte {
		return userWith(`,"primary_email_address_id":"i","email_addresses":[{"id":"i","email_address":` + value + `}]`)
	}
	created := func(data string) []byte { return envelope("user.created", data) }
	return map[string]hostileDelivery{
		"a BOM":         {body: append([]byte("\ufeff"), createdEvent...), status: 422},
		"UTF-16":        {body: []byte("{\x00\"\x00t\x00y\x00p\x00e\x00"), status: 422},
		"NUL at an end": {body: append(bytes.Clone(createdEvent), 0), status: 422},
		"NUL in a text": {body: userWith(",\"first_name\":\"A\x00B\""), status: 422},
		"NUL in a text, escaped": {
			body:   userWith(`,"first_name":"A\u0000B"`),
			status: 204, record: firstName, want: "A\x00B",
		},
		"half a surrogate pair": {
			body:   userWith(`,"first_name":"A\ud800"`),
			status: 204, record: firstName, want: "A\ufffd",
		},
		"invalid UTF-8 in the id": {body: created("{\"id\":\"user_1\xff\"}"), status: 422},
		"invalid UTF-8 in the e-mail": {
			body:   address("\"a\xff@example.com\""),
			status: 204, record: email, want: "a\ufffd@example.com",
		},
		"line breaks in the id":      {body: created(`{"id":"user_1\nlevel=ERROR"}`), status: 422},
		"an operator for a text":     {body: userWith(`,"first_name":{"$gt":""}`), status: 422},
		"an operator for the e-mail": {body: address(`{"$ne":null}`), status: 422},
		"an operator for the flag":   {body: userWith(`,"banned":{"$ne":true}`), status: 422},
		"an operator in the e-mail": {
			body:   address(`"{\"$ne\":null}"`),
			status: 204, record: email, want: `{"$ne":null}`,
		},
	}
}

// hostileCompression has packed bodies. The handler never unpacks one: the signature is over the
// bytes of the body.
func hostileCompression() map[string]hostileDelivery {
	gzip, deflate := gzipped(createdEvent), deflated(createdEvent)
	brotli := append([]byte{0x0b, byte(len(createdEvent) / 2)}, createdEvent...)
	// signedUnpacked replaces the signature with the one over the unpacked bytes.
	signedUnpacked := func(encoding string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Content-Encoding", encoding)
			r.Header.Set("svix-signature", "v1,"+macOf(testSecret, "msg_1", nowText, createdEvent))
		}
	}
	return map[string]hostileDelivery{
		"gzip, signed unpacked":    {body: gzip, change: signedUnpacked("gzip"), status: 400},
		"deflate, signed unpacked": {body: deflate, change: signedUnpacked("deflate"), status: 400},
		"br, signed unpacked":      {body: brotli, change: signedUnpacked("br"), status: 400},
		"gzip, signed packed":      {body: gzip, change: setHeader("Content-Encoding", "gzip"), status: 422},
		"deflate, signed packed":   {body: deflate, change: setHeader("Content-Encoding", "deflate"), status: 422},
		"br, signed packed":        {body: brotli, change: setHeader("Content-Encoding", "br"), status: 422},
		"a bomb in gzip": {
			body: gzipped(make([]byte, 16<<20)), change: setHeader("Content-Encoding", "gzip"), status: 422,
		},
		"plain, labelled gzip": {change: setHeader("Content-Encoding", "gzip"), status: 204},
	}
}

func hostileSignatures() map[string]hostileDelivery {
	signature := func(values ...string) func(*http.Request) { return setHeader("svix-signature", values...) }
	timestamp := func(value string) func(*http.Request) { return setHeader("svix-timestamp", value) }
	genuine := macOf(testSecret, "msg_1", nowText, createdEvent)
	v1 := func(mac string) func(*http.Request) { return signature("v1," + mac) }
	signing := func(id, timestamp string, body []byte) func(*http.Request) {
		return v1(macOf(testSecret, id, timestamp, body))
	}
	wrapped := "whsec_" + base64.StdEncoding.EncodeToString([]byte(testSecret))
	manyWrong := strings.Repeat("v1,AAAA ", 100_000)
	manyEmpty := append(make([]string, 100_000), "v1,"+genuine)
	return map[string]hostileDelivery{
		"cut off":                    {change: v1(genuine[:len(genuine)-1]), status: 400},
		"cut off by its padding":     {change: v1(strings.TrimRight(genuine, "=")), status: 400},
		"with more at its end":       {change: v1(genuine + "A"), status: 400},
		"in other case":              {change: v1(strings.ToLower(genuine)), status: 400},
		"in hexadecimal":             {change: v1(fmt.Sprintf("%x", genuine)), status: 400},
		"of the asymmetric version":  {change: signature("v1a," + genuine), status: 400},
		"without a version":          {change: signature(genuine), status: 400},
		"empty entries alone":        {change: signature(" ,  , v1, v1 v1,, "), status: 400},
		"empty entries around":       {change: signature("  , v1, v1," + genuine + "  "), status: 204},
		"with commas for spaces":     {change: signature("v1,AAAA,v1," + genuine), status: 204},
		"in a second header":         {change: signature("v1,AAAA", "v1,"+genuine), status: 204},
		"of v1a, after its version":  {change: signature("v1,v1a," + genuine), status: 400},
		"after two versions":         {change: signature("v1a v1," + genuine), status: 204},
		"after a wrong one":          {change: signature("v1,AAAA," + genuine), status: 400},
		"of another body":            {change: signing("msg_1", nowText, []byte("{}")), status: 400},
		"of another id":              {change: signing("msg_2", nowText, createdEvent), status: 400},
		"of another time":            {change: signing("msg_1", "1"+nowText, createdEvent), status: 400},
		"of an empty secret":         {change: v1(macOf("whsec_", "msg_1", nowText, createdEvent)), status: 400},
		"of the secret's text":       {change: v1(macOf(wrapped, "msg_1", nowText, createdEvent)), status: 400},
		"100,000 wrong ones":         {change: signature(manyWrong), status: 400},
		"a right one at the end":     {change: signature(manyWrong + "v1," + genuine), status: 204},
		"100,000 headers":            {change: signature(manyEmpty...), status: 400},
		"the time with a sign":       {change: timestamp("+" + nowText), status: 204}, // the same second
		"the time negative":          {change: timestamp("-" + nowText), status: 400},
		"the time the least integer": {change: timestamp(strconv.FormatInt(math.MinInt64, 10)), status: 400},
		"the time in hexadecimal":    {change: timestamp(fmt.Sprintf("0x%x", t0.Unix())), status: 400},
		"the time with a fraction":   {change: timestamp(nowText + ".0"), status: 400},
		// OnEvent gets the id that was signed, whichever headers name it.
		"an id beside the specification's": {change: func(r *http.Request) {
			standardHeaders(r)
			r.Header.Set("svix-id", "msg_evil")
		}, status: 204},
		"both families of headers, one forged": {change: func(r *http.Request) {
			for _, name := range []string{"id", "timestamp", "signature"} {
				r.Header.Set("webhook-"+name, r.Header.Get("svix-"+name))
			}
			r.Header.Set("svix-signature", "v1,AAAA")
		}, status: 400},
		"a dot moved from the id to the time": {change: func(r *http.Request) {
			r.Header.Set("svix-id", "msg_1."+nowText)
			r.Header.Set("svix-timestamp", "")
		}, status: 400},
	}
}

// A repeated delivery changes nothing, and its id tells OnEvent that it is the same one.
func TestReplayedWebhook(t *testing.T) {
	t.Parallel()
	clock := fakeclerk.NewClock(t0)
	var events []clerksync.Event
	s := newTestSyncer(t, func(c *clerksync.Config) { clerksync.SetClock(c, eagerClock{clock}) })
	h, err := s.WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{testSecret},
		OnEvent: func(_ context.Context, e clerksync.Event) error { events = append(events, e); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	deliver := func() int { return answerOf(h, signed(t, "/", testSecret, t0, createdEvent)).status }
	for i, want := range []clerksync.Outcome{clerksync.Created, clerksync.Unchanged, clerksync.Unchanged} {
		got := deliver()
		if got != 204 || len(events) != i+1 || events[i].ID != "msg_1" || events[i].Result.Outcome != want {
			t.Errorf("delivery %d: status %d, events %+v; want 204 and %v", i, got, events, want)
		}
		clock.Advance(time.Minute)
	}
	clock.Advance(10 * time.Minute)
	if got := deliver(); got != 400 || len(events) != 3 {
		t.Errorf("replayed after %v: status %d", clock.Now().Sub(t0), got)
	}
}

// Deliveries that are cheap to send are cheap to refuse. Not parallel: the test counts the
// process's allocations and CPU time.
func TestHostileWebhooksCostLittle(t *testing.T) {
	s := newTestSyncer(t, func(c *clerksync.Config) { c.Logger = slog.New(slog.DiscardHandler) })
	h, err := s.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret, otherSecret}})
	if err != nil {
		t.Fatal(err)
	}
	fill := func(unit string) string { return strings.Repeat(unit, (1<<20-500)/len(unit)) }
	user := func(more string) []byte { return envelope("user.created", `{"id":"user_1",`+more+`}`) }
	endless := &endlessBody{}
	requests := map[string]*http.Request{"a body without an end": httptest.NewRequest(http.MethodPost, "/", endless)}
	for name, body := range map[string][]byte{
		"depth":               []byte(fill("[")),
		"depth of objects":    []byte(fill(`{"data":`)),
		"many addresses":      user(`"email_addresses":[{}` + fill(`,{}`) + `]`),
		"many null addresses": user(`"email_addresses":[null` + fill(`,null`) + `]`),
		"many names":          user(`"public_metadata":{"":1` + fill(`,"":1`) + `}`),
		"a long name":         user(`"first_name":"` + fill("x") + `"`),
		"escapes":             user(`"first_name":"` + fill(`\ud83d`) + `"`),
		"many digits":         user(`"updated_at":` + fill("9")),
		"many signatures":     user(`"updated_at":1`),
	} {
		requests[name] = signed(t, "/", testSecret, t0, body)
	}
	requests["many signatures"].Header.Set("svix-signature", fill("v1,A "))
	for name, r := range requests {
		before, start := allocated(), cpuTime(t)
		h.ServeHTTP(httptest.NewRecorder(), r)
		if used := cpuTime(t) - start; used > 10*time.Second { // milliseconds, unless something is quadratic
			t.Errorf("%s: used %v of CPU time", name, used)
		}
		if got := allocated() - before; got > 100<<20 {
			t.Errorf("%s: allocated %d MB for a body of 1 MB", name, got>>20)
		}
	}
	if n := endless.read.Load(); n > 2<<20 {
		t.Errorf("read %d bytes of a body without an end", n)
	}
}

// The server's own limit on headers applies before the handler runs.
func TestFloodOfHeaders(t *testing.T) {
	t.Parallel()
	h, err := newTestSyncer(t, nil).WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret}})
	if err != nil {
		t.Fatal(err)
	}
	url := serve(t, h)
	for name, tt := range map[string]struct {
		size, status int
	}{"half of the limit": {1 << 19, 400}, "over the limit": {2 << 20, 431}} {
		r := signed(t, url, testSecret, t0, []byte("{}"))
		r.Header.Set("svix-signature", strings.Repeat("v1,AAAA ", tt.size/8))
		if a := send(t, r); a.status != tt.status {
			t.Errorf("%s: status %d, want %d", name, a.status, tt.status)
		}
	}
}

// deadlines records the deadlines that a handler sets.
type deadlines struct {
	*httptest.ResponseRecorder
	read []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error { d.read = append(d.read, t); return nil }

// A slow sender has as long as a delivery may take, even on a server without timeouts.
func TestSlowDeliveryHasADeadline(t *testing.T) {
	t.Parallel()
	h, err := newTestSyncer(t, nil).WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret}})
	if err != nil {
		t.Fatal(err)
	}
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	set := -1
	body := &endlessBody{wait: func() error { set = len(w.read); return io.ErrUnexpectedEOF }}
	start := time.Now()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", body))
	latest := time.Now().Add(clerksync.DeliveryTimeout)
	if set != 1 || w.read[0].Before(start) || w.read[0].After(latest) {
		t.Errorf("deadlines %v, %d of them before the first read", w.read, set)
	}
	checkProblem(t, answer{w.Code, w.Header(), w.Body.Bytes()}, 400, "unreadable_body")
}

// FuzzWebhookDelivery compares the handler's answer with one computed here without svix. In the
// texts of the headers a line break starts another value. In the signatures, MAC stands for the
// right signature, and OTHER for the one by another secret.
func FuzzWebhookDelivery(f *testing.F) {
	seedDeliveries(f)
	store := &faultyStore{}
	var events []clerksync.Event
	s := newTestSyncer(f, func(c *clerksync.Config) { c.Store, c.Logger = store, slog.New(slog.DiscardHandler) })
	h, err := s.WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{testSecret},
		OnEvent: func(_ context.Context, e clerksync.Event) error { events = append(events, e); return nil },
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte, ids, timestamps, signatures, encoding string, names uint8) {
		store.Store = memstore.New()
		d := newFuzzedDelivery(body, ids, timestamps, signatures, encoding, names)
		post := func() int {
			events = nil
			a := answerOf(h, d.request())
			d.check(t, a, events)
			return a.status
		}
		code := post()
		if code == 204 && events[0].Result.User != nil {
			checkRecord(t, events[0].Result.User)
		}
		if code != 204 {
			for stamp := range store.Undeleted(t.Context()) {
				t.Fatalf("a %d wrote %+v", code, stamp)
			}
		}
		if again := post(); again != code {
			t.Fatalf("status %d, and %d for the same delivery again", code, again)
		}
		if code == 204 {
			if o := events[0].Result.Outcome; o == clerksync.Created || o == clerksync.Updated {
				t.Fatalf("the same delivery again: %v", o)
			}
		}
	})
}

func seedDeliveries(f *testing.F) {
	good := string(createdEvent)
	for _, body := range []string{
		good, "", "{", "null", "x.y", documentedUser, "\x1f\x8b\x08\x00", "\ufeff" + good,
		string(envelope("user.deleted", `{"id":"user_1"}`)),
		string(envelope("session.created", `{"user":{"id":"user_1"}}`)),
		string(envelope("user.created", `{"id":"user_1","ID":"user_2","updated_at":1e400}`)),
		string(envelope("user.updated", `{"id":{"$ne":null}}`)),
	} {
		f.Add([]byte(body), "msg_1", nowText, "v1,MAC", "", uint8(0))
	}
	for _, signatures := range []string{
		"v1,OTHER", "v1a,MAC", "v2,MAC", "MAC", "v1,", "v1", "", " ", "v1,MAC,x", "v1a,x v1,AAAA v1,MAC",
		"v1,x\nv1,MAC", "v1,MAC\nv1,x", "V1,MAC", "v1, MAC", "\tv1,MAC", "v1\nMAC v1\nx", "v1\nx v1\nMAC",
		"v1,x, v1,MAC", "v1,x,v1,MAC", "v1a\nx v1\nMAC", "v1,x,MAC", "v1,OTHER, v1,MAC", "v1\n\n,\nMAC",
	} {
		f.Add([]byte(good), "msg_1", nowText, signatures, "gzip", uint8(1))
	}
	seconds := func(offset int64) string { return strconv.FormatInt(t0.Unix()+offset, 10) }
	for _, at := range []string{
		"", "0", "-1", "+" + nowText, nowText + " ", "0" + nowText, nowText + "\n1", "1\n" + nowText, "1e9",
		"9223372036854775807", "-9223372036854775808", seconds(-300), seconds(-301), seconds(300), seconds(301),
	} {
		f.Add([]byte(good), "msg_1", at, "v1,MAC", "br", uint8(2))
		f.Add([]byte(good), "", at, "v1,MAC", "deflate", uint8(3))
	}
	for _, id := range []string{"", "msg_1." + nowText, "msg\x00", "\nmsg_1", "msg_1\nmsg_2", "msg_1\nmsg_1", "msg_1, msg_1", "msg_1,msg_2", ","} {
		f.Add([]byte(good), id, nowText, "v1,MAC", "identity", uint8(0))
	}
}

// fuzzedDelivery is a delivery, and whether its signature is right.
type fuzzedDelivery struct {
	body    []byte
	header  http.Header
	id      string // the one value of its header
	genuine bool
}

func newFuzzedDelivery(body []byte, ids, timestamps, signatures, encoding string, names uint8) *fuzzedDelivery {
	id, oneID := onlyElement(ids)
	timestamp, oneTime := onlyElement(timestamps)
	d := &fuzzedDelivery{body: body, header: make(http.Header), id: id}
	sent, err := strconv.ParseInt(timestamp, 10, 64)
	signedAt := strconv.FormatInt(sent, 10)
	right := macOf(testSecret, d.id, signedAt, body)
	signatures = strings.ReplaceAll(signatures, "MAC", right)
	signatures = strings.ReplaceAll(signatures, "OTHER", macOf(otherSecret, d.id, signedAt, body))
	d.set("Content-Encoding", encoding)
	d.setFamilies(names, ids, timestamps, signatures)
	inTime := err == nil && sent >= t0.Unix()-300 && sent <= t0.Unix()+300
	bounded := strings.Count(ids, "\n") < 100 && strings.Count(timestamps, "\n") < 100 && strings.Count(signatures, "\n") < 100
	d.genuine = bounded && oneID && oneTime && inTime && hasSignature(signatures, right)
	return d
}

func (d *fuzzedDelivery) set(name, values string) {
	d.header[http.CanonicalHeaderKey(name)] = strings.Split(values, "\n")
}

// setFamilies sets one family of headers, and forges the other family in part or in full if that
// must not count.
func (d *fuzzedDelivery) setFamilies(names uint8, ids, timestamps, signatures string) {
	family := []string{"svix-", "webhook-"}[names%2]
	d.set(family+"id", ids)
	d.set(family+"timestamp", timestamps)
	d.set(family+"signature", signatures)
	switch forge := names / 2 % 3; {
	case forge == 1 && family == "webhook-":
		d.set("svix-id", "msg_evil")
		d.set("svix-signature", "v1,"+macOf(testSecret, "msg_evil", nowText, nil))
	case forge == 2 && family == "svix-": // counts only if it is looked at first
		d.set("webhook-id", "msg_evil")
		d.set("webhook-timestamp", nowText)
		d.set("webhook-signature", "v1,AAAA")
	}
}

// hasSignature reports whether one of the entries is the right signature in version 1.
func hasSignature(lines, right string) bool {
	parts := strings.FieldsFunc(lines, func(r rune) bool { return strings.ContainsRune("\n, \t", r) })
	for i := range parts {
		if parts[i] == right && i > 0 && parts[i-1] == "v1" {
			return true
		}
	}
	return false
}

// onlyElement returns the one value that a header's lines have, however often they have it.
func onlyElement(lines string) (value string, ok bool) {
	found := make(map[string]bool)
	for _, element := range strings.FieldsFunc(lines, func(r rune) bool { return r == '\n' || r == ',' }) {
		if value = strings.Trim(element, " \t"); value != "" {
			found[value] = true
		}
	}
	for value := range found {
		return value, len(found) == 1
	}
	return "", false
}

func (d *fuzzedDelivery) request() *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(d.body))
	r.Header = d.header.Clone()
	return r
}

// check compares the answer, and the events that OnEvent got, with what they must be.
func (d *fuzzedDelivery) check(t *testing.T, a answer, events []clerksync.Event) {
	t.Helper()
	switch {
	case a.status == 413 && len(d.body) > 1<<20:
	case !d.genuine:
		checkProblem(t, a, 400, "invalid_signature")
	case a.status == 422:
		checkProblem(t, a, 422, "invalid_event")
	default:
		checkProblem(t, a, 204, "")
		if len(events) != 1 || events[0].ID != d.id {
			t.Fatalf("OnEvent got %+v, and %q was signed", events, d.id)
		}
	}
	if a.status != 204 && len(events) != 0 {
		t.Fatalf("OnEvent got %+v beside a %d", events, a.status)
	}
}
