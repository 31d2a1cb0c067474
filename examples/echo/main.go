// Command echo is a minimal app with clerksync on the echo router. It reads CLERK_SECRET_KEY,
// CLERK_WEBHOOK_SIGNING_SECRET and MONGODB_URI.
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/labstack/echo/v4"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client := must(mongo.Connect(options.Client().ApplyURI(os.Getenv("MONGODB_URI"))))
	store := must(mongostore.Open(ctx, client.Database("app").Collection("users"), nil))
	syncer := must(clerksync.New(clerksync.Config{Store: store, SecretKey: os.Getenv("CLERK_SECRET_KEY")}))
	webhooks := must(syncer.WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{os.Getenv("CLERK_WEBHOOK_SIGNING_SECRET")},
	}))

	server := &http.Server{Addr: "127.0.0.1:8080", Handler: newRouter(syncer, webhooks, me), ReadHeaderTimeout: 5 * time.Second}
	log.Println("serving on http://" + server.Addr)
	log.Fatal(server.ListenAndServe())
}

func newRouter(syncer *clerksync.Syncer, webhooks http.Handler, me echo.HandlerFunc) http.Handler {
	e := echo.New()
	e.GET("/", func(c echo.Context) error { return c.String(http.StatusOK, "hello\n") })
	e.Any("/api/webhooks/clerk", echo.WrapHandler(webhooks)) // Clerk signs its requests and has no session
	e.Any("/api/webhooks/clerk/", echo.WrapHandler(webhooks))
	protected := e.Group("/api", echo.WrapMiddleware(syncer.RequireUser))
	protected.GET("/me", me)
	return e
}

func me(c echo.Context) error {
	user, _ := clerksync.UserFromContext(c.Request().Context())
	return c.JSON(http.StatusOK, user)
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
