package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"

	"github.com/clerksync/clerksync-go/clerksync"
)

// The exit codes. Scripts rely on them.
const (
	exitDone   = 0
	exitFailed = 1
	exitDiffer = 2
	exitUsage  = 64 // EX_USAGE of sysexits.h
)

// errDiffer and errReported end a command that has printed everything already.
var (
	errDiffer   = errors.New("not in step")
	errReported = errors.New("failed")
)

// usageError means that flags, variables or the app's configuration are wrong. No record was written.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// exitCode returns the exit code for a command that ended with err, and prints err.
func exitCode(ctx context.Context, err error, stderr io.Writer) int {
	var usage *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errDiffer):
		return exitDiffer
	case errors.Is(err, errReported):
		return exitFailed
	case errors.As(err, &usage):
		_, _ = fmt.Fprintln(stderr, "clerksync:", err)
		return exitUsage
	case ctx.Err() != nil:
		_, _ = fmt.Fprintln(stderr, "clerksync: interrupted")
		return exitFailed
	}
	_, _ = fmt.Fprintln(stderr, "clerksync:", plain(err.Error()))
	return exitFailed
}

// plain shortens the text of a library error: it removes the prefix "clerksync: " and the HTTP
// status of the answer, and explains a key that Clerk refuses.
func plain(text string) string {
	text = strings.ReplaceAll(text, "clerksync: ", "")
	text = strings.ReplaceAll(text, "503 unavailable: "+unavailable+": ", "")
	text = settingNames.Replace(text)
	text = keyRefused.ReplaceAllString(text, "Clerk refuses "+secretKeyVar+" ($1): check that it is this instance's")
	return strings.ReplaceAll(text, "\n", "\n  ")
}

// settingNames replaces the library's names of settings with those of the command line.
var settingNames = strings.NewReplacer("Config.APIURL (CLERK_API_URL)", apiURLVar, "ReconcileOptions.InstanceID", "-instance")

var unavailable = strings.TrimPrefix(clerksync.ErrUnavailable.Error(), "clerksync: ")

// keyRefused matches a library error about a key that Clerk refuses, from the beginning of the
// line. It requires an error code of Clerk's, because an answer without one may be a proxy's.
var keyRefused = regexp.MustCompile(`(?m)^.*: status (40[13] [a-z0-9_]+)(?: \(trace [^)]*\))?: ` +
	`Clerk [a-z]+ the secret key; check that it is this instance's`)

// unanswered describes why a request has no answer. It quotes only errors that do not quote the
// answer.
func unanswered(err error) string {
	var certificate *tls.CertificateVerificationError
	var network net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &certificate):
		return certificate.Error()
	case errors.As(err, &network):
		return network.Error() // an address and a reason
	}
	return "no answer"
}
