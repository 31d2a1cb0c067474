package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// This file is what the app does once per user. Copy the functions that you need.

// app is what the functions need.
type app struct {
	mailer     mailer
	workspaces *mongo.Collection
	documents  *mongo.Collection
}

// withWelcome has a welcome mail sent to each new user.
func (a *app) withWelcome(cfg *clerksync.Config) {
	cfg.OnCreate = a.welcome
}

// welcome sends the mail. Job.Key is the same for each attempt, so the mailer sends it once.
func (a *app) welcome(ctx context.Context, u *clerksync.User, job clerksync.Job) error {
	if u.Email == "" {
		return nil // signed up with a phone number: there is nobody to write to
	}
	err := a.mailer.send(ctx, job.Key, mail{To: u.Email, Subject: "Welcome", Text: "Hello " + u.Name})
	if errors.Is(err, errRefused) {
		return clerksync.Discard(err) // the same mail would be refused again
	}
	return err
}

// mailer sends mails through a service that knows idempotency keys.
type mailer struct {
	url, apiKey string
}

type mail struct {
	To      string `json:"to"`
	Subject string `json:"subject"`
	Text    string `json:"text"`
}

// errRefused means that the service will never send this mail.
var errRefused = errors.New("the mail service refuses the mail")

func (m *mailer) send(ctx context.Context, key string, content mail) error {
	body, err := json.Marshal(content)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url, strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+m.apiKey)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusUnprocessableEntity:
		return errRefused
	case resp.StatusCode >= 300:
		return fmt.Errorf("the mail service answers %d", resp.StatusCode)
	}
	return nil
}

// withWorkspace has a workspace made for each new user before their first request is served.
func (a *app) withWorkspace(cfg *clerksync.Config) {
	cfg.OnCreate = a.makeWorkspace
	cfg.Jobs.Await = true
}

// makeWorkspace may run twice: the workspace has the _id of its user, so there is only one.
func (a *app) makeWorkspace(ctx context.Context, u *clerksync.User, _ clerksync.Job) error {
	id, err := mongostore.ObjectID(u)
	if err != nil {
		return err
	}
	_, err = a.workspaces.UpdateOne(ctx,
		bson.D{{Key: "_id", Value: id}},
		bson.D{{Key: "$setOnInsert", Value: bson.D{{Key: "name", Value: "My workspace"}}}},
		options.UpdateOne().SetUpsert(true))
	if mongo.IsDuplicateKeyError(err) {
		return nil // another attempt has just made it
	}
	return err
}

// withCleanUp has what refers to a deleted user removed, a week after the deletion.
func (a *app) withCleanUp(cfg *clerksync.Config) {
	cfg.OnDelete = a.cleanUp
	cfg.Jobs.DeleteDelay = 7 * 24 * time.Hour
}

// cleanUp may run twice: the second time there is nothing left to delete.
func (a *app) cleanUp(ctx context.Context, u *clerksync.User, _ clerksync.Job) error {
	id, err := mongostore.ObjectID(u)
	if err != nil {
		return err
	}
	if _, err := a.documents.DeleteMany(ctx, bson.D{{Key: "owner", Value: id}}); err != nil {
		return err
	}
	_, err = a.workspaces.DeleteOne(ctx, bson.D{{Key: "_id", Value: id}})
	return err
}
