// Command echo is a minimal app with clerksync on echo. main shows what it reads from the environment.
package main

import (
	"context"
	"log"
	"net/http"
	"os"

	"github.com/labstack/echo/v4"
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
	log.Fatal(newRouter(syncer, must(syncer.WebhookHandler(webhook))).Start("127.0.0.1:8080"))
}

func newRouter(syncer *clerksync.Syncer, webhooks http.Handler) *echo.Echo {
	e := echo.New()
	e.GET("/", func(c echo.Context) error { return c.String(http.StatusOK, "hello\n") })
	e.Any("/api/webhooks/clerk", echo.WrapHandler(webhooks)) // Clerk signs its requests and has no session
	e.Any("/api/webhooks/clerk/", echo.WrapHandler(webhooks))
	protected := e.Group("/api", func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r, err := syncer.Check(c.Request())
			if err != nil {
				clerksync.WriteProblem(c.Response(), c.Request(), err)
				return nil
			}
			c.SetRequest(r)
			return next(c)
		}
	})
	me := func(c echo.Context) error {
		user, _ := clerksync.UserFromContext(c.Request().Context())
		return c.JSON(http.StatusOK, user)
	}
	protected.GET("/me", me)
	protected.GET("/admin", me, echo.WrapMiddleware(clerksync.RequireRole(clerksync.RoleAdmin)))
	return e
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
