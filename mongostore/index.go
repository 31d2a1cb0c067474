package mongostore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Error codes of createIndexes and listIndexes.
// https://www.mongodb.com/docs/manual/reference/error-codes/
const (
	codeUnauthorized          = 13
	codeIndexOptionsConflict  = 85
	codeIndexKeySpecsConflict = 86
	codeStableAPI             = 323 // APIStrictError
)

// notBuilt are the codes of a createIndexes that did not wait until the index was built.
var notBuilt = []int{
	276,   // IndexBuildAborted
	285,   // IndexBuildAlreadyInProgress
	12587, // BackgroundOperationInProgressForNamespace
}

// indexAttempts is how often Open tries to create the index. Two processes that create it
// at once can deadlock, or the second one finds it created.
const indexAttempts = 6

// ensureIndexes makes sure that clerkId is unique and that no other index keeps records
// out. It returns all faults, joined. If clerkId is the _id, it is unique anyway.
func (s *Store) ensureIndexes(ctx context.Context, allowed []string) error {
	created := ""
	for attempt := 1; ; attempt++ {
		indexes, err := s.indexes(ctx)
		if err != nil {
			return err
		}
		faults := s.judge(indexes, allowed)
		kept := slices.IndexFunc(indexes, index.keepsClerkID)
		if attempt == 1 {
			if err := s.movedFrom(ctx, indexes, allowed, kept < 0); err != nil {
				return err
			}
		}
		switch {
		case slices.ContainsFunc(indexes, index.setsCollation), s.codec.idIsClerkID(), kept >= 0 && indexes[kept].name == created:
			return errors.Join(faults...)
		case kept >= 0:
			return errors.Join(append(faults, s.awaitBuild(ctx, indexes[kept], indexes))...)
		case created != "":
			return errors.Join(append(faults, fmt.Errorf("mongostore: open: the index %q on %s was created, and the server does not list it as one that makes every %[2]s unique", created, s.clerkIDPath()))...)
		}
		wanted := s.clerkIDIndex(indexes)
		_, err = s.coll.Indexes().CreateOne(ctx, mongo.IndexModel{
			Keys:    wanted.keys,
			Options: options.Index().SetName(wanted.name).SetUnique(wanted.unique).SetSparse(wanted.sparse),
		})
		if err == nil {
			created = wanted.name
			continue // to check how the server lists it
		}
		fault := s.explain(ctx, err, indexes)
		if fault == nil && attempt < indexAttempts && sleep(ctx, 10*backoff(attempt)) {
			continue
		}
		if fault == nil {
			fault = wrapDriverErr(ctx, "open: create the unique index on "+s.clerkIDPath(), err)
		}
		return errors.Join(append(faults, fault)...)
	}
}

// checkIndexes is ensureIndexes for a user who may only read. What the user may not list does not
// matter to reads.
func (s *Store) checkIndexes(ctx context.Context, allowed []string) error {
	indexes, err := s.indexes(ctx)
	switch {
	case hasCode(err, codeUnauthorized):
		return nil
	case err != nil:
		return err
	}
	missing := !slices.ContainsFunc(indexes, index.keepsClerkID) && !s.codec.idIsClerkID()
	if err := s.movedFrom(ctx, indexes, allowed, missing); err != nil {
		return err
	}
	faults := s.judge(indexes, allowed)
	if missing {
		faults = append(faults, fmt.Errorf("mongostore: open: %s has no unique index that lookups use, and with ReadOnly Open makes none; have it created: %s",
			s.clerkIDPath(), s.createLine(s.clerkIDIndex(indexes))))
	}
	return errors.Join(faults...)
}

// awaitBuild waits until the index is built. MongoDB lists it before that, and lets some
// duplicates in. A createIndexes of the same index waits for the build; if the index is
// ready, it does nothing.
// https://github.com/mongodb/mongo/blob/master/src/mongo/db/commands/create_indexes.cpp
//
// If the server refuses the command for another reason (the user may not create indexes, for
// one), the index counts as built: only an administrator could tell.
func (s *Store) awaitBuild(ctx context.Context, ix index, indexes []index) error {
	command := bson.D{{Key: "createIndexes", Value: s.coll.Name()}, {Key: "indexes", Value: bson.A{ix.spec}}}
	err := s.retry(ctx, fmt.Sprintf("open: wait until the index %q on %s is built", ix.name, ix.clerkIDPath()), func() error {
		return s.coll.Database().RunCommand(ctx, command).Err()
	})
	switch {
	case err == nil:
		return nil
	case !answered(err), mongo.IsTimeout(err), transient(err), hasCode(err, notBuilt...):
		return err
	case hasCode(err, codeStableAPI) && ix.sparse:
		return s.refusedIndex(ctx, notUsed, err, s.partialForStrict(indexes))
	case !isUniqueViolation(err):
		return nil
	}
	if duplicates := s.duplicates(ctx); duplicates != "" {
		return s.refusedIndex(ctx, notUnique, err, duplicates)
	}
	if mongo.IsDuplicateKeyError(err) { // of records that are gone by now
		return err
	}
	return nil
}

const (
	notUnique  = "%s cannot be made unique"
	notCreated = "the unique index on %s cannot be created"
	notUsed    = "lookups do not use the unique index on %s"
)

// refusedIndex returns the error for an index on clerkId that the server refuses. The advice
// comes last, so that nothing follows its lines.
func (s *Store) refusedIndex(ctx context.Context, text string, err error, advice string) error {
	op := fmt.Sprintf("open: "+text+" (%s)", s.clerkIDPath(), describe(err))
	return &databaseError{op: op, cause: append(ctxCauses(ctx), err), text: advice}
}

// explain says what to do about an index that could not be created. It returns nil if
// another attempt may succeed.
func (s *Store) explain(ctx context.Context, err error, indexes []index) error {
	if hasCode(err, codeUnauthorized) {
		return wrapDriverErr(ctx, "open: "+s.clerkIDPath()+" has no unique index that lookups use, and this user may not create one; have it created: "+
			s.createLine(s.clerkIDIndex(indexes)), err)
	}
	if hasCode(err, codeStableAPI) {
		return s.refusedIndex(ctx, notCreated, err, s.partialForStrict(indexes))
	}
	// Servers give different codes for duplicates, so look for them.
	if duplicates := s.duplicates(ctx); duplicates != "" {
		return s.refusedIndex(ctx, notUnique, err, duplicates)
	}
	if hasCode(err, codeIndexOptionsConflict, codeIndexKeySpecsConflict) {
		if i := slices.IndexFunc(indexes, index.onClerkID); i >= 0 {
			return s.refusedIndex(ctx, notCreated, err, s.replaceOnClerkID(indexes[i]))
		}
	}
	return nil
}

// ownIndexPrefix begins the name of an index that Open creates if MongoDB's name for it is
// taken, or would not tell that it is clerksync's; see ownClerkID.
const ownIndexPrefix = "clerksync_"

// clerkIDIndex returns the index that Open creates.
func (s *Store) clerkIDIndex(indexes []index) index {
	path := s.clerkIDPath()
	keys, _ := bson.Marshal(bson.D{{Key: path, Value: 1}})
	ix := index{name: path + "_1", keys: keys, unique: true, sparse: true, clerkID: path} // what MongoDB and Mongoose call it
	taken := slices.ContainsFunc(indexes, func(other index) bool { return other.name == ix.name })
	if taken || !ownClerkID(ix, path) {
		ix.name = ownIndexPrefix + path
	}
	return ix
}

func (s *Store) clerkIDPath() string { return s.codec.path("clerkId") }

func (s *Store) indexes(ctx context.Context) ([]index, error) {
	var specs []bson.Raw
	err := s.retry(ctx, "open: list the indexes (privilege listIndexes)", func() error {
		cursor, err := s.coll.Indexes().List(ctx)
		if err != nil {
			return err
		}
		specs = nil
		return cursor.All(ctx, &specs)
	})
	if err != nil {
		return nil, err
	}
	indexes := make([]index, len(specs))
	for i, spec := range specs {
		ix := &indexes[i]
		ix.clerkID = s.clerkIDPath()
		ix.spec = without(spec, "v", "ns", "background")
		ix.name, _ = spec.Lookup("name").StringValueOK()
		ix.keys, _ = spec.Lookup("key").DocumentOK()
		ix.unique = isTrue(spec.Lookup("unique"))
		ix.sparse = isTrue(spec.Lookup("sparse"))
		ix.partial, _ = spec.Lookup("partialFilterExpression").DocumentOK()
		if locale, _ := spec.Lookup("collation", "locale").StringValueOK(); locale != "simple" {
			ix.collation, _ = spec.Lookup("collation").DocumentOK()
		}
		ix.others = without(spec, "v", "key", "name", "ns", "background", "storageEngine",
			"unique", "sparse", "partialFilterExpression", "collation")
	}
	return indexes, nil
}

// index is an index as listIndexes describes it.
type index struct {
	spec           bson.Raw // as createIndexes takes it
	name           string
	keys           bson.Raw
	unique, sparse bool
	partial        bson.Raw // nil if the index covers every record
	collation      bson.Raw // nil for the simple, binary one
	others         bson.Raw // all other options, such as hidden
	clerkID        string   // the path of clerkId; empty for that name
}

// isTrue takes any number but 0 for true, as createIndexes does.
func isTrue(v bson.RawValue) bool {
	b, _ := v.BooleanOK()
	n, _ := v.AsFloat64OK()
	return b || n != 0
}

// fields returns the paths that the index is on.
func (ix index) fields() []string {
	elements, _ := ix.keys.Elements()
	fields := make([]string, len(elements))
	for i, e := range elements {
		fields[i] = e.Key()
	}
	return fields
}

// onClerkID reports whether the index is an ordinary one on clerkId alone.
func (ix index) onClerkID() bool {
	path := ix.clerkIDPath()
	n, ok := ix.keys.Lookup(path).AsFloat64OK() // not "hashed", "text"
	return ok && n != 0 && slices.Equal(ix.fields(), []string{path})
}

func (ix index) clerkIDPath() string { return cmp.Or(ix.clerkID, "clerkId") }

// keepsClerkID reports whether the index makes every clerkId unique, and lookups use it.
func (ix index) keepsClerkID() bool {
	operator, _ := ix.condition()
	// MongoDB checks a hidden index and does not use it, and it does not conclude from
	// {clerkId: "user_…"} that the type is string. From $exists it does.
	// https://www.mongodb.com/docs/manual/core/index-hidden/
	// https://github.com/mongodb/mongo/blob/master/src/mongo/db/matcher/expression_algo.cpp (isSubsetOf)
	return ix.makesUnique() && !ix.hidden() && operator != "$type"
}

// makesUnique reports whether the index makes every clerkId unique, used or not.
func (ix index) makesUnique() bool {
	if !ix.onClerkID() || !ix.unique || ix.collation != nil {
		return false
	}
	if ix.partial == nil {
		return true
	}
	switch operator, v := ix.condition(); operator {
	case "$exists":
		return isTrue(v)
	case "$type":
		alias, _ := v.StringValueOK()
		number, _ := v.AsFloat64OK()
		return alias == "string" || number == float64(bson.TypeString)
	default:
		return false
	}
}

// condition returns the operator of the index's filter, and its value, if the filter is one
// condition on clerkId.
func (ix index) condition() (operator string, v bson.RawValue) {
	elements, _ := ix.partial.Elements()
	condition, _ := ix.partial.Lookup(ix.clerkIDPath()).DocumentOK()
	operators, _ := condition.Elements()
	if len(elements) != 1 || len(operators) != 1 {
		return "", v
	}
	return operators[0].Key(), operators[0].Value()
}

func (ix index) hidden() bool { return isTrue(ix.others.Lookup("hidden")) }

// leavesOutAbsent reports whether records without a value are not in the index. Text and
// geospatial indexes are always sparse.
// https://www.mongodb.com/docs/manual/core/index-sparse/#indexes-that-are-sparse-by-default
func (ix index) leavesOutAbsent() bool {
	elements, _ := ix.keys.Elements()
	return ix.sparse || ix.partial != nil || slices.ContainsFunc(elements, func(e bson.RawElement) bool {
		kind, ok := e.Value().StringValueOK()
		return ok && kind != "hashed"
	})
}

// setsCollation reports whether the index is the one on _id and has a collation. That is
// the collection's default, which every index inherits and every filter uses.
func (ix index) setsCollation() bool {
	return ix.collation != nil && slices.Equal(ix.fields(), []string{"_id"})
}

// judge finds unique indexes that would keep records out, and a default collation. It
// sets s.unique to the fields of the other unique indexes.
func (s *Store) judge(indexes []index, allowed []string) (faults []error) {
	s.unique = nil
	inherited := slices.ContainsFunc(indexes, index.setsCollation)
	for _, ix := range indexes {
		fields := ix.fields()
		switch {
		case ix.setsCollation():
			faults = append(faults, fmt.Errorf("mongostore: open: the collection %q has a default collation, %s, by which two users' ids may be equal, and every index inherits it; make the collection anew without one and move the records there",
				s.coll.Name(), ix.collation))
		case !ix.unique || slices.Equal(fields, []string{"_id"}):
		case ix.onClerkID() && ix.collation != nil && !inherited:
			faults = append(faults, fmt.Errorf("mongostore: open: the unique index %q on %s has a collation, by which two users' ids may be equal; %s",
				ix.name, s.clerkIDPath(), s.dropCollated(ix, indexes)))
		case slices.Contains(fields, s.clerkIDPath()): // no other record has the same key
		case !ix.leavesOutAbsent() && !slices.Contains(allowed, ix.name):
			faults = append(faults, fmt.Errorf("mongostore: open: the unique index %q on %s is neither sparse nor partial: only one record may be without a value, so users without one, and tombstones of deleted users, could not be stored; %s",
				ix.name, strings.Join(fields, ", "), s.replaceByPartial(ix, indexes)))
		case !slices.Contains(fields, "_id"):
			s.unique = append(s.unique, uniqueIndex{fields: fields, partial: ix.partial, collation: ix.collation})
		}
	}
	return faults
}
