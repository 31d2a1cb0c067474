package sessiontoken

import (
	"errors"
	"strings"
)

// Error says why a token is refused. Its text quotes nothing of the token.
type Error struct {
	Code Code
	Why  string // one of a few constants

	Check string // tells apart what is wrong under one code; mostly ""
	// Got and Want are for the operator's log: what was found, and what was expected. Both
	// are short and printable. Got is only ever a time or a category, of a token whose
	// signature is right: its other claims may hold personal data.
	Got, Want string
}

func (e *Error) Error() string { return e.Why }

// The values of Error.Check.
const (
	NoParty         = "no_party" // the token does not say for whom it was made
	UnknownCategory = "category"
)

// Code says why a token was rejected.
type Code string

// The codes, as clients of clerksync see them.
const (
	Malformed    Code = "token_malformed"
	Expired      Code = "token_expired"
	NotYetValid  Code = "token_not_yet_valid"
	WrongClass   Code = "token_wrong_class"
	WrongParty   Code = "token_wrong_party"
	WrongIssuer  Code = "token_wrong_issuer"
	BadSignature Code = "token_bad_signature"
	UnknownKey   Code = "token_unknown_key"
	Pending      Code = "session_pending"
)

// ErrCustomClaims says that [Config].CustomClaims did not return a pointer to decode into.
var ErrCustomClaims = errors.New("clerksync: Config.Auth.CustomClaims must return a pointer to decode into")

func refuse(code Code, why string) error { return &Error{Code: code, Why: why} }

// maxPrintable bounds Got and Want.
const maxPrintable = 200

// printable returns the beginning of text, with a question mark for each byte that is not
// printable ASCII.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, text[:min(len(text), maxPrintable)])
}
