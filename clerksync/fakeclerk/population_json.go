package fakeclerk

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// populationKinds are the kinds of users. share is how many of 16 users are of the kind. A name between
// two $ is a slot that is filled in for each user.
var populationKinds = []struct {
	share    int
	signedIn bool
	user     NewUser
}{
	{share: 9, signedIn: true, user: NewUser{
		FirstName: "$first$", LastName: "$last$", Email: "$email$", ImageURL: "https://img.clerk.com/$id$",
	}},
	{share: 4, signedIn: true, user: NewUser{
		FirstName: "$first$", LastName: "$last$", Email: "$email$", PublicMetadata: map[string]any{"plan": "pro"},
	}},
	{share: 2, signedIn: false, user: NewUser{Email: "$email$"}},
	{share: 1, signedIn: true, user: NewUser{FirstName: "$first$", Phone: "$phone$"}},
}

// populationKind maps 4 random bits to an index of populationKinds.
var populationKind = func() (kinds [16]int) {
	n := 0
	for kind, k := range populationKinds {
		for range k.share {
			kinds[n] = kind
			n++
		}
	}
	return kinds
}()

// firstNames and lastNames hold names, and how they are spelled in e-mail addresses.
var firstNames, lastNames = [16]personName{
	{"Ada", "ada"}, {"Ben", "ben"}, {"Chloé", "chloe"}, {"Dmitri", "dmitri"},
	{"Emma", "emma"}, {"Fatima", "fatima"}, {"Grace", "grace"}, {"Hiroshi", "hiroshi"},
	{"Ines", "ines"}, {"José", "jose"}, {"Kwame", "kwame"}, {"Łucja", "lucja"},
	{"Mei", "mei"}, {"Noah", "noah"}, {"Olga", "olga"}, {"Priya", "priya"},
}, [16]personName{
	{"Andersen", "andersen"}, {"Brown", "brown"}, {"Chen", "chen"}, {"Dubois", "dubois"},
	{"Eriksson", "eriksson"}, {"Fischer", "fischer"}, {"García", "garcia"}, {"Haddad", "haddad"},
	{"Ivanova", "ivanova"}, {"Jones", "jones"}, {"Kowalska", "kowalska"}, {"López", "lopez"},
	{"Müller", "mueller"}, {"Nakamura", "nakamura"}, {"O'Brien", "obrien"}, {"Patel", "patel"},
}

type personName struct{ name, mail string }

// template is the JSON of a user, as encoding/json writes it, with slots to fill in. It reads text[0],
// slots[0], text[1] and so on, up to the last text.
type template struct {
	text  []string
	slots []string
}

// newTemplate returns the template for the object that Clerk would make of u.
func newTemplate(u NewUser, signedIn bool) template {
	// Placeholders for the times: no other number in the object is negative.
	created, updated, active := int64(-1), int64(-2), int64(-3)
	u.ID, u.CreatedAt = "user_$id$", time.UnixMilli(created)
	o := u.Object(time.Time{})
	o.UpdatedAt = updated
	if signedIn {
		o.LastSignInAt, o.LastActiveAt = &active, &active
	}
	// Each user has one identifier. Its id has the same random part as the user's.
	for _, e := range o.EmailAddresses {
		e.ID = "idn_$id$"
		o.PrimaryEmailAddressID = &e.ID
	}
	for _, p := range o.PhoneNumbers {
		p.ID = "idn_$id$"
		o.PrimaryPhoneNumberID = &p.ID
	}
	var t template
	times := strings.NewReplacer(":-1", ":$created$", ":-2", ":$updated$", ":-3", ":$active$")
	for i, part := range strings.Split(times.Replace(string(mustMarshal(o))), "$") {
		if i%2 == 0 {
			t.text = append(t.text, part)
		} else {
			t.slots = append(t.slots, part)
		}
	}
	return t
}

// appendJSON appends the JSON of user i. It does not need the server's lock.
func (p *population) appendJSON(b []byte, i int) []byte {
	key := p.key(i)
	r := p.random(i, 0)
	first, last := firstNames[r>>56&15], lastNames[r>>52&15]
	t := p.templates[populationKind[r>>60]]
	created := p.created(i)
	updated := created + below(p.random(i, 1), p.start-created)
	active := created + below(r<<12, updated-created+1)
	for n, slot := range t.slots {
		b = append(b, t.text[n]...)
		switch slot {
		case "id":
			b = append(b, key[:]...)
		case "first":
			b = append(b, first.name...)
		case "last":
			b = append(b, last.name...)
		case "email":
			b = append(b, first.mail...)
			b = append(b, '.')
			b = append(b, last.mail...)
			b = strconv.AppendInt(b, int64(i), 10)
			b = append(b, "@example.com"...)
		case "phone":
			b = append(b, populationPhone...)
			for limit := 1_000_000; limit > max(i, 1); limit /= 10 {
				b = append(b, '0') // pads the number to 7 digits
			}
			b = strconv.AppendInt(b, int64(i), 10)
		case "created":
			b = strconv.AppendInt(b, created, 10)
		case "updated":
			b = strconv.AppendInt(b, updated, 10)
		case "active":
			b = strconv.AppendInt(b, active, 10)
		}
	}
	return append(b, t.text[len(t.slots)]...)
}

// object returns user i as an object that can be changed.
func (p *population) object(i int) *UserObject {
	type plain UserObject
	u := &UserObject{ids: p.ids}
	if err := json.Unmarshal(p.appendJSON(nil, i), (*plain)(u)); err != nil {
		panic(fmt.Errorf("fakeclerk: %w", err))
	}
	return u
}
