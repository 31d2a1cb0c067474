package clerksync

import (
	"crypto/hmac"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	svix "github.com/svix/svix-webhooks/go"

	"github.com/clerksync/clerksync-go/clerksync/internal/setting"
)

// signatureVerifier checks that a delivery is signed with one of the endpoint's secrets, and
// was signed recently.
type signatureVerifier struct {
	secrets   []*svix.Webhook
	tolerance time.Duration
}

// newSvixWebhook returns svix's verifier of a secret. Its errors do not show the secret.
func newSvixWebhook(secret string) (*svix.Webhook, error) {
	secret = strings.TrimSpace(secret)
	if secret == "" || secret == "whsec_" {
		return nil, errors.New("is empty")
	}
	if is := setting.WebhookSecret(secret); is != "" {
		return nil, errors.New(is)
	}
	verifier, err := svix.NewWebhook(secret)
	if err != nil {
		return nil, errors.New("is not a signing secret")
	}
	return verifier, nil
}

// The checks that a delivery must pass, as a log line names them.
const (
	checkHeadersMissing   = "headers_missing"
	checkHeadersMalformed = "headers_malformed"
	checkSecret           = "secret"
	checkTimestamp        = "timestamp"
	checkBodyConsumed     = "body_consumed"
	checkBodyLength       = "body_length"
	checkContentEncoding  = "content_encoding"
	checkMethod           = "method"
	checkInstance         = "instance"
)

// signatureError says which check a delivery did not pass. It matches ErrInvalidSignature.
// Its text is for the log: it quotes nothing of the delivery but numbers and known names.
type signatureError struct{ check, why string }

func (e *signatureError) Error() string { return ErrInvalidSignature.Error() + ": " + e.why }

func (e *signatureError) Unwrap() error { return ErrInvalidSignature }

func unsigned(check, format string, args ...any) error {
	return &signatureError{check, fmt.Sprintf(format, args...)}
}

// verify checks the signature and then its time, and returns the message's id. The error is
// a *signatureError. verify checks the time itself because svix reads the wall clock.
func (v *signatureVerifier) verify(header http.Header, body []byte, now time.Time) (id string, err error) {
	s, err := readSignature(header)
	if err != nil {
		return "", err
	}
	if !v.signed(s, body) {
		return "", unsigned(checkSecret, "it is not made with %s over this body: "+
			"the secret is another endpoint's, or something changed the body on its way", secretsText(len(v.secrets)))
	}
	off := now.Unix() - s.sent
	switch tolerance := ceilSeconds(v.tolerance); {
	case off > tolerance:
		return "", unsigned(checkTimestamp, "it is %s old, and WebhookConfig.Tolerance is %v: "+
			"the delivery waited on its way, or this server's clock is ahead", secondsText(off), v.tolerance)
	case -off > tolerance:
		return "", unsigned(checkTimestamp, "it is %s ahead of this server's clock, and WebhookConfig.Tolerance is %v: "+
			"this server's clock is behind", secondsText(-off), v.tolerance)
	}
	return s.id, nil
}

func secretsText(n int) string {
	if n == 1 {
		return "this endpoint's secret"
	}
	return fmt.Sprintf("any of this endpoint's %d secrets", n)
}

func secondsText(n int64) string {
	if n > 100*365*24*60*60 {
		return "over 100 years"
	}
	return (time.Duration(n) * time.Second).String()
}

// ceilSeconds is d in whole seconds, the unit of a signature's time.
func ceilSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// signed reports whether one of the signatures is made with one of the secrets.
func (v *signatureVerifier) signed(s signature, body []byte) bool {
	for _, secret := range v.secrets {
		made, err := secret.Sign(s.id, time.Unix(s.sent, 0), body)
		if err != nil {
			continue
		}
		_, want, _ := strings.Cut(made, ",")
		for given := range signatures(s.lines) {
			if hmac.Equal([]byte(given), []byte(want)) {
				return true
			}
		}
	}
	return false
}

// signature is what the headers of a delivery say.
type signature struct {
	id    string
	sent  int64    // seconds since 1970
	lines []string // of signatures
}

// maxHeaderLines is how many lines one header may have. A proxy that splits the header makes
// two for each signature, and Svix signs with two secrets at most.
const maxHeaderLines = 100

// headerFamilies are the prefixes of the headers' names: Svix's, and those of the Standard
// Webhooks specification. The first family that is complete counts.
var headerFamilies = []string{"Svix-", "Webhook-"}

// readSignature reads the headers of a delivery. On its way a header may have been split at
// its commas into lines, repeated, or joined from several lines: RFC 9110, section 5.3,
// allows that for lists, and proxies do it to any header. So the lines of a header are one
// list, in which the id and the time must be the same wherever they stand.
func readSignature(header http.Header) (signature, error) {
	var names []string // of what is missing, of the family that is there in part
	for _, family := range headerFamilies {
		var missing []string
		for _, name := range []string{"Id", "Timestamp", "Signature"} {
			if !anyElement(header[family+name]) {
				missing = append(missing, strings.ToLower(family+name))
			}
		}
		if len(missing) == 0 {
			return readFamily(header[family+"Id"], header[family+"Timestamp"], header[family+"Signature"], strings.ToLower(family))
		}
		if names == nil || len(missing) < len(names) {
			names = missing
		}
	}
	return signature{}, unsigned(checkHeadersMissing, "these headers are missing: %s; "+
		"something on the way does not pass them on, or the sender is not Svix", strings.Join(names, ", "))
}

// anyElement reports whether the list has an element that is not empty.
func anyElement(lines []string) bool {
	for range elements(lines, ",") {
		return true
	}
	return false
}

// readFamily reads the three headers whose names begin with family.
func readFamily(ids, timestamps, lines []string, family string) (s signature, err error) {
	malformed := func(name, format string, args ...any) error {
		return unsigned(checkHeadersMalformed, "the header "+family+name+" "+format, args...)
	}
	for _, header := range [][]string{ids, timestamps, lines} {
		if len(header) > maxHeaderLines {
			return s, malformed("…", "has over %d lines", maxHeaderLines)
		}
	}
	var same bool
	if s.id, same = only(ids); !same {
		return s, malformed("id", "is there several times, with different values")
	}
	timestamp, same := only(timestamps)
	if !same {
		return s, malformed("timestamp", "is there several times, with different values")
	}
	if s.sent, err = strconv.ParseInt(timestamp, 10, 64); err != nil || s.sent < 0 || s.sent > maxSent {
		return s, malformed("timestamp", "is not a number of seconds since 1970")
	}
	s.lines = lines
	for range signatures(lines) {
		return s, nil
	}
	return s, malformed("signature", "has no entry of the form v1,<base64>")
}

// maxSent is a time in seconds that no signature has. A time in milliseconds is above it.
const maxSent = 1e11

// only returns the one value that all elements of a list have.
func only(lines []string) (value string, same bool) {
	for element := range elements(lines, ",") {
		if value != "" && element != value {
			return "", false
		}
		value = element
	}
	return value, true
}

// signatures are the entries "v1,<signature>" of a list whose entries are separated by
// spaces. As the comma in an entry looks like that of a list, entries are told apart by their
// versions.
func signatures(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		version := ""
		for text := range elements(lines, ", \t") {
			if isSignatureVersion(text) {
				version = text
				continue
			}
			if version == "v1" && !yield(text) {
				return
			}
			version = ""
		}
	}
}

// isSignatureVersion reports whether text is the version of an entry, such as v1 or v1a. A
// signature is longer.
func isSignatureVersion(text string) bool {
	if len(text) < 2 || len(text) > 4 || text[0] != 'v' {
		return false
	}
	rest := strings.TrimLeft(text[1:], "0123456789")
	return len(rest) < len(text)-1 && (rest == "" || len(rest) == 1 && 'a' <= rest[0] && rest[0] <= 'z')
}

// elements are the elements of a header's lines that are not empty, without the white space
// around them.
func elements(lines []string, separators string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range lines {
			for line != "" {
				element := line
				if i := strings.IndexAny(line, separators); i >= 0 {
					element, line = line[:i], line[i+1:]
				} else {
					line = ""
				}
				if element = strings.Trim(element, " \t"); element != "" && !yield(element) {
					return
				}
			}
		}
	}
}
