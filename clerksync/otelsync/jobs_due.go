package otelsync

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/clerksync/clerksync-go/clerksync"
)

const (
	defaultJobsInterval = time.Minute
	// maxJobsDue bounds a count of due jobs, and what it reads.
	maxJobsDue = 1000
	// jobsTimeout bounds how long a collection of metrics waits for the Store.
	jobsTimeout = 5 * time.Second
)

// createJobsGauge creates clerksync.jobs.due, if there can be jobs.
func createJobsGauge(meter metric.Meter, cfg *clerksync.Config, interval time.Duration, now func() time.Time) error {
	store, ok := cfg.Store.(clerksync.JobStore)
	if !ok || interval < 0 {
		return nil
	}
	d := &jobsDue{store: store, interval: interval, now: now}
	if interval == 0 {
		d.interval = defaultJobsInterval
	}
	if cfg.OnCreate != nil {
		d.counts = append(d.counts, jobCount{kind: clerksync.JobCreate})
	}
	if cfg.OnDelete != nil {
		d.counts = append(d.counts, jobCount{kind: clerksync.JobDelete})
	}
	if len(d.counts) == 0 {
		return nil
	}
	_, err := meter.Int64ObservableGauge("clerksync.jobs.due",
		metric.WithUnit("{job}"), metric.WithDescription("Jobs that are due, up to 1000 of a kind."),
		metric.WithInt64Callback(d.collect))
	return err
}

// jobsDue counts due jobs for collections of metrics, and remembers the counts: several readers may
// collect, and each as often as it likes.
type jobsDue struct {
	store    clerksync.JobStore
	interval time.Duration
	now      func() time.Time

	mu     sync.Mutex
	tried  time.Time // when the jobs were last counted, or could not be
	counts []jobCount
}

// jobCount is a number of due jobs.
type jobCount struct {
	kind  clerksync.JobKind
	jobs  int
	known bool // the last count succeeded
}

// collect reports the counts. One that could not be made is left out, so that no old one passes for
// the present.
func (d *jobsDue) collect(ctx context.Context, o metric.Int64Observer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	if now := d.now(); d.tried.IsZero() || now.Sub(d.tried) >= d.interval {
		d.tried = now
		for i := range d.counts {
			errs = append(errs, d.count(ctx, &d.counts[i], now))
		}
	}
	for _, c := range d.counts {
		if c.known {
			o.Observe(int64(c.jobs), metric.WithAttributes(jobKind.String(string(c.kind))))
		}
	}
	return errors.Join(errs...)
}

// count counts the due jobs of one kind.
func (d *jobsDue) count(ctx context.Context, c *jobCount, now time.Time) (err error) {
	c.known = false
	defer func() {
		if p := recover(); p != nil { // of the app's Store: it would end the process
			err = fmt.Errorf("otelsync: panic of type %T in the Store's DueJobs", p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, jobsTimeout)
	defer cancel()
	due, err := d.store.DueJobs(ctx, c.kind, now, maxJobsDue)
	if err != nil {
		return fmt.Errorf("otelsync: due jobs cannot be counted: %w", err)
	}
	c.jobs, c.known = len(due), true
	return nil
}
