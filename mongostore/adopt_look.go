package mongostore

import (
	"context"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

// sighting is what a search for the records of users found, and for those that they may adopt.
type sighting struct {
	own       map[string]*record   // by Clerk id
	named     map[string][]*record // by externalKey
	addressed map[string][]*record // by e-mail address
	// partly says that the search may have left out records to adopt, so that one which seems
	// to be the only one may not be.
	partly bool
}

// look reads the records of users, and those without a Clerk id that they may adopt, in one
// command.
func (a *adopter) look(ctx context.Context, s *Store, us []*clerksync.User) (*sighting, error) {
	// A user finds one record of each kind, if all is well.
	limit := 3*len(us) + maxHolders
	records, err := s.findOnce(ctx, limit, a.filter(s.codec, us), nil)
	if err != nil {
		return nil, err
	}
	found := a.sort(us, records)
	found.partly = len(records) == limit
	return found, nil
}

// lookFor is look with further attempts.
func (a *adopter) lookFor(ctx context.Context, s *Store, op string, us []*clerksync.User) (found *sighting, err error) {
	err = s.retry(ctx, op, func() (err error) {
		found, err = a.look(ctx, s, us)
		return err
	})
	return found, err
}

// lookEach is lookFor with a whole sighting for each of us. If one command cannot tell all, it
// takes one for each.
func (a *adopter) lookEach(ctx context.Context, s *Store, op string, us []*clerksync.User) (func(*clerksync.User) *sighting, error) {
	found, err := a.lookFor(ctx, s, op, us)
	if err != nil {
		return nil, err
	}
	if !found.partly {
		return func(*clerksync.User) *sighting { return found }, nil
	}
	each := make(map[*clerksync.User]*sighting, len(us))
	for _, u := range us {
		if each[u], err = a.lookFor(ctx, s, op, []*clerksync.User{u}); err != nil {
			return nil, err
		}
	}
	return func(u *clerksync.User) *sighting { return each[u] }, nil
}

// filter matches the records that a sighting of us has.
func (a *adopter) filter(codec *fieldMap, us []*clerksync.User) bson.D {
	ids := make(bson.A, len(us))
	var external, emails bson.A
	for i, u := range us {
		ids[i] = u.ClerkID
		if !a.applies(u) {
			continue
		}
		if a.external(u.ExternalID) {
			external = append(external, externalValues(u.ExternalID)...)
		}
		if a.byEmail {
			for _, form := range emailForms(u.Email) {
				emails = append(emails, form)
			}
		}
	}
	either := bson.A{bson.D{{Key: "clerkId", Value: bson.D{{Key: "$in", Value: ids}}}}}
	if external != nil {
		either = append(either, bson.D{{Key: codec.verbatim(a.byExternalID), Value: bson.D{{Key: "$in", Value: external}}}})
	}
	if emails != nil {
		either = append(either, bson.D{{Key: "email", Value: bson.D{{Key: "$in", Value: emails}}}, noClerkID, undeleted})
	}
	return bson.D{{Key: "$or", Value: either}}
}

// noClerkID matches records without a Clerk id, and some whose clerkId is an array. With $in, which
// has the same meaning, some servers would read all such records in the index on clerkId.
var noClerkID = bson.E{Key: "clerkId", Value: bson.D{{Key: "$not", Value: bson.D{{Key: "$nin", Value: bson.A{nil, ""}}}}}}

// sort sorts records by what they were found by.
func (a *adopter) sort(us []*clerksync.User, records []*record) *sighting {
	found := &sighting{own: make(map[string]*record), named: make(map[string][]*record), addressed: make(map[string][]*record)}
	wanted := make(map[string]bool, len(us))
	for _, u := range us {
		wanted[u.ClerkID] = true
	}
	for _, r := range records {
		for _, v := range r.values("clerkId") { // an array may hold the id
			if id, ok := v.StringValueOK(); ok && wanted[id] {
				found.own[id] = r
			}
		}
		if a.byExternalID != "" {
			for _, v := range valuesAt(r.raw, strings.Split(a.byExternalID, ".")) {
				if key := externalKey(v); key != "" {
					addTo(found.named, key, r)
				}
			}
		}
		for _, v := range r.values("email") {
			if email, ok := v.StringValueOK(); ok {
				addTo(found.addressed, email, r)
			}
		}
	}
	return found
}

func addTo(records map[string][]*record, key string, r *record) {
	if !slices.Contains(records[key], r) {
		records[key] = append(records[key], r)
	}
}

// choose decides for u, whose Clerk id has no record.
func (a *adopter) choose(u *clerksync.User, found *sighting) choice {
	var named, addressed []*record
	if a.external(u.ExternalID) {
		named = collect(found.named, externalKeys(u.ExternalID))
	}
	if a.byEmail {
		addressed = collect(found.addressed, emailForms(u.Email))
	}
	c := a.chooseFrom(u, named, addressed)
	switch {
	case !found.partly || c.err != nil:
		return c
	case len(named) > 0:
		return choice{err: a.misnamed(severalNamed)}
	default:
		return choice{err: notLinked(ambiguous)}
	}
}

// collect returns the records under some keys, each once.
func collect(records map[string][]*record, keys []string) (all []*record) {
	for _, key := range keys {
		for _, r := range records[key] {
			if !slices.Contains(all, r) {
				all = append(all, r)
			}
		}
	}
	return all
}
