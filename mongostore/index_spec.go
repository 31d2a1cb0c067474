package mongostore

import (
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// index is an index as listIndexes describes it.
type index struct {
	name           string
	keys           bson.Raw
	unique, sparse bool
	partial        bson.Raw // nil if the index covers every record
	collation      bson.Raw // nil for the simple, binary one
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
	n, ok := ix.keys.Lookup("clerkId").AsFloat64OK() // not "hashed", "text"
	return ok && n != 0 && slices.Equal(ix.fields(), []string{"clerkId"})
}

// keepsClerkID reports whether the index makes every clerkId unique.
func (ix index) keepsClerkID() bool {
	return ix.onClerkID() && ix.unique && ix.collation == nil &&
		(ix.partial == nil || ix.coversClerkIDs())
}

// setsCollation reports whether the index is the one on _id and has a collation. That is
// the collection's default, which every index inherits and every filter uses.
func (ix index) setsCollation() bool {
	return ix.collation != nil && slices.Equal(ix.fields(), []string{"_id"})
}

// coversClerkIDs reports whether the index's filter includes every record with a clerkId.
func (ix index) coversClerkIDs() bool {
	elements, _ := ix.partial.Elements()
	condition, _ := ix.partial.Lookup("clerkId").DocumentOK()
	operators, _ := condition.Elements()
	if len(elements) != 1 || len(operators) != 1 {
		return false
	}
	switch v := operators[0].Value(); operators[0].Key() {
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
			faults = append(faults, fmt.Errorf("mongostore: open: the unique index %q on clerkId has a collation, by which two users' ids may be equal; drop it: %s.dropIndex(%q)",
				ix.name, s.shell(), ix.name))
		case slices.Contains(fields, "clerkId"): // no other record has the same key
		case !ix.sparse && ix.partial == nil && !slices.Contains(allowed, ix.name):
			faults = append(faults, fmt.Errorf("mongostore: open: the unique index %q on %s is neither sparse nor partial: only one record may be without a value, so users without one, and tombstones of deleted users, could not be stored; replace it: %s",
				ix.name, strings.Join(fields, ", "), s.partialForm(ix)))
		case !slices.Contains(fields, "_id"):
			s.unique = append(s.unique, fields)
		}
	}
	return faults
}

// partialForm returns the mongosh line that replaces an index by a partial one.
func (s *Store) partialForm(ix index) string {
	var filter []string
	for _, field := range ix.fields() {
		filter = append(filter, fmt.Sprintf("%q: {$exists: true}", field))
	}
	choices := fmt.Sprintf("unique: true, partialFilterExpression: {%s}", strings.Join(filter, ", "))
	if ix.collation != nil {
		choices += ", collation: " + ix.collation.String()
	}
	return fmt.Sprintf("%[1]s.dropIndex(%[2]q); %[1]s.createIndex(%[3]s, {%[4]s})", s.shell(), ix.name, ix.keys, choices)
}
