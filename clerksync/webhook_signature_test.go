package clerksync_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clerksync/clerksync-go/clerksync"
)

// carried draws what proxies make of a header's line on its way. They split it at commas, put
// entries on lines of their own, join lines by commas, and repeat what they have.
func carried(t *rapid.T, name, line string) []string {
	draw := func(what string, from ...string) string { return rapid.SampledFrom(from).Draw(t, name+" "+what) }
	var text strings.Builder
	for _, r := range line {
		switch r {
		case ',':
			text.WriteString(draw("at a comma", ",", "\n", ", ", ",\n"))
		case ' ':
			text.WriteString(draw("between entries", " ", "  ", "\t", ", ", ",", "\n", "\n\n"))
		default:
			text.WriteRune(r)
		}
	}
	lines := strings.Split(text.String(), "\n")
	if draw("repeated", "no", "yes") == "yes" {
		lines = append(lines, lines...)
	}
	if draw("with empty lines", "no", "yes") == "yes" {
		lines = append([]string{"", " "}, append(lines, ",", "")...)
	}
	if by := draw("joined by", "", ",", ", ", " , "); by != "" {
		lines = []string{strings.Join(lines, by)}
	}
	return lines
}

// However its headers were split, repeated and joined, a delivery that is signed is accepted,
// under the id that was signed, and one that is not signed is refused.
func TestSignaturesSurviveProxies(t *testing.T) {
	t.Parallel()
	s := newTestSyncer(t, func(c *clerksync.Config) { c.Logger = slog.New(slog.DiscardHandler) })
	h, err := s.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret}})
	if err != nil {
		t.Fatal(err)
	}
	genuine := "v1," + macOf(testSecret, "msg_1", nowText, createdEvent)
	forged := []string{
		"v1," + macOf(otherSecret, "msg_1", nowText, createdEvent), "v1," + macOf(testSecret, "msg_2", nowText, createdEvent),
		"v1," + macOf(testSecret, "msg_1", nowText, []byte("{}")), "v1a" + genuine[2:], "v2" + genuine[2:], "v1,AAAA",
	}
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(rapid.SampledFrom(forged), 0, 3).Draw(t, "other signatures")
		want := http.StatusBadRequest
		if rapid.Bool().Draw(t, "signed") {
			at := rapid.IntRange(0, len(entries)).Draw(t, "place")
			entries = append(append(append([]string{}, entries[:at]...), genuine), entries[at:]...)
			want = http.StatusNoContent
		}
		family := rapid.SampledFrom([]string{"svix-", "webhook-"}).Draw(t, "family")
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(createdEvent))
		lines := map[string]string{"id": "msg_1", "timestamp": nowText, "signature": strings.Join(entries, " ")}
		for _, name := range []string{"id", "timestamp", "signature"} { // in the order in which rapid repeats it
			r.Header[http.CanonicalHeaderKey(family+name)] = carried(t, name, lines[name])
		}
		if a := answerOf(h, r); a.status != want {
			t.Fatalf("status %d, want %d: %q", a.status, want, r.Header)
		}
	})
}

// The lines that real intermediaries make of a delivery's headers.
func TestSignatureHeadersAsTheyArrive(t *testing.T) {
	t.Parallel()
	mac := macOf(testSecret, "msg_1", nowText, createdEvent)
	const other = "b3RoZXI="
	lines := func(signature ...string) func(*http.Request) { return setHeader("svix-signature", signature...) }
	for name, tt := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"cut at the comma":                 {lines("v1", mac), 204},
		"two signatures, cut at commas":    {lines("v1", other+" v1", mac), 204},
		"two signatures, the first is it":  {lines("v1", mac+" v1", other), 204},
		"another version, cut at commas":   {lines("v1a", other+" v1", mac), 204},
		"two lines":                        {lines("v1,"+other, "v1,"+mac), 204},
		"two lines joined":                 {lines("v1," + other + ", v1," + mac), 204},
		"two lines joined, no space":       {lines("v1," + other + ",v1," + mac), 204},
		"joined and then cut":              {lines("v1", other, "v1", mac), 204},
		"a version's signature elsewhere":  {lines("v1", other, mac), 400},
		"the signature before its version": {lines(mac, "v1"), 400},
		"v1a and the comma of v1":          {lines("v1a", mac+" v1", other), 400},
		"100 lines":                        {lines(append(make([]string, 99), "v1,"+mac)...), 204},
		"101 lines":                        {lines(append(make([]string, 100), "v1,"+mac)...), 400},
		"id twice":                         {setHeader("svix-id", "msg_1", "msg_1"), 204},
		"id twice, joined":                 {setHeader("svix-id", "msg_1, msg_1"), 204},
		"id twice, two values":             {setHeader("svix-id", "msg_1", "msg_2"), 400},
		"id twice, two values, joined":     {setHeader("svix-id", "msg_2,msg_1"), 400},
		"id with an empty line":            {setHeader("svix-id", "", "msg_1"), 204},
		"id empty":                         {setHeader("svix-id", "", ","), 400},
		"time twice":                       {setHeader("svix-timestamp", nowText, nowText), 204},
		"time twice, joined":               {setHeader("svix-timestamp", nowText+","+nowText), 204},
		"time twice, two values":           {setHeader("svix-timestamp", nowText, "1"+nowText), 400},
		"time twice, written otherwise":    {setHeader("svix-timestamp", nowText, "+"+nowText), 400},
		"time in milliseconds":             {setHeader("svix-timestamp", nowText+"000"), 400},
		"both families, the other forged": {func(r *http.Request) {
			r.Header["Webhook-Id"], r.Header["Webhook-Timestamp"] = []string{"msg_2"}, []string{nowText}
			r.Header["Webhook-Signature"] = []string{"v1,AAAA"}
		}, 204},
		"a family of both": {func(r *http.Request) {
			r.Header["Webhook-Signature"] = r.Header["Svix-Signature"]
			delete(r.Header, "Svix-Signature")
		}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hostileDelivery{change: tt.change, status: tt.status}.run(t)
		})
	}
}

func TestTolerance(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		tolerance, off time.Duration
		status         int
	}{
		{0, 5 * time.Minute, 204},
		{0, 5*time.Minute + time.Second, 400},
		{time.Minute, time.Minute, 204},
		{time.Minute, time.Minute + time.Second, 400},
		{time.Hour, -time.Hour, 204},
		{time.Hour, -time.Hour - time.Second, 400},
		{24 * time.Hour, 24 * time.Hour, 204},
		{24 * time.Hour, 24*time.Hour + time.Second, 400},
		{time.Millisecond, time.Second, 204}, // a signature's time is in seconds
		{time.Millisecond, 2 * time.Second, 400},
	} {
		t.Run(fmt.Sprint(tt.tolerance, tt.off), func(t *testing.T) {
			t.Parallel()
			tt := webhookCase{
				at: t0.Add(-tt.off), webhook: func(c *clerksync.WebhookConfig) { c.Tolerance = tt.tolerance },
				status: tt.status, code: "invalid_signature", outcome: map[int]clerksync.Outcome{204: clerksync.Created}[tt.status],
			}
			tt.run(t)
		})
	}
}

// A delivery's time that is far off, even by more than a Duration can say, is refused.
func TestFarTimes(t *testing.T) {
	t.Parallel()
	for _, sent := range []string{"0", "1", "99999999999", "100000000000", "100000000001", "-1", strconv.Itoa(1 << 62)} {
		signature := "v1," + macOf(testSecret, "msg_1", sent, createdEvent)
		hostileDelivery{change: func(r *http.Request) {
			r.Header.Set("svix-timestamp", sent)
			r.Header.Set("svix-signature", signature)
		}, status: 400}.run(t)
	}
}
