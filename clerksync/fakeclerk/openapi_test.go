package fakeclerk_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// openAPI is one of Clerk's OpenAPI files. They are not part of the module.
type openAPI struct{ root map[string]any }

func loadOpenAPI(t *testing.T, name string) *openAPI {
	t.Helper()
	path := filepath.Join("..", "..", "..", "shared", "clerk-openapi", name)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("Clerk's OpenAPI file is not at hand, nothing is validated: %v", err)
	}
	root, err := parseYAML(string(text))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return &openAPI{root.(map[string]any)}
}

// at returns what stands at a path of keys, following references on the way.
func (o *openAPI) at(t *testing.T, keys ...string) map[string]any {
	t.Helper()
	node := o.root
	for _, key := range keys {
		next, ok := node[key].(map[string]any)
		if !ok {
			t.Fatalf("the OpenAPI file has no %s", strings.Join(keys, " → "))
		}
		node = o.resolve(next)
	}
	return node
}

func (o *openAPI) resolve(node map[string]any) map[string]any {
	for {
		ref, ok := node["$ref"].(string)
		if !ok {
			return node
		}
		node = o.root
		for _, key := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
			node = node[key].(map[string]any)
		}
	}
}

// validate returns what is wrong with a decoded JSON value, by the keywords of JSON
// Schema that Clerk's files use.
func (o *openAPI) validate(schema map[string]any, value any, where string) (faults []string) {
	schema = o.resolve(schema)
	fault := func(format string, args ...any) {
		faults = append(faults, where+": "+fmt.Sprintf(format, args...))
	}
	if value == nil {
		if schema["nullable"] != true && schema["type"] != nil {
			fault("null")
		}
		return faults
	}
	if all, ok := schema["allOf"].([]any); ok {
		return o.validate(o.union(schema, all), value, where)
	}
	if one, ok := schema["oneOf"].([]any); ok {
		var all []string
		for _, s := range one {
			f := o.validate(s.(map[string]any), value, where)
			if len(f) == 0 {
				return nil
			}
			all = append(all, f...)
		}
		return append(all, where+": none of the alternatives")
	}
	if enum, ok := schema["enum"].([]any); ok && schema["x-speakeasy-unknown-values"] != "allow" && !slices.Contains(enum, value) {
		fault("%v is none of %v", value, enum)
	}
	kind, _ := schema["type"].(string)
	switch value := value.(type) {
	case map[string]any:
		if kind != "" && kind != "object" {
			fault("an object, not %s", kind)
		}
		properties, _ := schema["properties"].(map[string]any)
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, ok := value[name.(string)]; !ok {
				fault("lacks %s", name)
			}
		}
		for name, v := range value {
			if s, ok := properties[name].(map[string]any); ok {
				faults = append(faults, o.validate(s, v, where+"."+name)...)
			} else if schema["additionalProperties"] == false {
				fault("%s is not in the schema", name)
			}
		}
	case []any:
		if kind != "array" {
			fault("an array, not %s", kind)
		}
		if items, ok := schema["items"].(map[string]any); ok {
			for i, v := range value {
				faults = append(faults, o.validate(items, v, fmt.Sprint(where, "[", i, "]"))...)
			}
		}
	case string:
		if kind != "string" {
			fault("a string, not %s", kind)
		}
		if pattern, ok := schema["pattern"].(string); ok && !regexp.MustCompile(pattern).MatchString(value) {
			fault("%q does not match %s", value, pattern)
		}
	case bool:
		if kind != "boolean" {
			fault("a boolean, not %s", kind)
		}
	case float64:
		if kind != "number" && (kind != "integer" || value != float64(int64(value))) {
			fault("a number, not %s", kind)
		}
	}
	return faults
}

// union merges allOf. Taken literally, an additionalProperties of one part would forbid the others.
func (o *openAPI) union(schema map[string]any, parts []any) map[string]any {
	properties := map[string]any{}
	var required []any
	closed := false
	for _, part := range append([]any{map[string]any{"properties": schema["properties"], "required": schema["required"]}}, parts...) {
		p := o.resolve(part.(map[string]any))
		if all, ok := p["allOf"].([]any); ok {
			p = o.union(p, all)
		}
		if m, ok := p["properties"].(map[string]any); ok {
			for k, v := range m {
				properties[k] = v
			}
		}
		if r, ok := p["required"].([]any); ok {
			required = append(required, r...)
		}
		closed = closed || p["additionalProperties"] == false
	}
	return map[string]any{"type": "object", "properties": properties, "required": required, "additionalProperties": !closed}
}

// conforms fails the test where a JSON document is not what the schema says.
func (o *openAPI) conforms(t *testing.T, schema map[string]any, document []byte) {
	t.Helper()
	var value any
	if err := json.Unmarshal(document, &value); err != nil {
		t.Errorf("%v: %s", err, document)
		return
	}
	for _, fault := range o.validate(schema, value, "$") {
		t.Error(fault)
	}
}

const backendFile, webhooksFile = "bapi-2026-05-12.yml", "webhooks-2025-04-15.yml"

// richUser signs up a user whose object has something in most fields.
func richUser(t *testing.T, s *fakeclerk.Server) string {
	t.Helper()
	id := s.CreateUser(fakeclerk.NewUser{
		FirstName: "Ada", LastName: "Lovelace", Username: "ada", ExternalID: "ext",
		Email: "ada@example.com", EmailUnverified: true, Phone: "+15550100", ImageURL: "https://img.example/ada",
		PublicMetadata: map[string]any{"a": 1}, PrivateMetadata: map[string]any{"b": 2}, UnsafeMetadata: map[string]any{"c": 3},
	})
	must(t, s.UpdateUser(id, func(u *fakeclerk.UserObject) {
		u.AddEmailAddress("second@example.com", true)
		u.EmailAddresses = append(u.EmailAddresses, &clerk.EmailAddress{EmailAddress: "bare@example.com"})
		u.Web3Wallets = []*clerk.Web3Wallet{{Web3Wallet: "0x1"}}
		u.ProfileImageURL = "https://img.example/ada"
		u.Deprovisioned = true
		u.Locale = clerk.String("en-GB")
	}))
	must(t, s.SignIn(id))
	return id
}

func TestAnswersConformToOpenAPI(t *testing.T) {
	t.Parallel()
	spec := loadOpenAPI(t, backendFile)
	s, clock := startClocked(t, fakeclerk.Config{RateLimit: 13})
	rich, plain := richUser(t, s), s.CreateUser(fakeclerk.NewUser{})

	for _, test := range []struct {
		method, path, body string
		schemaPath         string // "" is path
		status             int
		key                string // default: the right one
	}{
		{method: "GET", path: "/users/" + rich, schemaPath: "/users/{user_id}", status: 200},
		{method: "GET", path: "/users/" + plain, schemaPath: "/users/{user_id}", status: 200},
		{method: "GET", path: "/users/user_x", schemaPath: "/users/{user_id}", status: 404},
		{method: "GET", path: "/users", status: 200},
		{method: "GET", path: "/users?limit=x", schemaPath: "/users", status: 422},
		{method: "GET", path: "/users/count", status: 200},
		{method: "GET", path: "/jwks", status: 200},
		{method: "GET", path: "/users", status: 401, key: "sk_test_wrong"},
		{method: "POST", path: "/users", body: `{"first_name":"B","email_address":["b@example.com","c@example.com"],"email_address_identification_status":["verified","reserved"],"phone_number":["+15550101"],"web3_wallet":["0x2"],"password":"correct horse"}`, status: 200},
		{method: "POST", path: "/users", body: `{"email_address":["b@example.com"]}`, status: 422},
		{method: "POST", path: "/users", body: `[]`, status: 400},
		{method: "PATCH", path: "/users/" + rich, body: `{"first_name":null}`, schemaPath: "/users/{user_id}", status: 200},
		{method: "PATCH", path: "/users/" + rich + "/metadata", body: `{"public_metadata":{"x":1}}`, schemaPath: "/users/{user_id}/metadata", status: 200},
		{method: "POST", path: "/users/" + rich + "/ban", schemaPath: "/users/{user_id}/ban", status: 200},
		{method: "DELETE", path: "/users/" + rich, schemaPath: "/users/{user_id}", status: 200},
		{method: "DELETE", path: "/users/" + plain, schemaPath: "/users/{user_id}", status: 429},
	} {
		t.Run(fmt.Sprint(test.method, test.path, test.status), func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), test.method, s.APIURL()+test.path, strings.NewReader(test.body))
			must(t, err)
			key := test.key
			if key == "" {
				key = s.SecretKey()
			}
			r.Header.Set("Authorization", "Bearer "+key)
			res, err := http.DefaultClient.Do(r)
			must(t, err)
			defer res.Body.Close()
			var document json.RawMessage
			must(t, json.NewDecoder(res.Body).Decode(&document))
			check(t, "status", res.StatusCode, test.status)

			schemaPath := test.schemaPath
			if schemaPath == "" {
				schemaPath = test.path
			}
			response := spec.at(t, "components", "responses", "ClerkErrors") // where the file names no status
			if responses := spec.at(t, "paths", schemaPath, strings.ToLower(test.method), "responses"); responses[strconv.Itoa(test.status)] != nil {
				response = spec.resolve(responses[strconv.Itoa(test.status)].(map[string]any))
			}
			content := response["content"].(map[string]any)["application/json"].(map[string]any)
			spec.conforms(t, content["schema"].(map[string]any), document)
		})
	}
	check(t, "the clock stood", clock.Now(), epoch)
}

func TestParametersConformToOpenAPI(t *testing.T) {
	t.Parallel()
	spec := loadOpenAPI(t, backendFile)
	s := start(t, fakeclerk.Config{RateLimit: -1})
	id := s.CreateUser(fakeclerk.NewUser{})

	for path, method := range map[string]string{"/users": "POST", "/users/{user_id}": "PATCH"} {
		body := spec.at(t, "paths", path, strings.ToLower(method), "requestBody", "content", "application/json", "schema", "properties")
		for name := range body {
			r, err := http.NewRequestWithContext(t.Context(), method, s.APIURL()+strings.Replace(path, "{user_id}", id, 1), strings.NewReader(`{"`+name+`":null}`))
			must(t, err)
			r.Header.Set("Authorization", "Bearer "+s.SecretKey())
			res, err := http.DefaultClient.Do(r)
			must(t, err)
			res.Body.Close()
			check(t, method+" "+name, res.StatusCode, 200)
		}
	}

	orders := regexp.MustCompile("`[a-z0-9_]+`")
	for _, p := range spec.at(t, "paths", "/users", "get")["parameters"].([]any) {
		p := p.(map[string]any)
		if p["name"] != "order_by" {
			continue
		}
		list, _, _ := strings.Cut(p["description"].(string), "\nIn order")
		found := orders.FindAllString(list, -1)
		if len(found) < 10 {
			t.Errorf("the file lists the orders %v", found)
		}
		for _, order := range found {
			res, _ := get(t, s, "/users?order_by=-"+strings.Trim(order, "`"))
			check(t, order, res.StatusCode, 200)
		}
	}
}

func TestWebhooksConformToOpenAPI(t *testing.T) {
	t.Parallel()
	spec := loadOpenAPI(t, webhooksFile)
	s, _ := startClocked(t, fakeclerk.Config{})
	e := s.AddEndpoint("http://127.0.0.1:1", fakeclerk.EndpointOptions{})
	e.Hold()
	must(t, s.DeleteUser(richUser(t, s)))
	must(t, s.DeleteUser(s.CreateUser(fakeclerk.NewUser{})))

	types := map[string]bool{}
	for _, m := range e.Messages() {
		types[m.Type] = true
		schema := spec.at(t, "x-webhooks", m.Type, "post", "requestBody", "content", "application/json", "schema")
		spec.conforms(t, schema, m.Body)
	}
	check(t, "types", len(types), 4)
}

// The checker itself: the examples of Clerk's own file pass, and broken ones don't.
func TestValidate(t *testing.T) {
	t.Parallel()
	spec := loadOpenAPI(t, webhooksFile)
	for _, eventType := range []string{"user.created", "user.updated", "user.deleted"} {
		content := spec.at(t, "x-webhooks", eventType, "post", "requestBody", "content", "application/json")
		example, schema := content["example"].(map[string]any), content["schema"].(map[string]any)
		if faults := spec.validate(schema, example, "$"); len(faults) > 0 {
			t.Errorf("%s: Clerk's example: %v", eventType, faults)
		}
		data := example["data"].(map[string]any)
		for name, spoil := range map[string]func(){
			"an unknown field":   func() { data["novelty"] = 1.0 },
			"a wrong type":       func() { delete(data, "novelty"); data["id"] = 1.0 },
			"a missing object":   func() { data["id"] = "user_1"; delete(data, "object") },
			"a missing envelope": func() { data["object"] = "user"; delete(example, "timestamp") },
		} {
			before := fmt.Sprint(example)
			spoil()
			if len(spec.validate(schema, example, "$")) == 0 {
				t.Errorf("%s: %s passes (%s)", eventType, name, before)
			}
		}
	}
}
