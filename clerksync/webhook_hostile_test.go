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
