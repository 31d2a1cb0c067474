package mongostore

import (
	"errors"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver"
)

// advice is what an error code of the server means to the app.
type advice struct {
	text string // what to do, as a part of a sentence
	// rejects says that the server will never take this record, and may take others.
	rejects bool
}

// advices are by error code. Codes mean the same on all servers unless the text says
// otherwise; the servers' messages are never read. Sources:
//   - MongoDB: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml;
//     codes over 10000 are of single checks in the server's code.
//   - Azure Cosmos DB: https://learn.microsoft.com/azure/cosmos-db/mongodb/error-codes-solutions
//   - Amazon DocumentDB: https://docs.aws.amazon.com/documentdb/latest/devguide/functional-differences.html
var advices = map[int]advice{
	// Servers that do not support retryable writes. 20 is also MongoDB's answer for another
	// storage engine, and for the database "local". The driver hides that one, see refusedByDriver.
	301: {text: retryWrites}, // Amazon DocumentDB
	2:   {text: perhapsRetryWrites},
	9:   {text: perhapsRetryWrites},
	20:  {text: perhapsRetryWrites},

	// Access.
	codeUnauthorized: {text: "the database user needs the privileges find, insert, update and listIndexes on the collection, and createIndex for the first start"},
	18:               {text: "check the user name, the password and authSource in the connection string"},
	8000:             {text: "Atlas refuses it: check the user name and the password, and whether the cluster has space left"},

	// The server or the client's settings.
	26:    {text: "the collection does not exist, and the server does not create it: create it first"},
	59:    {text: unsupported},
	115:   {text: unsupported},
	238:   {text: unsupported},
	61:    {text: "the collection is sharded on another field: shard it on clerkId"},
	72:    {text: unsupported},
	73:    {text: "check the names of the database and of the collection"},
	79:    {text: writeConcern},
	100:   {text: writeConcern},
	64:    {text: "the write was made, but too few members confirmed it in time; it counts as failed, and doing it again is safe"},
	166:   {text: "the collection is a view: use the collection that it shows"},
	322:   {text: stableAPI},
	323:   {text: stableAPI},
	371:   {text: "the cluster blocks writes, as during a migration"},
	14031: {text: "the server's disk is full"},

	// Indexes.
	67: {text: "the server does not create this index. On MongoDB, a unique index of a sharded collection must begin with the " +
		"shard key: shard the collection on clerkId, ranged. Azure Cosmos DB creates a unique one only in an empty collection: " +
		"make a new collection, call Open on it, and copy the records into it"},
	codeIndexOptionsConflict:  {text: otherIndex},
	codeIndexKeySpecsConflict: {text: otherIndex},

	// Transient.
	codeThrottled: {text: "the server limits the rate: raise its throughput (Azure Cosmos DB: request units)"},
	91:            {text: newPrimary},
	189:           {text: newPrimary},
	10107:         {text: newPrimary},
	11600:         {text: newPrimary},
	11602:         {text: newPrimary},
	13435:         {text: newPrimary},
	13436:         {text: newPrimary},

	// Records that the server never takes.
	121:   {text: "the collection's validator does not accept the record: change the validator, or what Map adds", rejects: true},
	10334: {text: tooLarge, rejects: true},
	17419: {text: tooLarge, rejects: true},
	17420: {text: tooLarge, rejects: true},
	// DocumentDB on PostgreSQL, for an update and for an insert (M003A and M003B as it writes them).
	285999133: {text: tooLarge, rejects: true},
	302776349: {text: tooLarge, rejects: true},
	17280:     {text: "a value is too long for one of the app's indexes", rejects: true},
	171:       {text: "one of the app's indexes is on two fields that are both arrays in the record", rejects: true},
	16755:     {text: geoIndex, rejects: true},
	16804:     {text: geoIndex, rejects: true},
	17261:     {text: languageOverride, rejects: true},
	17262:     {text: languageOverride, rejects: true},
}

const (
	retryWrites        = "the server does not support retryable writes: add retryWrites=false to the connection string"
	perhapsRetryWrites = "if the server does not support retryable writes, as Azure Cosmos DB may not, add retryWrites=false to the connection string"
	unsupported        = "the server does not support this command or option; mongostore is written for MongoDB 4.4 and later"
	writeConcern       = `the deployment cannot satisfy the write concern: use w: 1 or "majority"`
	stableAPI          = "the client's ServerAPI options forbid it: use version 1, and see mongostore's README on strict"
	otherIndex         = "an index with the same name or keys and other options exists: compare getIndexes()"
	newPrimary         = "the replica set has no primary at the moment"
	tooLarge           = "the record is larger than the server takes, 16 MB on MongoDB: have Map add less"
	geoIndex           = "one of the app's indexes is geospatial, and the record's value is not a valid location"
	languageOverride   = "the app's text index takes one of the record's fields for a language: give the index another language_override"
)

// adviceFor returns what the codes of err, or the driver's own check, mean to the app. No text is
// repeated.
func adviceFor(err error) (texts []string, rejects bool) {
	for _, code := range codes(err) {
		if a, ok := advices[code]; ok && !slices.Contains(texts, a.text) {
			texts, rejects = append(texts, a.text), rejects || a.rejects
		}
	}
	switch {
	case errors.Is(err, driver.ErrUnsupportedStorageEngine): // it replaces the server's error 20
		texts = append(texts, retryWrites)
	case errors.Is(err, driver.ErrDocumentTooLarge), errors.Is(err, errTooLarge):
		texts, rejects = []string{tooLarge}, true
	case errors.As(err, new(mongo.MarshalError)):
		texts, rejects = append(texts, "the record cannot be encoded"), true
	}
	return texts, rejects
}

// errTooLarge is joined to the server's error if the record is in fact too large. MongoDB gives that
// error for many reasons.
var errTooLarge = errors.New("the record is too large")

// Describe describes an error of the MongoDB driver for a log: its codes, and what to do
// about them as far as that is known. It shows neither the server's text nor the driver's,
// which may quote a record.
func Describe(err error) string {
	text := describe(err)
	if advice, _ := adviceFor(err); len(advice) > 0 {
		text += ": " + strings.Join(advice, "; ")
	}
	return text
}
