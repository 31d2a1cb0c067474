package main

import (
	"net"
	"testing"

	"github.com/gofiber/fiber/v3"

	"github.com/clerksync/clerksync-go/examples/internal/routertest"
)

func TestRouter(t *testing.T) {
	t.Parallel()
	routertest.Run(t, func(t *testing.T, p routertest.Parts) string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		app, ended := newRouter(p.Syncer, p.Webhooks), make(chan error)
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
	})
}
