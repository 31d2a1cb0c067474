package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// jobsClerk starts a Clerk with the user Ada, and returns a Config whose clock the example moves.
func jobsClerk() (*fakeclerk.Server, *fakeclerk.Clock, clerksync.Config) {
	clock := fakeclerk.NewClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	server, err := fakeclerk.Start(fakeclerk.Config{Clock: clock})
	if err != nil {
		log.Fatal(err)
	}
	server.CreateUser(fakeclerk.NewUser{ID: "user_ada", FirstName: "Ada", Email: "ada@example.com"})
	store := memstore.New()
	store.Now = clock.Now
	return server, clock, clerksync.Config{
		Store:      store,
		SecretKey:  server.SecretKey(),
		APIURL:     server.APIURL(),
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		Now:        clock.Now,
		Logger:     slog.New(slog.DiscardHandler),
	}
}

// newSyncer is New for examples.
func newSyncer(cfg clerksync.Config) *clerksync.Syncer {
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	return syncer
}

// sendMail stands for a mailer that knows idempotency keys.
func sendMail(_ context.Context, key, to, text string) error {
	fmt.Printf("mail to %s: %s (%s)\n", to, text, key)
	return nil
}

// One welcome for a new user, whichever of the first visits and events comes first.
func ExampleConfig_onCreate() {
	server, _, cfg := jobsClerk()
	defer server.Close()
	cfg.OnCreate = func(ctx context.Context, u *clerksync.User, job clerksync.Job) error {
		return sendMail(ctx, job.Key, u.Email, "welcome, "+u.Name)
	}
	syncer := newSyncer(cfg)
	for range 3 {
		if _, err := syncer.User(context.Background(), "user_ada"); err != nil { // a visit
			log.Fatal(err)
		}
	}
	_ = syncer.Close() // waits for the background
	// Output:
	// mail to ada@example.com: welcome, Ada (user_ada/create)
}

// OnDelete runs once for each deletion, after a pause.
func ExampleConfig_onDelete() {
	server, clock, cfg := jobsClerk()
	defer server.Close()
	cfg.Jobs.DeleteDelay = 24 * time.Hour
	cfg.OnDelete = func(_ context.Context, u *clerksync.User, job clerksync.Job) error {
		fmt.Printf("deleting what belongs to %s (%s)\n", u.ClerkID, job.Key)
		return nil
	}
	syncer, ctx := newSyncer(cfg), context.Background()
	if _, err := syncer.User(ctx, "user_ada"); err != nil {
		log.Fatal(err)
	}
	deletion := clerksync.Event{
		Type: "user.deleted", UserID: "user_ada", Timestamp: clock.Now(), Data: []byte(`{"id": "user_ada", "deleted": true}`),
	}
	for range 2 { // Svix may deliver it twice
		if _, err := syncer.Apply(ctx, deletion); err != nil {
			log.Fatal(err)
		}
	}
	_ = syncer.Close() // the app is deployed anew
	syncer = newSyncer(cfg)
	defer syncer.Close()
	for range 2 {
		ran, err := syncer.DrainJobs(ctx)
		fmt.Println(ran, "jobs,", err)
		clock.Advance(24 * time.Hour)
	}
	// Output:
	// 0 jobs, <nil>
	// deleting what belongs to user_ada (user_ada/delete/1772366400000)
	// 1 jobs, <nil>
}

// A handler finds what OnCreate has made, because the first visit waits for it.
func ExampleJobConfig_await() {
	server, _, cfg := jobsClerk()
	defer server.Close()
	var workspaces atomic.Int64
	cfg.Jobs.Await = true
	cfg.OnCreate = func(context.Context, *clerksync.User, clerksync.Job) error {
		workspaces.Add(1)
		return nil
	}
	syncer := newSyncer(cfg)
	defer syncer.Close()
	_, err := syncer.User(context.Background(), "user_ada")
	fmt.Println(workspaces.Load(), "workspace,", err)
	// Output:
	// 1 workspace, <nil>
}

// Every process works through due jobs until it shuts down.
func ExampleSyncer_RunJobs() {
	server, clock, cfg := jobsClerk()
	defer server.Close()
	died := errors.New("the mailer is down")
	cfg.OnCreate = func(context.Context, *clerksync.User, clerksync.Job) error { return died }
	first := newSyncer(cfg)
	if _, err := first.User(context.Background(), "user_ada"); err != nil { // the visit is served all the same
		log.Fatal(err)
	}
	_ = first.Close()
	clock.Advance(time.Minute)

	ctx, stop := context.WithCancel(context.Background()) // signal.NotifyContext, in an app
	cfg.OnCreate = func(ctx context.Context, u *clerksync.User, job clerksync.Job) error {
		defer stop()
		fmt.Println("attempt", job.Attempt)
		return sendMail(ctx, job.Key, u.Email, "welcome")
	}
	second := newSyncer(cfg)
	defer second.Close()
	fmt.Println(second.RunJobs(ctx))
	// Output:
	// attempt 2
	// mail to ada@example.com: welcome (user_ada/create)
	// <nil>
}

// A cron job, or a function of a serverless platform, does one pass.
func ExampleSyncer_DrainJobs() {
	server, clock, cfg := jobsClerk()
	defer server.Close()
	down := true
	cfg.OnCreate = func(ctx context.Context, u *clerksync.User, job clerksync.Job) error {
		if down {
			return errors.New("the mailer is down")
		}
		return sendMail(ctx, job.Key, u.Email, "welcome")
	}
	first := newSyncer(cfg)
	if _, err := first.User(context.Background(), "user_ada"); err != nil {
		log.Fatal(err)
	}
	_ = first.Close() // before the platform freezes the process

	down = false
	clock.Advance(time.Minute)
	syncer := newSyncer(cfg)
	defer syncer.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second) // less than the platform allows
	defer cancel()
	ran, err := syncer.DrainJobs(ctx)
	fmt.Println(ran, "job,", err)
	// Output:
	// mail to ada@example.com: welcome (user_ada/create)
	// 1 job, <nil>
}

// If trying again will not help, Discard ends the job without counting it as failed.
func ExampleDiscard() {
	server, clock, cfg := jobsClerk()
	defer server.Close()
	refused := errors.New("there is no such address")
	cfg.OnCreate = func(context.Context, *clerksync.User, clerksync.Job) error {
		return clerksync.Discard(refused)
	}
	cfg.Observe = func(_ context.Context, o clerksync.Observation) {
		if o.Op == clerksync.OpJob {
			fmt.Println(o.Job.Kind, o.Job.Attempt, o.Job.Outcome, errors.Is(o.Err, refused))
		}
	}
	syncer := newSyncer(cfg)
	if _, err := syncer.User(context.Background(), "user_ada"); err != nil {
		log.Fatal(err)
	}
	_ = syncer.Close()
	clock.Advance(24 * time.Hour)
	again := newSyncer(cfg)
	defer again.Close()
	ran, err := again.DrainJobs(context.Background())
	fmt.Println(ran, "jobs,", err)
	// Output:
	// create 1 discarded true
	// 0 jobs, <nil>
}

// Metrics of jobs, and an alarm for those that need an operator.
func ExampleJobObservation() {
	server, _, cfg := jobsClerk()
	defer server.Close()
	cfg.Jobs.MaxAttempts = 1
	cfg.OnCreate = func(context.Context, *clerksync.User, clerksync.Job) error { return errors.New("the mailer is down") }
	count := func(kind clerksync.JobKind, outcome clerksync.JobOutcome) { fmt.Println(kind, outcome) } // a metric, in an app
	page := func(o clerksync.Observation) { fmt.Println(o.ClerkID, "needs an operator") }
	cfg.Observe = func(_ context.Context, o clerksync.Observation) {
		if o.Op != clerksync.OpJob {
			return
		}
		count(o.Job.Kind, o.Job.Outcome)
		if o.Job.Outcome == clerksync.JobFailed {
			page(o)
		}
	}
	syncer := newSyncer(cfg)
	if _, err := syncer.User(context.Background(), "user_ada"); err != nil {
		log.Fatal(err)
	}
	_ = syncer.Close()
	// Output:
	// create failed
	// user_ada needs an operator
}
