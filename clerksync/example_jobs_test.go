package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// An app that greets new users, and cleans up after deleted ones. Each of its processes may run
// RunJobs.
func ExampleSyncer_RunJobs() {
	syncer, err := clerksync.New(clerksync.Config{
		Store:     memstore.New(), // mongostore.Open(ctx, collection, nil) in an app
		SecretKey: os.Getenv("CLERK_SECRET_KEY"),
		OnCreate: func(ctx context.Context, u *clerksync.User, job clerksync.Job) error {
			return sendWelcome(ctx, u.Email, job.Key)
		},
		OnDelete: func(ctx context.Context, u *clerksync.User, _ clerksync.Job) error {
			return deletePostsOf(ctx, u.ID)
		},
	})
	if err != nil {
		log.Print(err)
		return
	}
	defer syncer.Close()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := syncer.RunJobs(ctx); err != nil {
		log.Print(err)
	}
}

// sendWelcome stands for a mailer that sends one mail for each idempotency key.
func sendWelcome(context.Context, string, string) error { return nil }

func deletePostsOf(context.Context, string) error { return nil }

// A job that fails is due again after a wait. A cron job, a serverless function or a test runs
// what is due.
func ExampleSyncer_DrainJobs() {
	clerk, cfg := exampleClerk()
	defer clerk.Close()
	cfg.Jobs.Await = true // visits wait for the workspace
	cfg.OnCreate = func(_ context.Context, u *clerksync.User, job clerksync.Job) error {
		fmt.Printf("attempt %d: a workspace for %s\n", job.Attempt, u.Name)
		return nil
	}
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Print(err)
		return
	}
	defer syncer.Close()

	ada := clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	if _, err := syncer.User(context.Background(), ada); err != nil {
		log.Print(err)
	}
	n, err := syncer.DrainJobs(context.Background())
	fmt.Println(n, "left,", err)
	// Output:
	// attempt 1: a workspace for Ada
	// 0 left, <nil>
}

// An error of Discard ends the job: trying again would not change anything.
func ExampleDiscard() {
	errNoMailbox := errors.New("550 no such mailbox")
	onCreate := func(ctx context.Context, u *clerksync.User, job clerksync.Job) error {
		err := sendWelcome(ctx, u.Email, job.Key)
		if errors.Is(err, errNoMailbox) {
			return clerksync.Discard(err)
		}
		return err // tried again later
	}
	fmt.Println(onCreate(context.Background(), &clerksync.User{}, clerksync.Job{Key: "user_2abc/create", Attempt: 1}))
	// Output:
	// <nil>
}
