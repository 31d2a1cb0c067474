package clerksync_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// BenchmarkReconcileUnchanged runs over users who are all in step. Clerk's pages and the stamps are
// in memory already, so this is the CPU time of the comparison. small is fakeclerk's user, large
// one with every field that Clerk has.
func BenchmarkReconcileUnchanged(b *testing.B) {
	const users, pageSize = 50_000, 500
	for _, size := range []string{"small", "large"} {
		clerk := newPagesInMemory(b, users, pageSize, size == "large")
		b.Run(size, func(b *testing.B) {
			s := newTestSyncer(b, func(c *clerksync.Config) {
				c.Store, c.HTTPClient, c.Now = clerk, &http.Client{Transport: clerk}, time.Now
			})
			var cpu time.Duration
			for b.Loop() {
				before := cpuTime(b)
				report, err := s.Reconcile(b.Context(), clerksync.ReconcileOptions{RequestsPerSecond: 1e9})
				cpu += cpuTime(b) - before
				if err != nil || report.Unchanged != users {
					b.Fatalf("%+v, %v", report, err)
				}
			}
			total := float64(users) * float64(b.N)
			b.ReportMetric(total/cpu.Seconds(), "users/cpu-s")
			b.ReportMetric(float64(clerk.bytes)/users, "B/user")
		})
	}
}

// pagesInMemory is a Clerk without a network, and a Store in step with it.
type pagesInMemory struct {
	clerksync.Store
	pages  map[string][]byte // by starting_after
	stamps map[string]clerksync.Stamp
	ids    []string // ascending
	bytes  int
}

func newPagesInMemory(b *testing.B, users, pageSize int, large bool) *pagesInMemory {
	server, err := fakeclerk.Start(fakeclerk.Config{Clock: fakeclerk.NewClock(t0), Seed: 1, Population: users})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	p := &pagesInMemory{Store: memstore.New(), pages: make(map[string][]byte),
		stamps: make(map[string]clerksync.Stamp)}
	more := ""
	if large {
		more = `,"external_accounts":[` +
			strings.Repeat(`{"object":"external_account","id":"idn_1","provider":"oauth_google",`+
				`"email_address":"a@example.com","approved_scopes":"email profile",`+
				`"verification":{"status":"verified"},"public_metadata":{}},`, 5) +
			`{}],"private_metadata":{"notes":"` + strings.Repeat(`a \"b\" `, 100) + `"}}`
	}
	var page bytes.Buffer
	after := ""
	for i := range users {
		id := server.PopulationID(i)
		raw, _ := server.User(id)
		var u struct {
			Updated int64 `json:"updated_at"`
		}
		if err := json.Unmarshal(raw, &u); err != nil {
			b.Fatal(err)
		}
		p.ids = append(p.ids, id)
		p.stamps[id] = clerksync.Stamp{ClerkID: id, ClerkUpdatedAt: time.UnixMilli(u.Updated), IsActive: true}
		if page.Len() > 0 {
			page.WriteByte(',')
		}
		if large {
			raw = append(raw[:len(raw)-1], more...)
		}
		page.Write(raw)
		p.bytes += len(raw)
		if (i+1)%pageSize == 0 {
			p.pages[after] = []byte("[" + page.String() + "]")
			page.Reset()
			after = id
		}
	}
	p.pages[after] = []byte("[]")
	return p
}

func (p *pagesInMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	q := r.URL.Query()
	body := p.pages[q.Get("starting_after")]
	switch {
	case strings.HasSuffix(r.URL.Path, "/count"):
		body = []byte(`{"object":"total_count","total_count":` + strconv.Itoa(len(p.stamps)) + `}`)
	case q.Has("user_id"):
		body = []byte(`[{"id":"user_1"}]`)
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: int64(len(body)),
		Body: io.NopCloser(bytes.NewReader(body)), Request: r,
	}, nil
}

func (p *pagesInMemory) UpsertBatch(context.Context, []*clerksync.User) ([]clerksync.Result, error) {
	return nil, fmt.Errorf("nothing is to be written")
}

func (p *pagesInMemory) Users(context.Context, []string) (map[string]*clerksync.User, error) {
	return nil, fmt.Errorf("no record is to be read")
}

func (p *pagesInMemory) Stamps(_ context.Context, ids []string) (map[string]clerksync.Stamp, error) {
	found := make(map[string]clerksync.Stamp, len(ids))
	for _, id := range ids {
		found[id] = p.stamps[id]
	}
	return found, nil
}

func (p *pagesInMemory) Undeleted(context.Context) iter.Seq2[clerksync.Stamp, error] {
	return func(yield func(clerksync.Stamp, error) bool) {
		for _, id := range p.ids {
			if !yield(p.stamps[id], nil) {
				return
			}
		}
	}
}
