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
	ok := func() clerksync.Config {
		return clerksync.Config{Store: memstore.New(), SecretKey: "sk_test_secret"}
	}
	tests := map[string]struct {
		change func(*clerksync.Config)
		want   []string // one fault each; none: no error
	}{
		"complete":                {func(*clerksync.Config) {}, nil},
		"white space around key":  {func(c *clerksync.Config) { c.SecretKey = " sk_test_secret\n" }, nil},
		"backend in place of key": {func(c *clerksync.Config) { c.SecretKey, c.Backend = "", clerk.NewBackend(&clerk.BackendConfig{}) }, nil},
		"no store":                {func(c *clerksync.Config) { c.Store = nil }, []string{"Config.Store is missing"}},
		"no key":                  {func(c *clerksync.Config) { c.SecretKey = "" }, []string{"Config.SecretKey is missing"}},
		"blank key":               {func(c *clerksync.Config) { c.SecretKey = " \t\n" }, []string{"Config.SecretKey is missing"}},
		"publishable key":         {func(c *clerksync.Config) { c.SecretKey = "pk_test_Zm9v" }, []string{"Config.SecretKey is a publishable key"}},
		"line break in key":       {func(c *clerksync.Config) { c.SecretKey = "sk_test_a\r\nX-Evil: 1" }, []string{"Config.SecretKey has characters"}},
		"relative URL":            {func(c *clerksync.Config) { c.APIURL = "api.clerk.com/v1" }, []string{"Config.APIURL is not an http"}},
		"unparsable URL":          {func(c *clerksync.Config) { c.APIURL = "http://[::1" }, []string{"Config.APIURL is not an http"}},
		"other scheme":            {func(c *clerksync.Config) { c.APIURL = "ftp://api.clerk.com/v1" }, []string{"Config.APIURL is not an http"}},
		"URL with query":          {func(c *clerksync.Config) { c.APIURL = "https://api.clerk.com/v1?x=1" }, []string{"Config.APIURL may not have"}},
		"negative cache size":     {func(c *clerksync.Config) { c.CacheSize = -1 }, []string{"Config.CacheSize is negative"}},
		"unknown policy":          {func(c *clerksync.Config) { c.OnFailure = 7 }, []string{"Config.OnFailure is neither"}},
		"backend and URL": {func(c *clerksync.Config) {
			c.Backend, c.APIURL, c.HTTPClient = clerk.NewBackend(&clerk.BackendConfig{}), "https://x.example/v1", http.DefaultClient
		}, []string{"Config.APIURL has no effect", "Config.HTTPClient has no effect"}},
		"all at once": {func(c *clerksync.Config) { *c = clerksync.Config{APIURL: "x", CacheSize: -1, OnFailure: -1} },
			[]string{"Store", "SecretKey", "APIURL", "CacheSize", "OnFailure"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := ok()
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
			checkFaults(t, err, tt.want)
			if s != nil {
				t.Error("New returned a Syncer beside the error")
			}
		})
	}
}

func TestWebhookHandlerReportsEveryFault(t *testing.T) {
	t.Parallel()
	s, err := clerksync.New(clerksync.Config{Store: memstore.New(), SecretKey: "sk_test_secret"})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		cfg  clerksync.WebhookConfig
		want []string
	}{
		"one secret":             {clerksync.WebhookConfig{Secrets: []string{testSecret}}, nil},
		"white space around it":  {clerksync.WebhookConfig{Secrets: []string{"\t" + testSecret + "\n"}}, nil},
		"no secret":              {clerksync.WebhookConfig{}, []string{"Secrets is empty"}},
		"an empty secret":        {clerksync.WebhookConfig{Secrets: []string{testSecret, ""}}, []string{"Secrets[1] is empty"}},
		"a blank secret":         {clerksync.WebhookConfig{Secrets: []string{" \n"}}, []string{"Secrets[0] is empty"}},
		"only the prefix":        {clerksync.WebhookConfig{Secrets: []string{"whsec_"}}, []string{"Secrets[0] is empty"}},
		"the secret key":         {clerksync.WebhookConfig{Secrets: []string{"sk_test_c2VjcmV0"}}, []string{"Secrets[0] is not a signing secret"}},
		"not base64":             {clerksync.WebhookConfig{Secrets: []string{"whsec_???"}}, []string{"not base64"}},
		"several faults at once": {clerksync.WebhookConfig{Secrets: []string{"", "x"}, MaxBodyBytes: -1}, []string{"Secrets[0]", "Secrets[1]", "MaxBodyBytes"}},
	}
	for name, tt := range tests {
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
