package clerksync_test

import (
	"encoding/base64"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

func TestNewReportsEveryFault(t *testing.T) {
	t.Parallel()
	backend := clerk.NewBackend(&clerk.BackendConfig{})
	type config = clerksync.Config
	for name, tt := range map[string]struct {
		change func(*config) // of a complete Config
		want   []string      // one text for each fault; none: no error
	}{
		"complete":                {func(*config) {}, nil},
		"white space around key":  {func(c *config) { c.SecretKey = " sk_test_secret\n" }, nil},
		"backend in place of key": {func(c *config) { c.SecretKey, c.Backend = "", backend }, nil},
		"no store":                {func(c *config) { c.Store = nil }, []string{"Store is missing"}},
		"no key":                  {func(c *config) { c.SecretKey = "" }, []string{"SecretKey is missing"}},
		"blank key":               {func(c *config) { c.SecretKey = " \t\n" }, []string{"SecretKey is missing"}},
		"publishable key": {
			func(c *config) { c.SecretKey = "pk_test_Zm9v" },
			[]string{"SecretKey is a publishable key"},
		},
		"line break in key": {
			func(c *config) { c.SecretKey = "sk_test_a\r\nX-Evil: 1" },
			[]string{"SecretKey has characters"},
		},
		"relative URL":   {func(c *config) { c.APIURL = "api.clerk.com/v1" }, []string{"APIURL is not an http"}},
		"unparsable URL": {func(c *config) { c.APIURL = "http://[::1" }, []string{"APIURL is not an http"}},
		"other scheme":   {func(c *config) { c.APIURL = "ftp://clerk.com" }, []string{"APIURL is not an http"}},
		"URL with query": {func(c *config) {
			c.APIURL = "https://x.com/v1?x=1"
		}, []string{"APIURL may not have"}},
		"key in quotes":         {func(c *config) { c.SecretKey = `"sk_test_secret"` }, []string{"SecretKey has quotation marks"}},
		"key with its variable": {func(c *config) { c.SecretKey = "CLERK_SECRET_KEY=sk_test_secret" }, []string{"SecretKey has the name of a variable"}},
		"undefined":             {func(c *config) { c.SecretKey = "undefined" }, []string{"SecretKey is what a program prints"}},
		"placeholder":           {func(c *config) { c.SecretKey = "sk_test_..." }, []string{"SecretKey is a placeholder"}},
		"another kind of key":   {func(c *config) { c.SecretKey = "secret" }, []string{"SecretKey is not the secret key, which begins with sk_"}},
		"wrong key beside a backend": {
			func(c *config) { c.SecretKey, c.Backend = "whsec_c2VjcmV0", backend },
			[]string{"SecretKey is a webhook's signing secret"},
		},
		"typed nil store": {
			func(c *config) { c.Store = (*memstore.Store)(nil) }, []string{"Store is a nil *memstore.Store"},
		},
		"typed nil backend": {
			func(c *config) { c.Backend = (*nilBackend)(nil) }, []string{"Backend is a nil *clerksync_test.nilBackend"},
		},
		"typed nil transport": {
			func(c *config) { c.HTTPClient = &http.Client{Transport: (*http.Transport)(nil)} },
			[]string{"HTTPClient.Transport is a nil *http.Transport"},
		},
		"no transport":             {func(c *config) { c.HTTPClient = &http.Client{} }, nil},
		"logger without a handler": {func(c *config) { c.Logger = &slog.Logger{} }, []string{"Logger has no handler"}},
		"logger with a nil handler": {
			func(c *config) { c.Logger = slog.New((*slog.TextHandler)(nil)) }, []string{"Logger has no handler"},
		},
		"white space around URL": {func(c *config) { c.APIURL = " https://api.clerk.com/v1/\n" }, nil},
		"URL in quotes":          {func(c *config) { c.APIURL = `'https://api.clerk.com'` }, []string{"APIURL has quotation marks"}},
		"blank role":             {func(c *config) { c.DefaultRole = " " }, []string{"DefaultRole has white space"}},
		"role in quotes":         {func(c *config) { c.DefaultRole = `"MEMBER"` }, []string{"DefaultRole has quotation marks"}},
		"issuer without scheme":  {func(c *config) { c.Auth.Issuer = "clerk.example.com" }, []string{"Auth.Issuer is not an http"}},
		"claim with its value": {
			func(c *config) { c.Auth.FreshnessClaim = "{{user.updated_at}}" }, []string{"Auth.FreshnessClaim is a reference"},
		},
		"key in PEM in quotes": {
			func(c *config) { c.Auth.JWTKey = `"` + testSigner().pem + `"` }, []string{"Auth.JWTKey has quotation marks"},
		},
		"key in PEM cut off": {
			func(c *config) { c.Auth.JWTKey = "-----BEGIN PUBLIC KEY-----" }, []string{"Auth.JWTKey is cut off"},
		},
		"leeway of a day":      {func(c *config) { c.Auth.Leeway = 24 * time.Hour }, []string{"Auth.Leeway must be from 1ms to 5m0s"}},
		"leeway over the most": {func(c *config) { c.Auth.Leeway = 5*time.Minute + 1 }, []string{"Auth.Leeway must be"}},
		"leeway for ever":      {func(c *config) { c.Auth.Leeway = math.MaxInt64 }, []string{"Auth.Leeway must be"}},
		"leeway, no unit":      {func(c *config) { c.Auth.Leeway = 30 }, []string{"Auth.Leeway must be"}},
		"the most leeway":      {func(c *config) { c.Auth.Leeway = 5 * time.Minute }, nil},
		"no leeway":            {func(c *config) { c.Auth.Leeway = -1 }, nil},
		"live key beside a test secret": {
			func(c *config) { c.Auth.PublishableKey = liveKey },
			[]string{"Auth.PublishableKey is a production instance's, and SecretKey a development instance's"},
		},
		"test key beside a live secret": {
			func(c *config) { c.SecretKey, c.Auth.PublishableKey = "sk_live_secret", ownKey },
			[]string{"Auth.PublishableKey is a development instance's, and SecretKey a production instance's"},
		},
		"live key beside a test secret, and a backend": {
			func(c *config) { c.Backend, c.Auth.PublishableKey = backend, liveKey },
			[]string{"Auth.PublishableKey is a production instance's"},
		},
		"live keys": {func(c *config) { c.SecretKey, c.Auth.PublishableKey = "sk_live_secret", liveKey }, nil},
		"test keys": {func(c *config) { c.Auth.PublishableKey = ownKey }, nil},
		"live key beside a backend": {
			func(c *config) { c.SecretKey, c.Backend, c.Auth.PublishableKey = "", backend, liveKey }, nil,
		},
		"live key beside a secret that does not say": {
			func(c *config) { c.SecretKey, c.Auth.PublishableKey = "sk_secret", liveKey }, nil,
		},
		"negative cache size": {func(c *config) { c.CacheSize = -1 }, []string{"CacheSize is negative"}},
		"unknown policy":      {func(c *config) { c.OnFailure = 7 }, []string{"OnFailure is neither"}},
		"backend and URL": {func(c *config) {
			c.Backend, c.APIURL, c.HTTPClient = backend, "https://x.example/v1", http.DefaultClient
		}, []string{"APIURL has no effect", "HTTPClient has no effect"}},
		"all at once": {
			func(c *config) { *c = config{APIURL: "x", CacheSize: -1, OnFailure: -1} },
			[]string{"Store", "SecretKey", "APIURL", "CacheSize", "OnFailure"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config{Store: memstore.New(), SecretKey: "sk_test_secret"}
			tt.change(&cfg)
			s, err := clerksync.New(cfg)
			if tt.want == nil {
				if err != nil {
					t.Fatalf("New: %v", err)
				}
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				return
			}
			for i, fault := range tt.want {
				tt.want[i] = "Config." + fault
			}
			checkFaults(t, err, tt.want)
			for _, secret := range []string{"sk_test_secret", "c2VjcmV0", "Zm9v", "MII"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error shows a key: %v", err)
				}
			}
			if s != nil {
				t.Error("New returned a Syncer beside the error")
			}
		})
	}
}

// liveKey is a production instance's publishable key.
const liveKey = "pk_live_Y2xlcmsuY2xlcmsuZGV2JA"

// nilBackend is a Backend that must not be called.
type nilBackend struct{ clerk.Backend }

// A URL of Clerk's API works with and without the version and final slashes.
func TestAPIURLForms(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	bare := strings.TrimSuffix(fx.clerk.APIURL(), "/v1")
	for _, url := range []string{bare, bare + "/", bare + "/v1", bare + "/v1/", bare + "/v1//", " " + bare + "\n"} {
		visit(t, fx.syncer(t, func(c *clerksync.Config) { c.APIURL, c.Store = url, memstore.New() }), id)
	}
}

func TestWebhookHandlerReportsEveryFault(t *testing.T) {
	t.Parallel()
	s := newTestSyncer(t, nil)
	secrets := func(all ...string) clerksync.WebhookConfig { return clerksync.WebhookConfig{Secrets: all} }
	webhookConfig := func(tolerance time.Duration, instance string) clerksync.WebhookConfig {
		return clerksync.WebhookConfig{Secrets: []string{testSecret}, Tolerance: tolerance, InstanceID: instance}
	}
	for name, tt := range map[string]struct {
		cfg  clerksync.WebhookConfig
		want []string
	}{
		"one secret":            {secrets(testSecret), nil},
		"white space around it": {secrets("\t" + testSecret + "\n"), nil},
		"no secret":             {secrets(), []string{"Secrets is empty"}},
		"an empty secret":       {secrets(testSecret, ""), []string{"Secrets[1] is empty"}},
		"a blank secret":        {secrets(" \n"), []string{"Secrets[0] is empty"}},
		"only the prefix":       {secrets("whsec_"), []string{"Secrets[0] is empty"}},
		"the secret key":        {secrets("sk_test_c2VjcmV0"), []string{"Secrets[0] is not a signing secret"}},
		"two characters":        {secrets("whsec_YQ=="), []string{"Secrets[0] is too short for a signing secret"}},
		"15 bytes":              {secrets(secretOf(15)), []string{"Secrets[0] is too short for a signing secret"}},
		"16 bytes":              {secrets(secretOf(16)), nil},
		"24 bytes":              {secrets(secretOf(24)), nil},
		"64 bytes":              {secrets(secretOf(64)), nil},
		"cut off":               {secrets(testSecret[:14]), []string{"Secrets[0] is too short for a signing secret"}},
		"not base64":            {secrets("whsec_???"), []string{"not base64"}},
		"in quotes":             {secrets(`"` + testSecret + `"`), []string{"Secrets[0] has quotation marks"}},
		"with its variable":     {secrets("CLERK_WEBHOOK_SECRET=" + testSecret), []string{"Secrets[0] has the name of a variable"}},
		"undefined":             {secrets("undefined"), []string{"Secrets[0] is what a program prints"}},
		"a placeholder":         {secrets("whsec_..."), []string{"Secrets[0] is a placeholder"}},
		"two in one":            {secrets(testSecret + "," + otherSecret), []string{"Secrets[0] is not a signing secret"}},
		"two in one, by spaces": {secrets(testSecret + " " + otherSecret), []string{"Secrets[0] has characters"}},
		"another id":            {webhookConfig(0, "org_1"), []string{"InstanceID is not the id of an instance"}},
		"an instance's id":      {webhookConfig(0, "ins_1"), nil},
		"a key as instance":     {webhookConfig(0, "pk_test_Zm9v"), []string{"InstanceID is a publishable key"}},
		"negative tolerance":    {webhookConfig(-time.Second, ""), []string{"Tolerance must be from 1ms to 24h0m0s, or 0, which means 5m0s"}},
		"a day's tolerance":     {webhookConfig(24*time.Hour, ""), nil},
		"forgotten unit":        {webhookConfig(300, ""), []string{"Tolerance must be"}},
		"over a day's":          {webhookConfig(24*time.Hour+1, ""), []string{"Tolerance must be"}},
		"several faults at once": {
			clerksync.WebhookConfig{Secrets: []string{"", "x"}, MaxBodyBytes: -1},
			[]string{"Secrets[0]", "Secrets[1]", "MaxBodyBytes"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, err := s.WebhookHandler(tt.cfg)
			if tt.want == nil {
				if err != nil {
					t.Fatalf("WebhookHandler: %v", err)
				}
				return
			}
			checkFaults(t, err, tt.want)
			if h != nil {
				t.Error("WebhookHandler returned a handler beside the error")
			}
			for _, secret := range tt.cfg.Secrets {
				if len(secret) > 8 && strings.Contains(err.Error(), secret) {
					t.Errorf("the error shows the secret: %v", err)
				}
			}
		})
	}
}

// secretOf is a signing secret of n bytes.
func secretOf(n int) string {
	return "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("s", n)))
}

func TestSyncOfAnInvalidID(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	if _, err := fx.Sync(t.Context(), "../users"); !errors.Is(err, clerksync.ErrUserUnknown) {
		t.Error(err)
	}
	if o := fx.seen.last(); o.Op != clerksync.OpSync || o.ClerkID != "" ||
		!errors.Is(o.Err, clerksync.ErrUserUnknown) {
		t.Errorf("observed %+v", o)
	}
}

func TestSyncReturnsTheOutcomeAndInvalidates(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
	for _, want := range []clerksync.Outcome{clerksync.Created, clerksync.Unchanged} {
		if res, err := fx.Sync(t.Context(), id); err != nil || res.Outcome != want {
			t.Errorf("Sync: %+v, %v; want %v", res, err, want)
		}
	}
	visit(t, fx.Syncer, id)
	_ = fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("New") })
	if res, err := fx.Sync(t.Context(), id); err != nil || res.Outcome != clerksync.Updated {
		t.Errorf("Sync: %+v, %v", res, err)
	}
	if u := visit(t, fx.Syncer, id); u.Name != "New" {
		t.Errorf("the visit after it got %s", u.Name)
	}
	if _, err := fx.store.Deactivate(t.Context(), id, fx.clock.Now()); err != nil {
		t.Fatal(err)
	}
	if res, err := fx.Sync(t.Context(), id); err != nil || res.Outcome != clerksync.Deactivated {
		t.Errorf("Sync: %+v, %v", res, err)
	}
	fx.store.fail(errDown)
	if _, err := fx.Sync(t.Context(), id); !errors.Is(err, clerksync.ErrUnavailable) {
		t.Errorf("Sync: %v", err)
	}
	visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive) // on standby
}
