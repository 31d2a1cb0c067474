package clerksync_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

func TestMapUser(t *testing.T) {
	t.Parallel()
	ms := func(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
	tests := map[string]struct {
		json string
		want clerksync.User // without the fields that every case shares
	}{
		"Clerk's documented user": {
			documentedUser,
			clerksync.User{
				ClerkID: "user_29w83sxmDNGwOuEthce5gg56FcC", Email: "example@example.org", EmailVerified: true,
				Name: "Example Example",
				Profile: clerksync.Profile{FirstName: "Example", LastName: "Example",
					FullName: "Example Example", ImageURL: "https://img.clerk.com/xxxxxx"},
				LastSignInAt:   ms(1654012591514),
				ClerkCreatedAt: ms(1654012591514), ClerkUpdatedAt: ms(1654012591835),
				ExternalID: "567772",
			},
		},
		"nothing but an id": {`{"id":"user_1"}`, clerksync.User{ClerkID: "user_1"}},
		"all null": {
			`{"id":"user_1","first_name":null,"last_name":null,"image_url":null,"banned":null,
			"created_at":null,"updated_at":null,"last_sign_in_at":null,
			"primary_email_address_id":null,"primary_phone_number_id":null,"email_addresses":null,
			"phone_numbers":null,"public_metadata":null,"unsafe_metadata":null}`,
			clerksync.User{ClerkID: "user_1"},
		},
		"the primary address, not the first": {
			`{"id":"user_1","primary_email_address_id":"idn_2","email_addresses":[null,
			{"id":"idn_1","email_address":"victim@example.com","verification":{"status":"verified"}},
			{"id":"idn_2","email_address":"own@example.com","verification":{"status":"unverified"}}]}`,
			clerksync.User{ClerkID: "user_1", Email: "own@example.com"},
		},
		"a primary address that is not there": {
			`{"id":"user_1","primary_email_address_id":"idn_9",
			"email_addresses":[{"id":"idn_1","email_address":"a@example.com"}]}`,
			clerksync.User{ClerkID: "user_1"},
		},
		"addresses without a primary one": {
			`{"id":"user_1","primary_email_address_id":null,
			"email_addresses":[{"id":"","email_address":"a@example.com"}]}`,
			clerksync.User{ClerkID: "user_1"},
		},
		"phone only": {
			`{"id":"user_1","email_addresses":[],"primary_phone_number_id":"idn_p","phone_numbers":[
			{"id":"idn_p","phone_number":"+15555550100","verification":{"status":"verified"}}]}`,
			clerksync.User{ClerkID: "user_1", PhoneVerified: true,
				Profile: clerksync.Profile{PhoneNumber: "+15555550100"}},
		},
		"no verification": {
			`{"id":"user_1","primary_email_address_id":"i","email_addresses":[
			{"id":"i","email_address":"a@example.com","verification":null}]}`,
			clerksync.User{ClerkID: "user_1", Email: "a@example.com"},
		},
		"last name only": {
			`{"id":"user_1","first_name":"","last_name":"Lovelace"}`,
			clerksync.User{ClerkID: "user_1", Name: "Lovelace",
				Profile: clerksync.Profile{LastName: "Lovelace", FullName: "Lovelace"}},
		},
		"birthday and gender at the top": {
			`{"id":"user_1","birthday":"1815-12-10","gender":"f","public_metadata":{"birthday":"x","gender":"x"}}`,
			clerksync.User{ClerkID: "user_1", Profile: clerksync.Profile{Birthday: "1815-12-10", Gender: "f"}},
		},
		"birthday and gender in metadata, public first": {
			`{"id":"user_1","birthday":"","public_metadata":{"birthday":"1815-12-10"},
			"unsafe_metadata":{"birthday":"x","gender":"f"}}`,
			clerksync.User{ClerkID: "user_1", Profile: clerksync.Profile{Birthday: "1815-12-10", Gender: "f"}},
		},
		"birthday and gender of other types": {
			`{"id":"user_1","birthday":1815,"gender":{"$ne":""},"public_metadata":{"birthday":["x"]},
			"unsafe_metadata":[]}`,
			clerksync.User{ClerkID: "user_1"},
		},
		"banned": {`{"id":"user_1","banned":true}`, clerksync.User{ClerkID: "user_1", Banned: true}},
		"deprovisioned": {`{"id":"user_1","banned":false,"deprovisioned":true}`,
			clerksync.User{ClerkID: "user_1", Banned: true}},
		"locked is not banned": {
			`{"id":"user_1","locked":true,"deprovisioned":null}`, clerksync.User{ClerkID: "user_1"},
		},
		"other fields of other types": {
			`{"id":"user_1","first_name":"A","passkeys":7,"external_accounts":{"a":1},"totp_enabled":"yes",
			"web3_wallets":[[]],"locale":4,"saml_accounts":[1]}`,
			clerksync.User{ClerkID: "user_1", Name: "A", Profile: clerksync.Profile{FirstName: "A", FullName: "A"}},
		},
		"times that cannot be": {
			fmt.Sprintf(`{"id":"user_1","created_at":-5,"last_sign_in_at":%d}`, t0.AddDate(90, 0, 0).UnixMilli()),
			clerksync.User{ClerkID: "user_1"},
		},
		"invalid UTF-8": {
			"{\"id\":\"user_1\",\"first_name\":\"A\xff\"}",
			clerksync.User{ClerkID: "user_1", Name: "A\uFFFD",
				Profile: clerksync.Profile{FirstName: "A\uFFFD", FullName: "A\uFFFD"}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.want.IsActive, tt.want.Role, tt.want.SyncedAt = true, clerksync.RoleStudent, t0
			got, err := clerksync.MapUser(newTestSyncer(t, nil), json.RawMessage(tt.json), t0)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tt.want, got); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMapUserFails(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"null":                        `null`,
		"an array":                    `[]`,
		"a string":                    `"user_1"`,
		"not JSON":                    `{"id":`,
		"nothing":                     ``,
		"no id":                       `{"first_name":"A"}`,
		"an empty id":                 `{"id":""}`,
		"a number for an id":          `{"id":7}`,
		"an operator for an id":       `{"id":{"$ne":null}}`,
		"another resource's id":       `{"id":"org_1"}`,
		"a slash in the id":           `{"id":"user_1/../../jwks"}`,
		"a question mark in the id":   `{"id":"user_1?x=1"}`,
		"a dollar sign in the id":     `{"id":"user_$ne"}`,
		"a dot in the id":             `{"id":"user_a.b"}`,
		"NUL in the id":               `{"id":"user_a\u0000"}`,
		"a very long id":              `{"id":"user_` + strings.Repeat("a", 65) + `"}`,
		"an array for a name":         `{"id":"user_1","first_name":["A"]}`,
		"a string for a time":         `{"id":"user_1","updated_at":"2026-03-01"}`,
		"a fraction for a time":       `{"id":"user_1","updated_at":1.5}`,
		"a number too large":          `{"id":"user_1","updated_at":1e400}`,
		"an object for the addresses": `{"id":"user_1","email_addresses":{}}`,
		"a version far ahead": fmt.Sprintf(`{"id":"user_1","updated_at":%d}`,
			t0.Add(24*time.Hour+time.Millisecond).UnixMilli()),
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, err := clerksync.MapUser(newTestSyncer(t, nil), json.RawMessage(raw), t0)
			if !errors.Is(err, clerksync.ErrInvalidEvent) || u != nil {
				t.Errorf("got %+v, %v; want ErrInvalidEvent", u, err)
			}
		})
	}
}

func TestVersionADayAheadIsAccepted(t *testing.T) {
	t.Parallel()
	ahead := t0.Add(24 * time.Hour)
	u, err := clerksync.MapUser(newTestSyncer(t, nil), json.RawMessage(fmt.Sprintf(`{"id":"user_1","updated_at":%d}`,
		ahead.UnixMilli())), t0)
	if err != nil || !u.ClerkUpdatedAt.Equal(ahead) {
		t.Errorf("got %+v, %v", u, err)
	}
}

func TestSyncedAtIsNeverInTheFuture(t *testing.T) {
	t.Parallel()
	s := newTestSyncer(t, nil)
	updated := t0.Add(-time.Hour)
	raw := json.RawMessage(fmt.Sprintf(`{"id":"user_1","updated_at":%d}`, updated.UnixMilli()))
	for name, tt := range map[string]struct{ asOf, want time.Time }{
		"past":    {t0.Add(-time.Minute), t0.Add(-time.Minute)},
		"future":  {t0.Add(time.Minute), t0},
		"unknown": {time.Time{}, updated}, // the version is the latest time that is known
	} {
		u, err := clerksync.MapUser(s, raw, tt.asOf)
		if err != nil || !u.SyncedAt.Equal(tt.want) {
			t.Errorf("%s: SyncedAt is %v, %v; want %v", name, u.SyncedAt, err, tt.want)
		}
	}
}

func TestRoleOfAndMap(t *testing.T) {
	t.Parallel()
	raw := json.RawMessage(`{"id":"user_1","first_name":"Ada","deprovisioned":false,
		"public_metadata":{"role":"TEACHER","plan":"pro","seats":3},"undocumented":["x"]}`)
	metadata := func(cu *clerk.User) (m struct {
		Role  clerksync.Role
		Plan  string
		Seats int
	}) {
		_ = json.Unmarshal(cu.PublicMetadata, &m)
		return m
	}
	s := newTestSyncer(t, func(c *clerksync.Config) {
		c.DefaultRole = "GUEST"
		c.RoleOf = func(cu *clerk.User) clerksync.Role { return metadata(cu).Role }
		c.Map = func(cu *clerk.User, u *clerksync.User) error {
			if !strings.Contains(string(cu.Response.RawJSON), `"undocumented":["x"]`) {
				return errors.New("no raw object")
			}
			u.Extra = map[string]any{"plan": metadata(cu).Plan, "seats": metadata(cu).Seats, "none": nil}
			u.Location = &clerksync.Location{Country: "GB"}
			u.Name = strings.ToUpper(u.Name)
			return nil
		}
	})
	got, err := clerksync.MapUser(s, raw, t0)
	if err != nil {
		t.Fatal(err)
	}
	want := &clerksync.User{
		ClerkID: "user_1", Name: "ADA", Role: clerksync.RoleTeacher, RoleFromClerk: true, IsActive: true, SyncedAt: t0,
		Profile:  clerksync.Profile{FirstName: "Ada", FullName: "Ada"},
		Location: &clerksync.Location{Country: "GB"},
		Extra:    map[string]any{"plan": "pro", "seats": int64(3)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}

	got, err = clerksync.MapUser(s, json.RawMessage(strings.Replace(string(raw), "TEACHER", "", 1)), t0)
	if err != nil || got.Role != "GUEST" || got.RoleFromClerk {
		t.Errorf("without a role in Clerk: role %q, from Clerk %v, error %v; want the app's default", got.Role,
			got.RoleFromClerk, err)
	}
}

func TestMapFailures(t *testing.T) {
	t.Parallel()
	type clerkUser = clerk.User
	type user = clerksync.User
	extra := func(name string, value any) func(*clerkUser, *user) error {
		return func(_ *clerkUser, u *user) error { u.Extra = map[string]any{name: value}; return nil }
	}
	for name, f := range map[string]func(*clerkUser, *user) error{
		"error":            func(*clerkUser, *user) error { return errors.New("no plan") },
		"panic":            func(*clerkUser, *user) error { panic("no plan") },
		"nil dereference":  func(cu *clerkUser, _ *user) error { _ = *cu.Username; return nil },
		"other id":         func(_ *clerkUser, u *user) error { u.ClerkID = "user_2"; return nil },
		"other version":    func(_ *clerkUser, u *user) error { u.ClerkUpdatedAt = t0; return nil },
		"other SyncedAt":   func(_ *clerkUser, u *user) error { u.SyncedAt = t0.Add(time.Hour); return nil },
		"inactive":         func(_ *clerkUser, u *user) error { u.IsActive = false; return nil },
		"deleted":          func(_ *clerkUser, u *user) error { u.DeletedAt = t0; return nil },
		"reserved name":    extra("email", "x"),
		"operator as name": extra("$set", 1),
		"unstorable value": extra("c", make(chan int)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTestSyncer(t, func(c *clerksync.Config) { c.Map = f })
			u, err := clerksync.MapUser(s, json.RawMessage(documentedUser), t0)
			var p *clerksync.Problem
			if u != nil || !errors.As(err, &p) || p.Status != 500 || p.Code != "mapping_failed" {
				t.Errorf("got %v, %v; want a mapping_failed Problem", u, err)
			}
		})
	}
}

func FuzzMapUser(f *testing.F) {
	f.Add([]byte(documentedUser))
	f.Add([]byte(`{"id":"user_1","public_metadata":{"birthday":[{}]},"email_addresses":[null,{}],
		"primary_email_address_id":""}`))
	f.Add([]byte(`{"id":"user_1","updated_at":9223372036854775807,"created_at":-9223372036854775808}`))
	for _, seed := range []string{
		`{"id":"user_1","ID":"user_2"}`, `{"id":"user_1","updated_at":1e400}`, `{"id":"user_1","updated_at":1.0}`,
		`{"id":{"$ne":null}}`, `{"id":"user_1","first_name":"A\u0000\ud800"}`, "\ufeff{}",
		"{\"id\":\"user_1\xff\"}",
		`{"id":"user_1","first_name":["hunter2"]}`, `{"id":"user_1","email_addresses":{"hunter2":1}}`,
		`{"id":"hunter2"}`, `{"id":"user_1","public_metadata":` + strings.Repeat("[", 20_000),
		`{"id":"user_1","last_sign_in_at":253402300800000}`,
	} {
		f.Add([]byte(seed))
	}
	s := newTestSyncer(f, nil)
	f.Fuzz(func(t *testing.T, raw []byte) {
		u, err := clerksync.MapUser(s, raw, t0)
		if err != nil {
			if !errors.Is(err, clerksync.ErrInvalidEvent) || u != nil || strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("got %v, %v", u, err)
			}
			return
		}
		checkRecord(t, u)
		if !u.IsActive || !u.DeletedAt.IsZero() || u.Role != clerksync.RoleStudent || u.Location != nil ||
			u.Extra != nil {
			t.Fatalf("Clerk's JSON set a field that Clerk does not own: %+v", u)
		}
		if again, err := clerksync.MapUser(s, raw, t0); err != nil || !cmp.Equal(u, again) {
			t.Fatalf("mapped again it is %+v, %v", again, err)
		}
		if _, err := memstore.New().Upsert(t.Context(), u); err != nil {
			t.Fatalf("a mapped user is not storable: %v", err)
		}
		if _, err := json.Marshal(u); err != nil {
			t.Fatalf("a mapped user has no JSON: %v", err)
		}
	})
}

// FuzzMapMetadata has Map copy metadata that a user chose into Extra. Either the record can be
// stored, and its top-level names are plain field names, or the error says why without quoting the metadata.
func FuzzMapMetadata(f *testing.F) {
	for _, seed := range []string{`{"plan":"pro"}`, `{"$set":{"role":"ADMIN"}}`, `{"a":{"b":{"$where":"hunter2"}}}`,
		`{"a.b":1}`, `{"":1}`, `{"\u0000":1}`, `[{"$ne":"hunter2"}]`,
		`1e400`, `9223372036854775808`, `-0`, `"\ud800hunter2"`, `{"_id":1,"clerkId":2}`, `{"a":1,"A":2,"a":3}`,
		strings.Repeat("[", 40) + strings.Repeat("]", 40), `null`, `[null]`, "\xff", ``} {
		f.Add([]byte(seed))
	}
	var metadata []byte
	s := newTestSyncer(f, func(c *clerksync.Config) {
		c.Map = func(_ *clerk.User, u *clerksync.User) error {
			u.Extra = map[string]any{"meta": json.RawMessage(metadata)}
			var fields map[string]any
			if json.Unmarshal(metadata, &fields) == nil {
				u.Extra["fields"] = fields
			}
			return nil
		}
	})
	f.Fuzz(func(t *testing.T, raw []byte) {
		metadata = raw
		u, err := clerksync.MapUser(s, json.RawMessage(`{"id":"user_1"}`), t0)
		if err != nil {
			var p *clerksync.Problem
			if u != nil || !errors.As(err, &p) || p.Code != "mapping_failed" {
				t.Fatalf("got %+v, %v", u, err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("the error quotes the metadata: %v", err)
			}
			return
		}
		checkExtra(t, u.Extra, 0)
		store := memstore.New()
		if _, err := store.Upsert(t.Context(), u); err != nil {
			t.Fatalf("a mapped user is not storable: %v", err)
		}
		if res, err := store.Upsert(t.Context(), u); err != nil || res.Outcome != clerksync.Unchanged {
			t.Fatalf("the same again: %v, %v", res.Outcome, err)
		}
	})
}

func checkExtra(t *testing.T, v any, depth int) {
	t.Helper()
	if depth > 33 {
		t.Fatal("nested too deeply to be stored")
	}
	switch v := v.(type) {
	case map[string]any:
		for name, v := range v {
			topLevel := depth == 0
			if !utf8.ValidString(name) || topLevel && (name == "" || strings.ContainsAny(name, "$.\x00")) {
				t.Fatalf("the name %q", name)
			}
			checkExtra(t, v, depth+1)
		}
	case []any:
		for _, v := range v {
			checkExtra(t, v, depth+1)
		}
	case string:
		if !utf8.ValidString(v) {
			t.Fatalf("%q is not UTF-8", v)
		}
	case nil, bool, int64, float64:
	default:
		t.Fatalf("a %T", v)
	}
}
