package clerksync_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// The secrets and personal data that are planted for an audit. They must not appear in any output.
const (
	plantedEmail   = "ada.hush@example.com"
	plantedFirst   = "Hushfirst"
	plantedLast    = "Hushlast"
	plantedPhone   = "+15555550199"
	plantedPrivate = "hush-private"
	plantedUnsafe  = "hush-unsafe"
	plantedKey     = "sk_test_hushkey"
	plantedKeyText = "hushkey"
)

// audit is a fixture that collects every output: log lines, answers, errors, Reports and Observations.
type audit struct {
	*bulkFixture
	id      string
	user    string // Clerk's JSON of the user
	h       http.Handler
	webhook http.Handler
	secrets []string
	output  []string
}

func newAudit(t *testing.T, change func(*clerksync.Config)) *audit {
	t.Helper()
	a := &audit{}
	a.bulkFixture = startBulkFixture(t, fakeclerk.Config{RateLimit: -1, SecretKey: plantedKey},
		func(c *clerksync.Config) {
			c.Auth = clerksync.AuthConfig{Cookie: true, AuthorizedParties: []string{appOrigin}}
			if change != nil {
				change(c)
			}
		})
	a.id = a.clerk.CreateUser(fakeclerk.NewUser{
		FirstName: plantedFirst, LastName: plantedLast, Email: plantedEmail, Phone: plantedPhone,
	})
	if err := a.clerk.UpdateUser(a.id, func(u *fakeclerk.UserObject) {
		u.Extra = map[string]any{
			"private_metadata": map[string]any{"note": plantedPrivate},
			"unsafe_metadata":  map[string]any{"$note": plantedUnsafe, plantedUnsafe: 1},
		}
	}); err != nil {
		t.Fatal(err)
	}
	a.user = fmt.Sprintf(`{"id":%q,"updated_at":%d,"first_name":%q,"last_name":%q,
		"primary_email_address_id":"i","email_addresses":[{"id":"i","email_address":%q}],
		"primary_phone_number_id":"p","phone_numbers":[{"id":"p","phone_number":%q}],
		"private_metadata":{"note":%q},"unsafe_metadata":{"$note":%q}}`,
		a.id, t0.UnixMilli(), plantedFirst, plantedLast, plantedEmail, plantedPhone, plantedPrivate, plantedUnsafe)
	a.secrets = []string{plantedEmail, "ada.hush", plantedFirst, plantedLast, plantedPhone, plantedPrivate,
		plantedUnsafe, plantedKeyText, testSecret, strings.TrimPrefix(testSecret, "whsec_")}
	a.h = a.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}))
	a.webhook = a.newWebhook(t, nil)
	return a
}

func (a *audit) newWebhook(t *testing.T, onEvent func(context.Context, clerksync.Event) error) http.Handler {
	t.Helper()
	h, err := a.WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{testSecret}, InstanceID: "ins_1", OnEvent: onEvent,
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// addError collects the texts of an error.
func (a *audit) addError(err error) {
	for _, format := range []string{"%v", "%+v", "%s"} {
		a.output = append(a.output, fmt.Sprintf(format, err))
	}
	var p *clerksync.Problem
	if errors.As(err, &p) {
		a.output = append(a.output, fmt.Sprintf("%+v", *p))
	}
}

func (a *audit) send(h http.Handler, r *http.Request) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	a.output = append(a.output, fmt.Sprint(w.Code, w.Result().Header, w.Body))
}

// deliver sends a delivery that is signed with this secret.
func (a *audit) deliver(t *testing.T, h http.Handler, secret string, body []byte) {
	a.send(h, signed(t, "/", secret, a.clock.Now(), body))
}

// visit sends a token, whose parts are secret too.
func (a *audit) visit(token string, change func(*http.Request)) {
	for _, part := range strings.Split(token, ".") {
		if len(part) > 16 {
			a.secrets = append(a.secrets, part)
			if text, err := base64.RawURLEncoding.DecodeString(part); err == nil &&
				strings.HasPrefix(string(text), `{"`) {
				a.secrets = append(a.secrets, string(text))
			}
		}
	}
	r := bearing("Bearer " + token)
	if change != nil {
		change(r)
	}
	a.send(a.h, r)
	_, err := a.Authenticate(r)
	a.addError(err)
}

func (a *audit) token(t *testing.T, opts fakeclerk.TokenOptions) string {
	opts.Claims = map[string]any{"email": plantedEmail, "name": plantedFirst, "note": plantedPrivate}
	if opts.AuthorizedParty == "" {
		opts.AuthorizedParty = appOrigin
	}
	return a.fixture.token(t, a.id, opts)
}

// clerkFails has Clerk answer every request with f.
func (a *audit) clerkFails(f *fakeclerk.Fault) {
	a.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return f })
}

func (a *audit) reconcile(t *testing.T, opts clerksync.ReconcileOptions) {
	opts.Progress = func(p clerksync.Progress) { a.output = append(a.output, fmt.Sprintf("%+v", p)) }
	report, err := a.Reconcile(t.Context(), opts)
	a.output = append(a.output, fmt.Sprintf("%+v", report))
	a.addError(err)
}

// TestOutputHasNoPersonalData runs what an app does, with success and with failures, and searches
// every output for secrets and personal data. Each flow must also output something, so that the
// search is not vacuous.
func TestOutputHasNoPersonalData(t *testing.T) {
	t.Parallel()
	html := &fakeclerk.Fault{Status: 502, ContentType: "text/html", Body: "<html>" + plantedEmail + " " + plantedKey}
	faults := map[string]*fakeclerk.Fault{
		"401":            fakeclerk.ErrorFault(401, "clerk_key_invalid"),
		"500":            fakeclerk.ErrorFault(500, "internal_clerk_error"),
		"a page":         html,
		"a page and 404": {Status: 404, ContentType: "text/html", Body: html.Body},
		"a page and 200": {Status: 200, ContentType: "text/html", Body: html.Body},
		"half a user":    {Status: 200, Body: `{"id":"user_1","first_name":"` + plantedFirst + `","em`},
		"half a list":    {Status: 200, Body: `[{"id":"user_1","first_name":"` + plantedFirst + `","em`},
		"another user":   {Status: 200, Body: `{"id":"user_2","first_name":"` + plantedFirst + `"}`},
		"an error's text": {Status: 422, Body: `{"errors":[{"code":"form_param","message":"` + plantedEmail +
			`","long_message":"` + plantedKey + `","meta":{"x":"` + plantedPhone + `"}}]}`},
		"cut off":      {Truncate: true},
		"a bad header": {Status: 200, Body: "{}", Header: http.Header{"Content-Encoding": {plantedEmail}}},
		"a redirect": {Status: 302, Header: http.Header{"Location": {"https://" + plantedFirst + ":" +
			plantedKeyText + "@127.0.0.1:1/?email=" + plantedEmail}}},
	}
	type flow struct {
		change func(*clerksync.Config)
		run    func(t *testing.T, a *audit)
		want   string
	}
	flows := map[string]flow{
		"webhook, good": {run: func(t *testing.T, a *audit) {
			for _, typ := range []string{"user.created", "user.updated", "user.deleted", "x.y"} {
				a.deliver(t, a.webhook, testSecret, envelope(typ, a.user))
			}
			a.deliver(t, a.webhook, testSecret, envelope("session.created", `{"user":`+a.user+`}`))
		}, want: "webhook applied"},
		"webhook, forged": {run: func(t *testing.T, a *audit) {
			a.deliver(t, a.webhook, otherSecret, envelope("user.created", a.user))
			r := signed(t, "/", testSecret, a.clock.Now(), envelope("user.created", a.user))
			a.secrets = append(a.secrets, r.Header.Get("svix-signature")[3:])
			r.Header.Set("svix-id", plantedEmail)
			a.send(a.webhook, r)
			a.send(a.webhook, httptest.NewRequest(http.MethodPut, "/?secret="+testSecret,
				strings.NewReader(plantedEmail)))
		}, want: "invalid_signature"},
		"webhook, unusable": {run: func(t *testing.T, a *audit) {
			for _, body := range []string{
				a.user, plantedEmail, `{"type":["` + plantedEmail + `"]}`,
				`{"type":"user.created","data":"` + plantedEmail + `"}`,
				`{"type":"user.deleted","data":{"id":"` + plantedEmail + `"}}`,
				`{"type":"session.created","data":["` + plantedFirst + `"],"instance_id":"ins_1"}`,
				`{"type":"user.created","instance_id":"` + plantedEmail + `","data":` + a.user + `}`,
			} {
				a.deliver(t, a.webhook, testSecret, []byte(body))
			}
			with := func(old, text string) string { return strings.Replace(a.user, old, text, 1) }
			version := fmt.Sprint(t0.UnixMilli())
			for _, data := range []string{
				with(`"`+plantedFirst+`"`, `["`+plantedFirst+`"]`),
				with(`"`+plantedEmail+`"`, `{"`+plantedEmail+`":1}`),
				`{"id":"` + plantedEmail + `"}`, with(version, `"`+plantedPhone+`"`), with(version, "9999999999999"),
				a.user[:len(a.user)-1],
			} {
				a.deliver(t, a.webhook, testSecret, envelope("user.created", data))
			}
		}, want: "invalid_event"},
		"webhook, in conflict": {run: func(t *testing.T, a *audit) {
			a.store.UniqueEmail = true
			_, _ = a.store.Upsert(t.Context(), &clerksync.User{ClerkID: "user_other", Email: plantedEmail})
			a.deliver(t, a.webhook, testSecret, envelope("user.created", a.user))
		}, want: "conflict"},
		"webhook, Map fails on metadata": {
			change: func(c *clerksync.Config) {
				c.Map = func(cu *clerk.User, u *clerksync.User) error {
					u.Extra = map[string]any{"meta": nestedTooDeep(cu.UnsafeMetadata)}
					return nil
				}
			},
			run: func(t *testing.T, a *audit) {
				a.deliver(t, a.webhook, testSecret, envelope("user.created", a.user))
			},
			want: "mapping_failed",
		},
		"webhook, OnEvent fails": {run: func(t *testing.T, a *audit) {
			h := a.newWebhook(t, func(context.Context, clerksync.Event) error {
				return errors.New("the queue is full")
			})
			a.deliver(t, h, testSecret, envelope("user.created", a.user))
		}, want: "the queue is full"},
		"webhook, OnEvent panics": {run: func(t *testing.T, a *audit) {
			h := a.newWebhook(t, func(context.Context, clerksync.Event) error { panic("nil map") })
			a.deliver(t, h, testSecret, envelope("user.created", a.user))
		}, want: "event_hook_failed"},
		"visit, good": {run: func(t *testing.T, a *audit) {
			a.visit(a.token(t, fakeclerk.TokenOptions{}), nil)
			a.clock.Advance(2 * time.Hour)
			a.visit(a.token(t, fakeclerk.TokenOptions{}), nil)
			clerksync.WaitBackground(a.Syncer)
		}, want: "clerk"},
		"visit, bad tokens": {run: func(t *testing.T, a *audit) {
			for _, opts := range []fakeclerk.TokenOptions{
				{IssuedAt: t0.Add(-time.Hour)}, {IssuedAt: t0.Add(time.Hour)}, {WrongKey: true}, {KeyID: plantedFirst},
				{Issuer: "https://" + plantedFirst + ".example.com"},
				{AuthorizedParty: "https://" + plantedFirst + ".example.com"}, {Class: fakeclerk.TemplateToken},
				{Class: fakeclerk.OpaqueOAuthToken}, {Algorithm: "none"}, {Pending: true},
			} {
				a.visit(a.token(t, opts), nil)
			}
			token := a.token(t, fakeclerk.TokenOptions{})
			a.visit(token+"x", nil)
			a.visit(token[:len(token)-20], nil)
			a.visit(plantedKey, nil)
			a.visit(token, func(r *http.Request) { r.Header.Add("Authorization", "Basic "+plantedKey) })
			a.visit(token, func(r *http.Request) {
				r.Header.Del("Authorization")
				r.Method = http.MethodPost
				r.Header.Set("Origin", otherOrigin)
				r.AddCookie(&http.Cookie{Name: "__session", Value: token})
			})
		}, want: "cross_origin"},
		"visit, claims of other types": {
			change: func(c *clerksync.Config) {
				c.Auth.CustomClaims = func(context.Context) any {
					return &struct {
						Email int `json:"email"`
					}{}
				}
			},
			run: func(t *testing.T, a *audit) {
				a.visit(a.token(t, fakeclerk.TokenOptions{}), nil)
			}, want: "token_malformed",
		},
		"visit, barred": {run: func(t *testing.T, a *audit) {
			_ = a.clerk.BanUser(a.id)
			a.visit(a.token(t, fakeclerk.TokenOptions{}), nil)
			_, _ = a.store.Deactivate(t.Context(), a.id, t0)
			a.Forget(a.id)
			a.visit(a.token(t, fakeclerk.TokenOptions{}), nil)
		}, want: "user_inactive"},
		"visit, in conflict": {run: func(t *testing.T, a *audit) {
			a.store.UniqueEmail = true
			_, _ = a.store.Upsert(t.Context(), &clerksync.User{ClerkID: "user_other", Email: plantedEmail})
			a.visit(a.token(t, fakeclerk.TokenOptions{}), nil)
		}, want: "conflict"},
		"visit, FailOpen": {
			change: func(c *clerksync.Config) { c.OnFailure = clerksync.FailOpen },
			run: func(t *testing.T, a *audit) {
				token := a.token(t, fakeclerk.TokenOptions{})
				a.visit(token, nil)
				a.Forget(a.id)
				a.store.fault = func(string) error { return errors.New("connection refused") }
				a.clerkFails(html)
				a.visit(token, nil)
			}, want: "connection refused",
		},
		"Clerk does not speak HTTP": {
			change: func(c *clerksync.Config) {
				c.HTTPClient = &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
					return nil, fmt.Errorf("malformed HTTP response %q", plantedEmail)
				})}
			},
			run: func(t *testing.T, a *audit) {
				a.visit(a.token(t, fakeclerk.TokenOptions{}), nil)
				_, err := a.User(t.Context(), a.id)
				a.addError(err)
				a.reconcile(t, clerksync.ReconcileOptions{})
			}, want: "no answer",
		},
		"subjects that are not ids": {run: func(t *testing.T, a *audit) {
			for _, id := range []string{plantedEmail, plantedKey, "user_" + plantedEmail} {
				_, err := a.User(t.Context(), id)
				a.addError(err)
				_, err = a.Sync(t.Context(), id)
				a.addError(err)
			}
		}, want: "no such user"},
		"Reconcile, good": {run: func(t *testing.T, a *audit) {
			a.reconcile(t, clerksync.ReconcileOptions{Force: true})
			a.rename(t, plantedLast, a.id)
			a.reconcile(t, clerksync.ReconcileOptions{Force: true, DryRun: true})
		}, want: "Complete:true"},
		"Reconcile, bad users": {run: func(t *testing.T, a *audit) {
			a.store.UniqueEmail = true
			_, _ = a.store.Upsert(t.Context(), &clerksync.User{ClerkID: "user_other", Email: plantedEmail})
			b := a.clerk.CreateUser(fakeclerk.NewUser{FirstName: plantedFirst})
			_ = a.clerk.UpdateUser(b, func(u *fakeclerk.UserObject) {
				u.Extra = map[string]any{"last_name": []string{plantedLast}}
			})
			_ = a.clerk.CreateUser(fakeclerk.NewUser{})
			a.reconcile(t, clerksync.ReconcileOptions{Holdback: -1, InstanceID: a.clerk.InstanceID()})
		}, want: "Failed:{Count:1"},
		"Reconcile, bad options": {run: func(t *testing.T, a *audit) {
			for _, resume := range []string{plantedKey, plantedEmail,
				base64.RawURLEncoding.EncodeToString([]byte(`{"after":"` + plantedEmail + `"}`))} {
				a.reconcile(t, clerksync.ReconcileOptions{Resume: resume, PageSize: -1})
			}
			a.reconcile(t, clerksync.ReconcileOptions{InstanceID: "ins_other"})
		}, want: "another Clerk instance"},
		"bad settings": {run: func(_ *testing.T, a *audit) {
			for _, c := range []clerksync.Config{
				{SecretKey: "pk_" + plantedKey}, {SecretKey: plantedKey + " x"},
				{APIURL: "https://" + plantedFirst + ":" + plantedKeyText + "@host"}, {APIURL: ":" + plantedKey},
				{Auth: clerksync.AuthConfig{JWTKey: plantedKey,
					AuthorizedParties: []string{"https://" + plantedEmail}}},
			} {
				_, err := clerksync.New(c)
				a.addError(err)
			}
			for _, secret := range []string{plantedKey, "whsec_" + plantedEmail,
				strings.TrimPrefix(testSecret, "whsec_"), testSecret + "!"} {
				_, err := a.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{secret}})
				a.addError(err)
			}
		}, want: "publishable key"},
	}
	for name, fault := range faults {
		flows["Clerk answers with "+name] = flow{run: func(t *testing.T, a *audit) {
			token := a.token(t, fakeclerk.TokenOptions{})
			_, err := a.Authenticate(bearing("Bearer " + token)) // fetches the keys
			a.addError(err)
			a.clerkFails(fault)
			a.visit(token, nil)
			_, err = a.Sync(t.Context(), a.id)
			a.addError(err)
			a.reconcile(t, clerksync.ReconcileOptions{})
			a.clock.Advance(24 * time.Hour)
			a.visit(a.token(t, fakeclerk.TokenOptions{}), nil)
		}, want: "unavailable"}
	}
	for name, tt := range flows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAudit(t, tt.change)
			tt.run(t, a)
			clerksync.WaitBackground(a.Syncer)
			a.output = append(a.output, a.logs.String())
			a.seen.mu.Lock()
			for _, o := range a.seen.all {
				a.output = append(a.output, fmt.Sprintf("%+v", o))
				a.addError(o.Err)
			}
			a.seen.mu.Unlock()
			if all := strings.Join(a.output, "\n"); !strings.Contains(all, tt.want) {
				t.Errorf("the output does not contain %q:\n%s", tt.want, all)
			}
			slices.Sort(a.secrets)
			for _, secret := range slices.Compact(a.secrets) {
				for _, text := range a.output {
					if secret != "" && strings.Contains(text, secret) {
						t.Errorf("%q is in %s", secret, text)
						break
					}
				}
			}
		})
	}
}

// TestReconcileOutputHasNoPersonalData searches the output of Reconcile for data of the users and for
// the key.
func TestReconcileOutputHasNoPersonalData(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 8)
	fx.store.UniqueEmail = true
	for i, id := range ids[:2] { // swap
		_ = fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) {
			u.EmailAddresses[0].EmailAddress = fmt.Sprintf("ada%d@example.com", 1-i)
		})
	}
	_ = fx.clerk.UpdateUser(ids[2], func(u *fakeclerk.UserObject) {
		u.Extra = map[string]any{"first_name": []string{"Ada"}}
	})
	_ = fx.clerk.UpdateUserSilently(ids[3], func(u *fakeclerk.UserObject) {
		u.UpdatedAt = fx.clock.Now().Add(48 * time.Hour).UnixMilli()
	})
	fx.delete(t, ids[4])
	fx.rename(t, "Augusta", ids[5])

	texts := []string{}
	report, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{Force: true})
	wantUnwritten(t, &report, err)
	wantCounts(t, report, map[string]int{"seen": 7, "unchanged": 2, "updated": 3, "failed": 2,
		"ghosts": 1, "deactivated": 1})
	texts = append(texts, fmt.Sprintf("%+v", report), err.Error())
	for _, fault := range []*fakeclerk.Fault{
		{Status: 200,
			Body: `[{"id":"user_1","first_name":"Ada","email_addresses":[{"email_address":"ada1@example.com"}]`},
		{Status: 502, Body: "<html>Ada ada1@example.com</html>", ContentType: "text/html"},
		fakeclerk.ErrorFault(401, "clerk_key_invalid"),
		fakeclerk.ErrorFault(403, "forbidden"),
	} {
		fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return fault })
		report, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{})
		if !errors.Is(err, clerksync.ErrUnavailable) {
			t.Errorf("error is %v", err)
		}
		texts = append(texts, fmt.Sprintf("%+v", report), fmt.Sprint(err))
	}
	if !strings.Contains(fx.logs.String(), ids[2]) {
		t.Error("the log does not say who failed")
	}
	for _, text := range append(texts, fx.logs.String()) {
		for _, secret := range []string{"@", "Ada", "Augusta", fx.clerk.SecretKey()} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in %s", secret, text)
			}
		}
	}
}

// Errors do not quote a user's metadata or a proxy's answer.
func TestErrorsHoldNoPersonalData(t *testing.T) {
	t.Parallel()
	const secret = "ada@example.com"
	for _, v := range []any{
		nestedTooDeep(map[string]any{secret: secret}), map[string]any{secret + "\xff": 1, secret + "\xfe": 2},
		json.Number(secret), json.RawMessage(secret), map[string]any{secret: []byte(secret)}, []byte(secret),
	} {
		_, err := (&clerksync.User{ClerkID: "user_1", Extra: map[string]any{"meta": v}}).Canonical()
		if err == nil || strings.Contains(err.Error(), "example") || !strings.Contains(err.Error(), `"meta"`) {
			t.Errorf("%T: error is %v", v, err)
		}
	}
	fx := newFixture(t, nil)
	url, key := fx.clerk.APIURL(), fx.clerk.SecretKey()
	s := fx.syncer(t, func(c *clerksync.Config) {
		c.Backend = clerk.NewBackend(&clerk.BackendConfig{URL: &url, Key: &key, HTTPClient: c.HTTPClient})
		c.APIURL, c.HTTPClient = "", nil
	})
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		return &fakeclerk.Fault{Status: 502, Body: "<html>" + secret}
	})
	if _, err := s.User(t.Context(), "user_1"); !errors.Is(err, clerksync.ErrUnavailable) ||
		strings.Contains(err.Error(), secret) {
		t.Errorf("error is %v", err)
	}
}

// nestedTooDeep returns a value that Extra cannot hold, with v in it.
func nestedTooDeep(v any) any {
	for range 40 {
		v = []any{v}
	}
	return v
}
