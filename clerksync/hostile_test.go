package clerksync_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
	"github.com/clerksync/clerksync-go/clerksync/internal/retry"
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

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func deflated(b []byte) []byte {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.DefaultCompression)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

// TestHostileWebhooks has what TestWebhookAnswers, the table of the answers, does not:
// bodies that are made to confuse, and signatures that are made to look right.
func TestHostileWebhooks(t *testing.T) {
	t.Parallel()
	plain := envelope("user.created", userJSON("user_1", t0))
	user := func(more string) []byte {
		return envelope("user.created", `{"id":"user_1","updated_at":1`+more+`}`)
	}
	set := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
	}
	// A signature over plain, beside the bytes that are sent.
	signedPlain := func(encoding string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Content-Encoding", encoding)
			r.Header.Set("svix-signature", "v1,"+macOf(testSecret, "msg_1", nowText, plain))
		}
	}
	genuine := macOf(testSecret, "msg_1", nowText, plain)
	brotli := append([]byte{0x0b, byte(len(plain) / 2)}, plain...)
	for name, tt := range map[string]struct {
		body   []byte
		change func(*http.Request)
		status int
		wantID string                       // of the record; "user_1" where the status is 204
		record func(*clerksync.User) string // what of it must be
		want   string                       // that
		event  func(*testing.T, clerksync.Event)
	}{
		// Depth and size.
		"objects nested deeply":          {body: user(`,"public_metadata":` + strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000)), status: 422},
		"arrays that are never closed":   {body: user(`,"public_metadata":` + strings.Repeat("[", 1<<19)), status: 422},
		"an envelope that is all depth":  {body: bytes.Repeat([]byte("["), 1<<20), status: 422},
		"nested as deep as JSON may be":  {body: user(`,"public_metadata":` + strings.Repeat("[", 9_990) + strings.Repeat("]", 9_990)), status: 204},
		"nesting beside what is unknown": {body: user(`,"x":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)), status: 422},
		"100,000 fields":                 {body: user(strings.Repeat(`,"x":1`, 100_000)), status: 204},

		// Numbers.
		"version 1e400":              {body: envelope("user.updated", `{"id":"user_1","updated_at":1e400}`), status: 422},
		"version 2^63":               {body: envelope("user.updated", `{"id":"user_1","updated_at":9223372036854775808}`), status: 422},
		"version 2^63-1":             {body: envelope("user.updated", `{"id":"user_1","updated_at":9223372036854775807}`), status: 422},
		"version -2^63":              {body: envelope("user.updated", `{"id":"user_1","updated_at":-9223372036854775808}`), status: 204, record: func(u *clerksync.User) string { return u.ClerkUpdatedAt.String() }, want: time.Time{}.String()},
		"version negative":           {body: envelope("user.updated", `{"id":"user_1","updated_at":-1}`), status: 204, record: func(u *clerksync.User) string { return u.ClerkUpdatedAt.String() }, want: time.Time{}.String()},
		"version a float":            {body: envelope("user.updated", `{"id":"user_1","updated_at":1.0}`), status: 422},
		"version in e notation":      {body: envelope("user.updated", `{"id":"user_1","updated_at":1e3}`), status: 422},
		"version of 500,000 digits":  {body: envelope("user.updated", `{"id":"user_1","updated_at":`+strings.Repeat("9", 500_000)+`}`), status: 422},
		"version a number in quotes": {body: envelope("user.updated", `{"id":"user_1","updated_at":"1"}`), status: 422},
		"timestamp 1e400":            {body: []byte(`{"type":"user.created","timestamp":1e400,"data":{"id":"user_1"}}`), status: 204},
		"timestamp 2^63":             {body: []byte(`{"type":"user.created","timestamp":9223372036854775808,"data":{"id":"user_1"}}`), status: 204},
		"timestamp 2^63-1": {body: []byte(`{"type":"user.created","timestamp":9223372036854775807,"data":{"id":"user_1"}}`), status: 204,
			record: func(u *clerksync.User) string { return u.SyncedAt.String() }, want: t0.String()},
		"timestamp negative": {body: []byte(`{"type":"user.deleted","timestamp":-1,"data":{"id":"user_1"}}`), status: 204,
			record: func(u *clerksync.User) string { return u.DeletedAt.String() }, want: t0.String()},
		"timestamp 2^63-1 of a deletion": {body: []byte(`{"type":"user.deleted","timestamp":9223372036854775807,"data":{"id":"user_1"}}`), status: 204,
			record: func(u *clerksync.User) string { return u.DeletedAt.String() }, want: t0.String()},

		// Keys that come twice: the last one counts, in the record and in its id alike.
		"id twice":                      {body: envelope("user.created", `{"id":"user_x","id":"user_1"}`), status: 204},
		"id and ID":                     {body: envelope("user.created", `{"id":"user_x","ID":"user_1"}`), status: 204},
		"id, and an operator as ID":     {body: envelope("user.created", `{"id":"user_1","ID":{"$ne":null}}`), status: 422},
		"id deleted twice":              {body: envelope("user.deleted", `{"id":"user_x","iD":"user_1"}`), status: 204},
		"two types":                     {body: []byte(`{"type":"user.deleted","TYPE":"user.created","data":{"id":"user_1"}}`), status: 204, record: func(u *clerksync.User) string { return fmt.Sprint(u.IsActive) }, want: "true"},
		"data twice":                    {body: []byte(`{"type":"user.created","data":{"id":"user_x"},"data":{"id":"user_1"}}`), status: 204},
		"metadata's name in other case": {body: user(`,"public_metadata":{"Birthday":"x","birthday":"1815"}`), status: 204, record: func(u *clerksync.User) string { return u.Profile.Birthday }, want: "1815"},
		"metadata that names the record's fields": {body: user(`,"public_metadata":{"id":"user_x","banned":true,"role":"ADMIN","isActive":false,"clerkId":"user_x"}`), status: 204,
			record: func(u *clerksync.User) string { return fmt.Sprint(u.ClerkID, u.Banned, u.Role, u.IsActive) }, want: "user_1falseSTUDENTtrue"},
		"a primary address that has the other's id": {body: user(`,"primary_email_address_id":"i","email_addresses":[{"id":"I","email_address":"victim@example.com"},{"id":"i","email_address":"own@example.com"}]`), status: 204,
			record: func(u *clerksync.User) string { return u.Email }, want: "own@example.com"},

		// Text.
		"a BOM":                       {body: append([]byte("\ufeff"), plain...), status: 422},
		"UTF-16":                      {body: []byte("{\x00\"\x00t\x00y\x00p\x00e\x00"), status: 422},
		"NUL in the body":             {body: append(bytes.Clone(plain), 0), status: 422},
		"NUL in a text":               {body: user(",\"first_name\":\"A\x00B\""), status: 422},
		"NUL in a text, escaped":      {body: user(`,"first_name":"A\u0000B"`), status: 204, record: func(u *clerksync.User) string { return u.Profile.FirstName }, want: "A\x00B"},
		"half a surrogate pair":       {body: user(`,"first_name":"A\ud800"`), status: 204, record: func(u *clerksync.User) string { return u.Profile.FirstName }, want: "A\ufffd"},
		"invalid UTF-8 in the id":     {body: envelope("user.created", "{\"id\":\"user_1\xff\"}"), status: 422},
		"invalid UTF-8 in the e-mail": {body: user(",\"primary_email_address_id\":\"i\",\"email_addresses\":[{\"id\":\"i\",\"email_address\":\"a\xff@example.com\"}]"), status: 204, record: func(u *clerksync.User) string { return u.Email }, want: "a\ufffd@example.com"},
		"line breaks in the id":       {body: envelope("user.created", `{"id":"user_1\nlevel=ERROR"}`), status: 422},
		"operators for text":          {body: user(`,"first_name":{"$gt":""}`), status: 422},
		"an operator for the e-mail":  {body: user(`,"primary_email_address_id":"i","email_addresses":[{"id":"i","email_address":{"$ne":null}}]`), status: 422},
		"an operator for the flag":    {body: user(`,"banned":{"$ne":true}`), status: 422},
		"an operator in the e-mail":   {body: user(`,"primary_email_address_id":"i","email_addresses":[{"id":"i","email_address":"{\"$ne\":null}"}]`), status: 204, record: func(u *clerksync.User) string { return u.Email }, want: `{"$ne":null}`},

		// Compression is never undone: what was signed are the bytes of the body.
		"gzip, signed unpacked":      {body: gzipped(plain), change: signedPlain("gzip"), status: 400},
		"deflate, signed unpacked":   {body: deflated(plain), change: signedPlain("deflate"), status: 400},
		"br, signed unpacked":        {body: brotli, change: signedPlain("br"), status: 400},
		"gzip, signed packed":        {body: gzipped(plain), change: set("Content-Encoding", "gzip"), status: 422},
		"deflate, signed packed":     {body: deflated(plain), change: set("Content-Encoding", "deflate"), status: 422},
		"br, signed packed":          {body: brotli, change: set("Content-Encoding", "br"), status: 422},
		"a bomb in gzip":             {body: gzipped(make([]byte, 16<<20)), change: set("Content-Encoding", "gzip"), status: 422},
		"said to be gzip, and plain": {body: plain, change: set("Content-Encoding", "gzip"), status: 204},

		// Signatures.
		"cut off":                            {body: plain, change: set("svix-signature", "v1,"+genuine[:len(genuine)-1]), status: 400},
		"cut off by its padding":             {body: plain, change: set("svix-signature", "v1,"+strings.TrimRight(genuine, "=")), status: 400},
		"with more at its end":               {body: plain, change: set("svix-signature", "v1,"+genuine+"A"), status: 400},
		"in other case":                      {body: plain, change: set("svix-signature", "v1,"+strings.ToLower(genuine)), status: 400},
		"in hexadecimal":                     {body: plain, change: set("svix-signature", fmt.Sprintf("v1,%x", genuine)), status: 400},
		"of the asymmetric version":          {body: plain, change: set("svix-signature", "v1a,"+genuine), status: 400},
		"without a version":                  {body: plain, change: set("svix-signature", genuine), status: 400},
		"empty entries alone":                {body: plain, change: set("svix-signature", " ,  , v1, v1 v1,, "), status: 400},
		"empty entries around":               {body: plain, change: set("svix-signature", "  , v1, v1,"+genuine+"  "), status: 204},
		"with commas for spaces":             {body: plain, change: set("svix-signature", "v1,AAAA,v1,"+genuine), status: 400},
		"in a second header":                 {body: plain, change: set("svix-signature", "v1,AAAA", "v1,"+genuine), status: 400},
		"of another body":                    {body: plain, change: set("svix-signature", "v1,"+macOf(testSecret, "msg_1", nowText, []byte("{}"))), status: 400},
		"of another id":                      {body: plain, change: set("svix-signature", "v1,"+macOf(testSecret, "msg_2", nowText, plain)), status: 400},
		"of another time":                    {body: plain, change: set("svix-signature", "v1,"+macOf(testSecret, "msg_1", "1"+nowText, plain)), status: 400},
		"of an empty secret":                 {body: plain, change: set("svix-signature", "v1,"+macOf("whsec_", "msg_1", nowText, plain)), status: 400},
		"of the secret's text":               {body: plain, change: set("svix-signature", "v1,"+macOf("whsec_"+base64.StdEncoding.EncodeToString([]byte(testSecret)), "msg_1", nowText, plain)), status: 400},
		"100,000 wrong ones":                 {body: plain, change: set("svix-signature", strings.Repeat("v1,AAAA ", 100_000)), status: 400},
		"100,000 wrong ones and a right one": {body: plain, change: set("svix-signature", strings.Repeat("v1,AAAA ", 100_000)+"v1,"+genuine), status: 204},
		"100,000 headers":                    {body: plain, change: set("svix-signature", append(make([]string, 100_000), "v1,"+genuine)...), status: 400},
		"the time with a sign":               {body: plain, change: set("svix-timestamp", "+"+nowText), status: 204}, // the same second, which is what is signed
		"the time negative":                  {body: plain, change: set("svix-timestamp", "-"+nowText), status: 400},
		"the time the least there is":        {body: plain, change: set("svix-timestamp", strconv.FormatInt(math.MinInt64, 10)), status: 400},
		"the time in hexadecimal":            {body: plain, change: set("svix-timestamp", fmt.Sprintf("0x%x", t0.Unix())), status: 400},
		"the time with a fraction":           {body: plain, change: set("svix-timestamp", nowText+".0"), status: 400},
		// The id that OnEvent gets is the one that was signed, whichever headers name it.
		"an id beside the specification's": {body: plain, change: func(r *http.Request) { standardHeaders(r); r.Header.Set("svix-id", "msg_evil") }, status: 204},
		"two families, one of them forged": {body: plain, change: func(r *http.Request) {
			for _, name := range []string{"id", "timestamp", "signature"} {
				r.Header.Set("webhook-"+name, r.Header.Get("svix-"+name))
			}
			r.Header.Set("svix-signature", "v1,AAAA")
		}, status: 400},
		"a dot moved from the id to the time": {body: plain, change: func(r *http.Request) {
			r.Header.Set("svix-id", "msg_1."+nowText)
			r.Header.Set("svix-timestamp", "")
		}, status: 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
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
			r := signed(t, "/", testSecret, t0, tt.body)
			if tt.change != nil {
				tt.change(r)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			code := map[int]string{400: "invalid_signature", 422: "invalid_event"}[tt.status]
			checkProblem(t, answer{w.Code, w.Header(), w.Body.Bytes()}, tt.status, code)
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
				t.Errorf("%q, want %q", tt.record(u), tt.want)
			}
			if _, err := store.User(t.Context(), "user_x"); !errors.Is(err, clerksync.ErrNotFound) {
				t.Error("there is a second record")
			}
		})
	}
}

// Sent again, a delivery changes nothing, and OnEvent is told by the id that it is the
// same one.
func TestReplayedWebhook(t *testing.T) {
	t.Parallel()
	clock := fakeclerk.NewClock(t0)
	var events []clerksync.Event
	h, err := newTestSyncer(t, func(c *clerksync.Config) { clerksync.SetClock(c, eagerClock{clock}) }).WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{testSecret},
		OnEvent: func(_ context.Context, e clerksync.Event) error { events = append(events, e); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	post := func(r *http.Request) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	delivery := func() *http.Request {
		return signed(t, "/", testSecret, t0, envelope("user.created", userJSON("user_1", t0)))
	}
	for i, want := range []clerksync.Outcome{clerksync.Created, clerksync.Unchanged, clerksync.Unchanged} {
		if got := post(delivery()); got != 204 || len(events) != i+1 || events[i].ID != "msg_1" || events[i].Result.Outcome != want {
			t.Errorf("delivery %d: %d, %+v; want 204 and %v", i, got, events, want)
		}
		clock.Advance(time.Minute)
	}
	clock.Advance(10 * time.Minute)
	if got := post(delivery()); got != 400 || len(events) != 3 {
		t.Errorf("replayed by somebody else, after %v: %d", clock.Now().Sub(t0), got)
	}
}

// What costs the sender little costs the app little. Not parallel: it counts the
// process's allocations.
func TestHostileWebhooksCostLittle(t *testing.T) {
	h, err := newTestSyncer(t, func(c *clerksync.Config) { c.Logger = slog.New(slog.DiscardHandler) }).
		WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret, otherSecret}})
	if err != nil {
		t.Fatal(err)
	}
	fill := func(unit string) string { return strings.Repeat(unit, (1<<20-500)/len(unit)) }
	user := func(more string) []byte { return envelope("user.created", `{"id":"user_1",`+more+`}`) }
	endless := &endlessBody{}
	for name, r := range map[string]*http.Request{
		"depth":               signed(t, "/", testSecret, t0, []byte(fill("["))),
		"depth of objects":    signed(t, "/", testSecret, t0, []byte(fill(`{"data":`))),
		"many addresses":      signed(t, "/", testSecret, t0, user(`"email_addresses":[{}`+fill(`,{}`)+`]`)),
		"many null addresses": signed(t, "/", testSecret, t0, user(`"email_addresses":[null`+fill(`,null`)+`]`)),
		"many names":          signed(t, "/", testSecret, t0, user(`"public_metadata":{"":1`+fill(`,"":1`)+`}`)),
		"a long name":         signed(t, "/", testSecret, t0, user(`"first_name":"`+fill("x")+`"`)),
		"escapes":             signed(t, "/", testSecret, t0, user(`"first_name":"`+fill(`\ud83d`)+`"`)),
		"many digits":         signed(t, "/", testSecret, t0, user(`"updated_at":`+fill("9"))),
		"many signatures": func() *http.Request {
			r := signed(t, "/", testSecret, t0, user(`"updated_at":1`))
			r.Header.Set("svix-signature", fill("v1,A "))
			return r
		}(),
		"a body without an end": httptest.NewRequest(http.MethodPost, "/", endless),
	} {
		before := allocated()
		start := cpuTime(t)
		h.ServeHTTP(httptest.NewRecorder(), r)
		if used := cpuTime(t) - start; used > 10*time.Second { // milliseconds, unless something is quadratic
			t.Errorf("%s: used %v of CPU time", name, used)
		}
		if got := allocated() - before; got > 100<<20 {
			t.Errorf("%s: allocated %d MB for a body of 1", name, got>>20)
		}
	}
	if n := endless.read.Load(); n > 2<<20 {
		t.Errorf("read %d bytes of a body without an end", n)
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// endlessBody goes on for ever; each Read calls wait, where it is set.
type endlessBody struct {
	read atomic.Int64
	wait func() error
}

func (b *endlessBody) Read(p []byte) (int, error) {
	if b.wait != nil {
		if err := b.wait(); err != nil {
			return 0, err
		}
		p = p[:1]
	}
	for i := range p {
		p[i] = ' '
	}
	b.read.Add(int64(len(p)))
	return len(p), nil
}

func (b *endlessBody) Close() error { return nil }

// A server's own limit on headers comes before the handler, as on any server of the app's.
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
			t.Errorf("%s: %d, want %d", name, a.status, tt.status)
		}
	}
}

// deadlines records the deadlines that a handler sets.
type deadlines struct {
	*httptest.ResponseRecorder
	read []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error { d.read = append(d.read, t); return nil }

// A sender that drips has as long as a delivery may take, on servers without timeouts
// of their own too.
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
	if set != 1 || w.read[0].Before(start) || w.read[0].After(time.Now().Add(clerksync.DeliveryTimeout)) {
		t.Errorf("deadlines %v, %d of them before the first read", w.read, set)
	}
	checkProblem(t, answer{w.Code, w.Header(), w.Body.Bytes()}, 400, "unreadable_body")
}

// roundTripper answers as it is told.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A Clerk, or whoever answers in its place, that never comes to an end.
func TestAnswersWithoutAnEnd(t *testing.T) {
	t.Parallel()
	read := func(s *clerksync.Syncer) error { _, err := s.User(t.Context(), "user_1"); return err }
	sync := func(s *clerksync.Syncer) error { _, err := s.Sync(t.Context(), "user_1"); return err }
	keys := func(s *clerksync.Syncer) error {
		_, err := s.Authenticate(bearing("Bearer " + testSigner().sign(sessionHeader, claimsJSON("user_1", ""))))
		return err
	}
	reconcile := func(s *clerksync.Syncer) error {
		_, err := s.Reconcile(t.Context(), clerksync.ReconcileOptions{})
		return err
	}
	for name, tt := range map[string]struct {
		ask  func(*clerksync.Syncer) error
		slow bool
		most int64 // bytes that are read in all
		took time.Duration
	}{
		"visit, fast":     {read, false, 17 << 20, time.Minute},
		"Sync, fast":      {sync, false, 17 << 20, time.Minute},
		"keys, fast":      {keys, false, 17 << 20, time.Minute},
		"visit, slow":     {read, true, 100, 2 * clerksync.CallTimeout},
		"Sync, slow":      {sync, true, 100, 2 * clerksync.CallTimeout},
		"keys, slow":      {keys, true, 100, 2 * clerksync.CallTimeout},
		"Reconcile, slow": {reconcile, true, 10_000, retry.GiveUpAfter + 2*clerkapi.BulkAttemptTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := fakeclerk.NewClock(t0)
			var read atomic.Int64
			s := newTestSyncer(t, func(c *clerksync.Config) {
				c.Logger = slog.New(slog.DiscardHandler)
				clerksync.SetClock(c, eagerClock{clock})
				c.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					body := &endlessBody{}
					if tt.slow { // a byte in a second
						body.wait = func() error {
							clock.Advance(time.Second)
							return r.Context().Err()
						}
					}
					return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: -1, Request: r,
						Body: struct {
							io.Reader
							io.Closer
						}{io.TeeReader(body, counter{&read}), body}}, nil
				})}
			})
			if err := tt.ask(s); !errors.Is(err, clerksync.ErrUnavailable) {
				t.Errorf("error is %v", err)
			}
			if n := read.Load(); n > tt.most {
				t.Errorf("read %d bytes", n)
			}
			if took := clock.Now().Sub(t0); took > tt.took {
				t.Errorf("it took %v", took)
			}
		})
	}
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) { c.n.Add(int64(len(p))); return len(p), nil }

// The limit is on what an answer becomes, not on what was sent.
func TestAnswerThatUnpacksToMuch(t *testing.T) {
	t.Parallel()
	bomb := gzipped([]byte(`{"id":"user_1","first_name":"` + strings.Repeat("x", 32<<20) + `"}`))
	if len(bomb) > 1<<20 {
		t.Fatalf("%d bytes are no bomb", len(bomb))
	}
	fx := newFixture(t, nil)
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		return &fakeclerk.Fault{Status: 200, Body: string(bomb), Header: http.Header{"Content-Encoding": {"gzip"}}}
	})
	refusedWith(t, fx.Syncer, "user_1", clerksync.ErrUnavailable)
}

// However long Clerk tells us to wait, no request waits for it and no client is told
// of more than a minute.
func TestHugeRetryAfter(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]struct {
		calls int
		retry time.Duration
	}{
		"60":    {1, time.Minute},
		"86400": {1, time.Minute},
		// What is no sane number of seconds is no advice.
		"86401":                         {4, 5 * time.Second},
		"9223372036854775807":           {4, 5 * time.Second},
		"99999999999999999999999999":    {4, 5 * time.Second},
		"-1":                            {4, 5 * time.Second},
		"1e9":                           {4, 5 * time.Second},
		"Fri, 31 Dec 9999 23:59:59 GMT": {4, 5 * time.Second},
		strings.Repeat("9", 100_000):    {4, 5 * time.Second},
		"30\u00a0":                      {4, 5 * time.Second},
	} {
		t.Run(value[:min(len(value), 30)], func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			fault := fakeclerk.ErrorFault(429, "too_many_requests")
			fault.Header.Set("Retry-After", value)
			fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return fault })
			_, err := fx.User(t.Context(), "user_1")
			var p *clerksync.Problem
			if !errors.As(err, &p) || p.Status != 503 || p.RetryAfter != want.retry || fx.lookups() != want.calls {
				t.Errorf("%v, Retry-After %v, after %d calls; want %+v", err, p.RetryAfter, fx.lookups(), want)
			}
			if waited := fx.clock.Now().Sub(t0); waited > clerkapi.RetryBudget {
				t.Errorf("waited %v", waited)
			}
		})
	}
	t.Run("Reconcile", func(t *testing.T) {
		t.Parallel()
		fx := newBulkFixture(t, nil)
		fault := fakeclerk.ErrorFault(429, "too_many_requests")
		fault.Header.Set("Retry-After", "86400")
		fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return fault })
		if _, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{}); !errors.Is(err, clerksync.ErrUnavailable) {
			t.Errorf("error is %v", err)
		}
		if waited := fx.clock.Now().Sub(t0); waited > 2*retry.GiveUpAfter {
			t.Errorf("waited %v", waited)
		}
	})
}

// Where a token says that its key is found, nobody looks.
func TestTokensThatNameTheirKey(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	var asked atomic.Int32
	evil := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "") // has the keys
	x5c := base64.StdEncoding.EncodeToString([]byte(testSigner().pem))
	kid := fx.clerk.InstanceID()
	for name, tt := range map[string]struct{ header, code string }{
		"jku":                 {`"kid":"` + kid + `","jku":"` + evil + `/jwks"`, "token_bad_signature"},
		"x5u":                 {`"kid":"` + kid + `","x5u":"` + evil + `/cert"`, "token_bad_signature"},
		"x5c":                 {`"kid":"` + kid + `","x5c":["` + x5c + `"]`, "token_malformed"}, // the parser wants a certificate
		"x5t":                 {`"kid":"` + kid + `","x5t":"AAAA","x5t#S256":"AAAA"`, "token_bad_signature"},
		"kid a URL":           {`"kid":"` + evil + `/jwks"`, "token_unknown_key"},
		"kid a path":          {`"kid":"../../../../dev/null"`, "token_unknown_key"},
		"kid an operator":     {`"kid":{"$ne":null}`, "token_malformed"},
		"kid an operator too": {`"kid":"{\"$ne\":null}"`, "token_unknown_key"},
		"kid SQL":             {`"kid":"' OR 1=1 --"`, "token_unknown_key"},
		"kid empty":           {`"kid":""`, "token_unknown_key"},
		"kid any":             {`"kid":"*"`, "token_unknown_key"},
		"kid with NUL":        {`"kid":"` + kid + `\u0000"`, "token_unknown_key"},
		"kid in other case":   {`"KID":"` + kid + `"`, "token_unknown_key"},
		"kid of 8 kB":         {`"kid":"` + strings.Repeat("k", 8<<10) + `"`, "token_unknown_key"},
		"kid of 1 MB":         {`"kid":"` + strings.Repeat("k", 1<<20) + `"`, "token_malformed"},
		"kid nested deeply":   {`"kid":"` + kid + `","x":` + strings.Repeat("[", 4000) + strings.Repeat("]", 4000), "token_bad_signature"},
		"b64 false":           {`"kid":"` + kid + `","b64":false`, "token_bad_signature"},
		"b64 false and crit":  {`"kid":"` + kid + `","b64":false,"crit":["b64"]`, "token_bad_signature"},
		"zip":                 {`"kid":"` + kid + `","zip":"DEF"`, "token_bad_signature"},
		"iss in the header":   {`"kid":"` + kid + `","iss":"` + evil + `"`, "token_bad_signature"},
	} {
		token := testSigner().sign(`{"alg":"RS256","typ":"JWT",`+tt.header+`}`, claimsJSON("user_1", `,"iss2":"`+evil+`"`))
		_, code := verdict(fx.Syncer, bearing("Bearer "+token))
		if code != tt.code {
			t.Errorf("%s: %q, want %q", name, code, tt.code)
		}
	}
	evilIssuer := strings.Replace(claimsJSON("user_1", ""), "https://clerk.example.com", evil, 1)
	fx.wantCode(t, testSigner().sign(`{"alg":"RS256","typ":"JWT","kid":"`+kid+`"}`, evilIssuer), "token_bad_signature")
	if asked.Load() != 0 {
		t.Errorf("%d requests to the attacker's server", asked.Load())
	}
	if n := fx.clerk.Calls(jwksRoute); n > 2 {
		t.Errorf("%d fetches of the keys", n)
	}
	if fx.logs.String() != "" {
		t.Errorf("it was logged: %.500s", fx.logs)
	}
}

// Claims that Clerk signed and that a user had a hand in.
func TestHostileClaims(t *testing.T) {
	t.Parallel()
	s := newTestSyncer(t, func(c *clerksync.Config) {
		c.Auth = clerksync.AuthConfig{JWTKey: testSigner().pem, CustomClaims: newCustomClaims}
	})
	claims := func(exp string) string {
		return `{"iss":"https://clerk.example.com","sub":"user_1","sid":"sess_1","exp":` + exp + `}`
	}
	for name, tt := range map[string]struct{ claims, code string }{
		"ordinary":                     {claimsJSON("user_1", ""), ""},
		"exp 1e400":                    {claims("1e400"), "token_malformed"},
		"exp 2^63":                     {claims("9223372036854775808"), "token_expired"},
		"exp 2^63-1":                   {claims("9223372036854775807"), "token_expired"}, // beyond what a time can be
		"exp -2^63":                    {claims("-9223372036854775808"), "token_expired"},
		"exp negative":                 {claims("-1"), "token_expired"},
		"exp a float":                  {claims("1772366460.5"), ""}, // RFC 7519 allows it
		"exp in e notation":            {claims("2e9"), ""},
		"exp in quotes":                {claims(`"1772366460"`), "token_malformed"},
		"exp an operator":              {claims(`{"$gt":0}`), "token_malformed"},
		"exp now, as a fraction":       {claims("1772366394.9"), "token_expired"},
		"nested as deep as fits":       {claimsJSON("user_1", `,"x":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)), ""},
		"nested objects":               {claimsJSON("user_1", `,"x":`+strings.Repeat(`{"a":`, 1500)+"1"+strings.Repeat("}", 1500)), ""},
		"never closed":                 {claimsJSON("user_1", `,"x":`+strings.Repeat("[", 9000)), "token_malformed"},
		"sub with NUL":                 {claimsJSON("user_1\x00", ""), "token_malformed"}, // %q writes \x00, which is no JSON
		"sub with an escaped NUL":      {strings.Replace(claimsJSON("user_1", ""), "user_1", `user_1\u0000`, 1), "token_wrong_class"},
		"sub an operator":              {strings.Replace(claimsJSON("user_1", ""), `"user_1"`, `{"$ne":null}`, 1), "token_malformed"},
		"sub of invalid UTF-8":         {strings.Replace(claimsJSON("user_1", ""), "user_1", "user_1\xff", 1), "token_wrong_class"},
		"a BOM":                        {"\ufeff" + claimsJSON("user_1", ""), "token_malformed"},
		"two documents":                {claimsJSON("user_1", "") + claimsJSON("user_2", ""), "token_malformed"},
		"a custom claim of huge value": {claimsJSON("user_1", `,"seats":1e400`), "token_malformed"},
		"updated_at huge":              {claimsJSON("user_1", `,"updated_at":1e400`), ""},
		"updated_at an operator":       {claimsJSON("user_1", `,"updated_at":{"$gt":0}`), ""},
		"permissions of huge numbers":  {claimsJSON("user_1", `,"v":2,"fea":"o:a","o":{"id":"org_1","per":"p","fpm":"99999999999999999999"}`), ""},
		"2,000 permissions":            {claimsJSON("user_1", `,"v":2,"fea":"`+strings.Repeat("o:a,", 1000)+`","o":{"id":"org_1","per":"`+strings.Repeat("p,", 1000)+`","fpm":"`+strings.Repeat("1,", 1000)+`"}`), ""},
	} {
		if _, code := verdict(s, bearing("Bearer "+testSigner().sign(sessionHeader, tt.claims))); code != tt.code {
			t.Errorf("%s: %q, want %q", name, code, tt.code)
		}
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

// A Resume that somebody made up costs look-ups and marks nobody deleted whom Clerk has.
func TestReconcileForgedResume(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 30)
	honest := ""
	if _, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{PageSize: 5, Progress: func(p clerksync.Progress) {
		if p.Report.Resume != "" {
			honest = p.Report.Resume
		}
	}}); err != nil {
		t.Fatal(err)
	}
	text, err := base64.RawURLEncoding.DecodeString(honest)
	if err != nil {
		t.Fatal(err)
	}
	for name, forged := range map[string]map[string]any{
		"past the end":     {"after": "user_zzz", "created": int64(math.MaxInt64), "passed": math.MaxInt},
		"before the begin": {"after": "user_0", "created": int64(math.MinInt64), "passed": 0},
		"all in conflict":  {"conflicts": []string{"user_nobody", ids[0], ids[0]}},
	} {
		point := make(map[string]any)
		if err := json.Unmarshal(text, &point); err != nil {
			t.Fatal(err)
		}
		for k, v := range forged {
			point[k] = v
		}
		token, err := json.Marshal(point)
		if err != nil {
			t.Fatal(err)
		}
		got, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{Resume: base64.RawURLEncoding.EncodeToString(token), MaxDeactivations: -1, Holdback: -1})
		if err != nil && !errors.Is(err, clerksync.ErrIncomplete) || got.Deactivated.Count != 0 || got.Created.Count != 0 {
			t.Errorf("%s: %v, %+v", name, err, got)
		}
	}
	fx.inStep(t)
}

// FuzzWebhookDelivery holds the handler's judgement of a delivery against one that is
// made here without svix. In the headers' texts a line break begins one more value, and
// in the signatures MAC stands for the right one, OTHER for the one by another secret.
func FuzzWebhookDelivery(f *testing.F) {
	good := string(envelope("user.created", userJSON("user_1", t0)))
	for _, body := range []string{good, "", "{", "null", documentedUser, string(envelope("user.deleted", `{"id":"user_1"}`)), string(envelope("session.created", `{"user":{"id":"user_1"}}`)),
		string(envelope("user.created", `{"id":"user_1","ID":"user_2","updated_at":1e400}`)), string(envelope("user.updated", `{"id":{"$ne":null}}`)), "\x1f\x8b\x08\x00", "\ufeff" + good, "x.y"} {
		f.Add([]byte(body), "msg_1", nowText, "v1,MAC", "", uint8(0))
	}
	for _, signatures := range []string{"v1,OTHER", "v1a,MAC", "v2,MAC", "MAC", "v1,", "v1", "", " ", "v1,MAC,x", "v1a,x v1,AAAA v1,MAC", "v1,x\nv1,MAC", "v1,MAC\nv1,x", "V1,MAC", "v1, MAC", "\tv1,MAC"} {
		f.Add([]byte(good), "msg_1", nowText, signatures, "gzip", uint8(1))
	}
	for _, at := range []string{"", "0", "-1", "+" + nowText, nowText + " ", "0" + nowText, nowText + "\n1", "1\n" + nowText, "1e9", "9223372036854775807", "-9223372036854775808",
		strconv.FormatInt(t0.Unix()-300, 10), strconv.FormatInt(t0.Unix()-301, 10), strconv.FormatInt(t0.Unix()+300, 10), strconv.FormatInt(t0.Unix()+301, 10)} {
		f.Add([]byte(good), "msg_1", at, "v1,MAC", "br", uint8(2))
		f.Add([]byte(good), "", at, "v1,MAC", "deflate", uint8(3))
	}
	for _, id := range []string{"", "msg_1." + nowText, "msg\x00", "\nmsg_1", "msg_1\nmsg_2"} {
		f.Add([]byte(good), id, nowText, "v1,MAC", "identity", uint8(0))
	}
	store := &faultyStore{}
	var events []clerksync.Event
	h, err := newTestSyncer(f, func(c *clerksync.Config) {
		c.Store, c.Logger = store, slog.New(slog.DiscardHandler)
	}).WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{testSecret},
		OnEvent: func(_ context.Context, e clerksync.Event) error { events = append(events, e); return nil },
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte, ids, timestamps, signatures, encoding string, names uint8) {
		store.Store = memstore.New()
		header := make(http.Header)
		first := func(values string) string { v, _, _ := strings.Cut(values, "\n"); return v }
		id, at := first(ids), first(timestamps)
		sent, err := strconv.ParseInt(at, 10, 64)
		right := macOf(testSecret, id, strconv.FormatInt(sent, 10), body)
		signatures = strings.ReplaceAll(signatures, "MAC", right)
		signatures = strings.ReplaceAll(signatures, "OTHER", macOf(otherSecret, id, strconv.FormatInt(sent, 10), body))
		set := func(name, values string) { header[http.CanonicalHeaderKey(name)] = strings.Split(values, "\n") }
		family := []string{"svix-", "webhook-"}[names%2]
		set(family+"id", ids)
		set(family+"timestamp", timestamps)
		set(family+"signature", signatures)
		switch names / 2 % 3 {
		case 1: // half of the other family
			if family == "webhook-" {
				set("svix-id", "msg_evil")
				set("svix-signature", "v1,"+macOf(testSecret, "msg_evil", nowText, nil))
			}
		case 2: // the other family, wrong: counts only where it is looked at first
			if family == "svix-" {
				set("webhook-id", "msg_evil")
				set("webhook-timestamp", nowText)
				set("webhook-signature", "v1,AAAA")
			}
		}
		set("Content-Encoding", encoding)

		genuine := false
		if id != "" && first(signatures) != "" && err == nil && sent >= t0.Unix()-300 && sent <= t0.Unix()+300 {
			for _, entry := range strings.Split(first(signatures), " ") {
				parts := strings.Split(entry, ",")
				genuine = genuine || len(parts) > 1 && parts[0] == "v1" && parts[1] == right
			}
		}
		post := func() int {
			events = nil
			r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
			r.Header = header.Clone()
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			switch {
			case w.Code == 413 && len(body) > 1<<20:
			case !genuine:
				checkProblem(t, answer{w.Code, w.Header(), w.Body.Bytes()}, 400, "invalid_signature")
			case w.Code == 422:
				checkProblem(t, answer{w.Code, w.Header(), w.Body.Bytes()}, 422, "invalid_event")
			default:
				checkProblem(t, answer{w.Code, w.Header(), w.Body.Bytes()}, 204, "")
				if len(events) != 1 || events[0].ID != id {
					t.Fatalf("OnEvent got %+v, and %q was signed", events, id)
				}
			}
			if w.Code != 204 && len(events) != 0 {
				t.Fatalf("OnEvent got %+v beside a %d", events, w.Code)
			}
			return w.Code
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
			t.Fatalf("%d, and %d when it came again", code, again)
		}
		if code == 204 && (events[0].Result.Outcome == clerksync.Created || events[0].Result.Outcome == clerksync.Updated) {
			t.Fatalf("when it came again it was %v", events[0].Result.Outcome)
		}
	})
}

// checkRecord checks what holds of every record, whatever Clerk sent.
func checkRecord(t *testing.T, u *clerksync.User) {
	t.Helper()
	if !userIDForm(u.ClerkID) {
		t.Errorf("id %q", u.ClerkID)
	}
	if u.ClerkUpdatedAt.After(t0.Add(24*time.Hour)) || u.SyncedAt.After(t0) || u.DeletedAt.After(t0) ||
		u.ClerkCreatedAt.After(t0.Add(24*time.Hour)) || u.LastSignInAt.After(t0.Add(24*time.Hour)) {
		t.Errorf("a time of the future: %+v", u)
	}
	for _, text := range []string{u.Email, u.Name, string(u.Role), u.Profile.FirstName, u.Profile.LastName, u.Profile.FullName, u.Profile.ImageURL, u.Profile.PhoneNumber, u.Profile.Birthday, u.Profile.Gender} {
		if !utf8.ValidString(text) {
			t.Errorf("%q is not UTF-8", text)
		}
	}
}

// userIDForm is the form of Clerk's user ids, told another way than the library does.
func userIDForm(id string) bool {
	rest, ok := strings.CutPrefix(id, "user_")
	return ok && rest != "" && len(rest) <= 64 &&
		strings.Trim(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}

// FuzzMapMetadata has Map copy what a user chose into Extra. Either the record can be
// stored, with no name in it that a database would take for more than a name, or the
// error says why without quoting.
func FuzzMapMetadata(f *testing.F) {
	for _, seed := range []string{`{"plan":"pro"}`, `{"$set":{"role":"ADMIN"}}`, `{"a":{"b":{"$where":"hunter2"}}}`, `{"a.b":1}`, `{"":1}`, `{"\u0000":1}`, `[{"$ne":"hunter2"}]`,
		`1e400`, `9223372036854775808`, `-0`, `"\ud800hunter2"`, `{"_id":1,"clerkId":2}`, `{"a":1,"A":2,"a":3}`, strings.Repeat("[", 40) + strings.Repeat("]", 40), `null`, `[null]`, "\xff", ``} {
		f.Add([]byte(seed))
	}
	var metadata []byte
	s := newTestSyncer(f, func(c *clerksync.Config) {
		c.Map = func(_ *clerk.User, u *clerksync.User) error {
			u.Extra = map[string]any{"meta": json.RawMessage(metadata)}
			var fields map[string]any
			if json.Unmarshal(metadata, &fields) == nil {
				u.Extra["fields"] = fields
			}
			return nil
		}
	})
	f.Fuzz(func(t *testing.T, raw []byte) {
		metadata = raw
		u, err := clerksync.MapUser(s, json.RawMessage(`{"id":"user_1"}`), t0)
		if err != nil {
			var p *clerksync.Problem
			if u != nil || !errors.As(err, &p) || p.Code != "mapping_failed" {
				t.Fatalf("got %+v, %v", u, err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("the error quotes the metadata: %v", err)
			}
			return
		}
		checkExtra(t, u.Extra, 0)
		store := memstore.New()
		if _, err := store.Upsert(t.Context(), u); err != nil {
			t.Fatalf("a mapped user is not storable: %v", err)
		}
		if res, err := store.Upsert(t.Context(), u); err != nil || res.Outcome != clerksync.Unchanged {
			t.Fatalf("the same again: %v, %v", res.Outcome, err)
		}
	})
}

func checkExtra(t *testing.T, v any, depth int) {
	t.Helper()
	if depth > 33 {
		t.Fatal("nested too deeply to be stored")
	}
	switch v := v.(type) {
	case map[string]any:
		for name, v := range v {
			if name == "" || strings.ContainsAny(name, "$.\x00") || !utf8.ValidString(name) {
				t.Fatalf("the name %q", name)
			}
			checkExtra(t, v, depth+1)
		}
	case []any:
		for _, v := range v {
			checkExtra(t, v, depth+1)
		}
	case string:
		if !utf8.ValidString(v) {
			t.Fatalf("%q is not UTF-8", v)
		}
	case nil, bool, int64, float64:
	default:
		t.Fatalf("a %T", v)
	}
}

// unspeakable is an error that nobody may put into words.
type unspeakable struct{ error }

func (unspeakable) Error() string   { panic("the error's text was asked for") }
func (u unspeakable) Unwrap() error { return u.error }

// FuzzWriteProblem: whatever the error is, the answer is a whole problem document of a
// failure, with headers of one line, and the error's text is not even asked for.
func FuzzWriteProblem(f *testing.F) {
	for kind := range uint8(8) {
		f.Add(kind, "user_inactive", 403, int64(1500*time.Millisecond), "X-Own", "value")
		f.Add(kind, "", 0, int64(-1), "Content-Type", "text/html")
		f.Add(kind, "x\r\nSet-Cookie: a=b", 200, int64(math.MaxInt64), "Content-Length", "5")
		f.Add(kind, "\xff\"</script>", 401, int64(1), "WWW-Authenticate", "Basic")
		f.Add(kind, "token_expired", 401, int64(math.MinInt64), "Retry-After", "9")
		f.Add(kind, "slow_down", 499, int64(0), "", "")
	}
	sentinels := []error{
		clerksync.ErrUnauthenticated, clerksync.ErrUserInactive, clerksync.ErrUserUnknown, clerksync.ErrInvalidSignature,
		clerksync.ErrInvalidEvent, clerksync.ErrWrongInstance, clerksync.ErrUnavailable, clerksync.ErrNotFound,
	}
	f.Fuzz(func(t *testing.T, kind uint8, code string, status int, retry int64, header, value string) {
		var err error = unspeakable{errDown}
		switch p := (&clerksync.Problem{Status: status, Code: code, RetryAfter: time.Duration(retry), Err: unspeakable{errDown}}); kind % 8 {
		case 0:
			err = p
		case 1:
			err = fmt.Errorf("%s: %w", code, &clerksync.Problem{Status: status, Code: code, RetryAfter: time.Duration(retry), Err: errDown})
		case 2:
			err = &clerksync.ConflictError{Field: "hunter2" + code, Err: unspeakable{errDown}}
		case 3:
			err = &clerksync.BatchError{Errs: map[int]error{0: errDown, status: &clerksync.ConflictError{Field: "hunter2"}}}
		case 4:
			err = unspeakable{sentinels[uint(status)%uint(len(sentinels))]}
		case 5:
			err = errors.Join(errDown, sentinels[uint(status)%uint(len(sentinels))], nil)
		case 6:
			err = (*clerksync.Problem)(nil)
		}
		w := httptest.NewRecorder()
		if header != "" {
			w.Header()[http.CanonicalHeaderKey(header)] = []string{value}
		}
		clerksync.WriteProblem(w, httptest.NewRequest(http.MethodGet, "/", nil), err)

		if w.Code < 400 || w.Code > 599 {
			t.Fatalf("status %d", w.Code)
		}
		var fields map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &fields); err != nil || len(fields) != 4 {
			t.Fatalf("%v in %s", err, w.Body)
		}
		if fields["status"] != float64(w.Code) || fields["title"] == "" || fields["detail"] == "" {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if _, ok := fields["code"].(string); !ok {
			t.Fatalf("%s", w.Body)
		}
		got := w.Result().Header
		if got.Get("Content-Type") != "application/problem+json" || got.Get("Cache-Control") != "no-store" || got.Get("Content-Length") != "" {
			t.Fatalf("headers %v", got)
		}
		for _, name := range []string{"Retry-After", "Www-Authenticate"} {
			if http.CanonicalHeaderKey(header) != name && strings.ContainsAny(got.Get(name), "\r\n\x00") {
				t.Fatalf("%s is %q", name, got.Get(name))
			}
		}
		if s := got.Get("Retry-After"); s != "" && http.CanonicalHeaderKey(header) != "Retry-After" {
			if n, err := strconv.ParseInt(s, 10, 64); err != nil || n < 1 {
				t.Fatalf("Retry-After is %q", s)
			}
		}
		if w.Code == 401 && !strings.HasPrefix(got.Get("WWW-Authenticate"), "Bearer") {
			t.Fatalf("WWW-Authenticate is %q", got.Get("WWW-Authenticate"))
		}
		if !strings.Contains(code+value, "hunter2") && strings.Contains(fmt.Sprint(w.Body, got), "hunter2") {
			t.Fatalf("the error shows: %v %s", got, w.Body)
		}
	})
}

// FuzzResume: a Resume is a point of this very run's kind, or none at all, and what is
// wrong with it is said without quoting it.
func FuzzResume(f *testing.F) {
	s := newTestSyncer(f, nil)
	token := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	key := clerksync.FormatResume(s, clerksync.ResumePoint{After: "user_1"}, clerksync.ReconcileOptions{})
	for _, seed := range []string{
		key, "", "user_1", "hunter2", token(`{"after":"user_1"}`), token(`{"after":"user_1","passed":-1}`), token(`{"after":"../jwks"}`), token(`{"after":"user_1","conflicts":["&"]}`),
		token(`{"after":"user_1","After":"user_2","key":"0"}`), token(`{"after":{"$ne":null}}`), token(`{"after":"user_1","passed":1e400}`), token(`{"after":"user_1","created":9223372036854775808}`),
		token("null"), token("[]"), token(strings.Repeat("[", 20_000)), key + "=", key[:len(key)-1], key + "\n",
	} {
		f.Add(seed, seed == key, false, false)
	}
	f.Fuzz(func(t *testing.T, text string, dryRun, force, restore bool) {
		opts := clerksync.ReconcileOptions{Resume: text, DryRun: dryRun, Force: force, Restore: restore}
		point, err := clerksync.ParseResume(s, opts)
		if err != nil {
			if len(text) > 8 && strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("the error quotes it: %v", err)
			}
			if point.After != "" || point.Passed != 0 || point.Conflicts != nil {
				t.Fatalf("%+v beside %v", point, err)
			}
			return
		}
		if text == "" {
			return
		}
		if !userIDForm(point.After) || point.Passed < 0 || len(point.Conflicts) > 100 {
			t.Fatalf("took %+v", point)
		}
		for _, id := range point.Conflicts {
			if !userIDForm(id) {
				t.Fatalf("took %+v", point)
			}
		}
		opts.Resume = clerksync.FormatResume(s, point, opts)
		if again, err := clerksync.ParseResume(s, opts); err != nil || fmt.Sprint(again) != fmt.Sprint(point) {
			t.Fatalf("%+v became %+v, %v", point, again, err)
		}
		opts.DryRun = !dryRun
		if _, err := clerksync.ParseResume(s, opts); err == nil {
			t.Fatal("taken by a run of another kind")
		}
	})
}

// FuzzSignedClaims signs any header and claims, as Clerk would sign what a user had a
// hand in. What is accepted says the same to whoever reads the names to the letter.
func FuzzSignedClaims(f *testing.F) {
	s := newTestSyncer(f, func(c *clerksync.Config) {
		c.Auth = clerksync.AuthConfig{JWTKey: testSigner().pem, TokenCacheSize: -1}
	})
	more := []string{"", `,"v":2`, `,"Sub":"user_2"`, `,"sub":"user_2"`, `,"\u0073ub":"user_2"`, `,"x":{"sub":"user_2","Sub":1}`, `,"exp":1e400`, `,"Exp":1`, `,"v":3`, `,"sts":"pending"`, ",\"\u017fub\":\"user_2\"",
		`,"o":{"id":"org_1","ID":"org_2"},"v":2`, `,"updated_at":{"$gt":0}`, `,"hunter2":["hunter2"]`, `,"x":` + strings.Repeat("[", 3000), `,"aud":5`}
	for _, m := range more {
		f.Add(sessionHeader, claimsJSON("user_1", m))
	}
	for _, header := range []string{`{"alg":"RS256"}`, `{"alg":"none"}`, `{"alg":"RS256","kid":"ins_2","jku":"https://evil.example.com"}`, `{"alg":"RS256","typ":"at+jwt"}`, `{"alg":"RS256","cat":"cl_B7d4PD222AAA"}`, `{"alg":"RS256","crit":["x"],"x":1}`, `{"Alg":"RS256"}`, "{}", "null", ""} {
		f.Add(header, claimsJSON("user_1", ""))
	}
	f.Fuzz(func(t *testing.T, header, payload string) {
		claims, err := s.Authenticate(bearing("Bearer " + testSigner().sign(header, payload)))
		if err != nil {
			var p *clerksync.Problem
			if !errors.As(err, &p) || p.Status != 401 || !errors.Is(err, clerksync.ErrUnauthenticated) {
				t.Fatalf("refused with %v", err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("the error quotes the token: %v", err)
			}
			return
		}
		var head struct {
			Alg string  `json:"alg"`
			Typ *string `json:"typ"`
			Cat *string `json:"cat"`
		}
		if err := json.Unmarshal([]byte(header), &head); err != nil || head.Alg != "RS256" || head.Typ != nil && *head.Typ != "JWT" || head.Cat != nil && *head.Cat != "cl_B7d4PD111AAA" {
			t.Fatalf("accepted the header %q", header)
		}
		d := json.NewDecoder(strings.NewReader(payload))
		d.UseNumber()
		var exact map[string]any
		if err := d.Decode(&exact); err != nil {
			t.Fatalf("accepted %q: %v", payload, err)
		}
		if claims.Subject != exact["sub"] || claims.SessionID != exact["sid"] || claims.Issuer != exact["iss"] || !userIDForm(claims.Subject) || claims.SessionID == "" {
			t.Fatalf("accepted %+v for %q", claims, payload)
		}
		number, _ := exact["exp"].(json.Number)
		if exp, err := number.Float64(); err != nil || exp < float64(t0.Unix()-5) || math.Abs(exp-float64(*claims.Expiry)) > max(1, exp/1e9) {
			t.Fatalf("accepted exp %d of %q", *claims.Expiry, payload)
		}
		for name := range exact {
			for _, standard := range []string{"sub", "sid", "iss", "exp", "nbf", "iat", "azp", "sts", "v", "o"} {
				if name != standard && strings.EqualFold(name, standard) && len(name) == len(standard) {
					t.Fatalf("accepted the claim %q", name)
				}
			}
		}
	})
}
