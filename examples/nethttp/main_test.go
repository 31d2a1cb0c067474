package main

import (
	"net/http"
	"testing"

	"github.com/clerksync/clerksync-go/examples/internal/routertest"
)

func TestRouter(t *testing.T) {
	t.Parallel()
	routertest.Run(t, func(p routertest.Parts) http.Handler {
		return newRouter(p.Syncer, p.Webhooks, func(w http.ResponseWriter, r *http.Request) {
			p.Reached()
			me(w, r)
		})
	})
}
