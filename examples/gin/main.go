// Command gin is a minimal app with clerksync on gin. main shows what it reads from the environment.
package main

import (
	"context"
	"log"
	"net/http"
	"os"

	"github.com/gin-gonic/gin"
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
	log.Fatal(newRouter(syncer, must(syncer.WebhookHandler(webhook))).Run("127.0.0.1:8080"))
}

func newRouter(syncer *clerksync.Syncer, webhooks http.Handler) *gin.Engine {
	router := gin.Default()
	router.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "hello\n") })
	router.Any("/api/webhooks/clerk", gin.WrapH(webhooks)) // Clerk signs its requests and has no session
	router.Any("/api/webhooks/clerk/", gin.WrapH(webhooks))
	protected := router.Group("/api", func(c *gin.Context) {
		r, err := syncer.Check(c.Request)
		if err != nil {
			clerksync.WriteProblem(c.Writer, c.Request, err)
			c.Abort()
			return
		}
		c.Request = r
	})
	me := func(c *gin.Context) {
		user, _ := clerksync.UserFromContext(c.Request.Context()) // not in c itself
		c.JSON(http.StatusOK, user)
	}
	protected.GET("/me", me)
	protected.GET("/admin", func(c *gin.Context) {
		if err := clerksync.CheckRole(c.Request.Context(), clerksync.RoleAdmin); err != nil {
			clerksync.WriteProblem(c.Writer, c.Request, err)
			c.Abort()
		}
	}, me)
	return router
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
