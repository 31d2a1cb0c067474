package storetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// docStore keeps nested documents in memory, as a document database does, including whatever
// an app writes to them. With a fault it breaks one rule of the contract.
type docStore struct {
	fault fault

	mu     sync.Mutex
	docs   map[string]map[string]any
	legacy []*legacyDoc
	lastID int
	writes int                        // to tell whether another caller has written
	lent   map[string]*clerksync.User // by "modifies what it returned"
}

// fault names what is wrong with a docStore. The zero fault is none.
type fault string

var (
	_ clerksync.BatchStore   = (*docStore)(nil)
	_ clerksync.RestoreStore = (*docStore)(nil)
	_ AdoptingStore          = (*docStore)(nil)
	_ clerksync.JobStore     = (*docStore)(nil)
)

func newDocStore(f fault) *docStore {
	return &docStore{fault: f, docs: make(map[string]map[string]any), lent: make(map[string]*clerksync.User)}
}

func (s *docStore) ctxErr(ctx context.Context) error {
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

// doc returns a user's document, or nil if there is none.
func (s *docStore) doc(id string) map[string]any { return s.docs[s.key(id)] }

func (s *docStore) now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// losesRace releases the lock until another caller has written, or for 500 turns if none does.
// So every race between a check and a write is lost, not only now and then.
func (s *docStore) losesRace() {
	for before, n := s.writes, 0; s.writes == before && n < 500; n++ {
		s.mu.Unlock()
		runtime.Gosched()
		s.mu.Lock()
	}
}

// User implements clerksync.Store.
func (s *docStore) User(ctx context.Context, clerkID string) (*clerksync.User, error) {
	if err := s.ctxErr(ctx); err != nil {
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

// lend returns u, or, with the fault for it, a record that the next lend modifies.
func (s *docStore) lend(u *clerksync.User) *clerksync.User {
	if u == nil || s.fault != "modifies what it returned" {
		return u
	}
	if s.lent[u.ClerkID] == nil {
		s.lent[u.ClerkID] = new(clerksync.User)
	}
	*s.lent[u.ClerkID] = *u
	return s.lent[u.ClerkID]
}

// Upsert implements clerksync.Store.
func (s *docStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	if err := s.ctxErr(ctx); err != nil {
		return clerksync.Result{}, err
	}
	c, err := u.Canonical()
	if err != nil {
		return s.upsertInvalid(ctx, u, err)
	}
	switch s.fault {
	case "drops nanoseconds of the argument":
		u.ClerkUpdatedAt = c.ClerkUpdatedAt
	case "keeps the argument":
		extra := maps.Clone(u.Extra)
		for name, v := range extra {
			if _, ok := v.(map[string]any); !ok {
				extra[name] = c.Extra[name]
			}
		}
		c.Extra = extra
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.upsert(c, u)
}

// upsertInvalid is Upsert of a user whose Canonical fails with err.
func (s *docStore) upsertInvalid(ctx context.Context, u *clerksync.User, err error) (clerksync.Result, error) {
	switch {
	case s.fault == "accepts an empty id" && u.ClerkID == "":
		return clerksync.Result{Outcome: clerksync.Created}, nil
	case s.fault == "accepts any Extra" && u.ClerkID != "":
		plain := *u
		plain.Extra = nil
		return s.Upsert(ctx, &plain)
	case s.fault == "tells personal data":
		return clerksync.Result{}, fmt.Errorf("user %s: %w", u.Email, err)
	}
	return clerksync.Result{}, err
}

func (s *docStore) upsert(u, argument *clerksync.User) (clerksync.Result, error) {
	stored, err := s.read(u.ClerkID)
	if err != nil {
		return clerksync.Result{}, err
	}
	now := s.now()
	if c := s.choose(stored, u); c.err != nil {
		return clerksync.Result{}, c.err
	} else if c.doc != nil {
		return s.adopt(c, u, now)
	}
	if s.fault == "writes what is omitted" {
		u.Omit = nil
	}
	outcome := s.decide(stored, u, now)
	if err := s.refusal(stored, u, outcome); err != nil {
		return clerksync.Result{}, err
	}
	if s.fault == "check then insert" || s.fault == "check then update" && stored != nil {
		s.losesRace()
	}
	switch outcome {
	case clerksync.Created:
		err = s.create(u, now)
	case clerksync.Updated:
		err = s.update(u, now)
	case clerksync.Unchanged:
		s.leaveUnchanged(u, now)
	case clerksync.Stale:
		s.leaveStale(u)
	case clerksync.Deactivated:
		if s.fault == "personal data into the tombstone" {
			s.doc(u.ClerkID)["email"] = u.Email
		}
	}
	if err != nil {
		return clerksync.Result{}, err
	}
	if s.fault == "echoes the argument" {
		return clerksync.Result{Outcome: outcome, User: argument.Clone()}, nil
	}
	r, err := s.read(u.ClerkID)
	return clerksync.Result{Outcome: outcome, User: s.lend(r)}, err
}

// refusal returns the error of an Upsert that must not write.
func (s *docStore) refusal(stored, u *clerksync.User, outcome clerksync.Outcome) error {
	if stored == nil && len(u.Omit) > 0 && s.fault != "creates with Omit" {
		return fmt.Errorf("docStore: %w", clerksync.ErrNotFound)
	}
	return s.typeConflict(stored, u, outcome)
}

// typeConflict returns the conflict about a value of the app in a document that clerksync has
// never written.
func (s *docStore) typeConflict(stored, u *clerksync.User, outcome clerksync.Outcome) error {
	if stored == nil || !stored.SyncedAt.IsZero() || s.fault == "overwrites other types" {
		return nil
	}
	if outcome != clerksync.Updated && outcome != clerksync.Unchanged {
		return nil
	}
	return s.docConflict(s.doc(u.ClerkID), u)
}

// docConflict returns the conflict about the first value of the app in a document.
func (s *docStore) docConflict(doc map[string]any, u *clerksync.User) error {
	types := ownTypes()
	if s.fault == "every name must be right" {
		maps.Copy(types, map[string]string{"createdAt": "date", "role": "string", "location": "object"})
	}
	if s.fault == "a right type conflicts" {
		types["email"] = "none"
	}
	written := extraFields(doc)
	for name := range u.Extra {
		if !slices.Contains(written, name) || s.fault == "its own Extra conflicts" {
			types[name] = "none"
		}
	}
	paths := slices.Collect(maps.Keys(types))
	slices.SortFunc(paths, func(a, b string) int { return cmp.Compare(len(a), len(b)) }) // profile first
	for _, path := range paths {
		if typ := docType(get(doc, path)); typ != "null" && typ != types[path] && !slices.Contains(u.Omit, path) {
			return &clerksync.ConflictError{Field: path, Type: typ}
		}
	}
	return nil
}

func docType(v any) string {
	for name, other := range typedValues {
		if reflect.TypeOf(v) == reflect.TypeOf(other) {
			return name
		}
	}
	return "null"
}

// conflict, with the fault for it, reports a missing e-mail address as a duplicate.
func (s *docStore) conflict(u *clerksync.User) error {
	if s.fault != "dense unique e-mail" || u.Email != "" {
		return nil
	}
	for other, doc := range s.docs {
		if _, has := doc["email"]; !has && other != s.key(u.ClerkID) {
			return &clerksync.ConflictError{Field: "email"}
		}
	}
	return nil
}

func (s *docStore) create(u *clerksync.User, now time.Time) error {
	if err := s.conflict(u); err != nil {
		return err
	}
	doc := s.insert(u.ClerkID, now)
	doc["isActive"] = s.fault != "inactive until confirmed"
	s.oweCreate(doc, u)
	put(doc, "role", text(string(u.Role)))
	if u.Location != nil {
		s.locate(doc, u.Location)
	}
	switch s.fault {
	case "believes the argument":
		if !u.CreatedAt.IsZero() {
			doc["createdAt"], doc["isActive"] = u.CreatedAt, u.IsActive
		}
	case "stores bookkeeping":
		doc["roleFromClerk"] = u.RoleFromClerk
	}
	s.write(doc, u)
	s.docs[s.key(u.ClerkID)] = doc
	return nil
}

func (s *docStore) update(u *clerksync.User, now time.Time) error {
	if err := s.conflict(u); err != nil {
		return err
	}
	key := s.key(u.ClerkID)
	doc := s.docs[key]
	switch s.fault {
	case "any write owes a job":
		s.oweCreate(doc, u)
	case "a write forgets the jobs":
		delete(doc, "clerkJobs")
	case "replaces the document":
		doc = map[string]any{
			"_id": doc["_id"], "clerkId": u.ClerkID, "isActive": doc["isActive"], "createdAt": doc["createdAt"],
			"role": string(u.Role),
		}
		s.docs[key] = doc
	case "reads, modifies, writes":
		doc = cloned(doc).(map[string]any)
		s.losesRace()
		s.docs[key] = doc
	case "resurrects":
		delete(doc, "deletedAt")
		doc["isActive"] = true
	case "replaces the profile":
		delete(doc, "profile")
	case "role on every sync":
		put(doc, "role", text(string(u.Role)))
	case "location on every sync":
		if u.Location != nil {
			s.locate(doc, u.Location)
		}
	case "reactivates":
		doc["isActive"] = true
	case "createdAt moves":
		doc["createdAt"] = now
	}
	if _, ok := doc["profile"].(map[string]any); !ok && doc["profile"] != nil {
		if s.fault == "nulls break writes" {
			return errors.New("cannot create a field in profile: null")
		}
		delete(doc, "profile")
	}
	if s.fault != "updatedAt stays" {
		doc["updatedAt"] = now
	}
	s.write(doc, u)
	return nil
}

func (s *docStore) leaveUnchanged(u *clerksync.User, now time.Time) {
	if s.fault == "updatedAt on every call" {
		s.doc(u.ClerkID)["updatedAt"] = now
	}
	if s.fault != "never confirms" {
		s.confirm(s.doc(u.ClerkID), u)
	}
}

func (s *docStore) leaveStale(u *clerksync.User) {
	switch s.fault {
	case "stale confirms":
		s.confirm(s.doc(u.ClerkID), u)
	case "stale drops Extra":
		delete(s.doc(u.ClerkID), "extraFields")
	}
}

// decide is clerksync.Decide, except with a fault that decides wrongly.
func (s *docStore) decide(stored, u *clerksync.User, now time.Time) clerksync.Outcome {
	right := clerksync.Decide(stored, u, now)
	wrong, ok := wrongDecisions[s.fault]
	if !ok || stored == nil {
		return right
	}
	return wrong(decision{stored, u, now, right})
}

// write writes the fields that Clerk owns.
func (s *docStore) write(doc map[string]any, u *clerksync.User) {
	s.writes++
	before := extraFields(doc)
	merges := s.fault == "Extra is merged"
	if !merges && s.fault != "Extra is not removed" {
		for _, name := range before {
			if _, ok := u.Extra[name]; !ok && !s.omitsExtra(u, name) {
				delete(doc, name)
			}
		}
	}
	for path, v := range u.ClerkFields() {
		s.writeField(doc, path, v)
		if s.fault == "field by field" {
			s.mu.Unlock()
			runtime.Gosched()
			s.mu.Lock()
		}
	}
	names := slices.Sorted(maps.Keys(u.Extra))
	for _, name := range before {
		if merges || s.omitsExtra(u, name) && s.fault != "forgets the names of omitted fields" {
			names = append(names, name)
		}
	}
	list := make([]any, len(names))
	for i, name := range names {
		list[i] = name
	}
	delete(doc, "extraFields")
	if len(list) > 0 {
		doc["extraFields"] = list
	}
	put(doc, "clerkUpdatedAt", s.date(s.version(doc, u)))
	s.confirm(doc, u)
}

func (s *docStore) omitsExtra(u *clerksync.User, name string) bool {
	return slices.Contains(u.Omit, name) || slices.Contains(u.Omit, "extraFields")
}

// version returns the version of doc after u is written to it.
func (s *docStore) version(doc map[string]any, u *clerksync.User) time.Time {
	offered := u.ClerkUpdatedAt
	if len(u.Omit) == 0 || offered.IsZero() || s.fault == "the whole version with Omit" {
		return offered
	}
	have, _ := doc["clerkUpdatedAt"].(time.Time)
	if between := offered.Add(-time.Millisecond); between.After(have) && s.fault != "no version with Omit" {
		return between
	}
	return have
}

func (s *docStore) writeField(doc map[string]any, path string, v any) {
	switch {
	case v == nil && s.fault == "cleared fields stay":
	case v == nil && s.fault == "cleared fields are empty":
		put(doc, path, "")
	case path == "role" && s.fault == "role from Clerk once" && doc["syncedAt"] != nil:
	case path == "banned" && s.fault == "forgets banned":
	default:
		put(doc, path, s.encode(v))
	}
}

func (s *docStore) confirm(doc map[string]any, u *clerksync.User) {
	for name, t := range map[string]time.Time{"syncedAt": u.SyncedAt, "lastSignInAt": u.LastSignInAt} {
		have, ok := doc[name].(time.Time)
		if name == "syncedAt" && !ok && len(u.Omit) > 0 && s.fault != "confirms with Omit" {
			continue
		}
		if s.fault == fault(name+" goes back") || t.After(have) {
			put(doc, name, s.date(t))
		}
	}
}

func (s *docStore) locate(doc map[string]any, l *clerksync.Location) {
	put(doc, "location.country", text(l.Country))
	put(doc, "location.city", text(l.City))
	put(doc, "location.state", text(l.State))
	put(doc, "location.timezone", text(l.Timezone))
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
	if m, ok := v.(map[string]any); ok && s.fault == "confuses nested names" {
		renamed := make(map[string]any)
		for name, e := range m {
			renamed[strings.ReplaceAll(name, "$", "%24")] = e
		}
		return renamed
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
	if err := s.ctxErr(ctx); err != nil {
		return clerksync.Result{}, err
	}
	if clerkID == "" && s.fault != "accepts an empty id" {
		return clerksync.Result{}, errors.New("no ClerkID")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, key := s.now(), s.key(clerkID)
	stored, err := s.read(clerkID)
	if err != nil {
		return clerksync.Result{}, err
	}
	if stored == nil && s.fault != "no tombstone" {
		s.docs[key] = s.insert(clerkID, now)
	}
	if s.fault == "check then delete" {
		s.losesRace()
	}
	if stored == nil || stored.DeletedAt.IsZero() || s.fault == "the last deletion counts" {
		s.markDeleted(key, at.UTC().Truncate(time.Millisecond), now)
	}
	r, err := s.read(clerkID)
	return clerksync.Result{Outcome: clerksync.Deactivated, User: s.lend(r)}, err
}

func (s *docStore) markDeleted(key string, at, now time.Time) {
	doc := s.docs[key]
	if at.IsZero() && s.fault != "zero deletes nothing" {
		at = now
	}
	switch s.fault {
	case "no tombstone":
		if doc == nil {
			return
		}
	case "any deletedAt counts":
		if _, has := doc["deletedAt"]; has {
			return
		}
	case "deletes the record":
		delete(s.docs, key)
		return
	}
	s.writes++
	put(doc, "deletedAt", s.date(at))
	doc["isActive"], doc["updatedAt"] = s.fault == "deleted but active", now
}

// Restore implements clerksync.RestoreStore.
func (s *docStore) Restore(ctx context.Context, clerkID string, before time.Time) (bool, error) {
	if err := s.ctxErr(ctx); err != nil {
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
	if s.runs(stored.Jobs.Of(clerksync.JobDelete), now) {
		return false, nil
	}
	if !s.restorable(stored, before) {
		if s.fault == "lifts suspensions" && stored.DeletedAt.IsZero() {
			s.docs[key]["isActive"] = true
		}
		return false, nil
	}
	if s.fault == "check then restore" {
		s.losesRace()
	}
	s.takeBack(s.docs[key], stored.Jobs.Of(clerksync.JobDelete))
	s.restore(s.docs[key], now)
	return true, nil
}

// restorable reports whether the record was deleted before the given time.
func (s *docStore) restorable(stored *clerksync.User, before time.Time) bool {
	deleted := !stored.DeletedAt.IsZero()
	switch s.fault {
	case "restores nothing":
		return false
	case "restores versions only":
		deleted = deleted && !stored.ClerkUpdatedAt.IsZero()
	case "restores the undeleted":
		if !deleted {
			return true
		}
	case "restores any deletion":
		return deleted
	}
	return deleted && stored.DeletedAt.Before(before.UTC().Truncate(time.Millisecond))
}

func (s *docStore) restore(doc map[string]any, now time.Time) {
	s.writes++
	delete(doc, "deletedAt")
	if s.fault != "restores an equal version" {
		delete(doc, "clerkUpdatedAt")
	}
	switch s.fault {
	case "restores field by field":
		s.losesRace()
	case "restored to a null deletedAt":
		doc["deletedAt"] = Null{}
	case "restoring drops an app's field":
		delete(doc, "points")
	}
	doc["isActive"] = s.fault != "restored but inactive"
	if s.fault != "restores quietly" {
		doc["updatedAt"] = now
	}
}

// UpsertBatch implements clerksync.BatchStore.
func (s *docStore) UpsertBatch(ctx context.Context, us []*clerksync.User) ([]clerksync.Result, error) {
	if err := s.ctxErr(ctx); err != nil {
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
		if s.fault == "batch forgets Omit" {
			us[i] = us[i].Clone()
			us[i].Omit = nil
		}
		if s.fault == "batch does not adopt" {
			us[i] = us[i].Clone()
			us[i].ExternalID, us[i].EmailProven = "", false
		}
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
	if err := s.ctxErr(ctx); err != nil {
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
			if s.undeleted(u) {
				stamps = append(stamps, stampOf(u))
			}
		}
		writes := s.writes
		s.mu.Unlock()
		if s.fault == "Undeleted yields some twice" && len(stamps) > 0 {
			stamps = append(stamps, stamps[0])
		}
		for _, st := range stamps {
			if err := s.ctxErr(ctx); err != nil {
				if s.fault != "Undeleted ends quietly" {
					yield(clerksync.Stamp{}, err)
				}
				return
			}
			if !yield(st, nil) {
				return
			}
			if s.fault == "Undeleted ends at a write" && s.writes != writes {
				return
			}
		}
	}
}

// undeleted reports whether Undeleted yields the record.
func (s *docStore) undeleted(u *clerksync.User) bool {
	switch s.fault {
	case "Undeleted yields all":
		return true
	case "suspended is deleted":
		return u.IsActive
	}
	return u.DeletedAt.IsZero()
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
	s.writes++
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

// read decodes a document. A field of the wrong type counts as absent.
func (s *docStore) read(clerkID string) (*clerksync.User, error) {
	doc := s.doc(clerkID)
	if doc == nil {
		return nil, nil
	}
	if _, isText := doc["email"].(string); !isText && doc["email"] != nil && s.fault == "wrong types are errors" {
		return nil, errors.New("email is not a string")
	}
	u := decode(doc)
	active, ok := doc["isActive"].(bool)
	u.IsActive = active || !ok && s.fault != "absent is inactive"
	if s.fault == "null is deleted" && doc["deletedAt"] != nil && u.DeletedAt.IsZero() {
		u.DeletedAt = epoch
	}
	u.Extra, u.Jobs = s.extra(doc), docJobs(doc)
	switch s.fault {
	case "keeps the argument":
		return u.Clone(), nil
	case "numbers as they are":
		return u, nil
	}
	if c, err := u.Canonical(); err == nil {
		u.Extra = c.Extra
	}
	return u, nil
}

// extra returns the fields that Map has set, nil for none.
func (s *docStore) extra(doc map[string]any) map[string]any {
	names := extraFields(doc)
	if s.fault == "the app's fields are Extra" {
		known := append(slices.Clone(synced), "_id", "clerkId", "profile", "location", "role", "isActive", "createdAt")
		for name := range doc {
			if !slices.Contains(known, name) {
				names = append(names, name)
			}
		}
	}
	var extra map[string]any
	for _, name := range names {
		v, ok := doc[name]
		if !ok {
			continue
		}
		if s.fault != "keeps the argument" {
			v = cloned(v)
		}
		if extra == nil {
			extra = make(map[string]any)
		}
		extra[name] = v
	}
	return extra
}

// decode reads all fields but isActive and Extra.
func decode(doc map[string]any) *clerksync.User {
	str := func(path string) string { v, _ := get(doc, path).(string); return v }
	date := func(path string) time.Time { v, _ := get(doc, path).(time.Time); return v }
	flag := func(path string) bool { v, _ := get(doc, path).(bool); return v }
	u := &clerksync.User{
		ID: str("_id"), ClerkID: str("clerkId"),
		Email: str("email"), Name: str("name"), Role: clerksync.Role(str("role")),
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
	location := clerksync.Location{
		Country: str("location.country"), City: str("location.city"),
		State: str("location.state"), Timezone: str("location.timezone"),
	}
	if location != (clerksync.Location{}) {
		u.Location = &location
	}
	return u
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

// text returns s, or nil if it is empty.
func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// get returns the value at a dotted path.
func get(doc map[string]any, path string) any {
	head, rest, nested := strings.Cut(path, ".")
	if !nested {
		return doc[head]
	}
	sub, _ := doc[head].(map[string]any)
	return get(sub, rest)
}

// put writes the value at a dotted path; nil removes the field.
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

// docJobs returns the jobs of a document. They are kept as they are under their kinds.
func docJobs(doc map[string]any) *clerksync.Jobs {
	all, _ := doc["clerkJobs"].(map[string]any)
	create, _ := all["create"].(clerksync.JobState)
	del, _ := all["delete"].(clerksync.JobState)
	if create == (clerksync.JobState{}) && del == (clerksync.JobState{}) {
		return nil
	}
	return &clerksync.Jobs{Create: create, Delete: del}
}

// owe replaces a job of a document. It returns false if something else is in its place.
func (s *docStore) owe(doc map[string]any, kind clerksync.JobKind, state clerksync.JobState) bool {
	all, isDocument := doc["clerkJobs"].(map[string]any)
	_, isNull := doc["clerkJobs"].(Null)
	switch {
	case isDocument:
	case isNull || doc["clerkJobs"] == nil || s.fault == "jobs replace what is there":
		all = make(map[string]any)
		doc["clerkJobs"] = all
	default:
		return false
	}
	all[string(kind)] = state.Canonical()
	if state == (clerksync.JobState{}) {
		delete(all, string(kind))
	}
	return true
}

func (s *docStore) oweCreate(doc map[string]any, u *clerksync.User) {
	if !u.CreateDue.IsZero() && s.fault != "owes no create job" {
		s.owe(doc, clerksync.JobCreate, clerksync.JobState{Due: u.CreateDue})
	}
}

// DeactivateOwing implements clerksync.JobStore.
func (s *docStore) DeactivateOwing(
	ctx context.Context, clerkID, _ string, at, due time.Time,
) (clerksync.Result, clerksync.Owing, error) {
	s.mu.Lock()
	before, _ := s.read(clerkID)
	s.mu.Unlock()
	res, err := s.Deactivate(ctx, clerkID, at)
	if err != nil {
		return res, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	doc := s.doc(clerkID)
	deletedAt := decode(doc).DeletedAt
	owes := before != nil && before.DeletedAt.IsZero() && deletedAt.Equal(at.UTC().Truncate(time.Millisecond)) || before == nil && s.fault == "a tombstone owes a job"
	if !owes || s.fault == "owes no delete job" {
		return res, clerksync.OwesNone, nil
	}
	if !s.owe(doc, clerksync.JobDelete, clerksync.JobState{Due: due, DeletedAt: deletedAt}) {
		return res, clerksync.OwesNoRoom, nil
	}
	res.User, err = s.read(clerkID)
	return res, clerksync.OwesJob, err
}

// ChangeJob implements clerksync.JobStore.
func (s *docStore) ChangeJob(ctx context.Context, c clerksync.JobChange) (bool, error) {
	if err := s.jobErr(ctx); err != nil {
		return false, err
	}
	if c.ClerkID == "" {
		return false, errors.New("no ClerkID")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.read(c.ClerkID)
	if err != nil || u == nil {
		return false, err
	}
	sameState := u.Jobs.Of(c.Kind) == c.From
	sameDeletion := u.DeletedAt.Equal(c.DeletedAt)
	switch {
	case s.fault == "claims whatever was read" && !c.EndsAttempt(), s.fault == "ends any attempt" && c.EndsAttempt():
		sameState = true
	case s.fault == "claims any deletion", c.EndsAttempt() && s.fault != "an end needs the deletion":
		sameDeletion = true
	}
	if !sameState || !sameDeletion && (!c.EndsAttempt() || s.fault == "an end needs the deletion") {
		return false, nil
	}
	to := c.To
	if s.fault == "an ended job stays" && to == (clerksync.JobState{}) {
		to.Attempt = 1
	}
	return s.owe(s.doc(c.ClerkID), c.Kind, to), nil
}

func (s *docStore) jobErr(ctx context.Context) error {
	if s.fault == "jobs ignore the context" {
		return nil
	}
	return s.ctxErr(ctx)
}

// DueJobs implements clerksync.JobStore.
func (s *docStore) DueJobs(ctx context.Context, kind clerksync.JobKind, by time.Time, limit int) ([]clerksync.JobEntry, error) {
	if err := s.jobErr(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var due []clerksync.JobEntry
	for _, doc := range s.docs {
		jobs := docJobs(doc)
		state := jobs.Of(kind)
		waits := kind == clerksync.JobDelete && s.runs(jobs.Of(clerksync.JobCreate), by) && s.fault != "deletes beside a creation"
		isDue := !state.Due.IsZero() && (!state.Due.After(by) || s.fault == "all jobs are due")
		if isDue && !waits && len(due) < limit {
			due = append(due, clerksync.JobEntry{ClerkID: doc["clerkId"].(string), Kind: kind, State: state})
		}
	}
	return due, nil
}

// Jobs implements clerksync.JobStore.
func (s *docStore) Jobs(ctx context.Context) iter.Seq2[clerksync.JobEntry, error] {
	return func(yield func(clerksync.JobEntry, error) bool) {
		if err := s.jobErr(ctx); err != nil {
			yield(clerksync.JobEntry{}, err)
			return
		}
		s.mu.Lock()
		var all []clerksync.JobEntry
		for _, doc := range s.docs {
			for _, kind := range []clerksync.JobKind{clerksync.JobCreate, clerksync.JobDelete} {
				state := docJobs(doc).Of(kind)
				if !state.Due.IsZero() || !state.FailedAt.IsZero() || state.Attempt > 0 && s.fault == "lists the ended" {
					all = append(all, clerksync.JobEntry{ClerkID: doc["clerkId"].(string), Kind: kind, State: state})
				}
			}
		}
		s.mu.Unlock()
		for _, entry := range all {
			if !yield(entry, nil) {
				return
			}
		}
	}
}

// PrepareJobs implements clerksync.JobStore.
func (s *docStore) PrepareJobs(ctx context.Context, _ clerksync.JobKind) error { return s.jobErr(ctx) }

// runs reports whether a job is running.
func (s *docStore) runs(job clerksync.JobState, now time.Time) bool {
	return job.Token != "" && job.Due.After(now) && s.fault != "restores a running job"
}

// takeBack takes the delete job of a document back.
func (s *docStore) takeBack(doc map[string]any, job clerksync.JobState) {
	if s.fault != "restores without the job" && job != (clerksync.JobState{}) {
		s.owe(doc, clerksync.JobDelete, clerksync.JobState{Attempt: job.Attempt})
	}
}
