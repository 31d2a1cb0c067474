package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// The first backfill, if the app had users before it used clerksync.
func ExampleSyncer_Reconcile() {
	server, cfg := exampleClerk()
	defer server.Close()
	for i := range 3 {
		server.CreateUser(fakeclerk.NewUser{Email: fmt.Sprintf("user%d@example.com", i)})
	}
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()

	ctx := context.Background()
	report, err := syncer.Reconcile(ctx, clerksync.ReconcileOptions{})
	if err != nil {
		log.Fatal(err) // report.Resume continues the run
	}
	fmt.Println(report.Created.Count, "created, complete:", report.Complete)

	report, err = syncer.Reconcile(ctx, clerksync.ReconcileOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Unchanged, "unchanged, in step:", report.InStep())
	// Output:
	// 3 created, complete: true
	// 3 unchanged, in step: true
}

// A nightly check by the app, which has its own Map and RoleOf.
func ExampleSyncer_Reconcile_drift() {
	server, cfg := exampleClerk()
	defer server.Close()
	server.CreateUser(fakeclerk.NewUser{ID: "user_lost", Email: "ada@example.com"}) // the webhook was lost
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()

	ctx := context.Background()
	report, err := syncer.Reconcile(ctx, clerksync.ReconcileOptions{DryRun: true, Force: true})
	switch {
	case errors.Is(err, clerksync.ErrTooManyGhosts):
		log.Fatal("look into this before anything is marked deleted: ", err)
	case err != nil:
		log.Fatal(err)
	case !report.InStep():
		fmt.Println("drift: missing", report.Created.IDs, "different", report.Fields, "gone", report.Ghosts.IDs)
	}
	// Output: drift: missing [user_lost] different map[] gone []
}
