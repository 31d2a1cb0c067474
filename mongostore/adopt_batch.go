package mongostore

import (
	"bytes"
	"context"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

// look reads the records of items and those that they may adopt, in one command.
func (b *batch) look(ctx context.Context, items []*item) (*sighting, error) {
	us := make([]*clerksync.User, len(items))
	for i, it := range items {
		us[i] = it.up.u
	}
	if slices.ContainsFunc(us, b.store.adopt.applies) {
		found, err := b.store.adopt.lookFor(ctx, b.store, "upsert batch", us)
		if err != nil || !found.partly {
			return found, err
		}
	}
	own, err := b.records(ctx, items)
	return &sighting{own: own, partly: true}, err
}

// complete returns the items about which the search tells all, and the others.
func (found *sighting) complete(items []*item) (known, others []*item) {
	if !found.partly {
		return items, nil
	}
	for _, it := range items {
		if found.own[it.up.u.ClerkID] == nil && it.up.mayAdopt() {
			others = append(others, it)
		} else {
			known = append(known, it)
		}
	}
	return known, others
}

// refuseUntrusted sets the error of those items whose record is not trusted and has not changed since
// it was read. It returns the other items.
func (b *batch) refuseUntrusted(ctx context.Context, items []*item) (others []*item) {
	var suspects []*record
	for _, it := range items {
		if it.adopts != nil && it.adopts.trusting {
			suspects = append(suspects, it.adopts.of)
		}
	}
	untrusted, err := b.store.adopt.untrusted(ctx, b.store, "upsert batch", suspects)
	if err != nil {
		return items
	}
	for _, it := range items {
		if it.adopts != nil && it.adopts.trusting && untrusted[it.adopts.of] {
			b.errs[it.index] = notLinked(untrustedRecord)
		} else {
			others = append(others, it)
		}
	}
	return others
}

// untrusted returns those of records, found by their addresses, that are not trusted and have not
// changed since they were read.
func (a *adopter) untrusted(ctx context.Context, s *Store, op string, records []*record) (map[*record]bool, error) {
	if len(records) == 0 || a.trusted == nil {
		return nil, nil
	}
	ids := make(bson.A, len(records))
	for i, r := range records {
		ids[i] = r.raw.Lookup("_id")
	}
	found, err := s.find(ctx, op, len(records), bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: ids}}}, a.isUntrusted()}, nil)
	if err != nil {
		return nil, err
	}
	byID := make(map[string]*record, len(found))
	for _, r := range found {
		byID[keyOf(r)] = r
	}
	untrusted := make(map[*record]bool)
	for _, r := range records {
		now := byID[keyOf(r)]
		untrusted[r] = now != nil && bytes.Equal(now.raw, r.raw)
	}
	return untrusted, nil
}

// keyOf returns a text for the _id of a record.
func keyOf(r *record) string {
	id := r.raw.Lookup("_id")
	return string(id.Type) + string(id.Value)
}

// Adoptions implements [clerksync.AdoptStore]. It takes one read for each BatchSize users, and
// another one if records are found by their addresses and Trusted is not empty. Of two users
// who would adopt the same record it says so of both. It does not know whether a unique index
// or a rule of the app's will refuse the write.
//
// Without [Options].Adopt it reads nothing, and each Adoption is zero.
func (s *Store) Adoptions(ctx context.Context, us []*clerksync.User) ([]clerksync.Adoption, error) {
	const op = "adoptions"
	ctx, err := begin(ctx, op)
	if err != nil {
		return nil, err
	}
	if s.adopt == nil {
		return make([]clerksync.Adoption, len(us)), nil
	}
	adoptions := make([]clerksync.Adoption, 0, len(us))
	for chunk := range slices.Chunk(us, s.batchSize) {
		some, err := s.adoptionsOf(ctx, op, chunk)
		if err != nil {
			return nil, err
		}
		adoptions = append(adoptions, some...)
	}
	return adoptions, nil
}

// adoptionsOf is Adoptions for one batch.
func (s *Store) adoptionsOf(ctx context.Context, op string, us []*clerksync.User) ([]clerksync.Adoption, error) {
	adoptions := make([]clerksync.Adoption, len(us))
	ups, asked := make([]*upsert, len(us)), make([]*clerksync.User, 0, len(us))
	for i, u := range us {
		if ups[i], adoptions[i].Err = s.plannedUpsert(u); ups[i] != nil {
			asked = append(asked, ups[i].u)
		}
	}
	found, err := s.adopt.lookEach(ctx, s, op, asked)
	if err != nil {
		return nil, err
	}
	choices := make(map[int]choice)
	var addressed []*record
	for i, up := range ups {
		switch {
		case up == nil || found(up.u).own[up.u.ClerkID] != nil:
		case len(up.u.Omit) > 0:
			adoptions[i].Err = errNoRecord
		case up.mayAdopt():
			c := s.adopt.choose(up.u, found(up.u))
			if choices[i] = c; c.by == clerksync.ByEmail {
				addressed = append(addressed, c.adopt)
			}
		}
	}
	untrusted, err := s.adopt.untrusted(ctx, s, op, addressed)
	if err != nil {
		return nil, err
	}
	for i, c := range choices {
		if adoptions[i] = (clerksync.Adoption{By: c.by, Err: c.err}); c.by == clerksync.ByEmail && untrusted[c.adopt] {
			adoptions[i] = clerksync.Adoption{Err: notLinked(untrustedRecord)}
		}
	}
	return adoptions, nil
}
