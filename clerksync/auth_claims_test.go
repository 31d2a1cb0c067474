package clerksync_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/jwt"
	"pgregory.net/rapid"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
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

// TestCachedAnswerIsTheAnswer checks that a cached token gets the answer that verifying it anew
// gives, whatever the tokens and the configuration are, as time passes and keys change.
func TestCachedAnswerIsTheAnswer(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	a := &tokenAnswers{fx: fx, client: client, refused: make(map[string]int)}
	rapid.Check(t, func(rt *rapid.T) {
		// Each check begins at a whole second, so that it does not depend on the one before.
		now := fx.clock.Now()
		fx.clock.Advance(now.Truncate(time.Second).Add(time.Second).Sub(now))
		auth := drawAuthConfig(rt, fx)
		a.cookie = auth.Cookie
		a.cached = a.open(rt, auth)
		defer a.cached.Close()
		auth.TokenCacheSize = -1
		a.uncached = a.open(rt, auth)
		defer a.uncached.Close()
		a.tokens, a.seen = nil, make(map[*clerk.SessionClaims]bool)
		a.mint(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"mint":            a.mint,
			"ask":             a.askAny,
			"ask again":       a.askTwice,
			"wait":            a.wait,
			"change the keys": a.changeKeys,
			"retire":          a.retire,
		})
	})
	t.Logf("%d accepted anew, %d from the cache, refused %v", a.accepted, a.remembered, a.refused)
	if a.accepted == 0 || a.remembered == 0 || len(a.refused) < 5 {
		t.Error("too few kinds of tokens to test the property")
	}
}

// tokenAnswers compares a Syncer that caches tokens with one that does not.
type tokenAnswers struct {
	fx               *fixture
	client           *http.Client
	cached, uncached *clerksync.Syncer
	cookie           bool // tokens are accepted from a cookie too
	tokens           []string
	seen             map[*clerk.SessionClaims]bool

	accepted, remembered int
	refused              map[string]int // by code
}

func drawAuthConfig(rt *rapid.T, fx *fixture) clerksync.AuthConfig {
	auth := clerksync.AuthConfig{
		Leeway:         rapid.SampledFrom([]time.Duration{0, -1, time.Second, time.Minute}).Draw(rt, "leeway"),
		AllowPending:   rapid.Bool().Draw(rt, "allow pending"),
		TokenCacheSize: rapid.SampledFrom([]int{0, 1, 2}).Draw(rt, "cache size"),
	}
	if rapid.Bool().Draw(rt, "parties") {
		auth.AuthorizedParties = []string{appOrigin}
		auth.AllowNoParty = rapid.Bool().Draw(rt, "allow no party")
		auth.Cookie = rapid.Bool().Draw(rt, "cookie")
	}
	switch rapid.IntRange(0, 9).Draw(rt, "config") {
	case 5:
		auth.JWTKey = fx.clerk.JWTKey()
	case 6:
		auth.Issuer = fx.clerk.Issuer()
	case 7:
		auth.Issuer = proxyURL
	case 8:
		auth.CustomClaims = newCustomClaims
	}
	return auth
}

func (a *tokenAnswers) open(rt *rapid.T, auth clerksync.AuthConfig) *clerksync.Syncer {
	cfg := clerksync.Config{
		Store: memstore.New(), SecretKey: a.fx.clerk.SecretKey(), APIURL: a.fx.clerk.APIURL(), HTTPClient: a.client,
		Auth: auth, Logger: slog.New(slog.DiscardHandler),
	}
	clerksync.SetClock(&cfg, eagerClock{a.fx.clock})
	s, err := clerksync.New(cfg)
	if err != nil {
		rt.Fatal(err)
	}
	return s
}

func (a *tokenAnswers) mint(rt *rapid.T) { a.tokens = append(a.tokens, drawToken(rt, a.fx)) }

func (a *tokenAnswers) askAny(rt *rapid.T) { a.ask(rt, rapid.SampledFrom(a.tokens).Draw(rt, "token")) }

// askTwice asks about the token that was minted last.
func (a *tokenAnswers) askTwice(rt *rapid.T) {
	a.ask(rt, a.tokens[len(a.tokens)-1])
	a.ask(rt, a.tokens[len(a.tokens)-1])
}

func (a *tokenAnswers) ask(rt *rapid.T, token string) {
	r := bearing("Bearer " + token)
	if a.cookie && rapid.Bool().Draw(rt, "as a cookie") {
		r = bearing("")
		r.Header.Set("Cookie", "__session="+token)
	}
	gotClaims, got := verdict(a.cached, r)
	wantClaims, want := verdict(a.uncached, r)
	if got != want || !reflect.DeepEqual(gotClaims, wantClaims) {
		rt.Fatalf("%q with %+v from the cache, %q with %+v without", got, gotClaims, want, wantClaims)
	}
	switch {
	case got != "":
		a.refused[got]++
	case a.seen[gotClaims]:
		a.remembered++
	default:
		a.accepted++
		a.seen[gotClaims] = true
	}
}

func (a *tokenAnswers) wait(rt *rapid.T) {
	ms := rapid.SampledFrom([]int{
		0, 1, 1, 499, 1000, 1000, 5000, 5000, 10_000, 10_000, 30_000, 60_000, 3_600_000,
	}).Draw(rt, "ms")
	a.fx.clock.Advance(time.Duration(ms) * time.Millisecond)
}

func (a *tokenAnswers) changeKeys(rt *rapid.T) {
	if !seldom(rt, "change") { // making a key takes long
		return
	}
	a.fx.clerk.RotateKey()
	if rapid.Bool().Draw(rt, "retire the old") {
		a.fx.clerk.RetireKeys()
	}
	if rapid.Bool().Draw(rt, "and use the new") {
		a.fx.clock.Advance(10 * time.Second)
		a.ask(rt, a.fx.clerk.SessionToken("user_1"))
		a.askAny(rt)
	}
}

func (a *tokenAnswers) retire(rt *rapid.T) {
	if seldom(rt, "retire") {
		a.fx.clerk.RetireKeys()
	}
}

// seldom is true in one of eight draws.
func seldom(t *rapid.T, what string) bool { return rapid.IntRange(0, 7).Draw(t, what) == 7 }

// drawToken returns an ordinary token, perhaps of another time, or one with a fault.
func drawToken(t *rapid.T, fx *fixture) string {
	now := fx.clock.Now()
	seconds := func(what string, from, to int) time.Time {
		return now.Add(time.Duration(rapid.IntRange(from, to).Draw(t, what)) * time.Second)
	}
	updatedAt := []any{nil, now.Unix(), now.UnixMilli(), "soon"}
	opts := fakeclerk.TokenOptions{
		Version: rapid.IntRange(1, 2).Draw(t, "version"), AuthorizedParty: appOrigin,
		Claims: map[string]any{"updated_at": rapid.SampledFrom(updatedAt).Draw(t, "updated_at")},
	}
	if rapid.Bool().Draw(t, "organization") {
		opts.Organization = &fakeclerk.Organization{
			ID: "org_1", Slug: "acme", Role: "org:admin", Permissions: []string{"org:posts:read", "org:users:ban"},
		}
	}
	if rapid.Bool().Draw(t, "another exp") {
		opts.ExpiresAt = seconds("exp", -10, 20_000) // outlives the keys
	}
	subject := drawFault(t, &opts, seconds)
	token, err := fx.clerk.Token(subject, opts)
	if err != nil {
		t.Fatal(err)
	}
	return mutate(t, token)
}

// drawFault draws the token's subject, and perhaps a fault. seconds draws a time.
func drawFault(t *rapid.T, opts *fakeclerk.TokenOptions, seconds func(what string, from, to int) time.Time) string {
	subject := rapid.SampledFrom([]string{"user_1", "user_2"}).Draw(t, "subject")
	switch rapid.IntRange(0, 25).Draw(t, "fault") {
	default: // none
	case 11:
		opts.Header = map[string]any{"cat": rapid.SampledFrom([]any{nil, "cl_I7d4PD111III", "cl_new", "", 1}).Draw(t, "cat")}
	case 12:
		opts.IssuedAt = seconds("iat", -70, 10)
	case 13:
		opts.NotBefore = seconds("nbf", -10, 40)
	case 14:
		opts.ExpiresAt = seconds("exp", -70, 0)
	case 15:
		subject = rapid.SampledFrom([]string{"", "mch_1", "user_", "user_../x"}).Draw(t, "another subject")
	case 16:
		opts.Class = rapid.SampledFrom([]fakeclerk.TokenClass{
			fakeclerk.TemplateToken, fakeclerk.M2MToken, fakeclerk.OAuthToken,
			fakeclerk.OpaqueM2MToken, fakeclerk.OpaqueOAuthToken, fakeclerk.APIKey,
		}).Draw(t, "class")
	case 17:
		opts.AuthorizedParty = rapid.SampledFrom([]string{"", otherOrigin}).Draw(t, "party")
	case 18:
		opts.Issuer = rapid.SampledFrom([]string{
			proxyURL, "https://clerk.example.com", "https://evil.com/.clerk.accounts",
		}).Draw(t, "issuer")
	case 19:
		opts.KeyID = rapid.SampledFrom([]string{"ins_a", "ins_b"}).Draw(t, "kid")
	case 20:
		opts.Algorithm = rapid.SampledFrom([]string{"none", "HS256"}).Draw(t, "alg")
	case 21:
		removed := []string{"exp", "sid", "sub", "nbf", "iat", "iss", "v", "sts"}
		opts.Claims[rapid.SampledFrom(removed).Draw(t, "removed")] = nil
	case 22:
		opts.Claims["plan"] = rapid.SampledFrom([]any{"pro", 5}).Draw(t, "plan")
	case 23:
		opts.WrongKey = true
	case 24:
		opts.Pending = true
	case 25:
		opts.AuthorizedParty = ""
	}
	return subject
}

// mutate changes a token in a place or two, now and then.
func mutate(t *rapid.T, token string) string {
	if !seldom(t, "mutated") {
		return token
	}
	at := rapid.IntRange(0, len(token)).Draw(t, "at")
	cut := rapid.IntRange(0, min(3, len(token)-at)).Draw(t, "cut")
	insert := rapid.StringOfN(rapid.RuneFrom([]rune("AQgw_-.=+/ {\"\x00é")), 0, 3, -1).Draw(t, "insert")
	mutated := token[:at] + insert + token[at+cut:]
	if parts := strings.Split(mutated, "."); len(parts) == 3 && parts[2] != "" && rapid.Bool().Draw(t, "spare bits") {
		mutated = parts[0] + "." + parts[1] + "." + spareBits(parts[2])
	}
	return mutated
}

// FuzzAuthenticate cuts pieces out of tokens and inserts others. Nothing makes it panic, and only
// the signed text is accepted, always with the same claims.
func FuzzAuthenticate(f *testing.F) {
	fx := newFixture(f, func(c *clerksync.Config) { c.Observe = nil }) // it would keep each refusal
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	good := goodTokens(f, fx, id)
	tokens := slices.Concat(good, badTokens(f, fx, id))
	claims := make([]*clerk.SessionClaims, len(good))
	for i := range claims {
		var code string
		if claims[i], code = verdict(fx.Syncer, bearing("Bearer "+tokens[i])); code != "" {
			f.Fatalf("token %d: %s", i, code)
		}
	}
	uncached := fx.syncer(f, func(c *clerksync.Config) { c.Auth.TokenCacheSize = -1 })
	reached := false
	h := fx.RequireUser(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	seedAuthorization(f, tokens)
	f.Fuzz(func(t *testing.T, scheme string, which, at, cut int, insert string) {
		which = int(uint(which) % uint(len(tokens)))
		token := tokens[which]
		at = max(0, min(at, len(token)))
		cut = max(0, min(cut, len(token)-at))
		sent := scheme + token[:at] + insert + token[at+cut:]
		r := bearing(sent)
		got, code := verdict(fx.Syncer, r)
		for range 2 {
			for name, s := range map[string]*clerksync.Syncer{"uncached": uncached, "again": fx.Syncer} {
				if claims, c := verdict(s, r); c != code || !reflect.DeepEqual(claims, got) {
					t.Fatalf("%q with %+v, and %s %q with %+v, on %q", code, got, name, c, claims, sent)
				}
			}
		}
		reached = false
		if a := answerOf(h, r); reached != (code == "") || (a.status == 200) != (code == "") {
			t.Fatalf("%q, but RequireUser answered %d on %q", code, a.status, sent)
		}
		if code != "" {
			checkTokenCode(t, code, sent)
			return
		}
		if which >= len(good) || !reflect.DeepEqual(got, claims[which]) {
			t.Fatalf("accepted %+v on %q", got, sent)
		}
		_, sentToken, _ := strings.Cut(strings.TrimSpace(sent), " ")
		if sentToken = strings.TrimSpace(sentToken); sentToken != token {
			t.Fatalf("accepted %q, which is not what was signed", sent)
		}
	})
}

func goodTokens(f *testing.F, fx *fixture, id string) (tokens []string) {
	org := &fakeclerk.Organization{
		ID: "org_1", Slug: "acme", Role: "org:admin", Permissions: []string{"org:posts:read"},
	}
	for _, opts := range []fakeclerk.TokenOptions{
		{}, {Version: 1}, {Organization: org}, {Version: 1, Organization: org},
		{Actor: &fakeclerk.Actor{Subject: "user_actor"}}, {Header: map[string]any{"cat": nil}},
		{Claims: map[string]any{"plan": "pro"}}, {Header: map[string]any{"cat": "cl_I7d4PD111III"}},
	} {
		tokens = append(tokens, fx.token(f, id, opts))
	}
	return tokens
}

func badTokens(f *testing.F, fx *fixture, id string) (tokens []string) {
	for _, opts := range []fakeclerk.TokenOptions{
		{Class: fakeclerk.TemplateToken}, {Class: fakeclerk.M2MToken}, {Class: fakeclerk.OAuthToken},
		{Class: fakeclerk.OpaqueM2MToken}, {Class: fakeclerk.OpaqueOAuthToken}, {Class: fakeclerk.APIKey},
		{Pending: true}, {Algorithm: "none"}, {Algorithm: "HS256"}, {WrongKey: true}, {KeyID: "ins_unknown"},
		{IssuedAt: t0.Add(-time.Hour)}, {IssuedAt: t0.Add(time.Hour)}, {Issuer: "https://evil.com"},
		{Claims: map[string]any{"exp": nil}}, {Claims: map[string]any{"sid": nil}},
		{Claims: map[string]any{"sub": nil}}, {Claims: map[string]any{"v": 3}},
	} {
		tokens = append(tokens, fx.token(f, id, opts))
	}
	return tokens
}

func seedAuthorization(f *testing.F, tokens []string) {
	for i, token := range tokens {
		f.Add("Bearer ", i, 0, 0, "")
		f.Add("bearer ", i, len(token)-1, 1, "A")                    // perhaps the signature's spare bits
		f.Add("BEARER  ", i, strings.LastIndex(token, "."), 1, "..") // one more part
	}
	for _, s := range []string{
		".", "..", "=", " ", "\t", "\u00a0", "{", "e30", "é", "\x00", "eyJhbGciOiJub25lIn0",
	} {
		f.Add("Bearer ", 0, 0, 0, s)
		f.Add("Bearer ", 0, 100, 0, s)
		f.Add("Bearer ", 0, 1<<20, 0, s)
		f.Add("Bearer ", 0, 0, 1<<20, s)
		f.Add(s, 0, 0, 0, "")
	}
	p := strings.Split(tokens[0], ".")
	for _, form := range []string{
		`{"protected":"` + p[0] + `","payload":"` + p[1] + `","signature":"` + p[2] + `","x":".."}`,
		`{"payload":"` + p[1] + `","signatures":[{"protected":"` + p[0] + `","signature":"` + p[2] +
			`","header":{"x":".."}}]}`,
		`{"payload":"` + p[1] + `","signatures":[],"x":".."}`,
		".." + p[2], p[0] + ".." + p[2],
		"eyJhbGciOiJSUzI1NiIsImI2NCI6ZmFsc2UsImNyaXQiOlsiYjY0Il19." + p[1] + "." + p[2],
	} {
		f.Add("Bearer ", 0, 0, 1<<20, form)
	}
}

// checkTokenCode checks that the code is one that a token of the fuzz test may get.
func checkTokenCode(t *testing.T, code, sent string) {
	t.Helper()
	switch code {
	case "token_missing", "token_malformed", "token_expired", "token_not_yet_valid", "token_wrong_class",
		"token_wrong_issuer", "token_bad_signature", "token_unknown_key", "session_pending":
	default:
		t.Fatalf("answered %q on %q", code, sent)
	}
}
