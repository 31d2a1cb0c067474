package existing

import (
	"context"
	"encoding/json"
	"net/http"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// openFieldNames is for records that have the Clerk id in clerk_id, and names of their own.
func openFieldNames(ctx context.Context, users *mongo.Collection) (*mongostore.Store, error) {
	fields := mongostore.SnakeCase() // clerk_id, email_verified, profile.first_name, …
	fields["name"] = "display_name"
	fields["profile.imageUrl"] = "avatar"
	fields["profile.birthday"] = "" // not stored
	return mongostore.Open(ctx, users, &mongostore.Options{
		Fields: fields,
		Record: mongostore.RecordOf[Account](),
	})
}

// Account is the app's own type of a record.
type Account struct {
	ID      bson.ObjectID `bson:"_id" json:"id"`
	Name    string        `bson:"display_name" json:"name"`
	Plan    string        `bson:"plan" json:"plan"`
	Credits int           `bson:"credits" json:"credits"`
}

// showAccount is a protected handler. It does not query the database.
func showAccount(w http.ResponseWriter, r *http.Request) {
	account, ok := clerksync.RecordFromContext[Account](r.Context())
	if !ok {
		http.Error(w, "no account", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(account)
}
