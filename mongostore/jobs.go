package mongostore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
)

// The state of a record's jobs is in clerkJobs:
//
//	clerkJobs.create, clerkJobs.delete: {due, attempt, token, failedAt, code, deletedAt}
//
// A field is absent if the JobState has its zero value. An index on due holds only the jobs that
// are owed: it is sparse, and the end of a job removes due. Nothing else in the record depends on
// clerkJobs, and no Upsert touches it once the record exists.

// jobPath returns the name of a job's field, or of the whole job.
func jobPath(kind clerksync.JobKind, field string) string {
	if field == "" {
		return "clerkJobs." + string(kind)
	}
	return "clerkJobs." + string(kind) + "." + field
}

// jobFields is the projection for jobs.
var jobFields = bson.D{{Key: "clerkId", Value: 1}, {Key: "clerkJobs", Value: 1}}

// owedCreate returns the jobs of a new record.
func owedCreate(due time.Time) *clerksync.Jobs {
	if due.IsZero() {
		return nil
	}
	return &clerksync.Jobs{Create: clerksync.JobState{Due: due}}
}

// encodeJob returns the document of a job.
func encodeJob(state clerksync.JobState) bson.D {
	var d bson.D
	for _, e := range jobElements(state) {
		if e.Value != nil {
			d = append(d, e)
		}
	}
	return d
}

// jobElements are the fields of a job; nil for those that it does not have.
func jobElements(state clerksync.JobState) bson.D {
	date := func(t time.Time) any {
		if t.IsZero() {
			return nil
		}
		return t
	}
	text := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	d := bson.D{
		{Key: "due", Value: date(state.Due)}, {Key: "attempt", Value: nil}, {Key: "token", Value: text(state.Token)},
		{Key: "failedAt", Value: date(state.FailedAt)}, {Key: "code", Value: text(state.Code)},
		{Key: "deletedAt", Value: date(state.DeletedAt)},
	}
	if state.Attempt != 0 {
		d[1].Value = int64(state.Attempt)
	}
	return d
}

// jobs returns the state of the record's jobs, nil if it has none. A value of another type counts
// as absent.
func (r *record) jobs() *clerksync.Jobs {
	v, err := r.lookup("clerkJobs")
	if err != nil {
		return nil
	}
	all, _ := v.DocumentOK()
	jobs := clerksync.Jobs{Create: decodeJob(all, "create"), Delete: decodeJob(all, "delete")}
	if jobs == (clerksync.Jobs{}) {
		return nil
	}
	return &jobs
}

// decodeJob returns the state of one job. If one of its fields has another type than clerksync's,
// the app has the name for something else, and there is no job.
func decodeJob(all bson.Raw, kind string) clerksync.JobState {
	job, isDocument := all.Lookup(kind).DocumentOK()
	if !isDocument {
		return clerksync.JobState{}
	}
	d := jobDecoder{job: job}
	state := clerksync.JobState{
		Due: d.date("due"), Attempt: d.count("attempt"), Token: d.text("token"),
		FailedAt: d.date("failedAt"), Code: d.text("code"), DeletedAt: d.date("deletedAt"),
	}
	if d.foreign {
		return clerksync.JobState{}
	}
	return state
}

// jobDecoder reads the fields of a job's document. Absent and null ones are zero.
type jobDecoder struct {
	job     bson.Raw
	foreign bool // a field has another type than clerksync's
}

// value returns a field and whether there is one.
func (d *jobDecoder) value(name string) (v bson.RawValue, ok bool) {
	v = d.job.Lookup(name)
	return v, !v.IsZero() && v.Type != bson.TypeNull
}

func (d *jobDecoder) date(name string) time.Time {
	v, ok := d.value(name)
	d.foreign = d.foreign || ok && v.Type != bson.TypeDateTime
	return timeOf(v)
}

func (d *jobDecoder) text(name string) string {
	v, ok := d.value(name)
	text, isText := v.StringValueOK()
	d.foreign = d.foreign || ok && !isText
	return text
}

// count returns a whole number, of any type: a shell writes doubles.
func (d *jobDecoder) count(name string) int {
	v, ok := d.value(name)
	if !ok {
		return 0
	}
	n, isNumber := v.AsInt64OK()
	if f, isDouble := v.DoubleOK(); isDouble && f != math.Trunc(f) {
		isNumber = false
	}
	d.foreign = d.foreign || !isNumber || n < 0 || n > math.MaxInt32
	return int(n)
}

// hasRoomForJobs reports whether clerkJobs is a document, absent or null, and its parents are, so
// that a job can be written.
func (r *record) hasRoomForJobs() bool {
	_, v := r.barrier(jobPath(clerksync.JobDelete, ""))
	return v.IsZero() || v.Type == bson.TypeNull
}

// notRunning matches records whose job of this kind is not running.
func notRunning(kind clerksync.JobKind, now time.Time) bson.E {
	return bson.E{Key: "$nor", Value: bson.A{bson.D{
		{Key: jobPath(kind, "token"), Value: bson.D{{Key: "$exists", Value: true}}},
		{Key: jobPath(kind, "due"), Value: bson.D{{Key: "$gt", Value: now}}},
	}}}
}

// ChangeJob implements [clerksync.JobStore], in one round trip. If the job is not as c says, it
// reads the record, because the answer to its write may have been lost. With
// [Options].EraseOnDelete, the end of a delete job takes one more: it reads the record before it
// erases.
func (s *Store) ChangeJob(ctx context.Context, c clerksync.JobChange) (bool, error) {
	const op = "change job"
	ctx, err := begin(ctx, op)
	switch {
	case err != nil:
		return false, err
	case s.readOnly:
		return false, errReadOnly
	case c.ClerkID == "":
		return false, errors.New("mongostore: change job: no clerkID")
	}
	c.From, c.To = c.From.Canonical(), c.To.Canonical()
	changed := false
	err = s.retry(ctx, op, func() (err error) {
		changed, err = s.tryChangeJob(ctx, c)
		return err
	})
	return changed, err
}

func (s *Store) tryChangeJob(ctx context.Context, c clerksync.JobChange) (bool, error) {
	if s.erase && c.Kind == clerksync.JobDelete && c.Ends() {
		return s.endErasing(ctx, c)
	}
	res, err := s.coll.UpdateOne(ctx, jobGuard(c), jobUpdate(c))
	if err != nil {
		return false, err
	}
	if res.MatchedCount > 0 {
		return true, nil
	}
	r, err := s.read(ctx, c.ClerkID)
	return err == nil && r != nil && r.jobs().Of(c.Kind) == c.To && c.To != (clerksync.JobState{}), err
}

// jobGuard matches the record while the job is as a change says.
func jobGuard(c clerksync.JobChange) bson.D {
	filter := bson.D{{Key: "clerkId", Value: c.ClerkID}}
	for _, e := range jobElements(c.From) {
		condition := bson.E{Key: jobPath(c.Kind, e.Key), Value: bson.D{{Key: "$eq", Value: e.Value}}}
		if e.Key == "due" && e.Value != nil {
			condition = unindexed(condition.Key, e.Value)
		}
		filter = append(filter, condition)
	}
	switch {
	case c.EndsAttempt():
	case c.DeletedAt.IsZero():
		filter = append(filter, undeleted)
	default:
		filter = append(filter, bson.E{Key: "deletedAt", Value: bson.D{{Key: "$eq", Value: c.DeletedAt}}})
	}
	return filter
}

// unindexed matches the value, as $eq does. No server uses an index on the path for it. DocumentDB
// on PostgreSQL would read all entries of the index on due that have the value, for one record.
func unindexed(path string, value any) bson.E {
	return bson.E{Key: "$nor", Value: bson.A{bson.D{{Key: path, Value: bson.D{{Key: "$ne", Value: value}}}}}}
}

// jobUpdate returns the update of a change, which also removes other fields.
func jobUpdate(c clerksync.JobChange, unset ...bson.E) (update bson.D) {
	path := jobPath(c.Kind, "")
	if c.To == (clerksync.JobState{}) {
		unset = append(unset, bson.E{Key: path, Value: ""})
	} else {
		update = bson.D{{Key: "$set", Value: bson.D{{Key: path, Value: encodeJob(c.To)}}}}
	}
	if len(unset) > 0 { // before MongoDB 5.0 an operator must not be empty
		update = append(update, bson.E{Key: "$unset", Value: bson.D(unset)})
	}
	return update
}

// endErasing ends a delete job, and erases the record in the same write if it is deleted.
func (s *Store) endErasing(ctx context.Context, c clerksync.JobChange) (bool, error) {
	r, err := s.read(ctx, c.ClerkID)
	if err != nil || r == nil {
		return false, err
	}
	switch job := r.jobs().Of(c.Kind); {
	case job == c.To && c.To != (clerksync.JobState{}): // the answer was lost
		return true, nil
	case job != c.From, !c.EndsAttempt() && r.deletedAt().UnixMilli() != c.DeletedAt.UnixMilli():
		return false, nil
	}
	filter, update := jobGuard(c), jobUpdate(c)
	if !r.deletedAt().IsZero() {
		erased := erasure(r)
		guarded := func(e bson.E) bool { return slices.ContainsFunc(filter, func(g bson.E) bool { return g.Key == e.Key }) }
		filter = append(filter, slices.DeleteFunc(r.asRead(erased), guarded)...)
		update = r.replaceBarriers(jobUpdate(c, unsetting(erased)...))
		update = set(update, bson.E{Key: "updatedAt", Value: s.nowMillis()})
	}
	_, err = s.write(ctx, filter, update, false)
	return err == nil, err
}

// set adds a field to those that an update sets.
func set(update bson.D, field bson.E) bson.D {
	for i, operator := range update {
		if operator.Key == "$set" {
			update[i].Value = append(operator.Value.(bson.D), field)
			return update
		}
	}
	return append(update, bson.E{Key: "$set", Value: bson.D{field}})
}

// DueJobs implements [clerksync.JobStore], in one round trip.
func (s *Store) DueJobs(ctx context.Context, kind clerksync.JobKind, by time.Time, limit int) ([]clerksync.JobEntry, error) {
	const op = "due jobs"
	ctx, err := begin(ctx, op)
	if err != nil || limit <= 0 {
		return nil, err
	}
	// Amazon DocumentDB uses a sparse index only if the query has $exists:
	// https://docs.aws.amazon.com/documentdb/latest/devguide/index-property-sparse.html
	isDue := bson.D{{Key: "$exists", Value: true}, {Key: "$lte", Value: by}}
	filter := bson.D{{Key: jobPath(kind, "due"), Value: isDue}}
	if kind == clerksync.JobDelete {
		filter = append(filter, notRunning(clerksync.JobCreate, by))
	}
	records, err := s.find(ctx, op, limit, filter, jobFields)
	if err != nil {
		return nil, err
	}
	due := make([]clerksync.JobEntry, 0, len(records))
	for _, r := range records {
		state := r.jobs().Of(kind)
		if id := r.clerkID(); id != "" && !state.Due.IsZero() {
			due = append(due, clerksync.JobEntry{ClerkID: id, Kind: kind, State: state})
		}
	}
	return due, nil
}

// Jobs implements [clerksync.JobStore], in one pass over the collection.
func (s *Store) Jobs(ctx context.Context) iter.Seq2[clerksync.JobEntry, error] {
	return func(yield func(clerksync.JobEntry, error) bool) {
		records := pass(ctx, s, "jobs", jobFields, func(r *record) ([]clerksync.JobEntry, bool) {
			entries := r.unfinishedJobs()
			return entries, len(entries) > 0
		})
		for entries, err := range records {
			if err != nil {
				yield(clerksync.JobEntry{}, err)
				return
			}
			for _, entry := range entries {
				if !yield(entry, nil) {
					return
				}
			}
		}
	}
}

// unfinishedJobs returns those of the record's jobs that are owed or have failed.
func (r *record) unfinishedJobs() (entries []clerksync.JobEntry) {
	jobs, id := r.jobs(), r.clerkID()
	if jobs == nil || id == "" {
		return nil
	}
	for _, kind := range []clerksync.JobKind{clerksync.JobCreate, clerksync.JobDelete} {
		if state := jobs.Of(kind); !state.Due.IsZero() || !state.FailedAt.IsZero() {
			entries = append(entries, clerksync.JobEntry{ClerkID: id, Kind: kind, State: state})
		}
	}
	return entries
}

// PrepareJobs implements [clerksync.JobStore]. It creates a sparse index on the job's due, unless
// there is one. It takes one round trip, or two if it creates the index. If the user may not
// create it, the error has the line that does.
func (s *Store) PrepareJobs(ctx context.Context, kind clerksync.JobKind) error {
	const op = "prepare jobs"
	ctx, err := begin(ctx, op)
	if err != nil {
		return err
	}
	if s.readOnly {
		return errReadOnly
	}
	path := s.codec.path(jobPath(kind, "due"))
	keys, _ := bson.Marshal(bson.D{{Key: path, Value: 1}})
	wanted := index{name: path + "_1", keys: keys, sparse: true}
	for attempt := 1; ; attempt++ {
		indexes, err := s.indexes(ctx)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(indexes, func(ix index) bool { return ix.serves(path) }) {
			return nil
		}
		_, err = s.coll.Indexes().CreateOne(ctx, mongo.IndexModel{
			Keys: keys, Options: options.Index().SetName(wanted.name).SetSparse(true),
		})
		if err == nil {
			return nil
		}
		if attempt == indexAttempts || !answered(err) || hasCode(err, codeUnauthorized) || !sleep(ctx, 10*backoff(attempt)) {
			return wrapDriverErr(ctx, fmt.Sprintf("%s: no index serves lookups of due jobs; have it created: %s", op, s.createLine(wanted)), err)
		}
	}
}
