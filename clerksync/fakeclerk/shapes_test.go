package fakeclerk_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// shapes are the schemas of fakeclerk's answers and events, from Clerk's OpenAPI files
// (https://github.com/clerk/openapi-specs): version 2026-05-12 of the Backend API and version
// 2025-04-15 of the webhooks.
//
// A shape lists its fields as name:type. A field whose name ends with ? is optional, and other fields
// than those listed are not allowed. Alternative types are separated by |. A type is a JSON type,
// integer, a quoted constant or the name of a shape. After [], it is the type of an array's items.
var shapes = map[string]string{
	"user": `object:"user" id:string external_id:string|null username:string|null
		first_name:string|null last_name:string|null locale?:string|null
		primary_email_address_id:string|null email_addresses:[]email_address
		primary_phone_number_id:string|null phone_numbers:[]phone_number
		primary_web3_wallet_id:string|null web3_wallets:[]web3_wallet
		passkeys:[]object external_accounts:[]object saml_accounts:[]object enterprise_accounts:[]object
		organization_memberships?:[]object scim?:object deprovisioned?:boolean
		has_image:boolean image_url?:string profile_image_url?:string
		public_metadata:object private_metadata?:object|null unsafe_metadata?:object
		password_enabled:boolean password_last_updated_at?:integer|null two_factor_enabled:boolean
		totp_enabled:boolean backup_code_enabled:boolean
		mfa_enabled_at:integer|null mfa_disabled_at:integer|null
		banned:boolean locked:boolean lockout_expires_in_seconds:integer|null
		verification_attempts_remaining:integer|null bypass_client_trust?:boolean
		created_at:integer updated_at:integer legal_accepted_at:integer|null
		last_sign_in_at:integer|null last_active_at:integer|null delete_self_enabled:boolean
		create_organization_enabled:boolean create_organizations_limit?:integer|null`,
	"email_address": `object:"email_address" id?:string email_address:string reserved:boolean
		verification:verification|null linked_to:[]identification_link matches_sso_connection?:boolean
		created_at:integer updated_at:integer`,
	"phone_number": `object:"phone_number" id?:string phone_number:string reserved:boolean
		reserved_for_second_factor?:boolean default_second_factor?:boolean backup_codes?:[]string|null
		verification:verification|null linked_to:[]identification_link
		created_at:integer updated_at:integer`,
	"web3_wallet": `object:"web3_wallet" id?:string web3_wallet:string verification:verification|null
		created_at:integer updated_at:integer`,
	// The fields that the verifications share.
	"verification": `object?:"verification_otp"|"verification_admin"|"verification_email_link"|"verification_ticket"|"verification_saml"|"verification_scim"|"verification_from_oauth"
		strategy:string
		status:"unverified"|"verified"|"failed"|"expired" attempts:integer|null
		expire_at:integer|null verified_at_client?:string|null`,
	"identification_link": `type:string id:string`,
	"deleted":             `object:string id?:string slug?:string deleted:boolean external_id?:string`,
	"total_count":         `object:"total_count" total_count:integer`,
	"errors":              `errors:[]error meta?:object clerk_trace_id?:string`,
	"error":               `message:string long_message:string code:string meta?:object`,
	"jwks":                `keys:[]rsa_key`,
	"rsa_key":             `kid:string alg:string use:string kty:"RSA" n:string e:string`,
	"event": `object:string type:string timestamp:integer instance_id:string data:object
		event_attributes?:event_attributes`,
	"event_attributes": `http_request?:http_request`,
	"http_request":     `client_ip?:string user_agent?:string`,
	"session": `object:"session" id:string user_id:string user:user client_id:string actor?:object|null
		status:"active"|"revoked"|"ended"|"expired"|"removed"|"abandoned"|"replaced"
		last_active_organization_id?:string|null last_active_at:integer expire_at:integer
		latest_activity?:session_activity|null abandon_at:integer created_at:integer updated_at:integer`,
	"session_activity": `object:string id:string device_type?:string is_mobile:boolean
		browser_name?:string browser_version?:string ip_address?:string city?:string country?:string`,
}

// eventData is the shape of each event's data.
var eventData = map[string]string{
	"user.created": "user", "user.updated": "user", "user.deleted": "deleted", "session.created": "session",
}

// faults returns what is wrong with a decoded JSON value. path names the value in messages.
func faults(types string, value any, path string) []string {
	var first []string
	for i, one := range strings.Split(types, "|") {
		found := faultsOfType(one, value, path)
		if len(found) == 0 {
			return nil
		}
		if i == 0 {
			first = found
		}
	}
	return first
}

// faultsOfType is faults for a type without alternatives.
func faultsOfType(one string, value any, path string) (found []string) {
	if item, isArray := strings.CutPrefix(one, "[]"); isArray {
		list, ok := value.([]any)
		if !ok {
			return []string{fmt.Sprintf("%s: got %v, want an array", path, value)}
		}
		for i, v := range list {
			found = append(found, faults(item, v, fmt.Sprintf("%s[%d]", path, i))...)
		}
		return found
	}
	shape, isShape := shapes[one]
	object, isObject := value.(map[string]any)
	if isShape && isObject {
		return faultsOfShape(shape, object, path)
	}
	if isShape || !isOfJSONType(one, value) {
		return []string{fmt.Sprintf("%s: got %v, want %s", path, value, one)}
	}
	return nil
}

// faultsOfShape is faults for the fields of a shape.
func faultsOfShape(shape string, object map[string]any, path string) (found []string) {
	unknown := maps.Clone(object)
	for _, field := range strings.Fields(shape) {
		name, types, _ := strings.Cut(field, ":")
		name, optional := strings.CutSuffix(name, "?")
		value, ok := object[name]
		switch {
		case ok:
			found = append(found, faults(types, value, path+"."+name)...)
		case !optional:
			found = append(found, path+": does not have "+name)
		}
		delete(unknown, name)
	}
	for name := range unknown {
		found = append(found, path+": the schema does not have "+name)
	}
	return found
}

// isOfJSONType reports whether a value has a JSON type or equals a quoted constant.
func isOfJSONType(one string, value any) bool {
	switch v := value.(type) {
	case nil:
		return one == "null"
	case bool:
		return one == "boolean"
	case float64:
		return one == "number" || one == "integer" && v == float64(int64(v))
	case string:
		return one == "string" || one == `"`+v+`"`
	default:
		return one == "object"
	}
}

// checkShape fails the test if a JSON document does not have one of the types.
func checkShape(t *testing.T, types string, document []byte) {
	t.Helper()
	for _, fault := range faults(types, decodeJSON(t, document), "$") {
		t.Error(fault)
	}
}

// checkEventShape fails the test if a webhook's body is not an event, or if its data does not fit its
// event type.
func checkEventShape(t *testing.T, body []byte) {
	t.Helper()
	for _, fault := range eventFaults(decodeJSON(t, body)) {
		t.Error(fault)
	}
}

func eventFaults(document any) []string {
	event, _ := document.(map[string]any)
	eventType, _ := event["type"].(string)
	return append(faults("event", document, "$"), faults(eventData[eventType], event["data"], "$.data")...)
}

func decodeJSON(t *testing.T, document []byte) (value any) {
	t.Helper()
	if err := json.Unmarshal(document, &value); err != nil {
		t.Fatalf("%v: %s", err, document)
	}
	return value
}

func TestAnswerShapes(t *testing.T) {
	t.Parallel()
	s, _ := startClocked(t, fakeclerk.Config{RateLimit: 14, InstanceID: testInstance})
	rich, plain := createRichUser(t, s), s.CreateUser(fakeclerk.NewUser{})

	for _, test := range []struct {
		method, path, body string
		status             int
		want               string // shape
	}{
		{"GET", "/users/" + rich, "", 200, "user"},
		{"GET", "/users/" + plain, "", 200, "user"},
		{"GET", "/users/user_x", "", 404, "errors"},
		{"GET", "/users", "", 200, "[]user"},
		{"GET", "/users?limit=x", "", 422, "errors"},
		{"GET", "/users/count", "", 200, "total_count"},
		{"GET", "/jwks", "", 200, "jwks"},
		{"POST", "/users", `{"first_name":"B","email_address":["b@example.com","c@example.com"],
			"email_address_identification_status":["verified","reserved"],"phone_number":["+15550101"],
			"web3_wallet":["0x2"],"password":"correct horse"}`, 200, "user"},
		{"POST", "/users", `{"email_address":["b@example.com"]}`, 422, "errors"},
		{"POST", "/users", `[]`, 400, "errors"},
		{"PATCH", "/users/" + rich, `{"first_name":null}`, 200, "user"},
		{"PATCH", "/users/" + rich + "/metadata", `{"public_metadata":{"x":1}}`, 200, "user"},
		{"POST", "/users/" + rich + "/ban", "", 200, "user"},
		{"DELETE", "/users/" + rich, "", 200, "deleted"},
		{"DELETE", "/users/" + plain, "", 200, "deleted"},
		{"GET", "/users", "", 429, "errors"},
	} {
		t.Run(fmt.Sprint(test.method, test.path, test.status), func(t *testing.T) {
			res, document := do(t, s, test.method, test.path, test.body)
			check(t, "status", res.StatusCode, test.status)
			checkShape(t, test.want, document)
		})
	}
}

func TestPopulationShapes(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{Population: 200})
	must(t, s.BanUser(s.PopulationID(150)))
	_, document := do(t, s, "GET", "/users?limit=200", "")
	check(t, "users", strings.Count(string(document), `"object":"user"`), 200)
	checkShape(t, "[]user", document)
}

func TestEventShapes(t *testing.T) {
	t.Parallel()
	s, _ := startClocked(t, fakeclerk.Config{})
	e := s.AddEndpoint("http://127.0.0.1:1", fakeclerk.EndpointOptions{})
	e.Hold()
	must(t, s.DeleteUser(createRichUser(t, s)))
	must(t, s.DeleteUser(s.CreateUser(fakeclerk.NewUser{})))

	types := map[string]bool{}
	for _, m := range e.Messages() {
		types[m.Type] = true
		checkEventShape(t, m.Body)
	}
	check(t, "types", len(types), len(eventData))
}

// TestDocumentedParameters sends each parameter in the OpenAPI file, and each value of order_by.
// fakeclerk must accept them all.
func TestDocumentedParameters(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{RateLimit: -1})
	id := s.CreateUser(fakeclerk.NewUser{})

	const both = `external_id first_name last_name locale username password password_digest password_hasher
		skip_password_checks totp_secret backup_codes delete_self_enabled legal_accepted_at skip_legal_checks
		create_organization_enabled create_organizations_limit created_at bypass_client_trust`
	const post = `email_address email_address_identification_status phone_number phone_number_identification_status
		web3_wallet skip_password_requirement skip_user_requirement banned locked
		public_metadata private_metadata unsafe_metadata`
	const patch = `primary_email_address_id primary_phone_number_id primary_web3_wallet_id profile_image_id
		notify_primary_email_address_changed sign_out_of_other_sessions`
	for _, request := range []struct{ method, path, params string }{
		{"POST", "/users", both + " " + post},
		{"PATCH", "/users/" + id, both + " " + patch},
	} {
		for _, param := range strings.Fields(request.params) {
			res, _ := do(t, s, request.method, request.path, `{"`+param+`":null}`)
			check(t, request.method+" "+param, res.StatusCode, http.StatusOK)
		}
	}

	const orders = `created_at updated_at email_address web3wallet first_name last_name phone_number username
		last_active_at last_sign_in_at`
	for _, order := range strings.Fields(orders) {
		res, _ := do(t, s, "GET", "/users?order_by=-"+order, "")
		check(t, "order_by "+order, res.StatusCode, http.StatusOK)
	}
}

// TestShapes tests the checker itself: it must accept Clerk's own example events and reject broken
// ones.
func TestShapes(t *testing.T) {
	t.Parallel()
	for _, eventType := range slices.Collect(maps.Keys(eventData)) {
		example, err := os.ReadFile(filepath.Join("..", "testdata", "events", "openapi-"+eventType+".json"))
		must(t, err)
		for _, fault := range eventFaults(decodeJSON(t, example)) {
			t.Errorf("Clerk's example of %s: %s", eventType, fault)
		}
		for name, spoil := range map[string]func(event, data map[string]any){
			"an unknown field":     func(_, data map[string]any) { data["novelty"] = 1.0 },
			"a wrong type":         func(_, data map[string]any) { data["id"] = 1.0 },
			"a null":               func(_, data map[string]any) { data["object"] = nil },
			"a missing field":      func(_, data map[string]any) { delete(data, "object") },
			"no timestamp":         func(event, _ map[string]any) { delete(event, "timestamp") },
			"half a millisecond":   func(event, _ map[string]any) { event["timestamp"] = 1.5 },
			"data of another type": func(event, _ map[string]any) { event["data"] = []any{} },
		} {
			event := decodeJSON(t, example).(map[string]any)
			spoil(event, event["data"].(map[string]any))
			if len(eventFaults(event)) == 0 {
				t.Errorf("%s with %s was accepted", eventType, name)
			}
		}
	}
}
