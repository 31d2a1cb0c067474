package clerksync_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/jwt"
	"pgregory.net/rapid"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// inOtherCase finds names of standard claims in other case.
var inOtherCase = regexp.MustCompile(`"(Org_Slug|FVA|O|FEA|V)":`)

// What a handler finds in the claims is what the SDK's own verification makes of the
// token, however odd its organization, features and permissions are.
func TestClaimsEqualTheSDKs(t *testing.T) {
	t.Parallel()
	s := newTestSyncer(t, func(c *clerksync.Config) {
		c.Auth = clerksync.AuthConfig{JWTKey: testSigner().pem, CustomClaims: newCustomClaims}
	})
	jwk, err := clerk.JSONWebKeyFromPEM(testSigner().pem)
	if err != nil {
		t.Fatal(err)
	}
	list := func(t *rapid.T, what string, of ...string) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom(of), 0, 6).Draw(t, what), ",")
	}
	accepted, refused, permitted := 0, 0, 0
	check := func(t *rapid.T) {
		var more strings.Builder
		if v := rapid.SampledFrom([]string{"2", "2", "2", "1", "null", ""}).Draw(t, "v"); v != "" {
			more.WriteString(`,"v":` + v)
		}
		if !seldom(t, "no fea") {
			fmt.Fprintf(&more, `,"fea":%q`, list(t, "fea", "o:posts", "o:users", "o:files", "ou:both", "u:mail", "ou:files", "uo:more", "o:a:b", "o:", ":a", "o", "", "x:y", "O:z", "o::"))
		}
		per := list(t, "per", "read", "write", "ban", "", "a:b", "read")
		if seldom(t, "many permissions") {
			per = strings.Repeat("p,", rapid.SampledFrom([]int{30, 61, 62, 63, 64, 70}).Draw(t, "commas")) + "q"
		}
		fpm := list(t, "fpm", "0", "1", "1", "1", "2", "2", "3", "3", "5", "7", "8", "-1", "", "x", "+3", " 1", "007", "1e1",
			"2147483648", "4611686018427387904", "9223372036854775807", "9223372036854775808", "-9223372036854775808")
		if rapid.Bool().Draw(t, "any number") {
			fpm += "," + fmt.Sprint(rapid.Int64().Draw(t, "mapping"))
		}
		switch org := rapid.SampledFrom([]string{"org_1", "org_1", "org_1", "", "none", "null", "array"}).Draw(t, "o"); org {
		case "none":
		case "null":
			more.WriteString(`,"o":null`)
		case "array":
			more.WriteString(`,"o":[]`)
		default:
			fmt.Fprintf(&more, `,"o":{"id":%q,"slg":"acme","rol":%q,"per":%q,"fpm":%q}`, org, rapid.SampledFrom([]string{"admin", "org:admin", ""}).Draw(t, "rol"), per, fpm)
		}
		odd := 0
		if rapid.Bool().Draw(t, "odd claims") {
			odd = 3
		}
		for _, claim := range rapid.SliceOfN(rapid.SampledFrom([]string{
			`"org_id":"org_9"`, `"org_role":"org:member"`, `"org_permissions":["org:a:b"]`, `"org_permissions":null`, `"Org_Slug":"x"`,
			`"fva":[1,2]`, `"fva":[1]`, `"fva":[1,2,3]`, `"fva":null`, `"fva":"x"`, `"FVA":[9,9]`, `"act":{"sub":"user_a","x":[1, 2]}`, `"act":"x"`,
			`"aud":"a"`, `"aud":["a","b"]`, `"aud":[]`, `"aud":null`, `"aud":5`, `"jti":"x"`, `"nbf":1.5`, `"iat":"now"`,
			`"O":{"id":"org_evil"}`, `"FEA":"o:evil"`, `"fea":"o:twice"`, `"V":1`, `"V":2`, `"sid":"sess_2"`,
			`"plan":"pro"`, `"plan":5`, `"Plan":"upper"`, `"seats":2`, `"seats":2.5`, `"updated_at":"soon"`, `"x":{"y":[null,true,1e3]}`, `"é":"ü"`,
		}), 0, odd).Draw(t, "more") {
			more.WriteString("," + claim)
		}
		token := testSigner().sign(sessionHeader, claimsJSON("user_1", more.String()))
		want, wantErr := jwt.Verify(context.Background(), &jwt.VerifyParams{
			Token: token, JWK: jwk, Clock: fakeclerk.NewClock(t0), Leeway: 5 * time.Second, CustomClaimsConstructor: newCustomClaims,
		})
		got, code := verdict(s, bearing("Bearer "+token))
		if inOtherCase.MatchString(more.String()) && code == "token_malformed" {
			refused++ // the SDK takes it for the standard claim
			return
		}
		if (wantErr == nil) != (code == "") {
			t.Fatalf("answered %q, the SDK %v, on%s", code, wantErr, more.String())
		}
		if wantErr != nil {
			refused++
			return
		}
		if inOtherCase.MatchString(more.String()) {
			t.Fatalf("accepted%s", more.String())
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("claims are\n%+v\nthe SDK's\n%+v\non%s", got, want, more.String())
		}
		accepted++
		if len(got.ActiveOrganizationPermissions) > 0 {
			permitted++
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		for range 10 {
			check(t)
		}
	})
	t.Logf("%d accepted, %d of them with permissions, %d refused", accepted, permitted, refused)
	if accepted == 0 || permitted == 0 || refused == 0 {
		t.Error("the property was not put to the test")
	}
}

// Where a token says that its key is found, nobody looks.
func TestTokensThatNameTheirKey(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	var asked atomic.Int32
	evil := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "") // has the keys
	x5c := base64.StdEncoding.EncodeToString([]byte(testSigner().pem))
	kid := fx.clerk.InstanceID()
	for name, tt := range map[string]struct{ header, code string }{
		"jku":                 {`"kid":"` + kid + `","jku":"` + evil + `/jwks"`, "token_bad_signature"},
		"x5u":                 {`"kid":"` + kid + `","x5u":"` + evil + `/cert"`, "token_bad_signature"},
		"x5c":                 {`"kid":"` + kid + `","x5c":["` + x5c + `"]`, "token_malformed"}, // the parser wants a certificate
		"x5t":                 {`"kid":"` + kid + `","x5t":"AAAA","x5t#S256":"AAAA"`, "token_bad_signature"},
		"kid a URL":           {`"kid":"` + evil + `/jwks"`, "token_unknown_key"},
		"kid a path":          {`"kid":"../../../../dev/null"`, "token_unknown_key"},
		"kid an operator":     {`"kid":{"$ne":null}`, "token_malformed"},
		"kid an operator too": {`"kid":"{\"$ne\":null}"`, "token_unknown_key"},
		"kid SQL":             {`"kid":"' OR 1=1 --"`, "token_unknown_key"},
		"kid empty":           {`"kid":""`, "token_unknown_key"},
		"kid any":             {`"kid":"*"`, "token_unknown_key"},
		"kid with NUL":        {`"kid":"` + kid + `\u0000"`, "token_unknown_key"},
		"kid in other case":   {`"KID":"` + kid + `"`, "token_unknown_key"},
		"kid of 8 kB":         {`"kid":"` + strings.Repeat("k", 8<<10) + `"`, "token_unknown_key"},
		"kid of 1 MB":         {`"kid":"` + strings.Repeat("k", 1<<20) + `"`, "token_malformed"},
		"kid nested deeply":   {`"kid":"` + kid + `","x":` + strings.Repeat("[", 4000) + strings.Repeat("]", 4000), "token_bad_signature"},
		"b64 false":           {`"kid":"` + kid + `","b64":false`, "token_bad_signature"},
		"b64 false and crit":  {`"kid":"` + kid + `","b64":false,"crit":["b64"]`, "token_bad_signature"},
		"zip":                 {`"kid":"` + kid + `","zip":"DEF"`, "token_bad_signature"},
		"iss in the header":   {`"kid":"` + kid + `","iss":"` + evil + `"`, "token_bad_signature"},
	} {
		token := testSigner().sign(`{"alg":"RS256","typ":"JWT",`+tt.header+`}`, claimsJSON("user_1", `,"iss2":"`+evil+`"`))
		_, code := verdict(fx.Syncer, bearing("Bearer "+token))
		if code != tt.code {
			t.Errorf("%s: %q, want %q", name, code, tt.code)
		}
	}
	evilIssuer := strings.Replace(claimsJSON("user_1", ""), "https://clerk.example.com", evil, 1)
	fx.wantCode(t, testSigner().sign(`{"alg":"RS256","typ":"JWT","kid":"`+kid+`"}`, evilIssuer), "token_bad_signature")
	if asked.Load() != 0 {
		t.Errorf("%d requests to the attacker's server", asked.Load())
	}
	if n := fx.clerk.Calls(jwksRoute); n > 2 {
		t.Errorf("%d fetches of the keys", n)
	}
	if fx.logs.String() != "" {
		t.Errorf("it was logged: %.500s", fx.logs)
	}
}

// Claims that Clerk signed and that a user had a hand in.
func TestHostileClaims(t *testing.T) {
	t.Parallel()
	s := newTestSyncer(t, func(c *clerksync.Config) {
		c.Auth = clerksync.AuthConfig{JWTKey: testSigner().pem, CustomClaims: newCustomClaims}
	})
	claims := func(exp string) string {
		return `{"iss":"https://clerk.example.com","sub":"user_1","sid":"sess_1","exp":` + exp + `}`
	}
	for name, tt := range map[string]struct{ claims, code string }{
		"ordinary":                     {claimsJSON("user_1", ""), ""},
		"exp 1e400":                    {claims("1e400"), "token_malformed"},
		"exp 2^63":                     {claims("9223372036854775808"), "token_expired"},
		"exp 2^63-1":                   {claims("9223372036854775807"), "token_expired"}, // beyond what a time can be
		"exp -2^63":                    {claims("-9223372036854775808"), "token_expired"},
		"exp negative":                 {claims("-1"), "token_expired"},
		"exp a float":                  {claims("1772366460.5"), ""}, // RFC 7519 allows it
		"exp in e notation":            {claims("2e9"), ""},
		"exp in quotes":                {claims(`"1772366460"`), "token_malformed"},
		"exp an operator":              {claims(`{"$gt":0}`), "token_malformed"},
		"exp now, as a fraction":       {claims("1772366394.9"), "token_expired"},
		"nested as deep as fits":       {claimsJSON("user_1", `,"x":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)), ""},
		"nested objects":               {claimsJSON("user_1", `,"x":`+strings.Repeat(`{"a":`, 1500)+"1"+strings.Repeat("}", 1500)), ""},
		"never closed":                 {claimsJSON("user_1", `,"x":`+strings.Repeat("[", 9000)), "token_malformed"},
		"sub with NUL":                 {claimsJSON("user_1\x00", ""), "token_malformed"}, // %q writes \x00, which is no JSON
		"sub with an escaped NUL":      {strings.Replace(claimsJSON("user_1", ""), "user_1", `user_1\u0000`, 1), "token_wrong_class"},
		"sub an operator":              {strings.Replace(claimsJSON("user_1", ""), `"user_1"`, `{"$ne":null}`, 1), "token_malformed"},
		"sub of invalid UTF-8":         {strings.Replace(claimsJSON("user_1", ""), "user_1", "user_1\xff", 1), "token_wrong_class"},
		"a BOM":                        {"\ufeff" + claimsJSON("user_1", ""), "token_malformed"},
		"two documents":                {claimsJSON("user_1", "") + claimsJSON("user_2", ""), "token_malformed"},
		"a custom claim of huge value": {claimsJSON("user_1", `,"seats":1e400`), "token_malformed"},
		"updated_at huge":              {claimsJSON("user_1", `,"updated_at":1e400`), ""},
		"updated_at an operator":       {claimsJSON("user_1", `,"updated_at":{"$gt":0}`), ""},
		"permissions of huge numbers":  {claimsJSON("user_1", `,"v":2,"fea":"o:a","o":{"id":"org_1","per":"p","fpm":"99999999999999999999"}`), ""},
		"2,000 permissions":            {claimsJSON("user_1", `,"v":2,"fea":"`+strings.Repeat("o:a,", 1000)+`","o":{"id":"org_1","per":"`+strings.Repeat("p,", 1000)+`","fpm":"`+strings.Repeat("1,", 1000)+`"}`), ""},
	} {
		if _, code := verdict(s, bearing("Bearer "+testSigner().sign(sessionHeader, tt.claims))); code != tt.code {
			t.Errorf("%s: %q, want %q", name, code, tt.code)
		}
	}
}

// FuzzSignedClaims signs any header and claims, as Clerk would sign what a user had a
// hand in. What is accepted says the same to whoever reads the names to the letter.
func FuzzSignedClaims(f *testing.F) {
	s := newTestSyncer(f, func(c *clerksync.Config) {
		c.Auth = clerksync.AuthConfig{JWTKey: testSigner().pem, TokenCacheSize: -1}
	})
	more := []string{"", `,"v":2`, `,"Sub":"user_2"`, `,"sub":"user_2"`, `,"\u0073ub":"user_2"`, `,"x":{"sub":"user_2","Sub":1}`, `,"exp":1e400`, `,"Exp":1`, `,"v":3`, `,"sts":"pending"`, ",\"\u017fub\":\"user_2\"",
		`,"o":{"id":"org_1","ID":"org_2"},"v":2`, `,"updated_at":{"$gt":0}`, `,"hunter2":["hunter2"]`, `,"x":` + strings.Repeat("[", 3000), `,"aud":5`}
	for _, m := range more {
		f.Add(sessionHeader, claimsJSON("user_1", m))
	}
	for _, header := range []string{`{"alg":"RS256"}`, `{"alg":"none"}`, `{"alg":"RS256","kid":"ins_2","jku":"https://evil.example.com"}`, `{"alg":"RS256","typ":"at+jwt"}`, `{"alg":"RS256","cat":"cl_B7d4PD222AAA"}`, `{"alg":"RS256","crit":["x"],"x":1}`, `{"Alg":"RS256"}`, "{}", "null", ""} {
		f.Add(header, claimsJSON("user_1", ""))
	}
	f.Fuzz(func(t *testing.T, header, payload string) {
		claims, err := s.Authenticate(bearing("Bearer " + testSigner().sign(header, payload)))
		if err != nil {
			var p *clerksync.Problem
			if !errors.As(err, &p) || p.Status != 401 || !errors.Is(err, clerksync.ErrUnauthenticated) {
				t.Fatalf("refused with %v", err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("the error quotes the token: %v", err)
			}
			return
		}
		var head struct {
			Alg string  `json:"alg"`
			Typ *string `json:"typ"`
			Cat *string `json:"cat"`
		}
		if err := json.Unmarshal([]byte(header), &head); err != nil || head.Alg != "RS256" || head.Typ != nil && *head.Typ != "JWT" || head.Cat != nil && *head.Cat != "cl_B7d4PD111AAA" {
			t.Fatalf("accepted the header %q", header)
		}
		d := json.NewDecoder(strings.NewReader(payload))
		d.UseNumber()
		var exact map[string]any
		if err := d.Decode(&exact); err != nil {
			t.Fatalf("accepted %q: %v", payload, err)
		}
		if claims.Subject != exact["sub"] || claims.SessionID != exact["sid"] || claims.Issuer != exact["iss"] || !userIDForm(claims.Subject) || claims.SessionID == "" {
			t.Fatalf("accepted %+v for %q", claims, payload)
		}
		number, _ := exact["exp"].(json.Number)
		if exp, err := number.Float64(); err != nil || exp < float64(t0.Unix()-5) || math.Abs(exp-float64(*claims.Expiry)) > max(1, exp/1e9) {
			t.Fatalf("accepted exp %d of %q", *claims.Expiry, payload)
		}
		for name := range exact {
			for _, standard := range []string{"sub", "sid", "iss", "exp", "nbf", "iat", "azp", "sts", "v", "o"} {
				if name != standard && strings.EqualFold(name, standard) && len(name) == len(standard) {
					t.Fatalf("accepted the claim %q", name)
				}
			}
		}
	})
}
