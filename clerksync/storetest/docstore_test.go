package storetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// docStore keeps nested documents, as a document database does, and can hold
// whatever an app puts into them. With a fault it breaks one rule of the
// contract.
type docStore struct {
	fault fault

	mu     sync.Mutex
	docs   map[string]map[string]any
	lastID int
	// generation counts the writes.
	generation int
	loaned     map[string]*clerksync.User
}

// fault names what is wrong with a docStore; the zero fault is nothing.
type fault string

var (
	_ clerksync.BatchStore   = (*docStore)(nil)
	_ clerksync.RestoreStore = (*docStore)(nil)
	_ RawStore               = (*docStore)(nil)
)

func newDocStore(f fault) *docStore {
	return &docStore{fault: f, docs: make(map[string]map[string]any), loaned: make(map[string]*clerksync.User)}
}

func (s *docStore) alive(ctx context.Context) error {
	if s.fault == "ignores the context" {
		return nil
	}
	return ctx.Err()
}

func (s *docStore) key(id string) string {
	switch s.fault {
	case "ids without case":
		return strings.ToLower(id)
	case "ids trimmed":
		return strings.TrimSpace(id)
	}
	return id
}

func (s *docStore) now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// dawdle lets go of the lock until another has written, or nobody wants to: a
// race that does not depend on luck.
func (s *docStore) dawdle() {
	for before, n := s.generation, 0; s.generation == before && n < 500; n++ {
		s.mu.Unlock()
		runtime.Gosched()
		s.mu.Lock()
	}
}

// User implements clerksync.Store.
func (s *docStore) User(ctx context.Context, clerkID string) (*clerksync.User, error) {
	if err := s.alive(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.read(clerkID)
	if err != nil || u != nil {
		return s.lend(u), err
	}
	if s.fault == "unknown is nil" {
		return nil, errors.New("nothing there")
	}
	return nil, clerksync.ErrNotFound
}

// lend is the place where what was returned may change later.
func (s *docStore) lend(u *clerksync.User) *clerksync.User {
	if u == nil || s.fault != "modifies what it returned" {
		return u
	}
	if s.loaned[u.ClerkID] == nil {
		s.loaned[u.ClerkID] = new(clerksync.User)
	}
	*s.loaned[u.ClerkID] = *u
	return s.loaned[u.ClerkID]
}

// Upsert implements clerksync.Store.
func (s *docStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	if err := s.alive(ctx); err != nil {
		return clerksync.Result{}, err
	}
	c, err := u.Canonical()
	switch {
	case s.fault == "accepts an empty id" && u.ClerkID == "":
		return clerksync.Result{Outcome: clerksync.Created}, nil
	case s.fault == "accepts any Extra" && err != nil && u.ClerkID != "":
		plain := *u
		plain.Extra = nil
		return s.Upsert(ctx, &plain)
	case s.fault == "drops nanoseconds of the argument" && err == nil:
		u.ClerkUpdatedAt = c.ClerkUpdatedAt
	case s.fault == "keeps the argument" && err == nil:
		extra := maps.Clone(u.Extra)
		for name, v := range extra {
			if _, ok := v.(map[string]any); !ok {
				extra[name] = c.Extra[name]
			}
		}
		c.Extra = extra
	case s.fault == "tells personal data" && err != nil:
		return clerksync.Result{}, fmt.Errorf("user %s: %w", u.Email, err)
	}
	if err != nil {
		return clerksync.Result{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.upsert(c, u)
}

func (s *docStore) upsert(u, argument *clerksync.User) (clerksync.Result, error) {
	stored, err := s.read(u.ClerkID)
	if err != nil {
		return clerksync.Result{}, err
	}
	now := s.now()
	outcome := s.decide(stored, u, now)
	if s.fault == "check then insert" || s.fault == "check then update" && stored != nil {
		s.dawdle()
	}
	key := s.key(u.ClerkID)
	switch {
	case s.fault == "dense unique e-mail" && u.Email == "" && (outcome == clerksync.Created || outcome == clerksync.Updated):
		for other, doc := range s.docs {
			if _, has := doc["email"]; !has && other != key {
				return clerksync.Result{}, &clerksync.ConflictError{Field: "email"}
			}
		}
	case s.fault == "personal data into the tombstone" && outcome == clerksync.Deactivated:
		s.docs[key]["email"] = u.Email
	case s.fault == "stale confirms" && outcome == clerksync.Stale:
		s.confirm(s.docs[key], u)
	case s.fault == "stale drops Extra" && outcome == clerksync.Stale:
		delete(s.docs[key], "extraFields")
	}
	switch outcome {
	case clerksync.Created:
		doc := s.insert(u.ClerkID, now)
		doc["isActive"] = s.fault != "inactive until confirmed"
		put(doc, "role", text(string(u.Role)))
		if l := u.Location; l != nil {
			s.locate(doc, l)
		}
		if s.fault == "believes the argument" && !u.CreatedAt.IsZero() {
			doc["createdAt"], doc["isActive"] = u.CreatedAt, u.IsActive
		}
		if s.fault == "stores bookkeeping" {
			doc["roleFromClerk"] = u.RoleFromClerk
		}
		s.write(doc, u)
		s.docs[key] = doc
	case clerksync.Updated:
		doc := s.docs[key]
		if s.fault == "replaces the document" {
			doc = map[string]any{"_id": doc["_id"], "clerkId": u.ClerkID, "isActive": doc["isActive"], "createdAt": doc["createdAt"], "role": string(u.Role)}
			s.docs[key] = doc
		}
		if s.fault == "reads, modifies, writes" {
			doc = cloned(doc).(map[string]any)
			s.dawdle()
			s.docs[key] = doc
		}
		if s.fault == "resurrects" {
			delete(doc, "deletedAt")
			doc["isActive"] = true
		}
		if s.fault == "replaces the profile" {
			delete(doc, "profile")
		}
		if _, ok := doc["profile"].(map[string]any); !ok && doc["profile"] != nil {
			if s.fault == "nulls break writes" {
				return clerksync.Result{}, errors.New("cannot create a field in profile: null")
			}
			delete(doc, "profile")
		}
		if s.fault == "role on every sync" {
			put(doc, "role", text(string(u.Role)))
		}
		if s.fault == "location on every sync" && u.Location != nil {
			s.locate(doc, u.Location)
		}
		if s.fault == "reactivates" {
			doc["isActive"] = true
		}
		if s.fault == "createdAt moves" {
			doc["createdAt"] = now
		}
		if s.fault != "updatedAt stays" {
			doc["updatedAt"] = now
		}
		s.write(doc, u)
	case clerksync.Unchanged:
		if s.fault == "updatedAt on every call" {
			s.docs[key]["updatedAt"] = now
		}
		if s.fault != "never confirms" {
			s.confirm(s.docs[key], u)
		}
	}
	if s.fault == "echoes the argument" {
		return clerksync.Result{Outcome: outcome, User: argument.Clone()}, nil
	}
	r, err := s.read(u.ClerkID)
	return clerksync.Result{Outcome: outcome, User: s.lend(r)}, err
}

func (s *docStore) decide(stored, u *clerksync.User, now time.Time) clerksync.Outcome {
	right := clerksync.Decide(stored, u, now)
	if stored == nil {
		return right
	}
	switch s.fault {
	case "last write wins":
		if right != clerksync.Deactivated {
			return clerksync.Updated
		}
	case "first write wins":
		if right == clerksync.Updated {
			return clerksync.Unchanged
		}
	case "same content is no change":
		c := u.Clone()
		c.ClerkUpdatedAt, c.SyncedAt = stored.ClerkUpdatedAt, stored.SyncedAt
		if right == clerksync.Updated && clerksync.Decide(stored, c, now) == clerksync.Unchanged {
			return clerksync.Unchanged
		}
	case "no evidence is old":
		if right == clerksync.Updated && u.SyncedAt.IsZero() {
			return clerksync.Unchanged
		}
	case "no versions are not equal":
		if right != clerksync.Deactivated && u.ClerkUpdatedAt.IsZero() {
			return clerksync.Stale
		}
	case "unbanning revives":
		if stored.Banned && !u.Banned && right == clerksync.Deactivated {
			return clerksync.Updated
		}
	case "strictly newer":
		if right == clerksync.Updated && stored.ClerkUpdatedAt.Equal(u.ClerkUpdatedAt) {
			return clerksync.Stale
		}
	case "resurrects":
		if stored.ClerkUpdatedAt.Before(u.ClerkUpdatedAt) {
			return clerksync.Updated
		}
	case "late evidence undoes":
		u = u.Clone()
		u.SyncedAt = time.Time{}
		return clerksync.Decide(stored, u, now)
	case "believes the future":
		return clerksync.Decide(stored, u, now.AddDate(100, 0, 0))
	case "no version is newest":
		if right == clerksync.Stale && u.ClerkUpdatedAt.IsZero() {
			return clerksync.Updated
		}
	case "refuses the future":
		if right == clerksync.Updated && u.ClerkUpdatedAt.After(now) {
			return clerksync.Stale
		}
	case "adopts nothing":
		if right == clerksync.Updated && stored.ClerkUpdatedAt.IsZero() {
			return clerksync.Stale
		}
	case "compares no Extra":
		if right == clerksync.Updated && stored.ClerkUpdatedAt.Equal(u.ClerkUpdatedAt) {
			c := *u
			c.Extra = stored.Extra
			return clerksync.Decide(stored, &c, now)
		}
	}
	return right
}

// write applies u's Clerk-owned fields.
func (s *docStore) write(doc map[string]any, u *clerksync.User) {
	s.generation++
	if s.fault != "Extra is not removed" && s.fault != "Extra is merged" {
		for _, name := range extraFields(doc) {
			if _, ok := u.Extra[name]; !ok {
				delete(doc, name)
			}
		}
	}
	for path, v := range u.ClerkFields() {
		switch {
		case v == nil && s.fault == "cleared fields stay":
		case v == nil && s.fault == "cleared fields are empty":
			put(doc, path, "")
		case path == "role" && s.fault == "role from Clerk once" && doc["syncedAt"] != nil:
		case path == "banned" && s.fault == "forgets banned":
		default:
			put(doc, path, s.encode(v))
		}
		if s.fault == "field by field" {
			s.mu.Unlock()
			runtime.Gosched()
			s.mu.Lock()
		}
	}
	var names []any
	for _, name := range slices.Sorted(maps.Keys(u.Extra)) {
		names = append(names, name)
	}
	if s.fault == "Extra is merged" {
		for _, name := range extraFields(doc) {
			names = append(names, name)
		}
	}
	delete(doc, "extraFields")
	if len(names) > 0 {
		doc["extraFields"] = names
	}
	put(doc, "clerkUpdatedAt", s.date(u.ClerkUpdatedAt))
	s.confirm(doc, u)
}

func (s *docStore) confirm(doc map[string]any, u *clerksync.User) {
	for name, t := range map[string]time.Time{"syncedAt": u.SyncedAt, "lastSignInAt": u.LastSignInAt} {
		have, _ := doc[name].(time.Time)
		if s.fault == fault(name+" goes back") || t.After(have) {
			put(doc, name, s.date(t))
		}
	}
}

func (s *docStore) locate(doc map[string]any, l *clerksync.Location) {
	for name, v := range map[string]string{"country": l.Country, "city": l.City, "state": l.State, "timezone": l.Timezone} {
		put(doc, "location."+name, text(v))
	}
}

func (s *docStore) insert(id string, now time.Time) map[string]any {
	s.lastID++
	return map[string]any{"_id": fmt.Sprintf("%024x", s.lastID), "clerkId": id, "createdAt": now, "updatedAt": now}
}

func (s *docStore) encode(v any) any {
	if t, ok := v.(time.Time); ok {
		return s.date(t)
	}
	if n, ok := v.(int64); ok && s.fault == "numbers are floats" {
		return float64(n)
	}
	if t, ok := v.(string); ok && s.fault == "text trimmed" {
		return strings.TrimSpace(t)
	}
	return v
}

func (s *docStore) date(t time.Time) any {
	switch {
	case t.IsZero():
		return nil
	case s.fault == "nothing before 1970" && t.Unix() <= 0:
		return nil
	case s.fault == "seconds":
		return t.Truncate(time.Second)
	case s.fault == "local time":
		return t.In(time.FixedZone("", 3600))
	}
	return t
}

// Deactivate implements clerksync.Store.
func (s *docStore) Deactivate(ctx context.Context, clerkID string, at time.Time) (clerksync.Result, error) {
	if err := s.alive(ctx); err != nil {
		return clerksync.Result{}, err
	}
	if clerkID == "" && s.fault != "accepts an empty id" {
		return clerksync.Result{}, errors.New("no ClerkID")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, key := s.now(), s.key(clerkID)
	at = at.UTC().Truncate(time.Millisecond)
	if at.IsZero() && s.fault != "zero deletes nothing" {
		at = now
	}
	stored, err := s.read(clerkID)
	if err != nil {
		return clerksync.Result{}, err
	}
	if stored == nil {
		if s.fault == "no tombstone" {
			return clerksync.Result{Outcome: clerksync.Deactivated}, nil
		}
		s.docs[key] = s.insert(clerkID, now)
	}
	if s.fault == "check then delete" {
		s.dawdle()
	}
	if _, has := s.docs[key]["deletedAt"]; has && s.fault == "any deletedAt is one" {
		return clerksync.Result{Outcome: clerksync.Deactivated}, nil
	}
	if stored == nil || stored.DeletedAt.IsZero() || s.fault == "the last deletion counts" {
		doc := s.docs[key]
		if s.fault == "deletes the record" {
			delete(s.docs, key)
			return clerksync.Result{Outcome: clerksync.Deactivated}, nil
		}
		s.generation++
		put(doc, "deletedAt", s.date(at))
		doc["isActive"], doc["updatedAt"] = s.fault == "deleted but active", now
	}
	r, err := s.read(clerkID)
	return clerksync.Result{Outcome: clerksync.Deactivated, User: s.lend(r)}, err
}

// Restore implements clerksync.RestoreStore.
func (s *docStore) Restore(ctx context.Context, clerkID string, before time.Time) (bool, error) {
	if err := s.alive(ctx); err != nil {
		return false, err
	}
	if clerkID == "" && s.fault != "accepts an empty id" {
		return false, errors.New("no ClerkID")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, key := s.now(), s.key(clerkID)
	stored, err := s.read(clerkID)
	if err != nil {
		return false, err
	}
	if stored == nil {
		if s.fault == "restores whoever is missing" {
			s.docs[key] = s.insert(clerkID, now)
		}
		return false, nil
	}
	doc := s.docs[key]
	switch {
	case s.fault == "restores nothing":
		return false, nil
	case s.fault == "restores versions only" && stored.ClerkUpdatedAt.IsZero():
		return false, nil
	case s.fault == "restores the undeleted" && stored.DeletedAt.IsZero():
	case s.fault == "restores any deletion" && !stored.DeletedAt.IsZero():
	case stored.DeletedAt.IsZero():
		if s.fault == "lifts suspensions" {
			doc["isActive"] = true
		}
		return false, nil
	case !stored.DeletedAt.Before(before.UTC().Truncate(time.Millisecond)):
		return false, nil
	}
	if s.fault == "check then restore" {
		s.dawdle()
	}
	s.generation++
	delete(doc, "deletedAt")
	if s.fault != "restores an equal version" {
		delete(doc, "clerkUpdatedAt")
	}
	switch s.fault {
	case "restores field by field":
		s.dawdle()
	case "restored means null":
		doc["deletedAt"] = Null{}
	case "restores what it knows":
		delete(doc, "points")
	}
	doc["isActive"] = s.fault != "restored but inactive"
	if s.fault != "restores quietly" {
		doc["updatedAt"] = now
	}
	return true, nil
}

// UpsertBatch implements clerksync.BatchStore.
func (s *docStore) UpsertBatch(ctx context.Context, us []*clerksync.User) ([]clerksync.Result, error) {
	if err := s.alive(ctx); err != nil {
		return nil, err
	}
	if len(us) == 0 && s.fault == "a batch needs users" {
		return nil, errors.New("the batch is empty")
	}
	results := make([]clerksync.Result, len(us))
	be := &clerksync.BatchError{Errs: make(map[int]error)}
	order := make([]int, len(us))
	for i := range order {
		order[i] = i
	}
	if s.fault == "batch sorts" {
		slices.SortFunc(order, func(a, b int) int { return us[a].ClerkUpdatedAt.Compare(us[b].ClerkUpdatedAt) })
	}
	for _, i := range order {
		one := s
		if s.fault == "batch ignores versions" {
			one = newDocStore("last write wins")
			one.docs = s.docs
		}
		res, err := one.Upsert(ctx, us[i])
		if err != nil {
			be.Errs[i] = err
			if s.fault == "batch stops at an error" {
				break
			}
		}
		results[i] = res
	}
	if s.fault == "batch swallows errors" {
		return results, nil
	}
	if len(be.Errs) > 0 {
		return results, be
	}
	return results, nil
}

// Users implements clerksync.BatchStore.
func (s *docStore) Users(ctx context.Context, clerkIDs []string) (map[string]*clerksync.User, error) {
	if err := s.alive(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make(map[string]*clerksync.User)
	for i, id := range clerkIDs {
		if s.fault == "a hundred at most" && i == 100 {
			break
		}
		u, err := s.read(id)
		if err != nil {
			return nil, err
		}
		if u != nil && (s.fault != "Users leaves out the deleted" || u.DeletedAt.IsZero()) {
			found[id] = u
		}
	}
	return found, nil
}

// Stamps implements clerksync.BatchStore.
func (s *docStore) Stamps(ctx context.Context, clerkIDs []string) (map[string]clerksync.Stamp, error) {
	users, err := s.Users(ctx, clerkIDs)
	if err != nil {
		return nil, err
	}
	stamps := make(map[string]clerksync.Stamp)
	for id, u := range users {
		stamps[id] = stampOf(u)
		if s.fault == "half a stamp" {
			stamps[id] = clerksync.Stamp{ClerkID: id, ClerkUpdatedAt: u.ClerkUpdatedAt}
		}
	}
	return stamps, nil
}

// Undeleted implements clerksync.BatchStore.
func (s *docStore) Undeleted(ctx context.Context) iter.Seq2[clerksync.Stamp, error] {
	return func(yield func(clerksync.Stamp, error) bool) {
		s.mu.Lock()
		var stamps []clerksync.Stamp
		for id := range s.docs {
			u, err := s.read(id)
			if err != nil {
				s.mu.Unlock()
				yield(clerksync.Stamp{}, err)
				return
			}
			if u.DeletedAt.IsZero() && (u.IsActive || s.fault != "suspended is deleted") || s.fault == "Undeleted yields all" {
				stamps = append(stamps, stampOf(u))
			}
		}
		generation := s.generation
		s.mu.Unlock()
		if s.fault != "Undeleted in no order" {
			slices.SortFunc(stamps, func(a, b clerksync.Stamp) int { return cmp.Compare(a.ClerkID, b.ClerkID) })
		}
		for _, st := range stamps {
			if err := s.alive(ctx); err != nil {
				if s.fault != "Undeleted ends quietly" {
					yield(clerksync.Stamp{}, err)
				}
				return
			}
			if !yield(st, nil) {
				return
			}
			if s.fault == "Undeleted ends at a write" && s.generation != generation {
				return
			}
		}
	}
}

// SetFields implements RawStore.
func (s *docStore) SetFields(_ context.Context, clerkID string, fields map[string]any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	doc := s.docs[s.key(clerkID)]
	if doc == nil {
		s.lastID++
		doc = map[string]any{"_id": fmt.Sprintf("%024x", s.lastID), "clerkId": clerkID}
		s.docs[s.key(clerkID)] = doc
	}
	for path, v := range fields {
		put(doc, path, v)
	}
	s.generation++
	return nil
}

// Fields implements RawStore.
func (s *docStore) Fields(_ context.Context, clerkID string) (map[string]any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	doc := s.docs[s.key(clerkID)]
	if doc == nil {
		return nil, clerksync.ErrNotFound
	}
	return cloned(doc).(map[string]any), nil
}

// read decodes a document, taking what has a wrong type for absent.
func (s *docStore) read(clerkID string) (*clerksync.User, error) {
	doc := s.docs[s.key(clerkID)]
	if doc == nil {
		return nil, nil
	}
	if s.fault == "wrong types are errors" {
		if v, ok := doc["email"]; ok {
			if _, ok := v.(string); !ok {
				return nil, errors.New("email is no string")
			}
		}
	}
	str := func(path string) string { v, _ := get(doc, path).(string); return v }
	date := func(path string) time.Time { v, _ := get(doc, path).(time.Time); return v }
	flag := func(path string) bool { v, _ := get(doc, path).(bool); return v }
	u := &clerksync.User{
		ID: str("_id"), ClerkID: str("clerkId"), Email: str("email"), Name: str("name"), Role: clerksync.Role(str("role")),
		Profile: clerksync.Profile{
			FirstName: str("profile.firstName"), LastName: str("profile.lastName"), FullName: str("profile.fullName"),
			ImageURL: str("profile.imageUrl"), PhoneNumber: str("profile.phoneNumber"),
			Birthday: str("profile.birthday"), Gender: str("profile.gender"),
		},
		LastSignInAt: date("lastSignInAt"), CreatedAt: date("createdAt"), UpdatedAt: date("updatedAt"),
		EmailVerified: flag("emailVerified"), PhoneVerified: flag("phoneVerified"), Banned: flag("banned"),
		ClerkCreatedAt: date("clerkCreatedAt"), ClerkUpdatedAt: date("clerkUpdatedAt"),
		SyncedAt: date("syncedAt"), DeletedAt: date("deletedAt"),
	}
	active, ok := doc["isActive"].(bool)
	u.IsActive = active || !ok && s.fault != "absent is inactive"
	if s.fault == "null is deleted" && doc["deletedAt"] != nil && u.DeletedAt.IsZero() {
		u.DeletedAt = epoch
	}
	if l := (clerksync.Location{Country: str("location.country"), City: str("location.city"), State: str("location.state"), Timezone: str("location.timezone")}); l != (clerksync.Location{}) {
		u.Location = &l
	}
	extra := make(map[string]any)
	names := extraFields(doc)
	if s.fault == "the app's fields are Extra" {
		for name := range doc {
			if !slices.Contains(append(slices.Clone(synced), "_id", "clerkId", "profile", "location", "role", "isActive", "createdAt"), name) {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		if v, ok := doc[name]; ok {
			extra[name] = v
		}
	}
	if s.fault != "keeps the argument" {
		for name, v := range extra {
			extra[name] = cloned(v)
		}
	}
	if len(extra) > 0 {
		u.Extra = extra
		if c, err := u.Canonical(); err == nil && s.fault != "numbers as they are" && s.fault != "keeps the argument" {
			u.Extra = c.Extra
		}
	}
	if s.fault == "keeps the argument" {
		return u.Clone(), nil
	}
	return u, nil
}

func extraFields(doc map[string]any) (names []string) {
	list, _ := doc["extraFields"].([]any)
	for _, v := range list {
		if name, ok := v.(string); ok && name != "email" {
			names = append(names, name)
		}
	}
	return names
}

func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func get(doc map[string]any, path string) any {
	head, rest, nested := strings.Cut(path, ".")
	if !nested {
		return doc[head]
	}
	sub, _ := doc[head].(map[string]any)
	return get(sub, rest)
}

func put(doc map[string]any, path string, v any) {
	head, rest, nested := strings.Cut(path, ".")
	switch {
	case nested:
		sub, ok := doc[head].(map[string]any)
		if !ok {
			if v == nil {
				return
			}
			sub = make(map[string]any)
			doc[head] = sub
		}
		put(sub, rest, v)
	case v == nil:
		delete(doc, head)
	default:
		doc[head] = v
	}
}

func cloned(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for k, e := range v {
			c[k] = cloned(e)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = cloned(e)
		}
		return c
	default:
		return v
	}
}
