package clerkapi

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParsePage(t *testing.T) {
	listed := func(id string, version, created int64, raw string) ListedUser {
		return ListedUser{ID: id, Version: version, Created: created, Raw: json.RawMessage(raw)}
	}
	for name, tc := range map[string]struct {
		page string
		want []ListedUser
	}{
		"none": {` [ ] `, nil},
		"one":  {`[{"id":"user_1","created_at":1,"updated_at":2}]`, []ListedUser{listed("user_1", 2, 1, `{"id":"user_1","created_at":1,"updated_at":2}`)}},
		"two":  {"[\n {\"id\" : \"user_1\"},\t{\"id\":\"user_2\"}\n]", []ListedUser{listed("user_1", 0, 0, `{"id" : "user_1"}`), listed("user_2", 0, 0, `{"id":"user_2"}`)}},
		"the names inside": {
			`[{"x":{"id":"user_9","updated_at":9},"y":["id",{"id":"user_8"}],"id":"user_1","updated_at":3 }]`,
			[]ListedUser{listed("user_1", 3, 0, `{"x":{"id":"user_9","updated_at":9},"y":["id",{"id":"user_8"}],"id":"user_1","updated_at":3 }`)},
		},
		"brackets and quotes in strings": {
			`[{"a":"]}\"","b\\":"\\","id":"user_1","c":"\\\\\""}]`,
			[]ListedUser{listed("user_1", 0, 0, `{"a":"]}\"","b\\":"\\","id":"user_1","c":"\\\\\""}`)},
		},
		"a name twice":      {`[{"id":"user_1","id":"user_2"}]`, []ListedUser{listed("user_2", 0, 0, `{"id":"user_1","id":"user_2"}`)}},
		"no id":             {`[{}]`, []ListedUser{listed("", 0, 0, `{}`)}},
		"an id of no user":  {`[{"id":"../jwks"}]`, []ListedUser{listed("", 0, 0, `{"id":"../jwks"}`)}},
		"an id of no text":  {`[{"id":7}]`, []ListedUser{listed("", 0, 0, `{"id":7}`)}},
		"times of no times": {`[{"id":"user_1","created_at":null,"updated_at":"1"}]`, []ListedUser{listed("user_1", 0, 0, `{"id":"user_1","created_at":null,"updated_at":"1"}`)}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParsePage(json.RawMessage(tc.page))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("ParsePage (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParsePageRejects(t *testing.T) {
	const whole = `[{"id":"user_1","n":{"a":[1,"x"]},"updated_at":2},{"id":"user_2"}]`
	pages := []string{"null", "{}", `{"data":[]}`, `""`, "7", "[1]", `["user_1"]`, "[null]", "[[]]", `[{"id"}]`, `[{"id":}]`, `[{id:"user_1"}]`, `[{} {}]`, `[{},]`, `[,{}]`, `[{}]x`, "<html>"}
	for end := range len(whole) { // an answer that is cut short
		pages = append(pages, whole[:end])
	}
	for _, page := range pages {
		if got, err := ParsePage(json.RawMessage(page)); err == nil {
			t.Errorf("ParsePage(%s) = %v and no error", page, got)
		}
	}
}

// FuzzParsePage holds ParsePage against encoding/json: it takes every list of
// objects, and finds in it what encoding/json finds.
func FuzzParsePage(f *testing.F) {
	for _, seed := range []string{
		`[]`, `[{"id":"user_1","created_at":1,"updated_at":1654012591514}]`, `[{"a":"]}\"","b\\":"\\","id":"user_1"},{"x":[{},[]],"id":null}]`,
		`[{"\u0069d":"user_2"}]`, ` [ { } , { } ] `, `[{"updated_at":1e3,"created_at":-1}]`, `{"data":[]}`, `[[`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, page string) {
		got, err := ParsePage(json.RawMessage(page))
		var want []map[string]json.RawMessage
		if !json.Valid([]byte(page)) || json.Unmarshal([]byte(page), &want) != nil || strings.Contains(page, "null") && hasNull(page) {
			return // it may take what only a later decoding refuses
		}
		if want == nil {
			return // null
		}
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d users and %v for a list of %d", len(got), err, len(want))
		}
		for i, u := range got {
			if !json.Valid(u.Raw) {
				t.Errorf("user %d: %s is not JSON", i, u.Raw)
			}
			if escaped := strings.Contains(string(u.Raw), `\`); escaped {
				continue // names and ids that are written with escapes are not recognised
			}
			var id string
			_ = json.Unmarshal(want[i]["id"], &id)
			if u.ID != "" && u.ID != id {
				t.Errorf("user %d: id %q, want %q", i, u.ID, id)
			}
			var version int64
			if json.Unmarshal(want[i]["updated_at"], &version) == nil && version >= 0 && u.Version != version {
				t.Errorf("user %d: version %d, want %d", i, u.Version, version)
			}
		}
	})
}

func hasNull(page string) bool {
	var elements []json.RawMessage
	_ = json.Unmarshal([]byte(page), &elements)
	for _, e := range elements {
		if string(e) == "null" {
			return true
		}
	}
	return false
}
