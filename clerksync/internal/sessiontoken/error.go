package sessiontoken

import "errors"

// Error says why a token is refused. Its text quotes nothing of the token.
type Error struct {
	Code Code
	Why  string
}

func (e *Error) Error() string { return e.Why }

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
