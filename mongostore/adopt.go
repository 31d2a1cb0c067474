package mongostore

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

// Adopt says which records that the app had before Clerk are linked to Clerk users; see
// [Options].Adopt. A record can be linked if it does not have a Clerk id (clerkId is absent,
// null or "") nor a date in deletedAt.
//
// A linked record keeps its _id and everything that is the app's. It gets what Clerk knows,
// adoptedAt and adoptedBy, and isActive, role and createdAt if it lacks them. If it has a value
// of another type under one of clerksync's names, or any value under a name of Extra, it stays
// as it is, and the error is a [*clerksync.ConflictError] with Field and Type.
type Adopt struct {
	_ [0]func() // unkeyed literals would break when a field is added

	// ByExternalID is the field that Clerk's external_id names, "_id" or the path of another
	// field of the collection. It matches the same text, the ObjectID and the UUID that the
	// text stands for, and the same whole number.
	//
	// If the external id names a record of another Clerk user, the error is a
	// [*clerksync.ConflictError] with that user as Holder. It is a conflict, too, if it names
	// several records, or only deleted ones. If it names a record, the e-mail address is not
	// looked at.
	//
	// Defaults to none.
	ByExternalID string

	// ByEmail links a record whose e-mail address is the user's, as Clerk writes it or in lower
	// case, if the user has proven to control the address ([clerksync.User].EmailProven), no
	// other record without a Clerk id has it, and the record matches Trusted.
	//
	// Otherwise no user is created beside such a record: the error is a
	// [*clerksync.ConflictError] that matches [clerksync.ErrUnlinked].
	//
	// Defaults to false.
	ByEmail bool

	// Trusted is a filter, in the names of the collection: what a record must match to be
	// linked by its address. If the app let anybody write any address into a record, a
	// stranger may have taken the address before its owner signed up. For example,
	// bson.D{{Key: "emailVerified", Value: true}}. bson.D{} accepts all.
	//
	// ByEmail requires it; it does not apply to ByExternalID.
	Trusted bson.D
}

// adopter is an Adopt that Open has checked. A nil one adopts nothing.
type adopter struct {
	byExternalID string // path in the collection
	byEmail      bool
	trusted      bson.Raw // nil accepts all
}

// newAdopter checks an Adopt, which may be nil. It returns nil if nothing is to be adopted.
func newAdopter(a *Adopt) (*adopter, error) {
	if a == nil || a.ByExternalID == "" && !a.ByEmail {
		return nil, nil
	}
	c := &adopter{byExternalID: a.ByExternalID, byEmail: a.ByEmail}
	var faults []error
	if err := checkExternalPath(a.ByExternalID); err != nil {
		faults = append(faults, err)
	}
	if a.ByEmail && a.Trusted == nil {
		faults = append(faults, errors.New("mongostore: open: Adopt.ByEmail needs Trusted: what a record must match to be linked by its e-mail address, "+
			`for example bson.D{{Key: "emailVerified", Value: true}}; bson.D{} accepts every record`))
	}
	if a.ByEmail && len(a.Trusted) > 0 {
		raw, err := bson.Marshal(a.Trusted)
		if err != nil {
			faults = append(faults, errors.New("mongostore: open: Adopt.Trusted cannot be encoded")) // the text may quote a value
		}
		c.trusted = raw
	}
	return c, errors.Join(faults...)
}

// checkExternalPath checks Adopt.ByExternalID.
func checkExternalPath(path string) error {
	if path == "" {
		return nil
	}
	fault := ""
	for _, name := range strings.Split(path, ".") {
		_, err := strconv.Atoi(name)
		switch {
		case name == "":
			fault = "an empty name"
		case strings.HasPrefix(name, "$"):
			fault = "a name that begins with $"
		case strings.Contains(name, "\x00"):
			fault = "a NUL"
		case err == nil:
			fault = "a number"
		}
	}
	if fault != "" {
		return fmt.Errorf("mongostore: open: Adopt.ByExternalID is %q, a path with %s", path, fault)
	}
	return nil
}

// applies reports whether an Upsert of u looks for a record to adopt.
func (a *adopter) applies(u *clerksync.User) bool {
	return a != nil && len(u.Omit) == 0 && (a.external(u.ExternalID) || a.byEmail && u.Email != "")
}

// external reports whether this external id may name a record.
func (a *adopter) external(id string) bool { return a != nil && a.byExternalID != "" && id != "" }

// isTrusted is the condition that a record is trusted.
func (a *adopter) isTrusted() bson.E { return bson.E{Key: "$and", Value: bson.A{a.trusted}} }

func (a *adopter) isUntrusted() bson.E {
	return bson.E{Key: "$and", Value: bson.A{bson.D{{Key: "$nor", Value: bson.A{a.trusted}}}}}
}

// choice is what to do for a user whose Clerk id has no record.
type choice struct {
	adopt *record // the record to link, nil to insert one
	by    string  // how adopt was found, as in adoptedBy
	err   error   // why there must be neither
}

// chooseFrom decides for u. named are the records that the external id names, addressed those that
// have the e-mail address. Whether the record is trusted is for the server to say.
func (a *adopter) chooseFrom(u *clerksync.User, named, addressed []*record) choice {
	if len(named) > 0 {
		return a.chooseNamed(u, named)
	}
	addressed = unlinked(addressed)
	switch {
	case !a.byEmail || len(addressed) == 0:
		return choice{}
	case !u.EmailProven:
		return choice{err: notLinked(unproven)}
	case len(addressed) > 1:
		return choice{err: notLinked(ambiguous)}
	}
	return choiceOf(u, addressed[0], clerksync.ByEmail)
}

func (a *adopter) chooseNamed(u *clerksync.User, named []*record) choice {
	for _, r := range named {
		if r.hasClerkID() {
			return choice{err: a.heldBy(r)}
		}
	}
	switch candidates := unlinked(named); len(candidates) {
	case 0:
		return choice{err: a.misnamed(deletedNamed)}
	case 1:
		return choiceOf(u, candidates[0], clerksync.ByExternalID)
	default:
		return choice{err: a.misnamed(severalNamed)}
	}
}

func choiceOf(u *clerksync.User, r *record, by string) choice {
	if err := r.checkAdoptable(u); err != nil {
		return choice{err: err}
	}
	return choice{adopt: r, by: by}
}

// unlinked returns the records that can be linked.
func unlinked(records []*record) (candidates []*record) {
	for _, r := range records {
		if !r.hasClerkID() && r.deletedAt().IsZero() {
			candidates = append(candidates, r)
		}
	}
	return candidates
}

// hasClerkID reports whether the clerkId is anything but absent, null or empty.
func (r *record) hasClerkID() bool { return !isNoID(r.value("clerkId")) }

// heldBy is the conflict about a record of another Clerk user that the external id names.
func (a *adopter) heldBy(r *record) error {
	conflict := &clerksync.ConflictError{Field: a.byExternalID, Holder: undeletedID(r)}
	switch {
	case r.clerkID() == "":
		conflict.Field, conflict.Type = "clerkId", typeName(r.value("clerkId").Type)
	case conflict.Holder == "":
		conflict.Err = &notLinkedError{text: "the external id names the record of a deleted user"}
	case isIdentifier(conflict.Holder):
		conflict.Err = &notLinkedError{text: "the external id names the record of " + conflict.Holder}
	default:
		conflict.Err = &notLinkedError{text: "the external id names the record of another user"}
	}
	return conflict
}

func (a *adopter) misnamed(why string) error {
	return &clerksync.ConflictError{Field: a.byExternalID, Err: &notLinkedError{text: why}}
}

// Why a record that the external id names is not linked.
const (
	deletedNamed = "the external id names a deleted record"
	severalNamed = "the external id names several records"
)

// Why a record that has the user's e-mail address is not linked.
const (
	unproven        = "the user has not proven to control the address"
	ambiguous       = "several records have the address"
	untrustedRecord = "the record is not trusted"
)

func notLinked(why string) error {
	text := "a record without a Clerk id has the same email: " + why
	return &clerksync.ConflictError{Field: "email", Err: &notLinkedError{text: text, cause: clerksync.ErrUnlinked}}
}

// notLinkedError says why a user is not linked to a record.
type notLinkedError struct {
	text  string
	cause error // ErrUnlinked, or nil
}

func (e *notLinkedError) Error() string { return "mongostore: upsert: " + e.text }

func (e *notLinkedError) Unwrap() error { return e.cause }

// ConflictText is for the text of a [clerksync.ConflictError]: no unique index is in the way.
func (e *notLinkedError) ConflictText() string { return e.text }
