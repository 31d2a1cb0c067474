package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

const (
	cacheTTL     = 2 * time.Second // short, so that a run sees many records expire
	refreshAfter = 5 * time.Second
	// lateness is how long after an acknowledged deletion another process may still serve the user.
	// It may serve from memory for cacheTTL what it read before, a read takes at most 8 s, and 2 s
	// allow for a busy machine.
	lateness = cacheTTL + 8*time.Second + 2*time.Second
)

// proof is one run.
type proof struct {
	config config
	say    func(format string, args ...any)
	fail   func(error) // ends the run
	folder string

	clerk    *fakeclerk.Server
	endpoint *fakeclerk.Endpoint
	database *database
	fleet    *fleet
	ledger   *ledger
	balancer *balancer
	courier  *courier
	traffic  *traffic
	jobs     *jobs

	databaseKills int
	began         time.Time
}

// prove does one run. It leaves no process behind, and no files unless it finds a violation.
func prove(ctx context.Context, o config, say func(format string, args ...any)) (_ *summary, err error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	// Not t.TempDir, whose name could be too long for a socket.
	folder, err := os.MkdirTemp("", "crash-")
	if err != nil {
		return nil, err
	}
	p := &proof{config: o, say: say, fail: fail, folder: folder}
	defer func() {
		if cause := context.Cause(ctx); cause != nil && (err == nil || !errors.As(err, new(*violation))) {
			err = cause // err is only its consequence
		}
		if err == nil {
			err = os.RemoveAll(folder)
		} else if errors.As(err, new(*violation)) {
			err = fmt.Errorf("%w\nthe logs are in %s, the data in %s", err, folder, p.dataLocation())
		} else {
			_ = os.RemoveAll(folder)
		}
	}()
	if p.config.programs == nil {
		say("building the programs")
		if p.config.programs, err = buildPrograms(ctx, folder); err != nil {
			return nil, err
		}
	}
	return p.run(ctx)
}

func (p *proof) dataLocation() string {
	if p.database == nil {
		return "no database"
	}
	return p.database.location()
}

func (p *proof) run(ctx context.Context) (_ *summary, err error) {
	p.began = time.Now()
	// A production key has the higher rate limit. A seed of 0 would mean a random one.
	p.clerk, err = fakeclerk.Start(fakeclerk.Config{SecretKey: "sk_live_crash", Seed: p.config.seed | 1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.clerk.Close()) }()
	p.database, err = openDatabase(ctx, p.config, p.config.programs, p.folder, p.fail)
	if err != nil {
		return nil, err
	}
	defer func() {
		closeErr := p.database.close(ctx, err != nil)
		if err == nil {
			err = closeErr
		}
	}()

	p.ledger = newLedger(lateness, p.database.calm)
	p.balancer = &balancer{ledger: p.ledger, fail: p.fail, client: newClient(), rng: stream(p.config.seed, "balancer")}
	if err := p.balancer.serve(ctx); err != nil {
		return nil, err
	}
	defer p.balancer.close()
	p.jobs = newJobs(p.config.seed)
	if err := p.jobs.serve(ctx); err != nil {
		return nil, err
	}
	defer p.jobs.close()
	p.prepare()
	defer p.traffic.client.CloseIdleConnections()

	life, stop := context.WithCancel(ctx)
	defer p.fleet.waiting.Wait()
	defer stop()
	p.fleet.keep(life, p.fail)
	if err := p.fleet.up(ctx); err != nil {
		return nil, err
	}
	p.say("%d app processes and the database are up", p.config.processes)
	if err := p.storm(ctx); err != nil {
		return nil, err
	}
	if err := p.calm(ctx); err != nil {
		return nil, err
	}

	// The processes end without an error when told to, and what they wrote last is right too.
	stop()
	p.fleet.waiting.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if err := p.jobs.finish(ctx, p); err != nil {
		return nil, err
	}
	if err := p.check(ctx); err != nil {
		return nil, err
	}
	if err := p.checkJobs(ctx); err != nil {
		return nil, err
	}
	if err := readLogs(p.folder); err != nil {
		return nil, err
	}
	return p.summarize(), nil
}

// prepare sets up the courier, the fleet and the traffic. It starts nothing.
func (p *proof) prepare() {
	p.endpoint = p.clerk.AddEndpoint(p.balancer.url+"/api/webhooks/clerk", fakeclerk.EndpointOptions{Concurrency: 6})
	p.endpoint.Hold()
	p.courier = &courier{endpoint: p.endpoint, rng: stream(p.config.seed, "courier"), plans: map[string]*plan{}}
	p.endpoint.SetPolicy(p.courier.policy(p.config.seed))

	app := spec{
		program: p.config.programs.app,
		args:    []string{"-addr", "127.0.0.1:0", "-cache-ttl", cacheTTL.String(), "-refresh-after", refreshAfter.String()},
		env: []string{
			"CLERK_SECRET_KEY=" + p.clerk.SecretKey(), "CLERK_API_URL=" + p.clerk.APIURL(),
			"CLERK_WEBHOOK_SIGNING_SECRET=" + p.endpoint.Secret(),
			"MONGODB_URI=" + p.database.uri, "MONGODB_DATABASE=" + p.database.name,
		},
		log: filepath.Join(p.folder, "app.log"), ready: serving, started: p.config.started,
	}
	p.fleet = newFleet(p.config.processes, app, p.config.seed, p.database.calm)
	p.fleet.jobsURL, p.fleet.excused = p.jobs.url, p.database.excuses
	p.balancer.fleet, p.jobs.fleet = p.fleet, p.fleet
	p.jobs.excused = p.fleet.diedSoonAfter
	p.traffic = &traffic{
		clerk: p.clerk, ledger: p.ledger, fleet: p.fleet, courier: p.courier,
		users: p.database.users(), client: newClient(), target: p.config.users,
	}
	p.traffic.churn.Store(10)
}

// storm runs traffic and kills, stops the traffic after the last kill, and waits for the rest of
// the webhooks.
func (p *proof) storm(ctx context.Context) error {
	delivering, stopCourier := context.WithCancel(ctx)
	var courier sync.WaitGroup
	courier.Go(func() { p.courier.run(delivering) })
	defer courier.Wait()
	defer stopCourier()

	busy, quiet := context.WithCancel(ctx)
	var all sync.WaitGroup
	part := func(name string, f func(context.Context, *rand.Rand) error) {
		all.Go(func() {
			if err := f(busy, stream(p.config.seed, name)); err != nil {
				p.fail(err)
			}
		})
	}
	part("changes", p.traffic.change)
	part("edits", p.traffic.edit)
	for i := range 4 {
		part(fmt.Sprint("visits ", i), p.traffic.visit)
	}
	var audits sync.WaitGroup
	audits.Go(func() { p.keepAuditing(busy) })
	p.courier.replay.Store(true)
	p.ledger.listen(true)

	err := p.killAll(ctx, stream(p.config.seed, "kills"))
	p.courier.replay.Store(false)
	p.ledger.listen(false)
	quiet()
	all.Wait()
	audits.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	p.say("all kills done; the rest of the webhooks")
	if err := p.fleet.up(ctx); err != nil {
		return err
	}
	return p.allDelivered(ctx)
}

// killAll carries out the plan of kills.
func (p *proof) killAll(ctx context.Context, rng *rand.Rand) error {
	left := p.config.kills
	// When to kill the database, as the number of app kills before.
	turns := make([]int, p.config.databaseKills)
	for i := range turns {
		turns[i] = rng.IntN(max(p.config.kills, 1))
	}
	slices.Sort(turns)
	for len(turns) > 0 || left > 0 {
		if err := p.work(ctx, rng.IntN(80)); err != nil {
			return err
		}
		if len(turns) > 0 && turns[0] <= p.config.kills-left {
			turns = turns[1:]
			if err := p.killDatabase(ctx, rng, &left); err != nil {
				return err
			}
			continue
		}
		if left > 0 {
			if err := p.killApps(ctx, rng, &left); err != nil {
				return err
			}
		}
	}
	return p.work(ctx, 80)
}

// work waits until n more webhooks or visits were answered, so that kills hit processes at work.
func (p *proof) work(ctx context.Context, n int) error {
	goal := p.ledger.progressed() + n
	return until(ctx, func() bool { return p.ledger.progressed() >= goal }, "no webhook and no visit was answered")
}

// killApps kills one process, two, or all, and subtracts them from left.
func (p *proof) killApps(ctx context.Context, rng *rand.Rand, left *int) error {
	n := 1
	switch rng.IntN(6) {
	case 0:
		n = len(p.fleet.slots)
	case 1:
		n = 2
	}
	n = min(n, *left, len(p.fleet.slots))
	*left -= n
	errs := make([]error, n)
	var all sync.WaitGroup
	for i, at := range rng.Perm(len(p.fleet.slots))[:n] {
		s, aim, moment := p.fleet.slots[at], ambush(rng.IntN(int(numAmbushes)+1)), time.Duration(rng.Int64N(int64(8*time.Millisecond)))
		all.Go(func() {
			if aim == inJob {
				p.traffic.urgent.Store(4)
			}
			if aim < numAmbushes {
				errs[i] = s.killIn(ctx, aim, moment)
			} else {
				errs[i] = s.kill(ctx)
			}
		})
	}
	all.Wait()
	p.traffic.churn.Add(2 * int64(n))
	return errors.Join(errs...)
}

// killDatabase kills the database, sometimes also app processes while it is down, starts it again,
// and audits it at once.
func (p *proof) killDatabase(ctx context.Context, rng *rand.Rand, left *int) error {
	if err := p.database.kill(ctx); err != nil {
		return err
	}
	p.databaseKills++
	if err := pause(ctx, time.Duration(rng.Int64N(int64(1500*time.Millisecond)))); err != nil {
		return err
	}
	if *left > 0 && rng.IntN(2) == 0 {
		if err := p.killApps(ctx, rng, left); err != nil {
			return err
		}
	}
	if err := p.database.start(ctx); err != nil {
		return err
	}
	_, err := p.auditNow(ctx)
	p.say("database killed %d times, app processes %d times; %d webhooks and visits answered",
		p.databaseKills, p.fleet.kills.Load(), p.ledger.progressed())
	return err
}

// keepAuditing audits every second. It ignores errors of a database that is down.
func (p *proof) keepAuditing(ctx context.Context) {
	for pause(ctx, time.Second) == nil {
		if _, err := audit(ctx, p.database.users(), p.ledger); errors.As(err, new(*violation)) {
			p.fail(err)
			return
		}
	}
}

// auditNow audits, and tries again until the database answers.
func (p *proof) auditNow(ctx context.Context) (records map[string]record, err error) {
	tried := until(ctx, func() bool {
		records, err = audit(ctx, p.database.users(), p.ledger)
		return err == nil || errors.As(err, new(*violation))
	}, "the database could not be read")
	return records, errors.Join(tried, err)
}

// allDelivered waits until every webhook was answered 2xx.
func (p *proof) allDelivered(ctx context.Context) error {
	undelivered := func() []fakeclerk.Message {
		return slices.DeleteFunc(p.endpoint.Messages(), func(m fakeclerk.Message) bool {
			return m.State == fakeclerk.Delivered
		})
	}
	err := until(ctx, func() bool { return len(undelivered()) == 0 }, "not all webhooks were answered 2xx")
	if rest := undelivered(); err != nil && len(rest) > 0 {
		first := rest[0]
		err = fmt.Errorf("%w: %d are left, the first is %s %s, %d attempts, the last %+v", err,
			len(rest), first.ID, first.Type, len(first.Attempts), first.Attempts[max(len(first.Attempts)-1, 0):])
	}
	return err
}

// check is the audit at the end: nothing is lost, and all records equal Clerk's users.
func (p *proof) check(ctx context.Context) error {
	records, err := p.auditNow(ctx)
	if err != nil {
		return err
	}
	return converged(records, p.clerk, p.ledger)
}

// checkJobs checks the effects of the apps' jobs.
func (p *proof) checkJobs(ctx context.Context) error {
	records, err := p.auditNow(ctx)
	if err != nil {
		return err
	}
	return p.jobs.check(records, p.ledger.states())
}

// calm checks the database first, because a visit would repair it. Then every user visits every
// process, deleted users too.
func (p *proof) calm(ctx context.Context) error {
	if err := p.check(ctx); err != nil {
		return err
	}
	// Until then a process may serve what it read before the last change.
	if err := pause(ctx, cacheTTL+time.Second); err != nil {
		return err
	}
	p.say("everybody visits every process")
	records, err := p.auditNow(ctx)
	if err != nil {
		return err
	}
	for id, s := range p.ledger.states() {
		for _, slot := range p.fleet.slots {
			if err := p.lastVisit(ctx, slot, id, s, records[id].Role); err != nil {
				return err
			}
		}
	}
	return p.check(ctx)
}

// lastVisit makes a visit that must be answered with the latest state.
func (p *proof) lastVisit(ctx context.Context, slot *slot, id string, s state, role string) error {
	status, body, err := p.traffic.call(ctx, id, slot.target())
	if err != nil {
		return err
	}
	var got served
	_ = json.Unmarshal(body, &got) // call has checked that it is JSON
	want := http.StatusOK
	if s.deleted || s.banned {
		want = http.StatusForbidden
	}
	if status != want {
		return violated("at the end %s (deleted %t, banned %t) is answered %d by %s",
			id, s.deleted, s.banned, status, slot.spec.name)
	}
	if status != http.StatusOK {
		return nil
	}
	if revision, _ := revisionOf(id, got.Profile.LastName, got.Email); revision != s.revisions {
		return violated("at the end %s is served revision %d of %d by %s", id, revision, s.revisions, slot.spec.name)
	}
	if got.Role != role {
		return violated("at the end %s is served role %q by %s, but the database has %q", id, got.Role, slot.spec.name, role)
	}
	return nil
}
