package memstore_test

import (
	"context"
	"fmt"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// An app's own writes survive every sync.
func ExampleStore_Edit() {
	ctx := context.Background()
	store := memstore.New()
	signedUp := time.Date(2025, time.May, 1, 12, 0, 0, 0, time.UTC)

	res, err := store.Upsert(ctx, &clerksync.User{
		ClerkID: "user_2abc", Name: "Ada", Role: clerksync.RoleStudent, ClerkUpdatedAt: signedUp,
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(res.Outcome, res.User.Name, res.User.Role)

	err = store.Edit("user_2abc", func(u *clerksync.User) { u.Role = clerksync.RoleAdmin })
	if err != nil {
		panic(err)
	}
	res, err = store.Upsert(ctx, &clerksync.User{
		ClerkID: "user_2abc", Name: "Ada Lovelace", Role: clerksync.RoleStudent, ClerkUpdatedAt: signedUp.Add(time.Hour),
	})
	if err != nil {
		panic(err)
	}
	u, err := store.User(ctx, "user_2abc")
	if err != nil {
		panic(err)
	}
	fmt.Println(res.Outcome, u.Name, u.Role)

	// Output:
	// created Ada STUDENT
	// updated Ada Lovelace ADMIN
}

func Example() {
	ctx := context.Background()
	store := memstore.New()

	// The webhooks arrive in the wrong order: the deletion comes first.
	deletedAt := time.Date(2025, time.May, 2, 12, 0, 0, 0, time.UTC)
	res, err := store.Deactivate(ctx, "user_2abc", deletedAt)
	if err != nil {
		panic(err)
	}
	fmt.Println(res.Outcome)

	res, err = store.Upsert(ctx, &clerksync.User{
		ClerkID: "user_2abc", Email: "ada@example.com", ClerkUpdatedAt: deletedAt.Add(-time.Hour),
	})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s, active %t, e-mail %q\n", res.Outcome, res.User.IsActive, res.User.Email)

	// Output:
	// deactivated
	// deactivated, active false, e-mail ""
}
