package main

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/examples/internal/routertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRouter(t *testing.T) {
	t.Parallel()
	routertest.Run(t, routertest.Handler(newRouter))
}

func TestRoles(t *testing.T) {
	t.Parallel()
	routertest.RunRoles(t, routertest.Handler(newRouter))
}
