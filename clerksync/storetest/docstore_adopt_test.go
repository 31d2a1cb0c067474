package storetest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// legacyDoc is a document that the app had before Clerk. Once it is adopted, it is also in docs.
type legacyDoc struct {
	doc        map[string]any
	externalID string
	trusted    bool
}

func (l *legacyDoc) owner() string { id, _ := l.doc["clerkId"].(string); return id }

func (l *legacyDoc) deleted() bool { return !decode(l.doc).DeletedAt.IsZero() }

// adoptChoice is what an Upsert of a user without a document does; the zero one inserts.
type adoptChoice struct {
	doc *legacyDoc
	by  string
	err error
}

// choose returns what an Upsert of u adopts.
func (s *docStore) choose(stored, u *clerksync.User) adoptChoice {
	if stored != nil || len(u.Omit) > 0 && s.fault != "adopts with Omit" {
		return adoptChoice{}
	}
	named := s.namedBy(u.ExternalID)
	c := s.chooseNamed(named)
	if c == (adoptChoice{}) && len(named) == 0 || s.fault == "tries the address first" && u.EmailProven {
		c = s.chooseAddressed(u, s.addressedBy(u.Email))
	}
	if c.doc != nil {
		if err := s.docConflict(c.doc.doc, u); err != nil && s.fault != "adopts other types" {
			return adoptChoice{err: err}
		}
	}
	return c
}

func (s *docStore) chooseNamed(named []*legacyDoc) adoptChoice {
	var free []*legacyDoc
	for _, l := range named {
		if owner := l.owner(); owner != "" && s.fault != "inserts beside another's record" {
			return adoptChoice{err: &clerksync.ConflictError{Field: "externalId", Holder: owner}}
		} else if owner == "" && (!l.deleted() || s.fault == "adopts the deleted") {
			free = append(free, l)
		}
	}
	switch {
	case len(free) == 1, len(free) > 1 && s.fault == "adopts the first":
		return adoptChoice{doc: free[0], by: clerksync.ByExternalID}
	case len(named) > 0 && s.fault != "inserts beside another's record":
		return adoptChoice{err: &clerksync.ConflictError{Field: "externalId"}}
	}
	return adoptChoice{}
}

func (s *docStore) chooseAddressed(u *clerksync.User, addressed []*legacyDoc) adoptChoice {
	if s.fault == "counts the trusted only" {
		addressed = slices.DeleteFunc(addressed, func(l *legacyDoc) bool { return !l.trusted })
	}
	switch {
	case len(addressed) == 0:
		return adoptChoice{}
	case !u.EmailProven && s.fault == "inserts beside an unlinked record":
		return adoptChoice{}
	case !u.EmailProven && s.fault != "takes any address for proven",
		len(addressed) > 1 && s.fault != "adopts the first",
		!addressed[0].trusted && s.fault != "trusts all":
		return adoptChoice{err: &clerksync.ConflictError{Field: "email", Err: clerksync.ErrUnlinked}}
	}
	return adoptChoice{doc: addressed[0], by: clerksync.ByEmail}
}

func (s *docStore) adopt(c adoptChoice, u *clerksync.User, now time.Time) (clerksync.Result, error) {
	if s.fault == "check then adopt" {
		s.losesRace()
	}
	doc := c.doc.doc
	doc["clerkId"], doc["updatedAt"], doc["adoptedAt"], doc["adoptedBy"] = u.ClerkID, now, now, c.by
	if s.fault == "adopts quietly" {
		delete(doc, "adoptedAt")
	}
	for name, v := range map[string]any{"isActive": true, "createdAt": now, "role": text(string(u.Role))} {
		if doc[name] == nil && s.fault != "fills nothing in" || s.fault == "adopted anew" {
			put(doc, name, v)
		}
	}
	s.writes++
	s.docs[s.key(u.ClerkID)] = doc
	s.write(doc, u)
	r, err := s.read(u.ClerkID)
	return clerksync.Result{Outcome: clerksync.Adopted, User: s.lend(r)}, err
}

// Adoptions implements clerksync.AdoptStore.
func (s *docStore) Adoptions(_ context.Context, us []*clerksync.User) ([]clerksync.Adoption, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	adoptions := make([]clerksync.Adoption, len(us))
	for i, u := range us {
		stored, err := s.read(u.ClerkID)
		if err != nil {
			return nil, err
		}
		c := s.choose(stored, u)
		adoptions[i] = clerksync.Adoption{By: c.by, Err: c.err}
		if c.doc != nil && s.fault == "Adoptions adopts" {
			if _, err := s.adopt(c, u, s.now()); err != nil {
				return nil, err
			}
		}
	}
	return adoptions, nil
}

// DeactivateExternal implements clerksync.AdoptStore.
func (s *docStore) DeactivateExternal(ctx context.Context, clerkID, externalID string, at time.Time) (clerksync.Result, error) {
	s.mu.Lock()
	if c := s.chooseNamed(s.namedBy(externalID)); s.docs[s.key(clerkID)] == nil && c.doc != nil && s.fault != "deletes beside the named" {
		c.doc.doc["clerkId"] = clerkID
		s.docs[s.key(clerkID)] = c.doc.doc
	}
	s.mu.Unlock()
	return s.Deactivate(ctx, clerkID, at)
}

func (s *docStore) namedBy(externalID string) (named []*legacyDoc) {
	for _, l := range s.legacy {
		if externalID != "" && l.externalID == externalID {
			named = append(named, l)
		}
	}
	return named
}

func (s *docStore) addressedBy(email string) (addressed []*legacyDoc) {
	for _, l := range s.legacy {
		if has, _ := l.doc["email"].(string); email != "" && has == email && l.owner() == "" && (!l.deleted() || s.fault == "adopts the deleted") {
			addressed = append(addressed, l)
		}
	}
	return addressed
}

// InsertLegacy implements AdoptingStore.
func (s *docStore) InsertLegacy(_ context.Context, externalID string, trusted bool, fields map[string]any) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	id := fmt.Sprintf("%024x", s.lastID)
	doc := map[string]any{"_id": id}
	for path, v := range fields {
		put(doc, path, v)
	}
	s.legacy = append(s.legacy, &legacyDoc{doc: doc, externalID: externalID, trusted: trusted})
	return id, nil
}

// LegacyFields implements AdoptingStore.
func (s *docStore) LegacyFields(_ context.Context, id string) (map[string]any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.legacy {
		if l.doc["_id"] == id {
			return cloned(l.doc).(map[string]any), nil
		}
	}
	return nil, clerksync.ErrNotFound
}
