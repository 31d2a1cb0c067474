package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// What the app does is in what Prometheus scrapes.
func TestMetrics(t *testing.T) {
	t.Parallel()
	clock := fakeclerk.NewClock(time.Now())
	clerk, err := fakeclerk.Start(fakeclerk.Config{Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer clerk.Close()
	cfg := clerksync.Config{
		Store: memstore.New(), SecretKey: clerk.SecretKey(), APIURL: clerk.APIURL(), Now: clock.Now,
		OnCreate: func(context.Context, *clerksync.User, clerksync.Job) error { return nil },
	}
	metrics := must(instrument(&cfg))
	syncer := must(clerksync.New(cfg))
	defer syncer.Close()
	app := newRouter(syncer, must(syncer.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{secret}})))

	id := clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	for range 2 {
		r := httptest.NewRequest(http.MethodGet, "/api/hello", nil)
		r.Header.Set("Authorization", "Bearer "+clerk.SessionToken(id))
		if w := httptest.NewRecorder(); serveTo(w, app, r) != http.StatusOK || w.Body.String() != "hello, Ada\n" {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	event := fakeclerk.Event{Type: "user.deleted", Data: map[string]any{"id": id, "deleted": true}, Time: clock.Now()}
	serveTo(httptest.NewRecorder(), app, fakeclerk.SignedRequest(t.Context(), "http://app/api/webhooks/clerk", secret, event))
	if _, err := syncer.Reconcile(t.Context(), clerksync.ReconcileOptions{}); err != nil {
		t.Error(err)
	}
	_ = syncer.Close()

	w := httptest.NewRecorder()
	serveTo(w, metrics, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{
		`clerksync_operation_duration_seconds_count{clerksync_operation_name="visit",clerksync_operation_outcome="created",clerksync_operation_source="clerk"} 1`,
		`clerksync_operation_duration_seconds_bucket{clerksync_operation_name="visit",clerksync_operation_source="cache",le="0.001"} 1`,
		`clerksync_operation_duration_seconds_count{clerksync_operation_name="webhook",clerksync_operation_outcome="deactivated"} 1`,
		`clerksync_webhook_delay_seconds_count 1`,
		`clerksync_jobs_due{clerksync_job_kind="create"} 0`,
		`clerksync_reconcile_users{clerksync_reconcile_dry_run="false",clerksync_reconcile_result="tombstoned"} 1`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s is missing", want)
		}
	}
	if t.Failed() {
		t.Log(w.Body.String())
	}
}

func serveTo(w *httptest.ResponseRecorder, h http.Handler, r *http.Request) (status int) {
	h.ServeHTTP(w, r)
	return w.Code
}
