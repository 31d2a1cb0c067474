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

// TestClaimsEqualTheSDKs checks that a handler gets the claims that the SDK's own verification
// finds in the token, however odd its organization, features and permissions are.
func TestClaimsEqualTheSDKs(t *testing.T) {
	t.Parallel()
	c := &claimsComparison{s: newTestSyncer(t, func(c *clerksync.Config) {
		c.Auth = clerksync.AuthConfig{JWTKey: testSigner().pem, CustomClaims: newCustomClaims}
	})}
	var err error
	if c.jwk, err = clerk.JSONWebKeyFromPEM(testSigner().pem); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		for range 10 {
			c.check(t, drawVersion(t)+drawFeatures(t)+drawOrganization(t)+drawOddClaims(t))
		}
	})
	t.Logf("%d accepted, %d of them with permissions, %d refused", c.accepted, c.permitted, c.refused)
	if c.accepted == 0 || c.permitted == 0 || c.refused == 0 {
		t.Error("too few kinds of claims to test the property")
	}
}

// claimsComparison compares what a Syncer and the SDK make of the same token.
type claimsComparison struct {
	s                            *clerksync.Syncer
	jwk                          *clerk.JSONWebKey
	accepted, refused, permitted int
}

// check signs a session with more members in its claims.
func (c *claimsComparison) check(t *rapid.T, more string) {
	token := testSigner().sign(sessionHeader, claimsJSON("user_1", more))
	want, wantErr := jwt.Verify(context.Background(), &jwt.VerifyParams{
		Token: token, JWK: c.jwk, Clock: fakeclerk.NewClock(t0), Leeway: 5 * time.Second,
		CustomClaimsConstructor: newCustomClaims,
	})
	got, code := verdict(c.s, bearing("Bearer "+token))
	otherCase := inOtherCase.MatchString(more)
	switch {
	case otherCase && code == "token_malformed": // the SDK takes it for the standard claim
		c.refused++
	case (wantErr == nil) != (code == ""):
		t.Fatalf("answered %q, the SDK %v, on%s", code, wantErr, more)
	case wantErr != nil:
		c.refused++
	case otherCase:
		t.Fatalf("accepted%s", more)
	case !reflect.DeepEqual(got, want):
		t.Fatalf("claims are\n%+v\nthe SDK's\n%+v\non%s", got, want, more)
	default:
		c.accepted++
		if len(got.ActiveOrganizationPermissions) > 0 {
			c.permitted++
		}
	}
}

func drawVersion(t *rapid.T) string {
	v := rapid.SampledFrom([]string{"2", "2", "2", "1", "null", ""}).Draw(t, "v")
	if v == "" {
		return ""
	}
	return `,"v":` + v
}

// drawList draws up to six of the texts, separated by commas.
func drawList(t *rapid.T, what string, of ...string) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom(of), 0, 6).Draw(t, what), ",")
}

func drawFeatures(t *rapid.T) string {
	if seldom(t, "no fea") {
		return ""
	}
	return fmt.Sprintf(`,"fea":%q`, drawList(t, "fea", "o:posts", "o:users", "o:files", "ou:both", "u:mail",
		"ou:files", "uo:more", "o:a:b", "o:", ":a", "o", "", "x:y", "O:z", "o::"))
}

func drawOrganization(t *rapid.T) string {
	per := drawList(t, "per", "read", "write", "ban", "", "a:b", "read")
	if seldom(t, "many permissions") {
		per = strings.Repeat("p,", rapid.SampledFrom([]int{30, 61, 62, 63, 64, 70}).Draw(t, "commas")) + "q"
	}
	fpm := drawList(t, "fpm", "0", "1", "1", "1", "2", "2", "3", "3", "5", "7", "8", "-1", "", "x", "+3", " 1",
		"007", "1e1", "2147483648", "4611686018427387904", "9223372036854775807", "9223372036854775808",
		"-9223372036854775808")
	if rapid.Bool().Draw(t, "any number") {
		fpm += "," + fmt.Sprint(rapid.Int64().Draw(t, "mapping"))
	}
	ids := []string{"org_1", "org_1", "org_1", "", "none", "null", "array"}
	switch org := rapid.SampledFrom(ids).Draw(t, "o"); org {
	case "none":
		return ""
	case "null":
		return `,"o":null`
	case "array":
		return `,"o":[]`
	default:
		role := rapid.SampledFrom([]string{"admin", "org:admin", ""}).Draw(t, "rol")
		return fmt.Sprintf(`,"o":{"id":%q,"slg":"acme","rol":%q,"per":%q,"fpm":%q}`, org, role, per, fpm)
	}
}

// drawOddClaims draws claims of other versions, of other types, in other case, or of the app's own.
func drawOddClaims(t *rapid.T) string {
	most := 0
	if rapid.Bool().Draw(t, "odd claims") {
		most = 3
	}
	claims := rapid.SliceOfN(rapid.SampledFrom([]string{
		`"org_id":"org_9"`, `"org_role":"org:member"`, `"org_permissions":["org:a:b"]`, `"org_permissions":null`,
		`"Org_Slug":"x"`, `"fva":[1,2]`, `"fva":[1]`, `"fva":[1,2,3]`, `"fva":null`, `"fva":"x"`, `"FVA":[9,9]`,
		`"act":{"sub":"user_a","x":[1, 2]}`, `"act":"x"`, `"aud":"a"`, `"aud":["a","b"]`, `"aud":[]`, `"aud":null`,
		`"aud":5`, `"jti":"x"`, `"nbf":1.5`, `"iat":"now"`, `"O":{"id":"org_evil"}`, `"FEA":"o:evil"`,
		`"fea":"o:twice"`, `"V":1`, `"V":2`, `"sid":"sess_2"`, `"plan":"pro"`, `"plan":5`, `"Plan":"upper"`,
		`"seats":2`, `"seats":2.5`, `"updated_at":"soon"`, `"x":{"y":[null,true,1e3]}`, `"é":"ü"`,
	}), 0, most).Draw(t, "more")
	var text strings.Builder
	for _, claim := range claims {
		text.WriteString("," + claim)
	}
	return text.String()
}

// Tokens may name a place for their key. The verifier does not look there.
func TestTokensThatNameTheirKey(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	var asked atomic.Int32
	evil := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "") // fetches the keys
	x5c := base64.StdEncoding.EncodeToString([]byte(testSigner().pem))
	kid := `"kid":"` + fx.clerk.InstanceID() + `",`
	deep := strings.Repeat("[", 4000) + strings.Repeat("]", 4000)
	for name, tt := range map[string]struct{ header, code string }{
		"jku":                 {kid + `"jku":"` + evil + `/jwks"`, "token_bad_signature"},
		"x5u":                 {kid + `"x5u":"` + evil + `/cert"`, "token_bad_signature"},
		"x5c":                 {kid + `"x5c":["` + x5c + `"]`, "token_bad_signature"},
		"x5t":                 {kid + `"x5t":"AAAA","x5t#S256":"AAAA"`, "token_bad_signature"},
		"kid a URL":           {`"kid":"` + evil + `/jwks"`, "token_unknown_key"},
		"kid a path":          {`"kid":"../../../../dev/null"`, "token_unknown_key"},
		"kid an operator":     {`"kid":{"$ne":null}`, "token_malformed"},
		"kid an operator too": {`"kid":"{\"$ne\":null}"`, "token_unknown_key"},
		"kid SQL":             {`"kid":"' OR 1=1 --"`, "token_unknown_key"},
		"kid empty":           {`"kid":""`, "token_unknown_key"},
		"kid any":             {`"kid":"*"`, "token_unknown_key"},
		"kid with NUL":        {`"kid":"` + fx.clerk.InstanceID() + `\u0000"`, "token_unknown_key"},
		"kid in other case":   {`"KID":"` + fx.clerk.InstanceID() + `"`, "token_unknown_key"},
		"kid of 8 kB":         {`"kid":"` + strings.Repeat("k", 8<<10) + `"`, "token_unknown_key"},
		"kid of 1 MB":         {`"kid":"` + strings.Repeat("k", 1<<20) + `"`, "token_malformed"},
		"nested deeply":       {kid + `"x":` + deep, "token_bad_signature"},
		"b64 false":           {kid + `"b64":false`, "token_bad_signature"},
		"b64 false and crit":  {kid + `"b64":false,"crit":["b64"]`, "token_bad_signature"},
		"zip":                 {kid + `"zip":"DEF"`, "token_bad_signature"},
		"iss in the header":   {kid + `"iss":"` + evil + `"`, "token_bad_signature"},
	} {
		payload := claimsJSON("user_1", `,"iss2":"`+evil+`"`)
		token := testSigner().sign(`{"alg":"RS256","typ":"JWT",`+tt.header+`}`, payload)
		if _, code := verdict(fx.Syncer, bearing("Bearer "+token)); code != tt.code {
			t.Errorf("%s: %q, want %q", name, code, tt.code)
		}
	}
	evilIssuer := strings.Replace(claimsJSON("user_1", ""), "https://clerk.example.com", evil, 1)
	fx.wantCode(t, testSigner().sign(`{"alg":"RS256",`+kid+`"typ":"JWT"}`, evilIssuer), "token_bad_signature")
	if asked.Load() != 0 {
		t.Errorf("%d requests to the attacker's server", asked.Load())
	}
	if n := fx.clerk.Calls(jwksRoute); n > 2 {
		t.Errorf("%d fetches of the keys", n)
	}
	for _, part := range []string{evil, x5c[:40], "OR 1=1", "$ne", "/dev/null", strings.Repeat("k", 100)} {
		if strings.Contains(fx.logs.String(), part) {
			t.Errorf("the log shows %s: %.500s", part, fx.logs)
		}
	}
}

// Claims that Clerk signed, and that a user could choose.
func TestHostileClaims(t *testing.T) {
	t.Parallel()
	s := newTestSyncer(t, func(c *clerksync.Config) {
		c.Auth = clerksync.AuthConfig{JWTKey: testSigner().pem, CustomClaims: newCustomClaims}
	})
	exp := func(value string) string {
		return `{"iss":"https://clerk.example.com","sub":"user_1","sid":"sess_1","exp":` + value + `}`
	}
	sub := func(value string) string { return strings.Replace(claimsJSON("user_1", ""), `"user_1"`, value, 1) }
	more := func(claims string) string { return claimsJSON("user_1", ","+claims) }
	arrays := strings.Repeat("[", 5000) + strings.Repeat("]", 5000)
	objects := strings.Repeat(`{"a":`, 1500) + "1" + strings.Repeat("}", 1500)
	permissions := `"v":2,"fea":"` + strings.Repeat("o:a,", 1000) + `","o":{"id":"org_1","per":"` +
		strings.Repeat("p,", 1000) + `","fpm":"` + strings.Repeat("1,", 1000) + `"}`
	hugeMapping := `"v":2,"fea":"o:a","o":{"id":"org_1","per":"p","fpm":"99999999999999999999"}`
	for name, tt := range map[string]struct{ claims, code string }{
		"ordinary":                     {claimsJSON("user_1", ""), ""},
		"exp 1e400":                    {exp("1e400"), "token_malformed"},
		"exp 2^63":                     {exp("9223372036854775808"), "token_expired"},
		"exp 2^63-1":                   {exp("9223372036854775807"), "token_expired"}, // beyond time.Time
		"exp -2^63":                    {exp("-9223372036854775808"), "token_expired"},
		"exp negative":                 {exp("-1"), "token_expired"},
		"exp a float":                  {exp("1772366460.5"), ""}, // RFC 7519 allows it
		"exp in e notation":            {exp("2e9"), ""},
		"exp in quotes":                {exp(`"1772366460"`), "token_malformed"},
		"exp an operator":              {exp(`{"$gt":0}`), "token_malformed"},
		"exp now, as a fraction":       {exp("1772366394.9"), "token_expired"},
		"nested as deep as fits":       {more(`"x":` + arrays), ""},
		"nested objects":               {more(`"x":` + objects), ""},
		"never closed":                 {more(`"x":` + strings.Repeat("[", 9000)), "token_malformed"},
		"sub with NUL":                 {claimsJSON("user_1\x00", ""), "token_malformed"}, // a raw NUL: not JSON
		"sub with an escaped NUL":      {sub(`"user_1\u0000"`), "token_wrong_class"},
		"sub an operator":              {sub(`{"$ne":null}`), "token_malformed"},
		"sub of invalid UTF-8":         {sub("\"user_1\xff\""), "token_wrong_class"},
		"a BOM":                        {"\ufeff" + claimsJSON("user_1", ""), "token_malformed"},
		"two documents":                {claimsJSON("user_1", "") + claimsJSON("user_2", ""), "token_malformed"},
		"a custom claim of huge value": {more(`"seats":1e400`), "token_malformed"},
		"updated_at huge":              {more(`"updated_at":1e400`), ""},
		"updated_at an operator":       {more(`"updated_at":{"$gt":0}`), ""},
		"permissions of huge numbers":  {more(hugeMapping), ""},
		"2,000 permissions":            {more(permissions), ""},
	} {
		token := testSigner().sign(sessionHeader, tt.claims)
		if _, code := verdict(s, bearing("Bearer "+token)); code != tt.code {
			t.Errorf("%s: %q, want %q", name, code, tt.code)
		}
	}
}

// FuzzSignedClaims signs any header and claims, as Clerk would sign what a user could choose. The
// accepted claims must be those that a reader finds if it compares names exactly.
func FuzzSignedClaims(f *testing.F) {
	s := newTestSyncer(f, func(c *clerksync.Config) {
		c.Auth = clerksync.AuthConfig{JWTKey: testSigner().pem, TokenCacheSize: -1}
	})
	for _, more := range []string{
		"", `,"v":2`, `,"Sub":"user_2"`, `,"sub":"user_2"`, `,"\u0073ub":"user_2"`, `,"x":{"sub":"user_2","Sub":1}`,
		`,"exp":1e400`, `,"Exp":1`, `,"v":3`, `,"sts":"pending"`, ",\"\u017fub\":\"user_2\"",
		`,"o":{"id":"org_1","ID":"org_2"},"v":2`, `,"updated_at":{"$gt":0}`, `,"hunter2":["hunter2"]`,
		`,"x":` + strings.Repeat("[", 3000), `,"aud":5`,
	} {
		f.Add(sessionHeader, claimsJSON("user_1", more))
	}
	for _, header := range []string{
		`{"alg":"RS256"}`, `{"alg":"none"}`, `{"alg":"RS256","kid":"ins_2","jku":"https://evil.example.com"}`,
		`{"alg":"RS256","typ":"at+jwt"}`, `{"alg":"RS256","cat":"cl_B7d4PD222AAA"}`,
		`{"alg":"RS256","cat":"cl_I7d4PD111III"}`, `{"alg":"RS256","cat":"hunter2"}`, `{"alg":"none","alg":"RS256"}`,
		`{"alg":"RS256","crit":["x"],"x":1}`, `{"Alg":"RS256"}`, "{}", "null", "",
	} {
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
		checkSessionHeader(t, header)
		checkExactClaims(t, claims, payload)
	})
}

// checkSessionHeader checks that the header is one of a session token.
func checkSessionHeader(t *testing.T, header string) {
	t.Helper()
	var head struct {
		Alg string  `json:"alg"`
		Typ *string `json:"typ"`
		Cat *string `json:"cat"`
	}
	err := json.Unmarshal([]byte(header), &head)
	goodTyp := head.Typ == nil || *head.Typ == "JWT"
	goodCat := head.Cat == nil || *head.Cat == "cl_B7d4PD111AAA" || *head.Cat == "cl_I7d4PD111III"
	if err != nil || head.Alg != "RS256" || !goodTyp || !goodCat {
		t.Fatalf("accepted the header %q", header)
	}
}

// checkExactClaims compares the claims with those that have exactly their names in the payload.
func checkExactClaims(t *testing.T, claims *clerk.SessionClaims, payload string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(payload))
	d.UseNumber()
	var exact map[string]any
	if err := d.Decode(&exact); err != nil {
		t.Fatalf("accepted %q: %v", payload, err)
	}
	if claims.Subject != exact["sub"] || claims.SessionID != exact["sid"] || claims.Issuer != exact["iss"] {
		t.Fatalf("accepted %+v for %q", claims, payload)
	}
	if !userIDForm(claims.Subject) || claims.SessionID == "" {
		t.Fatalf("accepted %+v for %q", claims, payload)
	}
	number, _ := exact["exp"].(json.Number)
	exp, err := number.Float64()
	if err != nil || exp < float64(t0.Unix()-5) || math.Abs(exp-float64(*claims.Expiry)) > max(1, exp/1e9) {
		t.Fatalf("accepted exp %d of %q", *claims.Expiry, payload)
	}
	for name := range exact {
		for _, standard := range []string{"sub", "sid", "iss", "exp", "nbf", "iat", "azp", "sts", "v", "o"} {
			if name != standard && strings.EqualFold(name, standard) && len(name) == len(standard) {
				t.Fatalf("accepted the claim %q", name)
			}
		}
	}
}
