package mongostore

import (
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

func writeError(code int, raw bson.D) error {
	b, err := bson.Marshal(append(bson.D{}, raw...))
	if err != nil {
		panic(err)
	}
	return mongo.WriteException{WriteErrors: mongo.WriteErrors{{Code: code, Message: "of ada@example.com", Raw: b}}}
}

func newOffline() *Store { return &Store{deadlocked: make(chan struct{}, 1)} }

// offline is a Store that never reaches a server.
func offline(t *testing.T) *Store {
	t.Helper()
	o := options.Client().SetHosts([]string{"127.0.0.1:1"}).SetServerSelectionTimeout(time.Millisecond)
	client, err := mongo.Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(t.Context()) })
	return &Store{coll: collection{raw: client.Database("app").Collection("users")}, now: time.Now, batchSize: 500}
}

func mapped(t *testing.T, fields Fields) *fieldMap {
	t.Helper()
	f, err := newFieldMap(fields)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// SetBackfillSize sets how many new users make a batch part of a backfill, so that tests
// need not write a hundred.
func (s *Store) SetBackfillSize(n int) { s.backfillSize = n }

// SetGuess makes the Store expect a batch like one after new or newer users, after a
// backfill, or after users that it had to read.
func (s *Store) SetGuess(g int) { s.next.Store(int32(g)) }

// The guesses for SetGuess.
const (
	GuessWritable  = int(guessWritable)
	GuessNew       = int(guessNew)
	GuessReadFirst = int(guessReadFirst)
)
