// Package setting finds the faults that settings have when they come from variables, files and
// web pages: a value in quotes, the name of the variable in the value, a placeholder, another
// key. What it says about a value never shows it.
//
// Each function returns "" for a value that may be right, else a phrase to follow the
// setting's name, such as "is a publishable key". The caller has removed the white space
// around the value, and reports a missing one.
package setting

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// InstanceIDPlace tells an operator how to find the id of a Clerk instance.
const InstanceIDPlace = "it is in the address of the Clerk Dashboard, …/instances/ins_…"

var (
	// assignment matches the name of a variable before its value, as in a .env or YAML file.
	assignment = regexp.MustCompile(`^(export\s+)?[A-Z][A-Z0-9]*_[A-Z0-9_]*\s*[=:]`)
	// unexpanded matches a reference to a variable that nothing has replaced.
	unexpanded = regexp.MustCompile(`^\$[A-Za-z_]|^%[A-Za-z_]+%$|\$\{|\$\(|\{\{`)
	// placeholder matches what examples show in place of a value.
	placeholder = regexp.MustCompile(`(?i)\.\.\.|…|[<>•]|\*\*\*|(^|[_ ])your[_ ]|[_ ]here$|^change[_-]?me$`)
	// keyPlaceholder is placeholder for a key, which has no hyphen in it. A host may have.
	keyPlaceholder = regexp.MustCompile(`(?i)your-|-here$`)
	// missing matches what programs print for a value that is not there.
	missing = regexp.MustCompile(`(?i)^(undefined|null|nil|<nil>|none|nan|true|false|\[object object\])$`)
)

// Pasted finds what was copied along with a value, such as quotation marks or the variable's name,
// and the words that programs print for a missing value.
func Pasted(value string) string {
	switch {
	case quoted(value):
		return "has quotation marks around it: leave them out"
	case assignment.MatchString(value):
		return "has the name of a variable in it: give only the value"
	case missing.MatchString(value):
		return "is what a program prints for a missing value"
	}
	return ""
}

// Fault finds what neither a key nor a URL has: what Pasted finds, an unexpanded variable, a
// placeholder.
func Fault(value string) string {
	if fault := Pasted(value); fault != "" {
		return fault
	}
	switch {
	case unexpanded.MatchString(value):
		return "is a reference to a variable that nothing has replaced by its value"
	case placeholder.MatchString(value):
		return "is a placeholder"
	}
	return ""
}

// quoted reports whether a value begins or ends with a quotation mark.
func quoted(value string) bool { return strings.Trim(value, "\"'`“”„‘’‚«»") != value }

// repeats reports whether a value is xxx or the like, after its prefix.
func repeats(value string) bool {
	rest := value[strings.LastIndexByte(value, '_')+1:]
	return len(rest) >= 3 && strings.IndexByte("xX*.-#0", rest[0]) >= 0 && strings.Trim(rest, rest[:1]) == ""
}

// kinds are the values that belong into another setting, by how they begin.
var kinds = []struct{ prefix, is string }{
	{"pk_", "a publishable key (pk_…)"},
	{"sk_", "a secret key (sk_…)"},
	{"whsec_", "a webhook's signing secret (whsec_…)"},
	{"ins_", "the id of an instance (ins_…)"},
	{"user_", "the id of a user (user_…)"},
	{"eyJ", "a token"},
	{"-----BEGIN", "a key in PEM"},
	{"mongodb", "the address of a database"},
	{"http", "a URL"},
}

// kind finds a value that does not begin with prefix, and says what it is, if that is known.
func kind(value, prefix, what string) string {
	if strings.HasPrefix(value, prefix) {
		return ""
	}
	for _, k := range kinds {
		if strings.HasPrefix(value, k.prefix) {
			return "is " + k.is + ": " + what + " begins with " + prefix
		}
	}
	return "is not " + what + ", which begins with " + prefix
}

// key checks a key of Clerk's.
func key(value, what string, prefixes ...string) string {
	if fault := Fault(value); fault != "" {
		return fault
	}
	if keyPlaceholder.MatchString(value) || repeats(value) {
		return "is a placeholder"
	}
	if fault := kind(value, prefixes[0], what); fault != "" {
		return fault
	}
	if slices.Contains(prefixes, value) {
		return "is cut off after " + value
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "has characters in it that no key has, such as white space"
	}
	return ""
}

// SecretKey checks the secret key of a Clerk instance.
func SecretKey(value string) string {
	return key(value, "the secret key", "sk_", "sk_test_", "sk_live_")
}

// PublishableKey checks the publishable key of a Clerk instance.
func PublishableKey(value string) string {
	return key(value, "the publishable key", "pk_", "pk_test_", "pk_live_")
}

// Environment is the kind of instance that a secret or publishable key belongs to; "" if the
// key does not say.
func Environment(key string) string {
	switch {
	case strings.HasPrefix(key, "sk_live_"), strings.HasPrefix(key, "pk_live_"):
		return "production"
	case strings.HasPrefix(key, "sk_test_"), strings.HasPrefix(key, "pk_test_"):
		return "development"
	}
	return ""
}

// minSecretBytes is the least size of a signing secret. Svix's have 24 bytes, and the Standard
// Webhooks specification asks for 24 to 64. One that is shorter than this was cut off or made up,
// and might be guessed.
const minSecretBytes = 16

// WebhookSecret checks the signing secret of a webhook endpoint.
func WebhookSecret(value string) string {
	const prefix = "whsec_"
	fault := key(value, "a signing secret", prefix)
	if is, _, ok := strings.Cut(fault, ": a signing secret begins with "); ok {
		return "is not a signing secret: those begin with whsec_, and this " + is
	}
	if fault != "" {
		return fault
	}
	switch key, err := base64.StdEncoding.DecodeString(value[len(prefix):]); {
	case err != nil:
		return "is not a signing secret: what follows whsec_ is not base64"
	case len(key) < minSecretBytes:
		return fmt.Sprintf("is too short for a signing secret: it has fewer than %d bytes, and Svix's have 24", minSecretBytes)
	}
	return ""
}

// InstanceID checks the id of a Clerk instance.
func InstanceID(value string) string {
	fault := key(value, "the id of an instance", "ins_")
	if fault != "" {
		fault += "; " + InstanceIDPlace
	}
	return fault
}

// PEM checks a key in PEM for what hides that it is one. It does not decode the key.
func PEM(value string) string {
	fault := Fault(value)
	switch {
	case strings.Contains(value, "PRIVATE KEY"):
		return "is a private key: only the public key is needed"
	case strings.HasPrefix(value, "-----BEGIN") && !strings.Contains(value, "-----END"):
		return "is cut off: its last line is -----END PUBLIC KEY-----"
	case fault == "":
		fault = kind(value, "-----BEGIN", "the public key")
		if strings.HasPrefix(fault, "is not ") {
			return "" // the caller says that it is not PEM
		}
	}
	return fault
}

// URL checks the URL of an API.
func URL(value string) string {
	if fault := Fault(value); fault != "" {
		return fault
	}
	switch u, err := url.Parse(value); {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return "is not an http or https URL"
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "may not have a user, query or fragment"
	}
	return ""
}

// Word checks the name of a role or of a claim, which may be any text.
func Word(value string) string {
	switch {
	case value != strings.TrimSpace(value) || strings.ContainsFunc(value, unicode.IsControl):
		return "has white space around it, or a control character in it"
	case quoted(value) || value == "undefined" || unexpanded.MatchString(value):
		return Fault(value)
	}
	return ""
}

// IsNil reports whether v is nil, or an interface that holds a nil pointer, function, map,
// slice or channel: comparing it with nil does not tell.
func IsNil(v any) bool {
	if v == nil {
		return true
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Slice, reflect.Chan:
		return r.IsNil()
	}
	return false
}
