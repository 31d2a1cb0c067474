package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// jobs is the service that the apps' OnCreate and OnDelete ask to act. It is outside of their
// processes, so it knows what each of them did before it was killed.
type jobs struct {
	fleet  *fleet
	url    string
	server *http.Server
	ended  chan error
	// excused is fleet.diedSoonAfter.
	excused func(start int64, since time.Time) bool

	mu      sync.Mutex
	rng     *rand.Rand
	effects map[string][]effect // by Idempotency-Key
	refused int                 // requests that had no effect, and were told so
}

// effect is one request to act.
type effect struct {
	start   int64 // of the process; 0 for this program
	attempt int
	at      time.Time
}

// finishing is how long a process has to write that an attempt has ended, while the database is up.
// It is generous, for a busy machine.
const finishing = 5 * time.Second

func newJobs(seed uint64) *jobs {
	return &jobs{rng: stream(seed, "jobs"), effects: map[string][]effect{}}
}

func (j *jobs) serve(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	j.url = "http://" + listener.Addr().String() + "/"
	j.server = &http.Server{Handler: j, ReadHeaderTimeout: 10 * time.Second}
	j.ended = make(chan error, 1)
	go func() { j.ended <- j.server.Serve(listener) }()
	return nil
}

func (j *jobs) close() {
	_ = j.server.Close()
	<-j.ended
}

// ServeHTTP refuses one request in twenty. Before and after it acts it waits for a moment, in which
// the process that asks may be killed.
func (j *jobs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start, err := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/"), 10, 64)
	attempt, attemptErr := strconv.Atoi(r.Header.Get("Attempt"))
	var body struct {
		UserID string `json:"userId"`
	}
	if err = cmp.Or(err, attemptErr); err == nil {
		err = json.NewDecoder(r.Body).Decode(&body)
	}
	key := r.Header.Get("Idempotency-Key")
	if err != nil || !strings.HasPrefix(key, body.UserID+"/") {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	refused, before, after := j.plan()
	if refused {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	ctx := context.WithoutCancel(r.Context()) // a request that was sent is heard, though its process dies
	_ = pause(ctx, before)
	j.act(key, effect{start: start, attempt: attempt})
	j.fleet.acted(start)
	_ = pause(ctx, after)
	w.WriteHeader(http.StatusNoContent)
}

func (j *jobs) plan() (refused bool, before, after time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	moment := func() time.Duration { return time.Duration(j.rng.Int64N(int64(10 * time.Millisecond))) }
	if refused = j.rng.IntN(20) == 0; refused {
		j.refused++
	}
	return refused, moment(), moment()
}

func (j *jobs) act(key string, e effect) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.at = time.Now()
	j.effects[key] = append(j.effects[key], e)
}

// finish does what the processes left, as a process does that runs later: after the leases of those
// that died.
func (j *jobs) finish(ctx context.Context, p *proof) error {
	store, err := mongostore.Open(ctx, p.database.users(), nil)
	if err != nil {
		return err
	}
	act := func(_ context.Context, _ *clerksync.User, job clerksync.Job) error {
		j.act(job.Key, effect{attempt: job.Attempt})
		return nil
	}
	for later := 10 * time.Minute; later <= 30*time.Minute; later += 10 * time.Minute {
		s, err := clerksync.New(clerksync.Config{
			Store: store, SecretKey: p.clerk.SecretKey(), APIURL: p.clerk.APIURL(), OnCreate: act, OnDelete: act,
			Now:    func() time.Time { return time.Now().Add(later) },
			Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			return err
		}
		if _, err := s.DrainJobs(ctx); err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	return nil
}

// check checks that each job was done, and more than once only if the process could not say so.
// It is for the end of the run.
func (j *jobs) check(records map[string]record, states map[string]state) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	known := 0
	for id, s := range states {
		r := records[id]
		create, del := j.effects[id+"/create"], j.effects[fmt.Sprintf("%s/delete/%d", id, r.DeletedAt.UnixMilli())]
		if err := checkEnd(id, r, s.deleted, create, del); err != nil {
			return err
		}
		for key, effects := range map[string][]effect{"create": create, "delete": del} {
			if err := j.repeated(effects); err != nil {
				return fmt.Errorf("%w: the %s job of %s", err, key, id)
			}
		}
		known += min(len(create), 1) + min(len(del), 1)
	}
	if known != len(j.effects) {
		return violated("there are effects of %d jobs, but only %d of users and of their deletions", len(j.effects), known)
	}
	return nil
}

// checkEnd checks that a user's jobs have ended, with the effects that they should have.
func checkEnd(id string, r record, deleted bool, create, del []effect) error {
	lived := r.Email != "" // else the record began as a tombstone, and owes no job
	switch {
	case !r.Jobs.Create.Due.IsZero() || !r.Jobs.Delete.Due.IsZero():
		return violated("a job of %s is still due at the end: %+v", id, r.Jobs)
	case !r.Jobs.Create.FailedAt.IsZero() || !r.Jobs.Delete.FailedAt.IsZero():
		return violated("a job of %s has failed: %+v", id, r.Jobs)
	case !deleted && len(create) == 0:
		return lost("OnCreate of %s had no effect; its job is %+v", id, r.Jobs.Create)
	case deleted && lived && len(del) == 0:
		return lost("OnDelete of %s had no effect; its job is %+v", id, r.Jobs.Delete)
	case !lived && len(create)+len(del) > 0:
		return violated("%s never had a record, but OnCreate had %d effects and OnDelete %d", id, len(create), len(del))
	case len(create) > 0 && len(del) > 0 && create[len(create)-1].at.After(del[0].at):
		return violated("OnCreate of %s had an effect after OnDelete", id)
	}
	return nil
}

// repeated checks the effects of one job.
func (j *jobs) repeated(effects []effect) error {
	for i, e := range effects[:max(len(effects)-1, 0)] {
		if next := effects[i+1]; next.attempt <= e.attempt {
			return violated("attempt %d follows attempt %d", next.attempt, e.attempt)
		}
		if !j.excused(e.start, e.at) {
			return violated("attempt %d was repeated, though its process had the time to say that it ended", e.attempt)
		}
	}
	return nil
}

// counts returns how many jobs had an effect, and how many effects there were in all.
func (j *jobs) counts() (done, effects, refused int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, all := range j.effects {
		effects += len(all)
	}
	return len(j.effects), effects, j.refused
}
