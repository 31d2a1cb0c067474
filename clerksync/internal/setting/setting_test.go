package setting_test

import (
	"encoding/base64"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/clerksync/clerksync-go/clerksync/internal/setting"
)

const secret = "s3cr3tK3yM4t3r14l"

// copied are values that nobody meant, made of a right one.
func copied(right string) map[string]string {
	prefix := right[:strings.LastIndexByte(right, '_')+1]
	return map[string]string{
		`"` + right + `"`:                "quotation marks",
		`'` + right + `'`:                "quotation marks",
		"`" + right + "`":                "quotation marks",
		"“" + right + "”":                "quotation marks",
		right + `"`:                      "quotation marks",
		`"` + right:                      "quotation marks",
		"CLERK_SECRET_KEY=" + right:      "name of a variable",
		"export CLERK_KEY=" + right:      "name of a variable",
		"CLERK_SECRET_KEY = " + right:    "name of a variable",
		"CLERK_SECRET_KEY: " + right:     "name of a variable",
		"NEXT_PUBLIC_CLERK_KEY=" + right: "name of a variable",
		"undefined":                      "missing value",
		"null":                           "missing value",
		"<nil>":                          "missing value",
		"None":                           "missing value",
		"[object Object]":                "missing value",
		"${CLERK_SECRET_KEY}":            "reference to a variable",
		"$CLERK_SECRET_KEY":              "reference to a variable",
		"%CLERK_SECRET_KEY%":             "reference to a variable",
		"{{ .Values.clerk }}":            "reference to a variable",
		"$(cat secret)":                  "reference to a variable",
		prefix + "...":                   "placeholder",
		prefix + "…":                     "placeholder",
		prefix + "xxxxxxxx":              "placeholder",
		prefix + "********":              "placeholder",
		prefix + "••••••••":              "placeholder",
		prefix + "<your key>":            "placeholder",
		prefix + "your_key_here":         "placeholder",
		"your_key_here":                  "placeholder",
		"YOUR_SECRET_KEY":                "placeholder",
		"<secret>":                       "placeholder",
		"changeme":                       "placeholder",
		"key-goes-here":                  "placeholder",
		prefix:                           "cut off",
		right[:len(right)-2] + " " + right[len(right)-2:]:  "characters",
		right[:len(right)-2] + "\n" + right[len(right)-2:]: "characters",
		right + "\x00": "characters",
		right + "ä":    "characters",
		"hunter2":      "begins with",
		"-----BEGIN PUBLIC KEY-----\nMII\n-----END PUBLIC KEY-----": "a key in PEM",
		"eyJhbGciOiJSUzI1NiJ9.e30.x":                                "a token",
		"mongodb://app:" + secret + "@db.internal/app":              "the address of a database",
		"https://api.clerk.com":                                     "a URL",
		"user_" + secret:                                            "the id of a user",
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	encoded := base64.StdEncoding.EncodeToString([]byte(secret))
	right := map[string]string{
		"sk_test_" + secret: "a secret key", "sk_live_" + secret: "a secret key", "pk_live_" + encoded: "a publishable key",
		"whsec_" + encoded: "a webhook's signing secret", "ins_" + secret: "the id of an instance",
	}
	for name, tt := range map[string]struct {
		check func(string) string
		right []string
	}{
		"SecretKey":      {setting.SecretKey, []string{"sk_test_" + secret, "sk_live_" + secret}},
		"PublishableKey": {setting.PublishableKey, []string{"pk_live_" + encoded}},
		"WebhookSecret":  {setting.WebhookSecret, []string{"whsec_" + encoded}},
		"InstanceID":     {setting.InstanceID, []string{"ins_" + secret}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wrong := copied(tt.right[0])
			for value, is := range right {
				if !strings.HasPrefix(value, tt.right[0][:3]) {
					wrong[value] = is
				}
			}
			for value, want := range wrong {
				got := tt.check(value)
				if !strings.Contains(got, want) {
					t.Errorf("%q %s, want it to say %q", value, got, want)
				}
				if strings.Contains(got, secret) || strings.Contains(got, encoded) || strings.Contains(got, "hunter2") {
					t.Errorf("the text shows the value: %s", got)
				}
			}
			for _, value := range tt.right {
				if got := tt.check(value); got != "" {
					t.Errorf("%q %s", value, got)
				}
			}
		})
	}
}

// No key that Clerk may have made is refused.
func TestKeysOfClerk(t *testing.T) {
	t.Parallel()
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	random := rand.New(rand.NewPCG(1, 2))
	for range 2_000 {
		key, raw := make([]byte, 27+random.IntN(40)), make([]byte, 24)
		for i := range key {
			key[i] = letters[random.IntN(len(letters))]
		}
		for i := range raw {
			raw[i] = byte(random.Uint32())
		}
		whsec := "whsec_" + base64.StdEncoding.EncodeToString(raw)
		for _, fault := range []string{
			setting.SecretKey("sk_live_" + string(key)), setting.PublishableKey("pk_test_" + string(key)),
			setting.InstanceID("ins_" + string(key)), setting.WebhookSecret(whsec),
		} {
			if fault != "" {
				t.Fatalf("%s, %s: %s", key, whsec, fault)
			}
		}
	}
}

// A secret that is long enough not to be guessed may be Svix's; a shorter one is cut off or made up.
func TestLengthOfASigningSecret(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 64; n++ {
		got := setting.WebhookSecret("whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("s", n))))
		if tooShort := strings.Contains(got, "is too short"); tooShort != (n < 16) || !tooShort && got != "" {
			t.Errorf("%d bytes: %q", n, got)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"sk_live_" + secret: "production", "pk_live_" + secret: "production",
		"sk_test_" + secret: "development", "pk_test_" + secret: "development",
		"sk_" + secret: "", "pk_prod_" + secret: "", "whsec_live_": "", "": "",
	} {
		if got := setting.Environment(key); got != want {
			t.Errorf("%q: %q, want %q", key, got, want)
		}
	}
}

func TestURLAndPEM(t *testing.T) {
	t.Parallel()
	const pem = "-----BEGIN PUBLIC KEY-----\nMII\n-----END PUBLIC KEY-----"
	for _, tt := range []struct {
		check       func(string) string
		value, want string
	}{
		{setting.URL, "https://api.clerk.com", ""},
		{setting.URL, "http://127.0.0.1:1/v1", ""},
		{setting.URL, "https://api.your-company.com/v1", ""},
		{setting.URL, `"https://api.clerk.com"`, "quotation marks"},
		{setting.URL, "CLERK_API_URL=https://api.clerk.com", "name of a variable"},
		{setting.URL, "undefined", "missing value"},
		{setting.URL, "api.clerk.com/v1", "is not an http or https URL"},
		{setting.URL, "http://[::1", "is not an http or https URL"},
		{setting.URL, "ftp://clerk.com", "is not an http or https URL"},
		{setting.URL, "https:// api.clerk.com", "is not an http or https URL"},
		{setting.URL, "https://u:" + secret + "@api.clerk.com", "may not have a user"},
		{setting.URL, "https://api.clerk.com/v1?x=1", "may not have"},
		{setting.PEM, pem, ""},
		{setting.PEM, strings.ReplaceAll(pem, "\n", `\n`), ""},
		{setting.PEM, `"` + pem + `"`, "quotation marks"},
		{setting.PEM, "CLERK_JWT_KEY=" + pem, "name of a variable"},
		{setting.PEM, "-----BEGIN PUBLIC KEY-----", "cut off"},
		{setting.PEM, "-----BEGIN PUBLIC KEY-----\nMII", "cut off"},
		{setting.PEM, "-----BEGIN PRIVATE KEY-----\n" + secret + "\n-----END PRIVATE KEY-----", "private key"},
		{setting.PEM, "MIIBIjANBg", ""}, // the caller decodes it
		{setting.PEM, "sk_test_" + secret, "a secret key"},
		{setting.Word, "MEMBER", ""},
		{setting.Word, "team member", ""},
		{setting.Word, "", ""},
		{setting.Word, "NONE", ""},
		{setting.Word, "<b>", ""},
		{setting.Word, " ", "white space"},
		{setting.Word, "MEMBER\n", "white space"},
		{setting.Word, `"MEMBER"`, "quotation marks"},
		{setting.Word, "undefined", "missing value"},
		{setting.Word, "{{user.updated_at}}", "reference to a variable"},
	} {
		got := tt.check(tt.value)
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%q %s, want it to say %q", tt.value, got, tt.want)
		}
		if strings.Contains(got, secret) {
			t.Errorf("the text shows the value: %s", got)
		}
	}
}

func TestIsNil(t *testing.T) {
	t.Parallel()
	for _, v := range []any{nil, (*int)(nil), (func())(nil), map[string]int(nil), []int(nil), (chan int)(nil)} {
		if !setting.IsNil(v) {
			t.Errorf("a %T is not nil", v)
		}
	}
	for _, v := range []any{0, "", new(int), func() {}, map[string]int{}, []int{}, struct{}{}} {
		if setting.IsNil(v) {
			t.Errorf("a %T is nil", v)
		}
	}
}
