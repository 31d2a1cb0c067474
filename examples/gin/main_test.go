package main

import (
	"net/http"
	"testing"

	"github.com/gin-gonic/gin"
	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/examples/internal/routertest"
)

func init() { gin.SetMode(gin.TestMode) } // prints no list of routes

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRouter(t *testing.T) {
	t.Parallel()
	routertest.Run(t, func(p routertest.Parts) http.Handler {
		return newRouter(p.Syncer, p.Webhooks, func(c *gin.Context) {
			p.Reached()
			me(c)
		})
	})
}
