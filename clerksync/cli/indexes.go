package cli

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// runIndexes opens the Store, which makes the index on clerkId if needed and checks the others, and
// lists them.
func runIndexes(ctx context.Context, c *call, args []string) (err error) {
	var f flag.FlagSet
	s := &settings{}
	if done, err := c.parseNoArguments(&f, s, args); done || err != nil {
		return err
	}
	if err := s.resolve(c.env, false); err != nil {
		return err
	}
	_, options := s.configs(c.env)
	db, err := c.env.open(ctx, *s, options)
	if err != nil {
		return err
	}
	defer closeDatabase(ctx, db, &err)
	indexes, err := db.indexes(ctx)
	if err != nil {
		return err
	}
	assignRoles(indexes, pathIn(options, "clerkId"))
	if s.json {
		return printJSON(c.stdout, indexes)
	}
	rows := [][]string{{"index", "keys", "kind", ""}}
	for _, ix := range indexes {
		rows = append(rows, []string{ix.Name, ix.keys(), ix.kind(), ix.Role})
	}
	return print(c.stdout, fmt.Sprintf("Indexes of %s\n\n%s", s.name(), layOut(rows)))
}

// index is an index of the collection.
type index struct {
	Name      string     `json:"name"`
	Keys      []indexKey `json:"keys"`
	Unique    bool       `json:"unique"`
	Sparse    bool       `json:"sparse"`
	Partial   string     `json:"partial,omitempty"`   // the filter, as Extended JSON
	Collation string     `json:"collation,omitempty"` // the locale
	Hidden    bool       `json:"hidden,omitempty"`
	Role      string     `json:"role,omitempty"` // what it means to clerksync; empty if nothing
}

type indexKey struct {
	Field     string `json:"field"`
	Direction string `json:"direction"` // 1, -1 or a kind, such as text
}

// What an index means to clerksync.
const (
	relied    = "clerksync relies on it: one record per user"
	conflicts = "blocks a second record with the same value (409 conflict)"
)

// onClerkID reports whether the index alone makes every clerkId unique, and lookups use it.
// mongostore.Open decides by the same rule: if there is such an index, it does not make one.
// clerkID is the path of clerkId in the collection; the index on _id, which servers do not list
// as unique, is enough if that is it.
func (ix *index) onClerkID(clerkID string) bool {
	unique := ix.Unique || clerkID == "_id"
	if !unique || ix.Hidden || ix.Collation != "" || len(ix.Keys) != 1 || ix.Keys[0].Field != clerkID {
		return false
	}
	n, err := strconv.ParseFloat(ix.Keys[0].Direction, 64)
	return err == nil && n != 0 && ix.coversClerkIDs(clerkID)
}

// coversClerkIDs reports whether every record that has a clerkId is in the index, and MongoDB knows
// it. From a filter by type it does not.
func (ix *index) coversClerkIDs(clerkID string) bool {
	if ix.Partial == "" {
		return true
	}
	var filter bson.Raw
	if bson.UnmarshalExtJSON([]byte(ix.Partial), false, &filter) != nil {
		return false
	}
	elements, _ := filter.Elements()
	condition, _ := filter.Lookup(clerkID).DocumentOK() // a filter has the path as one name
	operators, _ := condition.Elements()
	return len(elements) == 1 && len(operators) == 1 && operators[0].Key() == "$exists" && isTrue(operators[0].Value())
}

// assignRoles sets the Role of each index. Of several on clerkId it prefers one that is not
// partial.
func assignRoles(indexes []index, clerkID string) {
	best := -1
	for i := range indexes {
		if indexes[i].onClerkID(clerkID) && (best < 0 || indexes[best].Partial != "" && indexes[i].Partial == "") {
			best = i
		}
	}
	for i := range indexes {
		switch ix := &indexes[i]; {
		case i == best:
			ix.Role = relied
		case ix.Unique && ix.Name != "_id_" && !ix.has(clerkID):
			ix.Role = conflicts
		}
	}
}

func (ix *index) has(field string) bool {
	return slices.ContainsFunc(ix.Keys, func(k indexKey) bool { return k.Field == field })
}

func (ix *index) keys() string {
	keys := make([]string, len(ix.Keys))
	for i, k := range ix.Keys {
		keys[i] = k.Field + " " + k.Direction
	}
	return strings.Join(keys, ", ")
}

func (ix *index) kind() string {
	var kinds []string
	if ix.Unique {
		kinds = append(kinds, "unique")
	}
	if ix.Sparse {
		kinds = append(kinds, "sparse")
	}
	if ix.Partial != "" {
		kinds = append(kinds, "partial "+ix.Partial)
	}
	if ix.Collation != "" {
		kinds = append(kinds, "collation "+ix.Collation)
	}
	if ix.Hidden {
		kinds = append(kinds, "hidden")
	}
	return strings.Join(kinds, ", ")
}

// indexOf reads one document of listIndexes.
func indexOf(spec bson.Raw) index {
	var ix index
	ix.Name, _ = spec.Lookup("name").StringValueOK()
	keys, _ := spec.Lookup("key").DocumentOK()
	elements, _ := keys.Elements()
	for _, e := range elements {
		direction := strings.Trim(e.Value().String(), `"`)
		if n, ok := e.Value().AsInt64OK(); ok {
			direction = fmt.Sprint(n)
		}
		ix.Keys = append(ix.Keys, indexKey{e.Key(), direction})
	}
	ix.Unique, ix.Sparse = isTrue(spec.Lookup("unique")), isTrue(spec.Lookup("sparse"))
	ix.Hidden = isTrue(spec.Lookup("hidden"))
	if partial, ok := spec.Lookup("partialFilterExpression").DocumentOK(); ok {
		ix.Partial = partial.String()
	}
	if locale, ok := spec.Lookup("collation", "locale").StringValueOK(); ok && locale != "simple" {
		ix.Collation = locale
	}
	return ix
}

// isTrue accepts numbers too, as createIndexes does.
func isTrue(v bson.RawValue) bool {
	b, _ := v.BooleanOK()
	n, _ := v.AsFloat64OK()
	return b || n != 0
}
