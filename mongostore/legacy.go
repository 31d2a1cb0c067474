package mongostore

import (
	"context"
	"iter"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// sampleSize is how many records Open looks at for HasLegacy.
const sampleSize = 100

// HasLegacy implements [clerksync.LegacyStore]. Open looks at a hundred records, those that
// the server returns first, which are usually the oldest: so false does not mean that there
// are none.
func (s *Store) HasLegacy() bool { return s.legacy }

// sampleLegacy looks for records that clerksync has never written, for HasLegacy. It neither
// filters nor sorts, so the server reads no more than the sample.
func (s *Store) sampleLegacy(ctx context.Context) error {
	records, err := s.find(ctx, "open: look at some records", sampleSize, bson.D{}, legacyFields)
	s.legacy = slices.ContainsFunc(records, (*record).unconfirmed)
	return err
}

// legacyFields is the projection that unconfirmed needs.
var legacyFields = bson.D{{Key: "clerkId", Value: 1}, {Key: "syncedAt", Value: 1}, {Key: "deletedAt", Value: 1}}

// UnlinkedEmails implements [clerksync.LegacyStore], in one pass over the collection, as
// Undeleted. A record without a Clerk id has no clerkId, a null or an empty one. If the Clerk
// id is the _id, an _id that is not text is none either. Records that are marked deleted are
// left out. Of an array it yields each address. Anything else that is not text counts as none.
func (s *Store) UnlinkedEmails(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for emails, err := range pass(ctx, s, "unlinked emails", unlinkedFields, (*record).unlinkedEmails) {
			if err != nil {
				emails = []string{""}
			}
			for _, email := range emails {
				if !yield(email, err) {
					return
				}
			}
		}
	}
}

// unlinkedEmails returns the addresses of a record without a Clerk id, an empty one if there
// are none. It reports whether the record is one, and not deleted.
func (r *record) unlinkedEmails() (emails []string, unlinked bool) {
	id := r.value("clerkId")
	none := isNoID(id) || id.Type != bson.TypeString && r.codec.idIsClerkID()
	if !none || !r.deletedAt().IsZero() {
		return nil, false
	}
	for _, v := range r.values("email") {
		if email, isText := v.StringValueOK(); isText {
			emails = append(emails, email)
		}
	}
	if len(emails) == 0 {
		emails = []string{""}
	}
	return emails, true
}

// unlinkedFields is the projection that UnlinkedEmails needs.
var unlinkedFields = bson.D{{Key: "clerkId", Value: 1}, {Key: "email", Value: 1}, {Key: "deletedAt", Value: 1}}
