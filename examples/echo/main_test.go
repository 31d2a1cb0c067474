package main

import (
	"net/http"
	"testing"

	"github.com/labstack/echo/v4"
	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/examples/internal/routertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRouter(t *testing.T) {
	t.Parallel()
	routertest.Run(t, func(p routertest.Parts) http.Handler {
		return newRouter(p.Syncer, p.Webhooks, func(c echo.Context) error {
			p.Reached()
			return me(c)
		})
	})
}
