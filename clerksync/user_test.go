package clerksync_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
)

func TestUserJSON(t *testing.T) {
	t.Parallel()
	got, err := json.MarshalIndent(fullUser(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "_id": "65f000000000000000000001",
  "clerkId": "user_1",
  "email": "ada@example.com",
  "name": "Ada Lovelace",
  "role": "TEACHER",
  "profile": {
    "firstName": "Ada",
    "lastName": "Lovelace",
    "fullName": "Ada Lovelace",
    "imageUrl": "https://img.example/1",
    "phoneNumber": "+15555550100",
    "birthday": "1815-12-10",
    "gender": "f"
  },
  "location": {
    "country": "GB",
    "city": "London",
    "state": "England",
    "timezone": "Europe/London"
  },
  "lastSignInAt": "2026-03-01T12:00:00Z",
  "createdAt": "2026-03-01T12:00:00Z",
  "updatedAt": "2026-03-01T12:00:00Z",
  "emailVerified": true,
  "phoneVerified": true,
  "isActive": true,
  "banned": true,
  "extra": {
    "plan": "pro",
    "tags": [
      "a",
      {
        "b": 1
      }
    ]
  }
}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
	got, _ = json.Marshal(&clerksync.User{ClerkID: "user_1"})
	want = `{"clerkId":"user_1","profile":{},"emailVerified":false,"phoneVerified":false,` +
		`"isActive":false,"banned":false}`
	if string(got) != want {
		t.Errorf("JSON of an empty record is %s, want %s", got, want)
	}
}

func TestClone(t *testing.T) {
	t.Parallel()
	if (*clerksync.User)(nil).Clone() != nil {
		t.Error("the clone of nil is not nil")
	}
	u, c := fullUser(), fullUser().Clone()
	if diff := cmp.Diff(u, c); diff != "" {
		t.Fatalf("clone differs (-want +got):\n%s", diff)
	}
	c = u.Clone()
	c.Location.City = "Paris"
	c.Extra["plan"] = "free"
	c.Extra["tags"].([]any)[1].(map[string]any)["b"] = int64(2)
	omitting := &clerksync.User{Omit: []string{"email"}}
	omitting.Clone().Omit[0] = "name"
	if omitting.Omit[0] != "email" {
		t.Error("changing the clone's Omit changed the original")
	}
	if diff := cmp.Diff(fullUser(), u); diff != "" {
		t.Errorf("changing the clone changed the original (-want +got):\n%s", diff)
	}
}
