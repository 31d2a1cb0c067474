package mongostore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
)

// InspectOptions are the choices for one [Inspect].
type InspectOptions struct {
	_ [0]func() // unkeyed literals would break when a field is added

	// Limit is how many records are read. If there are more, the Inspection is of a sample:
	// the first in the collection's order. A negative one is an error.
	//
	// Defaults to 1,000,000, which take some 50 MB of memory at most.
	Limit int

	// Users calls visit with all users of Clerk as the app maps them, some at a time, and
	// returns the first error. Inspect calls it once, after it has read the records. It says
	// then how many users each way of adoption would link.
	//
	// Defaults to none: Clerk is not asked.
	Users func(ctx context.Context, visit func(ctx context.Context, us []*clerksync.User) error) error

	// Accept takes decisions that need no change of the Options: a [Finding] of one of these
	// Kinds, or about one of these Fields, needs none any more. It has no effect on the kinds
	// "index" and "writes", with which Open fails.
	//
	// Defaults to none.
	Accept []string

	// Progress is called with how many records have been read, and how many there are to
	// read, after each thousand and at the end.
	//
	// Defaults to none.
	Progress func(read, of int)
}

// Inspection is what [Inspect] found. It holds no value of a record but some _ids, and of
// these no text that may be an address.
type Inspection struct {
	// Ready means that no Finding needs a decision.
	Ready bool `json:"ready"`
	// Records is how many records there are; for a Sample, as the server estimates it. Read is
	// how many were read; the counts of the Findings are of these.
	Records int `json:"records"`
	Read    int `json:"read"`
	// Sample means that not all records were read.
	Sample bool `json:"sample"`
	// Linked records have a Clerk id, Unlinked ones do not. Unsynced ones have never been
	// written by clerksync; the Unlinked are among them.
	Linked   int `json:"linked"`
	Unlinked int `json:"unlinked"`
	Unsynced int `json:"unsynced"`
	// Writes is "accepted" if the server takes writes as the client sends them: retryable ones,
	// unless the connection string has retryWrites=false. Otherwise it is "refused", or "not
	// checked" if the user may not write.
	Writes string `json:"writes"`
	// Adoption is nil if Clerk was not asked.
	Adoption *AdoptionCounts `json:"adoption,omitempty"`
	// Findings are in the order of their weight: decisions first.
	Findings []Finding `json:"findings"`
	// Fields are the lines for [Options].Fields that the decisions propose together.
	Fields Fields `json:"fields,omitempty"`
}

// Finding is one thing that an operator should know, or decide, before clerksync writes to
// the collection.
type Finding struct {
	// Kind is a word for scripts, such as "type" or "shared_email".
	Kind string `json:"kind"`
	// Decision means that it needs a decision.
	Decision bool `json:"decision"`
	// Field is the path in the collection, empty if it is not about one.
	Field string `json:"field,omitempty"`
	// Records is how many records it is about, 0 if it is not about records. IDs are _ids of
	// the first, at most 10.
	Records int      `json:"records,omitempty"`
	IDs     []string `json:"ids,omitempty"`
	// Text says what it is, in a sentence without a full stop.
	Text string `json:"text"`
	// Fields are lines for [Options].Fields that resolve it.
	Fields Fields `json:"fields,omitempty"`
	// Fix says what else resolves it, with lines for mongosh.
	Fix string `json:"fix,omitempty"`
}

// AdoptionCounts say what would become of Clerk's users. A way of adoption that
// [Options].Adopt does not have is counted as if it were the only one: by _id, or by e-mail
// with any record Trusted.
type AdoptionCounts struct {
	// Users are Clerk's users, Linked those whose id a record has, New those who would get a
	// new record in either way.
	Users  int `json:"users"`
	Linked int `json:"linked"`
	New    int `json:"new"`
	// Either is how many users would adopt a record in one of the two ways.
	Either int `json:"either"`

	ByExternalID AdoptionWay `json:"byExternalId"`
	ByEmail      AdoptionWay `json:"byEmail"`
}

// AdoptionWay is what one way of adoption would do.
type AdoptionWay struct {
	// On means that [Options].Adopt has it.
	On bool `json:"on"`
	// Field is the path in the collection by which it finds records.
	Field string `json:"field"`
	// Has is how many users without a record have what it goes by: an external id, or an
	// e-mail address.
	Has int `json:"has"`
	// Adopts is how many users it would link, Refuses for how many an Upsert would fail,
	// because the record is another user's, or because the address is unproven, ambiguous or
	// not Trusted.
	Adopts  int `json:"adopts"`
	Refuses int `json:"refuses"`
}

// What Inspection.Writes says.
const (
	writesAccepted   = "accepted"
	writesRefused    = "refused"
	writesNotChecked = "not checked"
)

// inspectTime is how long Inspect reads records. What it has read until then is a sample.
const inspectTime = 10 * time.Minute

// A server that accepts connections and does not answer would hang Inspect for ever, because
// the driver has no timeout of its own.
const (
	readTimeout  = inspectTime + 5*time.Minute
	writeTimeout = 2 * time.Minute
)

// inspectBatch is how many records one reply holds, unless they are large.
const inspectBatch = 1000

// Inspect says whether a collection is ready for clerksync, without changing it: what the first
// sync would meet in the records that the app had before. It needs no index and no more than
// the right to read. To find out whether retryable writes work it sends updates that
// match no record; a user who may not write cannot check that.
//
// It reads whole records, at most Limit of them and for at most ten minutes. Its memory does
// not grow with what they hold. opts are those for [Open]; if nil, the defaults apply. What
// Open would refuse in the collection is among the Findings. An error means that something
// could not be found out, or that opts are wrong.
func Inspect(ctx context.Context, coll *mongo.Collection, opts *Options, look InspectOptions) (Inspection, error) {
	if opts == nil {
		opts = &Options{}
	}
	if look.Limit < 0 {
		return Inspection{}, fmt.Errorf("mongostore: inspect: Limit is %d; it must be positive, or 0 for the default", look.Limit)
	}
	look.Limit = cmp.Or(look.Limit, 1_000_000)
	s, err := newStore(coll, opts)
	if err != nil {
		return Inspection{}, err
	}
	if ctx, err = begin(ctx, "inspect"); err != nil {
		return Inspection{}, err
	}
	i := &inspector{store: s, opts: opts, look: look}
	return i.inspect(ctx)
}

// inspector is one run of Inspect.
type inspector struct {
	store *Store
	opts  *Options
	look  InspectOptions
	found Inspection
}

func (i *inspector) inspect(ctx context.Context) (Inspection, error) {
	reading, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	indexes, err := i.store.indexes(reading)
	listed := !hasCode(err, codeUnauthorized)
	if err != nil && listed {
		return Inspection{}, err
	}
	survey, err := i.survey(reading)
	if err != nil {
		return Inspection{}, err
	}
	j := &judgement{survey: survey, decided: i.opts.Fields, adopt: i.opts.Adopt, accept: i.look.Accept, coll: i.store.shell()}
	if i.look.Users != nil {
		if j.users, err = i.newUserSurvey(); err != nil {
			return Inspection{}, err
		}
		if err := i.look.Users(ctx, j.users.visit); err != nil {
			return Inspection{}, err
		}
		i.found.Adoption = &j.users.counts
	}
	if listed {
		j.judgeIndexes(i.store.indexFaults(indexes, i.opts.AllowUnique, survey.unlinked))
	} else {
		j.find(findIndex, false, "", tally{}, "the indexes are not checked: this user may not list them (privilege listIndexes)")
	}
	if i.found.Writes, err = i.checkWrites(ctx, j); err != nil {
		return Inspection{}, err
	}
	i.found.Read, i.found.Linked = survey.read, survey.linked
	i.found.Unlinked, i.found.Unsynced = survey.unlinked, survey.unsynced
	i.found.Findings = j.judge()
	if len(j.fields) > 0 {
		i.found.Fields = j.fields
	}
	i.found.Ready = len(i.found.Findings) == 0 || !i.found.Findings[0].Decision
	return i.found, nil
}

// survey reads the records.
func (i *inspector) survey(ctx context.Context) (*survey, error) {
	const op = "inspect: read the records"
	var records int64
	err := i.store.retry(ctx, "inspect: count the records", func() (err error) {
		records, err = i.store.coll.raw.EstimatedDocumentCount(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	of := min(int(records), i.look.Limit)
	var cursor *mongo.Cursor
	err = i.store.retry(ctx, op, func() (err error) {
		cursor, err = i.store.coll.Find(ctx, bson.D{},
			options.Find().SetLimit(int64(i.look.Limit)+1).SetBatchSize(inspectBatch))
		return err
	})
	if err != nil {
		return nil, err
	}
	defer closeCursor(ctx, cursor)
	until := i.store.now().Add(inspectTime)
	s := newSurvey(i.store.codec.path)
	for cursor.Next(ctx) {
		if s.read == i.look.Limit || s.read%inspectBatch == 0 && i.store.now().After(until) {
			i.found.Sample = true
			break
		}
		s.add(cursor.Current)
		if i.look.Progress != nil && s.read%inspectBatch == 0 {
			i.look.Progress(s.read, max(of, s.read))
		}
	}
	if err := cursor.Err(); err != nil {
		return nil, wrapDriverErr(ctx, op, err)
	}
	if i.look.Progress != nil {
		i.look.Progress(s.read, max(of, s.read))
	}
	i.found.Records = s.read
	if i.found.Sample {
		i.found.Records = max(int(records), s.read)
	}
	return s, nil
}

// checkWrites finds out whether retryable writes work. Other faults of writing are findings.
func (i *inspector) checkWrites(ctx context.Context, j *judgement) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := i.store.checkWrites(ctx)
	switch {
	case err == nil:
		return writesAccepted, nil
	case hasCode(err, codeUnauthorized):
		return writesNotChecked, nil
	case ctx.Err() != nil, !errors.Is(err, errUnacknowledged) && !answered(err):
		return "", err
	}
	j.find(findWrites, true, "", tally{}, "%s", withoutPrefix(err))
	return writesRefused, nil
}

// withoutPrefix is the text of an error of Open as that of a Finding.
func withoutPrefix(err error) string { return strings.TrimPrefix(err.Error(), "mongostore: open: ") }

// indexFaults returns what Open would say about the indexes. unlinked is how many records
// without a Clerk id there are for certain: an index that lets in two of them is sparse, though
// FerretDB 1 does not list it so.
func (s *Store) indexFaults(indexes []index, allowed []string, unlinked int) []error {
	faults := s.judge(indexes, allowed)
	if s.adopt == nil || unlinked > 1 {
		return faults
	}
	for _, ix := range indexes {
		if ix.makesUnique() && !ix.leavesOutAbsent() {
			faults = append(faults, s.denseFault(ix, indexes))
		}
	}
	return faults
}

// judgeIndexes makes findings of the faults that Open would report.
func (j *judgement) judgeIndexes(faults []error) {
	for _, err := range faults {
		text, fix, _ := strings.Cut(withoutPrefix(err), "; ")
		j.find(findIndex, true, "", tally{}, "%s", text).Fix = fix
	}
}
