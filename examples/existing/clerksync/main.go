// Command clerksync is the command line for an app with existing users. Its Options are those
// of the app, so inspect, drift and reconcile do what the app does. Run it instead of the
// command of the library:
//
//	go run ./existing/clerksync inspect
//	go run ./existing/clerksync reconcile -dry-run
//	go run ./existing/clerksync reconcile
package main

import (
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/cli"
	"github.com/clerksync/clerksync-go/mongostore"
)

func main() { cli.Main(configure) }

// configure is what the app calls too, before it makes its Store and its Syncer.
func configure(c *clerksync.Config, o *mongostore.Options) {
	c.DefaultRole = "member"
	o.Fields = mongostore.SnakeCase()
	o.Fields["name"] = "clerk_name" // the app's own name stays
	o.Adopt = &mongostore.Adopt{
		ByExternalID: "_id",
		ByEmail:      true,
		Trusted:      bson.D{{Key: "email_verified", Value: true}},
	}
}
