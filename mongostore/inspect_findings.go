package mongostore

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// The kinds of a [Finding]. Scripts rely on them.
const (
	findClerkID   = "clerk_id"     // Clerk ids stand in another field
	findReference = "reference"    // values that look like Clerk ids, of other users
	findSharedID  = "shared_id"    // several records have the same Clerk id
	findNoneID    = "none_id"      // records have a null or empty clerkId
	findOddID     = "odd_id"       // a clerkId that is none of Clerk's
	findUnlinked  = "unlinked"     // records without a Clerk id
	findAmbiguous = "shared_email" // unlinked records share an address
	findOddEmail  = "email_case"   // addresses that are not in lower case
	findNoEmail   = "no_email"     // unlinked records without an address
	findType      = "type"         // values of another type than clerksync's
	findUnread    = "unread"       // likewise, in a field that clerksync only reads
	findReplaced  = "replaced"     // values that a sync replaces or removes
	findExtra     = "extra"        // names that Map sets are the app's
	findDeleted   = "deleted"      // records of the app's that look deleted by Clerk
	findSynced    = "synced"       // records of the app's that look written by clerksync
	findInactive  = "inactive"     // records that clerksync takes for suspended
	findName      = "other_name"   // fields that may be clerksync's under another name
	findIndex     = "index"        // an index, or a collation, in the way
	findWrites    = "writes"       // the server refuses writes, or retryable ones
)

// judgement turns a survey into findings. It is pure.
type judgement struct {
	*survey
	decided Fields // what the app has set
	adopt   *Adopt
	accept  []string    // see InspectOptions
	users   *userSurvey // nil if Clerk was not asked
	coll    string      // as mongosh names the collection

	fields     Fields // what the findings propose together
	snakeNames bool   // new names are in snake case
	out        []Finding
}

// judge returns what was found, what needs a decision first.
func (j *judgement) judge() []Finding {
	j.fields, j.snakeNames = make(Fields), j.inSnakeCase()
	j.judgeClerkIDs()
	j.judgeUnlinked()
	j.judgeEmails()
	j.judgeStates()
	j.judgeTypes()
	j.judgeReplaced()
	j.judgeExtra()
	j.judgeNames()
	slices.SortStableFunc(j.out, func(a, b Finding) int {
		switch {
		case a.Decision == b.Decision:
			return 0
		case a.Decision:
			return -1
		}
		return 1
	})
	return j.out
}

func (j *judgement) find(kind string, decision bool, field string, s tally, text string, args ...any) *Finding {
	if s.n == j.unsynced {
		s.ids = nil // all records are no example
	}
	decision = decision && !j.isAccepted(kind, field)
	j.out = append(j.out, Finding{
		Kind: kind, Decision: decision, Field: field, Records: s.n, IDs: s.ids, Text: fmt.Sprintf(text, args...),
	})
	return &j.out[len(j.out)-1]
}

// isAccepted reports whether the app has accepted what a finding says. It cannot accept what
// Open refuses.
func (j *judgement) isAccepted(kind, field string) bool {
	if kind == findIndex || kind == findWrites {
		return false
	}
	return slices.Contains(j.accept, kind) || field != "" && slices.Contains(j.accept, field)
}

// propose adds the fields to those of the finding and, if that needs a decision, to what the
// decisions propose together. The first proposal for a field counts.
func (j *judgement) propose(f *Finding, fields Fields) {
	f.Fields = fields
	if !f.Decision {
		return
	}
	for field, path := range fields {
		if _, taken := j.fields[field]; !taken {
			j.fields[field] = path
		}
	}
}

func (j *judgement) judgeClerkIDs() {
	chosen := false
	for _, path := range mostFirst(j.idFields, func(f *idField) int { return f.n }) {
		seen := j.idFields[path]
		switch {
		case seen.values.shared.n > 0:
			j.find(findReference, false, path, seen.tally,
				"values that look like Clerk ids, some of them twice: they are not the records' own")
		case chosen:
			j.find(findReference, false, path, seen.tally, "values that look like Clerk ids here too")
		default:
			chosen = true
			f := j.find(findClerkID, true, path, seen.tally,
				"values that look like Clerk ids, in records without a Clerk id in %s", cmp.Or(j.at("clerkId"), "clerkId"))
			j.propose(f, Fields{"clerkId": path})
			if path == "_id" && j.adopt != nil {
				f.Text += "; with this line, Adopt must go: an _id cannot change"
			}
		}
	}
	if s := j.clerkIDs.shared; s.n > 0 {
		j.find(findSharedID, true, j.at("clerkId"), s, "records share a Clerk id with another one: keep the one that the app refers to, "+
			"and remove the field from the others")
	}
	for _, none := range []struct {
		tally
		value any
		text  string
	}{{j.nullIDs, nil, "null"}, {j.emptyIDs, "", `""`}} {
		if none.n > 1 {
			f := j.find(findNoneID, true, j.at("clerkId"), none.tally, "the Clerk id is %s, which a unique index takes for a value", none.text)
			f.Fix = "in mongosh:" + lines(fmt.Sprintf("%s.updateMany({%[2]s: %[3]s}, {$unset: {%[2]s: 1}})",
				j.coll, shellText(j.at("clerkId")), none.text))
		}
	}
	if j.ownIDs.n > 0 {
		j.find(findOddID, false, j.at("clerkId"), j.ownIDs, "the Clerk id is none that Clerk gives to users")
	}
}

func (j *judgement) judgeUnlinked() {
	rest := j.unlinked - j.deletedByApp.n
	for _, f := range j.out {
		if f.Kind == findClerkID {
			rest -= f.Records
		}
	}
	if rest <= 0 {
		return
	}
	s := tally{n: rest}
	if j.adopt == nil {
		j.find(findUnlinked, true, "", s, "no Clerk id, and Options.Adopt is not set: no Clerk user gets these records")
		return
	}
	j.find(findUnlinked, false, "", s, "no Clerk id: Clerk users adopt these records as Options.Adopt says")
}

func (j *judgement) judgeEmails() {
	byEmail := j.adopt == nil || j.adopt.ByEmail
	field := j.at("email")
	if s := j.emails.shared; s.n > 0 {
		j.find(findAmbiguous, byEmail, field, s, "records without a Clerk id share an e-mail address with another one: "+
			"nobody adopts these by e-mail; merge them, or remove the address from all but one")
	}
	if s := j.oddEmail; s.n > 0 {
		f := j.find(findOddEmail, byEmail, field, s, "the e-mail address is not in lower case, or has spaces around it: "+
			"it is compared exactly with Clerk's, which is in lower case")
		f.Fix = "in mongosh, after those that are the same address then are merged:" + lines(fmt.Sprintf(
			`%s.updateMany({%s: {$type: "string"}}, [{$set: {%[2]s: {$toLower: {$trim: {input: %s}}}}}])`,
			j.coll, shellText(field), shellText("$"+field)))
	}
	if s := j.noEmail; s.n > 0 {
		j.find(findNoEmail, false, field, s, "records without a Clerk id have no e-mail address: only ByExternalID finds them")
	}
}

// judgeStates judges dates and flags that mean something to clerksync.
func (j *judgement) judgeStates() {
	if s := j.deletedByApp; s.n > 0 {
		f := j.find(findDeleted, !j.isDecided("deletedAt"), j.at("deletedAt"), s,
			"the app's date here means to clerksync that Clerk deleted the user: nobody adopts these records")
		j.propose(f, j.elsewhere("deletedAt"))
	}
	if s := j.syncedByApp; s.n > 0 {
		f := j.find(findSynced, !j.isDecided("syncedAt"), j.at("syncedAt"), s,
			"the app's date here means to clerksync that Clerk has confirmed the record")
		j.propose(f, j.elsewhere("syncedAt"))
	}
	if s := j.inactive; s.n > 0 {
		j.find(findInactive, false, j.at("isActive"), s, "isActive is false: clerksync bars these users as suspended")
	}
}

func (j *judgement) judgeTypes() {
	for _, path := range mostFirst(j.clashes, func(c *clash) int { return c.n }) {
		c := j.clashes[path]
		var written []string
		for _, field := range c.fields {
			if !slices.Contains(readFields, field) {
				written = append(written, field)
			}
		}
		types := strings.Join(mostFirst(c.types, func(n int) int { return n }), ", ")
		if written == nil {
			j.find(findUnread, false, path, c.tally, "%s, where clerksync reads %s: it takes the field for absent",
				types, wantedType(c.fields))
			continue
		}
		f := j.find(findType, true, path, c.tally, "%s, where clerksync keeps %s: it writes nothing to these records",
			types, wantedType(written))
		if path != "_id" {
			j.propose(f, j.elsewhere(written...))
		}
	}
}

// wantedType says what clerksync wants at the path where it keeps fields.
func wantedType(fields []string) string {
	if len(fields) == 1 {
		return fields[0] + " (" + typeName(storedType(fields[0])) + ")"
	}
	return "a document with " + strings.Join(fields, ", ")
}

// harmless are the fields of which a sync replaces the app's value by one that says the same,
// or by none.
var harmless = []string{"email", "updatedAt", "lastSignInAt", "isActive", "deletedAt", "syncedAt", "clerkUpdatedAt", "clerkCreatedAt"}

func (j *judgement) judgeReplaced() {
	for _, field := range mostFirst(j.ours, func(s *tally) int { return s.n }) {
		mine := field == "role" && j.users != nil && j.users.roleFromClerk
		if slices.Contains(harmless, field) || slices.Contains(readFields, field) && !mine {
			continue
		}
		f := j.find(findReplaced, !j.isDecided(field), j.at(field), *j.ours[field],
			"the first sync replaces the app's value by Clerk's %s, or removes it if Clerk has none", field)
		j.propose(f, j.elsewhere(field))
	}
}

func (j *judgement) judgeExtra() {
	if j.users == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(j.users.extra)) {
		if u := j.names[name]; u != nil && u.n > 0 {
			j.find(findExtra, true, name, tally{n: u.n}, "Map sets this name, and the records have the app's own value there: "+
				"clerksync writes nothing to them; have Map set another name")
		}
	}
}

// judgeNames looks for clerksync's fields under other names. Those in snake case are one
// finding.
func (j *judgement) judgeNames() {
	snake, least := make(Fields), 0
	for _, field := range slices.Concat(writtenFields, readFields) {
		path := j.elsewhereNow(field)
		switch {
		case path == "":
		case path == snakeCase(field):
			snake[field] = path
			least = max(least, j.names[path].n)
		default:
			f := j.find(findName, field == "isActive", path, tally{n: j.names[path].n}, "may be clerksync's %s under another name", field)
			j.propose(f, Fields{field: path})
			if field == "isActive" {
				f.Text += letsIn
			}
		}
	}
	if len(snake) == 0 {
		return
	}
	_, active := snake["isActive"]
	f := j.find(findName, active, "", tally{n: least}, "names of clerksync's in snake case: mongostore.SnakeCase() has these and all others")
	j.propose(f, snake)
	if active {
		f.Text += letsIn
	}
}

const letsIn = "; as it is, clerksync lets in users whom the app suspended"

// elsewhereNow returns the path at which the records seem to have one of clerksync's fields
// that the app has not mapped, empty for none.
func (j *judgement) elsewhereNow(field string) string {
	if path := j.at(field); path == "" || j.isDecided(field) || j.inUse(path) {
		return ""
	}
	for _, path := range mostFirst(j.names, func(u *usage) int { return u.n }) {
		if sameName(field, path) && j.names[path].only(storedType(field)) && !j.taken(path) {
			return path
		}
	}
	return ""
}

// inSnakeCase reports whether the app names its fields so.
func (j *judgement) inSnakeCase() bool {
	if j.snake() {
		return true
	}
	for _, field := range slices.Concat(writtenFields, readFields) {
		if name := snakeCase(field); name != field && j.inUse(name) {
			return true
		}
	}
	return false
}

// snake reports whether the app's Fields include those of SnakeCase.
func (j *judgement) snake() bool {
	return len(j.decided) > 1 && j.decided["clerkId"] == snakeCase("clerkId") && j.decided["syncedAt"] == snakeCase("syncedAt")
}

func (j *judgement) inUse(path string) bool {
	u := j.names[path]
	return u != nil && u.n > 0
}

// only reports whether a path holds values of one type only.
func (u *usage) only(t bson.Type) bool { return u.n > 0 && u.types[t] == u.n }

// otherNames are what apps call some fields, beside other spellings.
var otherNames = map[string][]string{
	"email":               {"mail", "emailaddress"},
	"emailVerified":       {"isemailverified", "verified"},
	"profile.imageUrl":    {"imageurl", "avatar", "avatarurl", "picture", "photo", "photourl", "image"},
	"profile.phoneNumber": {"phone", "mobile"},
	"profile.fullName":    {"displayname"},
	"isActive":            {"active", "enabled", "isenabled"},
	"banned":              {"isbanned", "blocked", "isblocked"},
	"lastSignInAt":        {"lastlogin", "lastloginat", "lastsignin"},
	"createdAt":           {"created", "registeredat", "dateadded"},
	"updatedAt":           {"updated", "modifiedat"},
	"profile.birthday":    {"birthdate", "dateofbirth", "dob"},
	"location.country":    {},
}

// sameName reports whether a path may be the app's name for one of clerksync's fields: the
// same words in another spelling, or another usual name.
func sameName(field, path string) bool {
	name := flatName(path)
	leaf := field[strings.LastIndexByte(field, '.')+1:]
	return name == flatName(field) || name == flatName(leaf) || slices.Contains(otherNames[field], name)
}

// flatName is a path without what spellings differ in.
func flatName(path string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", ".", "").Replace(path))
}

// isDecided reports whether the app has said where the field is. An entry that names the
// field's own place says that Clerk's value may replace the app's. Those of SnakeCase say
// nothing about single fields.
func (j *judgement) isDecided(field string) bool {
	path, ok := j.decided[field]
	return ok && !(j.snake() && path == snakeCase(field))
}

// elsewhere proposes free places for fields whose own ones the app needs.
func (j *judgement) elsewhere(fields ...string) Fields {
	moved := make(Fields, len(fields))
	for _, field := range fields {
		moved[field] = j.free(field)
	}
	return moved
}

// free returns a place for a field that no record and no other field uses: its own with another
// name, of the parent if that is what is in the way.
func (j *judgement) free(field string) string {
	path := j.at(field)
	renamed, rest := path, ""
	for i := range len(path) {
		if path[i] == '.' && j.clashes[path[:i]] != nil {
			renamed, rest = path[:i], path[i:]
			break
		}
	}
	dot := strings.LastIndexByte(renamed, '.') + 1
	for n := 1; ; n++ {
		name := renamed[:dot] + clerkName(renamed[dot:], n, j.snakeNames)
		if j.names[name] == nil && !j.taken(name) {
			return name + rest
		}
	}
}

// taken reports whether a path is the place of one of clerksync's fields.
func (j *judgement) taken(path string) bool {
	for _, field := range slices.Concat(writtenFields, readFields, []string{"clerkId"}) {
		if j.at(field) == path {
			return true
		}
	}
	return false
}

// clerkName is a name for Clerk's value, the nth to try: clerkName for name, clerk_name in
// snake case.
func clerkName(name string, n int, snake bool) string {
	switch rest, ok := strings.CutPrefix(name, "clerk"); {
	case ok && rest != "" && snake:
		name += "_sync"
	case ok && rest != "":
		name += "Sync"
	case snake:
		name = "clerk_" + name
	default:
		name = "clerk" + strings.ToUpper(name[:1]) + name[1:]
	}
	if n > 1 {
		name += fmt.Sprint(n)
	}
	return name
}
