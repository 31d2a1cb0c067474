// Command clerksync is clerksync's command line with the settings of this app. Each app that has
// Options or a Config of its own builds one like it.
package main

import (
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/cli"
	"github.com/clerksync/clerksync-go/mongostore"
)

func main() {
	cli.Main(configure)
}

// configure sets what the app's own Config and Options have. In an app, both programs call it.
func configure(c *clerksync.Config, o *mongostore.Options) {
	c.DefaultRole = "member"
	o.Fields = mongostore.SnakeCase()
	o.Adopt = &mongostore.Adopt{
		ByExternalID: "_id",
		ByEmail:      true,
		Trusted:      bson.D{{Key: "email_verified", Value: true}},
	}
}
