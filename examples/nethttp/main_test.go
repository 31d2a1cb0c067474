package main

import (
	"net/http"
	"testing"

	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/examples/internal/routertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRouter(t *testing.T) {
	t.Parallel()
	routertest.Run(t, func(p routertest.Parts) http.Handler {
		return newRouter(p.Syncer, p.Webhooks, func(w http.ResponseWriter, r *http.Request) {
			p.Reached()
			me(w, r)
		})
	})
}
