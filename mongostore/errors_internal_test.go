package mongostore

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync"
)

func TestDescribe(t *testing.T) {
	const secret = "ada@example.com"
	command := func(code int32, name string, labels ...string) error {
		return mongo.CommandError{Code: code, Name: name, Labels: labels, Message: secret}
	}
	for want, err := range map[string]error{
		"server error 11000":                               writeError(11000, nil),
		"server error 13, Unauthorized":                    command(13, "Unauthorized"),
		"RetryableWriteError, NetworkError, network error": command(0, "", "RetryableWriteError", "NetworkError"),
		"server error 50, MaxTimeMSExpired, timed out":     command(50, "MaxTimeMSExpired"),
		"server error 64": mongo.WriteException{
			WriteConcernError: &mongo.WriteConcernError{Code: 64, Message: secret},
		},
		"server error 1, server error 11000": mongo.BulkWriteException{WriteErrors: []mongo.BulkWriteError{
			{WriteError: mongo.WriteError{Code: 11000, Message: secret}},
			{WriteError: mongo.WriteError{Code: 1}},
			{WriteError: mongo.WriteError{Code: 11000}},
		}},
		"client is disconnected": mongo.ErrClientDisconnected,
		"*errors.errorString":    errors.New(secret),
	} {
		got := wrapDriverErr(t.Context(), "upsert", err)
		if got.Error() != "mongostore: upsert: "+want {
			t.Errorf("%v, want %s", got, want)
		}
		if !errors.Is(got, err) && !strings.HasPrefix(want, "server") && !strings.HasPrefix(want, "Retry") {
			t.Errorf("%v is not the driver's error any more", got)
		}
	}
}

func TestUnreachable(t *testing.T) {
	network := mongo.CommandError{Labels: []string{"NetworkError"}}
	for _, err := range []error{mongo.ErrClientDisconnected, context.Canceled, network} {
		if !unreachable(wrapDriverErr(t.Context(), "op", err)) {
			t.Errorf("%v counts as an answer", err)
		}
	}
	conflict := &clerksync.ConflictError{}
	for _, err := range []error{errLostRace, mongo.CommandError{Code: 13}, writeError(121, nil), conflict} {
		if unreachable(wrapDriverErr(t.Context(), "op", err)) {
			t.Errorf("%v counts as no answer", err)
		}
	}
}
