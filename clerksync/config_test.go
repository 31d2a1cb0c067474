package clerksync_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
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
			if s != nil {
				t.Error("New returned a Syncer beside the error")
			}
		})
	}
}

func TestWebhookHandlerReportsEveryFault(t *testing.T) {
	t.Parallel()
	s := newTestSyncer(t, nil)
	secrets := func(all ...string) clerksync.WebhookConfig { return clerksync.WebhookConfig{Secrets: all} }
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
		"not base64":            {secrets("whsec_???"), []string{"not base64"}},
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
