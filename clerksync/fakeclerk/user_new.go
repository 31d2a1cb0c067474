package fakeclerk

import (
	crand "crypto/rand"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
)

// NewUser describes a user to create. The zero value is valid: a user without a name, an e-mail
// address or a phone number, such as one who signed up with a wallet.
type NewUser struct {
	// ID must not have been used before. Defaults to a fresh id: "user_" and 27 base-62 characters.
	ID string

	FirstName, LastName  string // "" is null
	Username, ExternalID string // "" is null

	// Email becomes the user's only, primary e-mail address. It is verified unless EmailUnverified is
	// set. Defaults to none.
	Email           string
	EmailUnverified bool

	// EmailStrategy is how the address is verified: the strategy of its verification, such as
	// "email_link", "admin", "ticket" or "saml". A strategy that begins with from_, such as
	// "from_oauth_google", adds the external account that the address comes from; its provider has
	// verified the address. See [UserObject.AddExternalAccount]. Defaults to "email_code".
	EmailStrategy string

	// EmailReserved makes the address reserved: usable for sign-in, but not verified.
	EmailReserved bool

	// Phone becomes the user's only, primary phone number, in E.164 form (+15550100). It is verified
	// unless PhoneUnverified is set. Defaults to none.
	Phone           string
	PhoneUnverified bool

	// ImageURL is the user's own image. Defaults to none: image_url is then a placeholder and has_image
	// is false.
	ImageURL string

	// Birthday and Gender are top-level fields of the user object. Clerk's documentation shows them in
	// webhook payloads, but its OpenAPI files do not have them. "" leaves them out.
	Birthday, Gender string

	// The metadata must be encodable by encoding/json. Each kind defaults to {}.
	PublicMetadata, PrivateMetadata, UnsafeMetadata map[string]any

	// CreatedAt is both created_at and the first updated_at, in milliseconds: the rest is cut off.
	// Defaults to the server's time.
	CreatedAt time.Time
}

// Object returns the user object that Clerk would make of u, for tests without a server, such as
// those that use [SignedRequest]. Each call makes fresh ids. now is the default of CreatedAt. Object
// panics if encoding/json cannot encode the metadata.
func (u NewUser) Object(now time.Time) *UserObject {
	o, err := u.object(now, looseIDs)
	if err != nil {
		panic(err)
	}
	return o
}

// object makes the user object. Its only error is that the metadata cannot be encoded.
func (u NewUser) object(now time.Time, ids *idSource) (*UserObject, error) {
	if !u.CreatedAt.IsZero() {
		now = u.CreatedAt
	}
	at := now.UnixMilli()
	o := &UserObject{ids: ids}
	o.ID = u.ID
	if o.ID == "" {
		o.ID = ids.id("user_")
	}
	o.FirstName, o.LastName = orNil(u.FirstName), orNil(u.LastName)
	o.Username, o.ExternalID = orNil(u.Username), orNil(u.ExternalID)
	o.Birthday, o.Gender = orNil(u.Birthday), orNil(u.Gender)
	o.CreatedAt, o.UpdatedAt = at, at
	o.DeleteSelfEnabled, o.CreateOrganizationEnabled = true, true
	o.HasImage = u.ImageURL != ""
	o.ImageURL = clerk.String(u.ImageURL)
	if !o.HasImage {
		o.ImageURL = clerk.String(placeholderImage)
	}
	if u.Email != "" {
		o.PrimaryEmailAddressID = clerk.String(u.addEmail(o))
	}
	if u.Phone != "" {
		o.PrimaryPhoneNumberID = clerk.String(o.AddPhoneNumber(u.Phone, !u.PhoneUnverified))
	}
	for _, m := range []struct {
		from map[string]any
		to   *json.RawMessage
	}{
		{u.PublicMetadata, &o.PublicMetadata},
		{u.PrivateMetadata, &o.PrivateMetadata},
		{u.UnsafeMetadata, &o.UnsafeMetadata},
	} {
		if m.from == nil {
			continue
		}
		raw, err := json.Marshal(m.from)
		if err != nil {
			return nil, err
		}
		*m.to = raw
	}
	o.complete()
	return o, nil
}

// addEmail adds the e-mail address to o and returns its id.
func (u NewUser) addEmail(o *UserObject) string {
	id := o.AddEmailAddress(u.Email, !u.EmailUnverified && !u.EmailReserved)
	e := o.EmailAddresses[len(o.EmailAddresses)-1]
	e.Reserved = u.EmailReserved
	if u.EmailStrategy == "" {
		return id
	}
	e.Verification = verificationBy(u.EmailStrategy, e.Verification.Status)
	if provider, ok := strings.CutPrefix(u.EmailStrategy, "from_"); ok {
		o.AddExternalAccount(provider, u.Email, clerk.Bool(true))
	}
	return id
}

// placeholderImage takes the place of the avatar that Clerk draws for a user without an image.
const placeholderImage = "https://img.clerk.com/placeholder"

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// idLength is the length of an id of Clerk's without its prefix: a KSUID in base 62.
const idLength = 27

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// idSource makes ids and secrets. It is safe for concurrent use.
type idSource struct {
	mu  sync.Mutex
	src *rand.ChaCha8
	rnd *rand.Rand // reads src
}

// looseIDs makes the ids of objects that do not belong to a Server.
var looseIDs = newIDSource(0)

// newIDSource returns a source that is determined by the seed, or an unpredictable one if seed is 0.
func newIDSource(seed uint64) *idSource {
	var key [32]byte
	if seed == 0 {
		crand.Read(key[:]) // never fails
	} else {
		binary.LittleEndian.PutUint64(key[:], seed)
	}
	src := rand.NewChaCha8(key)
	return &idSource{src: src, rnd: rand.New(src)}
}

// id returns prefix and 27 base-62 characters, such as user_2g7np7Hrk0SN6kj5EDMLDaKNL0S.
func (s *idSource) id(prefix string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := make([]byte, 0, len(prefix)+idLength)
	b = append(b, prefix...)
	for range idLength {
		b = append(b, base62[s.rnd.IntN(len(base62))])
	}
	return string(b)
}

// bytes returns n random bytes.
func (s *idSource) bytes(n int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := make([]byte, n)
	_, _ = s.src.Read(b) // never fails
	return b
}
