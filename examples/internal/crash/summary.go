package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// summary counts what a run did.
type summary struct {
	seed                  uint64
	took                  time.Duration
	kills, ambushes       int
	starts                int
	databaseKills         int
	databaseOutage        time.Duration
	users, deleted        int
	webhooks              int // messages, not attempts
	attempts, redelivered int
	doubled, replayed     int
	visits, answers       map[string]int
	silence               time.Duration
	audits                int
	tally                 tally
	cut                   int // webhooks that no app process answered
}

func (p *proof) summarize() *summary {
	s := &summary{
		seed: p.config.seed, took: time.Since(p.began),
		kills: int(p.fleet.kills.Load()), ambushes: int(p.fleet.ambushes.Load()), starts: int(p.fleet.starts.Load()),
		databaseKills: p.databaseKills, databaseOutage: p.database.longest,
		replayed: int(p.courier.replayed.Load()), cut: int(p.balancer.cut.Load()), audits: p.audits,
	}
	s.visits, s.answers, s.silence, s.tally = p.ledger.counts()
	for _, st := range p.ledger.states() {
		s.users++
		if st.deleted {
			s.deleted++
		}
	}
	for _, m := range p.endpoint.Messages() {
		s.webhooks++
		s.attempts += len(m.Attempts)
		good, failed := 0, false
		for _, a := range m.Attempts {
			if a.Status >= 200 && a.Status <= 299 {
				good++
			} else {
				failed = true
			}
		}
		if failed {
			s.redelivered++
		}
		if good > 1 {
			s.doubled++
		}
	}
	return s
}

func (s *summary) String() string {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		_, _ = fmt.Fprintf(&b, "%-18s"+format+"\n", append([]any{what}, args...)...)
	}
	line("result", "nothing acknowledged was lost, and all records equal Clerk; seed %d, %v",
		s.seed, s.took.Round(100*time.Millisecond))
	line("kills", "%d of app processes, %d of them right after a webhook was sent to them; %d starts",
		s.kills, s.ambushes, s.starts)
	line("database kills", "%d; the longest outage was %v", s.databaseKills, s.databaseOutage.Round(10*time.Millisecond))
	line("users", "%d, %d of them deleted", s.users, s.deleted)
	line("webhooks", "%d, all acknowledged in the end; %d attempts, %d without an answer, answers %v",
		s.webhooks, s.attempts, s.cut, ordered(s.answers))
	line("", "%d redelivered after a failure, %d acknowledged more than once, %d old ones replayed",
		s.redelivered, s.doubled, s.replayed)
	line("visits", "%v", ordered(s.visits))
	line("", "%d by deleted users to a process that had acknowledged the deletion: all refused", s.tally.knownDeleted)
	line("", "%d by deleted users more than %v after another process had acknowledged it: all refused",
		s.tally.lateDeleted, lateness)
	line("", "%d to a process that had acknowledged or served the user before: none got an older revision",
		s.tally.knownRevision)
	line("longest silence", "%v without a visit that got 200 or 403", s.silence.Round(10*time.Millisecond))
	line("the app's edits", "%d made, %d of them acknowledged", s.tally.editsMade, s.tally.editsDone)
	line("5xx without cause", "%d visits, %d webhooks (503 from a living process, with the database up for over %v)",
		s.tally.oddVisits, s.tally.oddWebhooks, recovery)
	return b.String()
}

func ordered(counts map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s: %d", k, counts[k]))
	}
	return strings.Join(parts, ", ")
}

// readLogs looks for panics and data races in the apps' logs.
func readLogs(folder string) error {
	logs, err := filepath.Glob(filepath.Join(folder, "app-*.log"))
	if err != nil {
		return err
	}
	for _, name := range logs {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, bad := range []string{"WARNING: DATA RACE", "panic:", "fatal error:"} {
			if i := bytes.Index(text, []byte(bad)); i >= 0 {
				return violated("%s contains %q: %.2000s", name, bad, text[i:])
			}
		}
	}
	return nil
}
