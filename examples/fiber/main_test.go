package main

import (
	"net"
	"net/http"
	"testing"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/examples/internal/routertest"
)

func TestRouter(t *testing.T) {
	t.Parallel()
	routertest.Run(t, serve)
}

func TestRoles(t *testing.T) {
	t.Parallel()
	routertest.RunRoles(t, serve)
}

// serve runs the router, and has a route for one role, as the library's README shows it.
func serve(t *testing.T, p routertest.Parts) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	app, ended := newRouter(p.Syncer, p.Webhooks), make(chan error)
	app.Get("/api/admin", func(c fiber.Ctx) error {
		if err := clerksync.CheckRole(c.Context(), clerksync.RoleAdmin); err != nil {
			return adaptor.HTTPHandlerFunc(func(w http.ResponseWriter, r *http.Request) { clerksync.WriteProblem(w, r, err) })(c)
		}
		user, _ := clerksync.UserFromContext(c.Context())
		return c.JSON(user)
	})
	go func() { ended <- app.Listener(listener, fiber.ListenConfig{DisableStartupMessage: true}) }()
	t.Cleanup(func() {
		if err := app.Shutdown(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "http://" + listener.Addr().String()
}
