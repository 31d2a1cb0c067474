package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// The exit statuses. They are part of what scripts rely on.
const (
	exitDone   = 0
	exitFailed = 1
	exitDiffer = 2
	exitUsage  = 64 // EX_USAGE of sysexits.h
)

// errDiffer and errReported end a command whose output has said all.
var (
	errDiffer   = errors.New("not in step")
	errReported = errors.New("failed")
)

// usageError is a fault of the flags or the settings: nothing has been done.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// plain is an error's text without the library's name, with which every message of
// the library's begins, and without the status that the library would answer with.
func plain(text string) string {
	text = strings.ReplaceAll(text, "clerksync: ", "")
	text = strings.ReplaceAll(text, "503 unavailable: Clerk or the store is unavailable: ", "")
	text = refusal.ReplaceAllString(text, "Clerk refuses "+secretKeyVar+" ($1): check that it is this instance's")
	return strings.ReplaceAll(text, "\n", "\n  ")
}

// refusal is what an error says of a key that Clerk itself refuses, and all before it. An answer
// without a code of Clerk's may be a proxy's.
var refusal = regexp.MustCompile(`(?m)^.*: status (40[13] [a-z0-9_]+)(?: \(trace [^)]*\))?: Clerk refuses the secret key; check that it is this instance's`)
