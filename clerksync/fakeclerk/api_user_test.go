package fakeclerk_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/user"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/google/go-cmp/cmp"
)

func TestSDKLifecycle(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s, clock := startClocked(t, fakeclerk.Config{})
	users := userClient(s)
	endpoint := s.AddEndpoint("http://127.0.0.1:1", fakeclerk.EndpointOptions{})
	endpoint.Hold()

	u, err := users.Create(ctx, &user.CreateParams{
		FirstName:      clerk.String("Ada"),
		EmailAddresses: &[]string{"ada@example.com", "countess@example.com"},
		PhoneNumbers:   &[]string{"+15550100"},
		Web3Wallets:    &[]string{"0xada"},
		Username:       clerk.String("ada"), Password: clerk.String("correct horse"),
		PublicMetadata:  raw(`{"a":{"b":1,"c":2}}`),
		LegalAcceptedAt: clerk.String(epoch.Format(time.RFC3339)),
	})
	must(t, err)
	check(t, "created: first name", *u.FirstName, "Ada")
	check(t, "created: primary email", *u.PrimaryEmailAddressID, u.EmailAddresses[0].ID)
	check(t, "created: verified", u.EmailAddresses[1].Verification.Status, "verified")
	check(t, "created: primary phone", *u.PrimaryPhoneNumberID, u.PhoneNumbers[0].ID)
	check(t, "created: primary wallet", *u.PrimaryWeb3WalletID, u.Web3Wallets[0].ID)
	check(t, "created: password", u.PasswordEnabled, true)
	check(t, "created: created_at", u.CreatedAt, epoch.UnixMilli())
	check(t, "created: legal_accepted_at", *u.LegalAcceptedAt, epoch.UnixMilli())

	got, err := users.Get(ctx, u.ID)
	must(t, err)
	check(t, "got: id", got.ID, u.ID)
	own, _ := s.User(u.ID)
	check(t, "got: the bytes that User returns", string(got.Response.RawJSON), string(own))

	clock.Advance(time.Second)
	updated, err := users.Update(ctx, u.ID, &user.UpdateParams{
		LastName: clerk.String("Lovelace"), Username: clerk.String(""),
		PrimaryEmailAddressID: clerk.String(u.EmailAddresses[1].ID),
	})
	must(t, err)
	check(t, "updated: first name", *updated.FirstName, "Ada")
	check(t, "updated: last name", *updated.LastName, "Lovelace")
	check(t, "updated: username removed", updated.Username == nil, true)
	check(t, "updated: primary email", *updated.PrimaryEmailAddressID, u.EmailAddresses[1].ID)
	check(t, "updated: updated_at", updated.UpdatedAt, epoch.Add(time.Second).UnixMilli())

	merged, err := users.UpdateMetadata(ctx, u.ID, &user.UpdateMetadataParams{
		PublicMetadata: raw(`{"a":{"b":null,"d":3},"e":{"f":4}}`),
	})
	must(t, err)
	check(t, "merged metadata", string(merged.PublicMetadata), `{"a":{"c":2,"d":3},"e":{"f":4}}`)
	replaced, err := users.ReplaceMetadata(ctx, u.ID, &user.ReplaceMetadataParams{
		PublicMetadata: raw(`{"x":1}`), UnsafeMetadata: raw(`{"y":2}`),
	})
	must(t, err)
	check(t, "replaced metadata", string(replaced.PublicMetadata)+string(replaced.UnsafeMetadata), `{"x":1}{"y":2}`)

	banned, err := users.Ban(ctx, u.ID)
	must(t, err)
	check(t, "banned", banned.Banned, true)
	unbanned, err := users.Unban(ctx, u.ID)
	must(t, err)
	check(t, "unbanned", unbanned.Banned, false)

	deleted, err := users.Delete(ctx, u.ID)
	must(t, err)
	check(t, "deleted", *deleted, clerk.DeletedResource{
		APIResource: deleted.APIResource, ID: u.ID, Object: "user", Deleted: true,
	})
	_, err = users.Get(ctx, u.ID)
	e := apiError(t, "get after the deletion", err, 404, "resource_not_found")
	check(t, "long message", e.Errors[0].LongMessage, "No user was found with id "+u.ID)
	for name, f := range map[string]func() error{
		"delete": func() error { _, err := users.Delete(ctx, u.ID); return err },
		"ban":    func() error { _, err := users.Ban(ctx, u.ID); return err },
		"update": func() error {
			_, err := users.Update(ctx, u.ID, &user.UpdateParams{FirstName: clerk.String("x")})
			return err
		},
		"metadata": func() error {
			_, err := users.UpdateMetadata(ctx, u.ID, &user.UpdateMetadataParams{})
			return err
		},
	} {
		apiError(t, name+" after the deletion", f(), 404, "resource_not_found")
	}

	var types []string
	for _, m := range endpoint.Messages() {
		types = append(types, m.Type)
	}
	want := append([]string{"user.created"}, slices.Repeat([]string{"user.updated"}, 5)...)
	if diff := cmp.Diff(append(want, "user.deleted"), types); diff != "" {
		t.Errorf("webhooks (-want +got):\n%s", diff)
	}
}

func TestRefusedWrites(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := start(t, fakeclerk.Config{RateLimit: -1})
	users := userClient(s)
	s.CreateUser(fakeclerk.NewUser{Email: "taken@example.com", Username: "taken", ExternalID: "taken"})
	id := s.CreateUser(fakeclerk.NewUser{Email: "mine@example.com"})
	before, _ := s.User(id)

	for _, test := range []struct {
		name string
		do   func() (*clerk.User, error)
		code string
	}{
		{"an e-mail address in use", func() (*clerk.User, error) {
			return users.Create(ctx, &user.CreateParams{EmailAddresses: &[]string{"taken@example.com"}})
		}, "form_identifier_exists"},
		{"not an e-mail address", func() (*clerk.User, error) {
			return users.Create(ctx, &user.CreateParams{EmailAddresses: &[]string{"nonsense"}})
		}, "form_param_format_invalid"},
		{"an external id in use", func() (*clerk.User, error) {
			return users.Update(ctx, id, &user.UpdateParams{
				FirstName: clerk.String("x"), ExternalID: clerk.String("taken"),
			})
		}, "form_identifier_exists"},
		{"another's e-mail address as the primary one", func() (*clerk.User, error) {
			return users.Update(ctx, id, &user.UpdateParams{
				FirstName: clerk.String("x"), PrimaryEmailAddressID: clerk.String("idn_x"),
			})
		}, "form_param_value_invalid"},
		{"metadata that is not an object", func() (*clerk.User, error) {
			return users.UpdateMetadata(ctx, id, &user.UpdateMetadataParams{PublicMetadata: raw(`[]`)})
		}, "form_param_format_invalid"},
	} {
		_, err := test.do()
		apiError(t, test.name, err, 422, test.code)
	}
	after, _ := s.User(id)
	check(t, "after refused writes", string(after), string(before))
	check(t, "users", len(s.UserIDs()), 2)

	// CreateUser allows an address that is in use. A change of another field still works then.
	s.CreateUser(fakeclerk.NewUser{Email: "mine@example.com"})
	_, err := users.Update(ctx, id, &user.UpdateParams{FirstName: clerk.String("Ada")})
	must(t, err)

	for _, test := range []struct {
		name, body, version string
		want                int
	}{
		{"metadata in PATCH", `{"public_metadata":{"a":1}}`, "2026-05-12", 422},
		{"metadata in PATCH, in an older API version", `{"public_metadata":{"a":1}}`, "2025-11-10", 200},
		{"an unknown parameter", `{"frist_name":"x"}`, "", 422},
		{"a value of the wrong type", `{"first_name":1}`, "", 422},
		{"not JSON", `{`, "", 400},
	} {
		res, _ := do(t, s, "PATCH", "/users/"+id, test.body, "Clerk-API-Version", test.version)
		check(t, test.name, res.StatusCode, test.want)
	}
}

// TestJavaScriptSDK makes requests that @clerk/backend 3.25.0 makes and clerk-sdk-go v2.7.0 cannot
// make: without a body if there are no fields, and with a timezone.
func TestJavaScriptSDK(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{RateLimit: -1})
	id := s.CreateUser(fakeclerk.NewUser{PublicMetadata: map[string]any{"a": 1}})

	for _, test := range []struct {
		name, method, path, body string
		status                   int
		zone                     any // timezone in the answer
	}{
		{"updateUserMetadata without fields", "PATCH", "/users/" + id + "/metadata", "", 200, nil},
		{"replaceUserMetadata without fields", "PUT", "/users/" + id + "/metadata", "", 200, nil},
		{"updateUser without fields", "PATCH", "/users/" + id, "", 400, nil},
		{"createUser without fields", "POST", "/users", "", 400, nil},
		{"half a body", "PATCH", "/users/" + id + "/metadata", `{"public_metadata":`, 400, nil},
		{"createUser with a timezone", "POST", "/users", `{"timezone":"Europe/Zurich"}`, 200, "Europe/Zurich"},
		{"updateUser with a timezone", "PATCH", "/users/" + id, `{"timezone":"Asia/Tokyo"}`, 200, "Asia/Tokyo"},
		{"updateUser of another field", "PATCH", "/users/" + id, `{"first_name":"Ada"}`, 200, "Asia/Tokyo"},
		{"updateUser with a timezone of the wrong type", "PATCH", "/users/" + id, `{"timezone":1}`, 422, nil},
		{"updateUser that removes the timezone", "PATCH", "/users/" + id, `{"timezone":null}`, 200, nil},
	} {
		res, body := do(t, s, test.method, test.path, test.body)
		var answer map[string]any
		must(t, json.Unmarshal(body, &answer))
		check(t, test.name, res.StatusCode, test.status)
		check(t, test.name+": timezone", answer["timezone"], test.zone)
	}
	check(t, "metadata", string(object(t, s, id).PublicMetadata), `{"a":1}`)
}
