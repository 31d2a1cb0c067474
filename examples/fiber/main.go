// Command fiber is a minimal app with clerksync on fiber. main shows what it reads from the environment.
package main

import (
	"context"
	"log"
	"net/http"
	"os"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

func main() {
	users := must(mongo.Connect(options.Client().ApplyURI(os.Getenv("MONGODB_URI")))).Database("app").Collection("users")
	store := must(mongostore.Open(context.Background(), users, nil))
	syncer := must(clerksync.New(clerksync.Config{Store: store, SecretKey: os.Getenv("CLERK_SECRET_KEY")}))
	webhook := clerksync.WebhookConfig{Secrets: []string{os.Getenv("CLERK_WEBHOOK_SIGNING_SECRET")}}
	log.Fatal(newRouter(syncer, must(syncer.WebhookHandler(webhook))).Listen("127.0.0.1:8080"))
}

func newRouter(syncer *clerksync.Syncer, webhooks http.Handler) *fiber.App {
	app := fiber.New()
	app.Get("/", func(c fiber.Ctx) error { return c.SendString("hello\n") })
	app.All("/api/webhooks/clerk", adaptor.HTTPHandlerFunc(func(w http.ResponseWriter, r *http.Request) { // has no session
		webhooks.ServeHTTP(w, r.WithContext(context.Background())) // the adaptor's context is not safe in Shutdown
	}))
	app.Use("/api", func(c fiber.Ctx) error {
		r := (&http.Request{Method: c.Method(), Host: string(c.Request().Host()), Header: http.Header{}}).WithContext(c.Context())
		for name, value := range c.Request().Header.All() { // copied: fiber uses the memory again for the next request
			r.Header.Add(string(name), string(value))
		}
		r, err := syncer.Check(r)
		if err != nil {
			return adaptor.HTTPHandlerFunc(func(w http.ResponseWriter, r *http.Request) { clerksync.WriteProblem(w, r, err) })(c)
		}
		c.SetContext(r.Context())
		return c.Next()
	})
	app.Get("/api/me", func(c fiber.Ctx) error {
		user, _ := clerksync.UserFromContext(c.Context())
		return c.JSON(user)
	})
	return app
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
