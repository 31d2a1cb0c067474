// Command gin is a minimal app with clerksync on the gin router. It reads CLERK_SECRET_KEY,
// CLERK_WEBHOOK_SIGNING_SECRET and MONGODB_URI.
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"
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

func newRouter(syncer *clerksync.Syncer, webhooks http.Handler, me gin.HandlerFunc) http.Handler {
	r := gin.New()
	r.Use(gin.Recovery())
	r.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "hello\n") })
	r.Any("/api/webhooks/clerk", gin.WrapH(webhooks)) // Clerk signs its requests and has no session
	r.Any("/api/webhooks/clerk/", gin.WrapH(webhooks))
	protected := r.Group("/api", adapt(syncer.RequireUser))
	protected.GET("/me", me)
	return r
}

// adapt turns net/http middleware into gin middleware. Gin calls the next handler unless the chain
// is aborted, so adapt aborts it if the middleware did not call next.
func adapt(middleware func(http.Handler) http.Handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		passed := false
		next := func(_ http.ResponseWriter, r *http.Request) {
			passed, c.Request = true, r
			c.Next()
		}
		middleware(http.HandlerFunc(next)).ServeHTTP(c.Writer, c.Request)
		if !passed {
			c.Abort()
		}
	}
}

func me(c *gin.Context) {
	user, _ := clerksync.UserFromContext(c.Request.Context()) // not in c itself
	c.JSON(http.StatusOK, user)
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
