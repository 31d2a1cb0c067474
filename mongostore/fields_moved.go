package mongostore

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// A change of Fields does not move what is in the collection. With another path for clerkId the
// Store would find none of the records, and make a second one of each user. So Open looks
// whether there are Clerk ids where other Fields would have them: in another unique index that
// is, or may be, clerksync's, and in _id.

// movedSample is how many records Open reads for each such index.
const movedSample = 100

// movedFrom returns an error if records have their Clerk ids at another path, nil if not.
// creating says that the path has no index yet.
func (s *Store) movedFrom(ctx context.Context, indexes []index, allowed []string, creating bool) error {
	for _, ix := range indexes {
		path := s.otherClerkID(ix)
		if path == "" || slices.Contains(allowed, ix.name) {
			continue
		}
		isID := isClerkID
		if ownClerkID(ix, path) {
			isID = func(text string) bool { return text != "" }
		}
		found, err := s.anyMoved(ctx, path, "", func(r *record) bool {
			text, _ := r.raw.Lookup(strings.Split(path, ".")...).StringValueOK()
			return isID(text)
		})
		if err != nil {
			return err
		}
		if found {
			return fmt.Errorf("mongostore: open: records have their Clerk ids in %s, with the index %q, and none in %s: "+
				"set Fields as it was, or else stop all processes that use the collection and move the fields, "+
				"as the README says under Field names, \"Changing the map\" (if the index is not for Clerk ids, name it in AllowUnique)",
				path, ix.name, s.clerkIDPath())
		}
	}
	if s.codec.idIsClerkID() || s.codec == nil && !creating {
		return nil
	}
	found, err := s.anyMoved(ctx, "_id", "user_", func(r *record) bool {
		return slices.ContainsFunc(usualTokens, func(path string) bool {
			_, inserted := r.raw.Lookup(path).ObjectIDOK()
			return inserted
		})
	})
	if found {
		return fmt.Errorf(`mongostore: open: records have their Clerk ids in _id, and none in %s: set Fields as it was, with "clerkId": "_id"`, s.clerkIDPath())
	}
	return err
}

// usualTokens are the paths at which other Fields have insertToken.
var usualTokens = []string{insertToken, snakeCase(insertToken)}

// otherClerkID returns the path of an index that may be on the Clerk ids of other Fields; empty
// for any other index.
func (s *Store) otherClerkID(ix index) string {
	fields := ix.fields()
	if !ix.unique || len(fields) != 1 || fields[0] == "_id" || fields[0] == s.clerkIDPath() {
		return ""
	}
	if order, ok := ix.keys.Lookup(fields[0]).AsFloat64OK(); !ok || order == 0 { // hashed, text
		return ""
	}
	return fields[0]
}

// ownClerkID reports whether the index has a name that Open gives to its own, or the path ends with
// clerkId in any spelling.
func ownClerkID(ix index, path string) bool {
	letters := strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || r == '.' {
			return -1
		}
		return r
	}, strings.ToLower(path))
	return strings.HasPrefix(ix.name, ownIndexPrefix) || strings.HasSuffix(letters, "clerkid")
}

// isClerkID reports whether a text has the form of a user's id in Clerk: a KSUID in base 62.
// Apps have ids of their own that begin with user_.
// https://clerk.com/docs/references/backend/types/backend-user
var isClerkID = regexp.MustCompile(`^user_[0-9A-Za-z]{27}$`).MatchString

// anyMoved reports whether a record has a Clerk id at path, and none at the path that Fields gives. It
// reads a few records whose value at path is a text that sorts after from. holdsID recognizes those with
// a Clerk id there.
func (s *Store) anyMoved(ctx context.Context, path, from string, holdsID func(*record) bool) (bool, error) {
	const op = "open: look for Clerk ids at other paths"
	condition := bson.D{{Key: "$gt", Value: from}}
	projection := bson.D{{Key: "clerkId", Value: 1}}
	switch clerkID := s.clerkIDPath(); {
	case path == "_id": // is always there
		for _, token := range usualTokens {
			projection = append(projection, bson.E{Key: s.codec.verbatim(token), Value: 1})
		}
	case strings.HasPrefix(clerkID, path+"."): // a projection takes no path inside another
		projection[0].Key = s.codec.verbatim(path)
	case !within(path, clerkID):
		projection = append(projection, bson.E{Key: s.codec.verbatim(path), Value: 1})
	}
	var documents []bson.Raw
	err := s.retry(ctx, op, func() error {
		cursor, err := s.coll.Find(ctx, bson.D{{Key: s.codec.verbatim(path), Value: condition}},
			options.Find().SetProjection(s.codec.keys(projection)).SetLimit(movedSample).SetBatchSize(movedSample+1))
		if err != nil {
			return err
		}
		documents = nil
		return cursor.All(ctx, &documents)
	})
	return slices.ContainsFunc(documents, func(raw bson.Raw) bool {
		r := s.record(raw)
		return r.clerkID() == "" && holdsID(r)
	}), err
}
