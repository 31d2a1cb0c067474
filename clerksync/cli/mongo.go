package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/internal/setting"
	"github.com/clerksync/clerksync-go/mongostore"
)

// database is what the commands need of the collection.
type database interface {
	store() clerksync.Store
	// empty reports whether the collection has no records.
	empty(ctx context.Context) (bool, error)
	// mapped returns the clerkId of a record to which the app's own Map has added fields, or "".
	mapped(ctx context.Context) (clerkID string, err error)
	// indexes lists the indexes of the collection.
	indexes(ctx context.Context) ([]index, error)
	// inspect looks at the collection. It does not need store.
	inspect(ctx context.Context, look mongostore.InspectOptions) (mongostore.Inspection, error)
	// close closes the connections, even if ctx is done.
	close(ctx context.Context) error
}

// A primary that accepts connections and does not answer would hang a nightly run for ever, because
// the driver has no timeout of its own.
const (
	// commandTimeout bounds one command, which may search the whole collection.
	commandTimeout = 5 * time.Minute
	// openTimeout bounds opening the Store, which may build an index.
	openTimeout = time.Hour
)

// mongoDatabase is a database on MongoDB.
type mongoDatabase struct {
	client  *mongo.Client
	coll    *mongo.Collection
	options *mongostore.Options // may be nil
	opened  *mongostore.Store   // nil if the settings say looksOnly
	timeout time.Duration       // commandTimeout
}

// openMongo connects and opens the Store. Its errors do not contain secrets.
func openMongo(ctx context.Context, s settings, o *mongostore.Options) (_ database, err error) {
	client, err := mongo.Connect(options.Client().ApplyURI(s.mongoURI))
	if err != nil {
		return nil, usagef("%s cannot be used: %s", mongoURIVar, withoutSecrets(err, s.mongoURI))
	}
	d := &mongoDatabase{
		client: client, coll: client.Database(s.database).Collection(s.collection), options: o, timeout: commandTimeout,
	}
	if err := d.open(ctx, s); err != nil {
		return nil, errors.Join(err, d.close(ctx))
	}
	return d, nil
}

func (d *mongoDatabase) open(ctx context.Context, s settings) (err error) {
	// The timeout is for the connection only: building an index may take longer.
	pingCtx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := d.client.Ping(pingCtx, readpref.Primary()); err != nil {
		return fmt.Errorf("MongoDB cannot be reached with %s (-timeout is %v): %s", mongoURIVar, s.timeout, withoutSecrets(err, s.mongoURI))
	}
	if s.looksOnly {
		return d.checkExists(ctx, s)
	}
	if s.writesNothing {
		if err := d.checkIndex(ctx, s); err != nil {
			return err
		}
	}
	openCtx, cancelOpen := context.WithTimeout(ctx, openTimeout)
	defer cancelOpen()
	d.opened, err = mongostore.Open(openCtx, d.coll, s.storeOptions(d.options))
	return err
}

// checkExists returns an error if the collection does not exist, most likely because -db is
// wrong. A user who may not list the indexes may still read, so that is not an error.
func (d *mongoDatabase) checkExists(ctx context.Context, s settings) error {
	specs, err := d.indexSpecs(ctx)
	if isUnauthorized(err) {
		return nil
	}
	indexes, err := readIndexes(specs, err)
	if err == nil && len(indexes) == 0 { // every collection has the one on _id
		err = usagef("the collection %s does not exist; is -db right?", s.name())
	}
	return err
}

func (d *mongoDatabase) inspect(ctx context.Context, look mongostore.InspectOptions) (mongostore.Inspection, error) {
	return mongostore.Inspect(ctx, d.coll, d.options, look)
}

func (d *mongoDatabase) path(field string) string { return pathIn(d.options, field) }

// pathIn returns the path in the collection of one of clerksync's fields that Fields cannot map
// to nothing. o may be nil.
func pathIn(o *mongostore.Options, field string) string {
	if o != nil {
		if path, mapped := o.Fields[field]; mapped {
			return path
		}
	}
	return field
}

// storeOptions returns o as the command needs it: one that writes nothing works as a database user
// who may only read.
func (s settings) storeOptions(o *mongostore.Options) *mongostore.Options {
	if !s.writesNothing {
		return o
	}
	var reading mongostore.Options
	if o != nil {
		reading = *o
	}
	reading.ReadOnly = true
	return &reading
}

// checkIndex returns an error if Open would have to make the index on clerkId. A user who may not
// list the indexes may still read.
func (d *mongoDatabase) checkIndex(ctx context.Context, s settings) error {
	specs, err := d.indexSpecs(ctx)
	if isUnauthorized(err) {
		return nil
	}
	indexes, err := readIndexes(specs, err)
	if err != nil {
		return err
	}
	if len(indexes) == 0 { // every collection has the one on _id
		return usagef("the collection %s does not exist; is -db right? If it is, run `%s indexes` first, which creates it",
			s.name(), s.program)
	}
	clerkID := d.path("clerkId")
	if slices.ContainsFunc(indexes, func(ix index) bool { return ix.onClerkID(clerkID) }) {
		return nil
	}
	empty, err := d.empty(ctx)
	if err != nil {
		return err
	}
	if empty {
		return usagef("the collection %s is empty and has no unique index on %s; is -db right? If it is, "+
			"run `%s indexes` first, which creates the index", s.name(), clerkID, s.program)
	}
	return fmt.Errorf("the collection %s has no unique index on %s, and this command writes nothing: "+
		"run `%s indexes` first, which creates the index", s.name(), clerkID, s.program)
}

func (d *mongoDatabase) store() clerksync.Store { return d.opened }

func (d *mongoDatabase) empty(ctx context.Context) (bool, error) {
	onlyID := options.FindOne().SetProjection(bson.D{{Key: "_id", Value: 1}})
	bounded, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	err := d.coll.FindOne(bounded, bson.D{}, onlyID).Err()
	switch {
	case errors.Is(err, mongo.ErrNoDocuments):
		return true, nil
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case err != nil:
		return false, fmt.Errorf("looking for records: %s", mongostore.Describe(err))
	}
	return false, nil
}

func (d *mongoDatabase) mapped(ctx context.Context) (string, error) {
	filter := bson.D{{Key: d.path("extraFields") + ".0", Value: bson.D{{Key: "$exists", Value: true}}}}
	clerkID := d.path("clerkId")
	onlyClerkID := options.FindOne().SetProjection(bson.D{{Key: clerkID, Value: 1}})
	bounded, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	raw, err := d.coll.FindOne(bounded, filter, onlyClerkID).Raw()
	switch {
	case errors.Is(err, mongo.ErrNoDocuments):
		return "", nil
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", fmt.Errorf("looking for records that a Map wrote: %s", mongostore.Describe(err))
	}
	id, ok := raw.Lookup(strings.Split(clerkID, ".")...).StringValueOK()
	if !ok {
		id = "one without a " + clerkID
	}
	return id, nil
}

func (d *mongoDatabase) indexes(ctx context.Context) ([]index, error) {
	return readIndexes(d.indexSpecs(ctx))
}

// indexSpecs returns the documents of listIndexes. The error is the driver's.
func (d *mongoDatabase) indexSpecs(ctx context.Context) (specs []bson.Raw, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	cursor, err := d.coll.Indexes().List(ctx)
	if err != nil {
		return nil, err
	}
	err = cursor.All(ctx, &specs)
	return specs, err
}

func readIndexes(specs []bson.Raw, err error) ([]index, error) {
	if err != nil {
		return nil, fmt.Errorf("listing the indexes: %s", mongostore.Describe(err))
	}
	indexes := make([]index, len(specs))
	for i, spec := range specs {
		indexes[i] = indexOf(spec)
	}
	return indexes, nil
}

// isUnauthorized reports whether the server says that the database user may not do it.
func isUnauthorized(err error) bool {
	server := mongo.ServerError(nil)
	return errors.As(err, &server) && server.HasErrorCode(13)
}

func (d *mongoDatabase) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := d.client.Disconnect(ctx); err != nil {
		return fmt.Errorf("closing the connections to MongoDB: %s", mongostore.Describe(err))
	}
	return nil
}

// closeDatabase is for defer. It keeps an earlier error.
func closeDatabase(ctx context.Context, db database, err *error) {
	if closing := db.close(ctx); *err == nil {
		*err = closing
	}
}

// checkMongoURI refuses an ambiguous connection string. The driver's own errors would quote parts
// of a password that is not percent-encoded.
func checkMongoURI(uri string) error {
	if uri == "" {
		return nil // reported as missing
	}
	if is := setting.Pasted(uri); is != "" {
		return usagef("%s %s; it looks like mongodb://… or mongodb+srv://…", mongoURIVar, is)
	}
	rest, ok := cutScheme(uri)
	if !ok {
		return usagef("%s does not begin with mongodb:// or mongodb+srv://", mongoURIVar)
	}
	userinfo, hosts, found := strings.Cut(rest, "@")
	if !found {
		return nil
	}
	_, err := url.PathUnescape(userinfo)
	if err != nil || strings.Contains(hosts, "@") || strings.ContainsAny(userinfo, "/?#[]") || strings.Count(userinfo, ":") > 1 {
		return usagef("%s has a character that must be percent-encoded, most likely in the user name or the password: "+
			"%%40 for @, %%2F for /, %%3A for : and %%25 for %%", mongoURIVar)
	}
	return nil
}

// databaseOf returns the database that a connection string names, or "".
func databaseOf(uri string) string {
	rest, ok := cutScheme(uri)
	if !ok {
		return ""
	}
	rest, _, _ = strings.Cut(rest, "?")
	if _, hosts, found := strings.Cut(rest, "@"); found {
		rest = hosts
	}
	_, name, _ := strings.Cut(rest, "/")
	if unescaped, err := url.PathUnescape(name); err == nil {
		name = unescaped
	}
	return name
}

// withoutSecrets returns an error's text without the secrets of a connection string, in every form
// in which an error may quote them.
func withoutSecrets(err error, uri string) string {
	text := err.Error()
	for _, secret := range secretsOf(uri) {
		text = strings.ReplaceAll(text, secret, "…")
	}
	return text
}

// secretsOf returns the secret parts of a connection string in all their forms, the longest first.
func secretsOf(uri string) []string {
	var secrets []string
	rest, _ := cutScheme(uri)
	beforeQuery, query, found := strings.Cut(rest, "?")
	if !found {
		query = rest // the ? may have been forgotten
	}
	if userinfo, _, found := strings.Cut(beforeQuery, "@"); found {
		_, password, _ := strings.Cut(userinfo, ":")
		secrets = append(secrets, formsOf(password)...)
	}
	for parameter := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		name, value, _ := strings.Cut(parameter, "=")
		switch name = strings.ToLower(name); {
		case strings.Contains(name, "password"):
			secrets = append(secrets, formsOf(value)...)
		case name == "authmechanismproperties": // AWS_SESSION_TOKEN:…
			for property := range strings.SplitSeq(value, ",") {
				name, value, _ := strings.Cut(property, ":")
				if strings.Contains(strings.ToLower(name), "token") {
					secrets = append(secrets, formsOf(value)...)
				}
			}
		}
	}
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return s == "" })
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return slices.Compact(secrets)
}

// formsOf returns value as it is and unescaped, and each of them also as the driver quotes it.
func formsOf(value string) []string {
	forms := []string{value}
	if unescaped, err := url.QueryUnescape(value); err == nil {
		forms = append(forms, unescaped)
	}
	if unescaped, err := url.PathUnescape(value); err == nil {
		forms = append(forms, unescaped)
	}
	for _, form := range slices.Clone(forms) {
		quoted := strconv.Quote(form)
		forms = append(forms, quoted[1:len(quoted)-1])
	}
	return forms
}

// withoutScheme returns what follows any scheme. Without a scheme it returns all of uri.
func withoutScheme(uri string) string {
	if _, rest, ok := strings.Cut(uri, "://"); ok {
		return rest
	}
	return uri
}

// cutScheme returns what follows the scheme, and whether the scheme is one of MongoDB's.
func cutScheme(uri string) (rest string, ok bool) {
	scheme, rest, ok := strings.Cut(uri, "://")
	return rest, ok && (scheme == "mongodb" || scheme == "mongodb+srv")
}
