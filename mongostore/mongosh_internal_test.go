package mongostore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// ShellCall is a call of a method of db.getCollection(Collection), or of a Mongoose schema.
type ShellCall struct {
	Collection, Method string
	Args               []any
}

// ShellCalls returns the calls that stand on lines of their own, as the advice of Open has
// them. A line may have several, with "; " between them: if one fails, mongosh leaves out the
// others. It reads what mongosh reads, as far as the advice uses it.
func ShellCalls(text string) (calls []ShellCall, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if line, ok := strings.CutPrefix(line, "\t"); ok {
			for statement := range strings.SplitSeq(line, "; db.") {
				if statement != line && !strings.HasPrefix(statement, "db.") {
					statement = "db." + statement
				}
				call, err := parseCall(statement)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", line, err)
				}
				calls = append(calls, call)
			}
		}
	}
	return calls, nil
}

func parseCall(line string) (call ShellCall, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	p := &shellParser{line}
	if p.skip("schema.") {
		call.Collection = "schema"
	} else {
		p.want("db.getCollection(")
		call.Collection = p.text()
		p.want(").")
	}
	call.Method = p.match(wordPattern)
	p.want("(")
	for !p.skip(")") {
		call.Args = append(call.Args, p.value())
		p.skip(", ")
	}
	if p.rest != "" {
		return call, errors.New("more after the call")
	}
	return call, nil
}

// shellParser reads JavaScript literals. It panics on what it does not know.
type shellParser struct{ rest string }

var (
	wordPattern   = regexp.MustCompile(`^\$?\w+`)
	textPattern   = regexp.MustCompile(`^"(?:[^"\\]|\\.)*"`)
	numberPattern = regexp.MustCompile(`^-?[0-9.]+`)
)

func (p *shellParser) skip(token string) (found bool) {
	p.rest, found = strings.CutPrefix(p.rest, token)
	return found
}

func (p *shellParser) want(token string) {
	if !p.skip(token) {
		panic(fmt.Sprintf("%s: want %s", p.rest, token))
	}
}

func (p *shellParser) match(pattern *regexp.Regexp) string {
	found := pattern.FindString(p.rest)
	if found == "" {
		panic(fmt.Sprintf("%s: want %s", p.rest, pattern))
	}
	p.rest = p.rest[len(found):]
	return found
}

func (p *shellParser) text() (text string) {
	if err := json.Unmarshal([]byte(p.match(textPattern)), &text); err != nil {
		panic(err)
	}
	return text
}

func (p *shellParser) value() any {
	switch {
	case p.skip("{"):
		d := bson.D{}
		for !p.skip("}") {
			var name string
			if strings.HasPrefix(p.rest, `"`) {
				name = p.text()
			} else {
				name = p.match(wordPattern)
			}
			p.want(": ")
			d = append(d, bson.E{Key: name, Value: p.value()})
			p.skip(", ")
		}
		return d
	case p.skip("["):
		a := bson.A{}
		for !p.skip("]") {
			a = append(a, p.value())
			p.skip(", ")
		}
		return a
	case strings.HasPrefix(p.rest, `"`):
		return p.text()
	case numberPattern.MatchString(p.rest):
		return p.number()
	}
	return p.word()
}

// number reads a whole number as an int32, if it is small, as mongosh does.
func (p *shellParser) number() any {
	f, err := strconv.ParseFloat(p.match(numberPattern), 64)
	if err != nil {
		panic(err)
	}
	if f == math.Trunc(f) && math.Abs(f) <= math.MaxInt32 {
		return int32(f)
	}
	return f
}

func (p *shellParser) word() any {
	switch word := p.match(wordPattern); word {
	case "true":
		return true
	case "false":
		return false
	case "null":
		return nil
	case "ObjectId", "ISODate":
		p.want("(")
		text := p.text()
		p.want(")")
		if word == "ObjectId" {
			id, err := bson.ObjectIDFromHex(text)
			if err != nil {
				panic(err)
			}
			return id
		}
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			panic(err)
		}
		return at
	case "EJSON":
		p.want(".parse(")
		text := p.text()
		p.want(")")
		var d bson.D
		if err := bson.UnmarshalExtJSON([]byte(`{"v": `+text+`}`), true, &d); err != nil {
			panic(err)
		}
		return d[0].Value
	default:
		panic("the word " + word)
	}
}

func TestShellDocument(t *testing.T) {
	id := bson.NewObjectID()
	number, err := bson.ParseDecimal128("1.5")
	if err != nil {
		t.Fatal(err)
	}
	for want, d := range map[string]bson.D{
		`{}`:                                   {},
		`{"email": 1}`:                         {{Key: "email", Value: int32(1)}},
		`{"email": -1, "a.b": 1}`:              {{Key: "email", Value: int64(-1)}, {Key: "a.b", Value: 1.0}},
		`{"n": 0.5}`:                           {{Key: "n", Value: 0.5}},
		`{"n": 5000000000}`:                    {{Key: "n", Value: int64(5e9)}},
		`{"n": 9007199254740992}`:              {{Key: "n", Value: float64(1 << 53)}},
		`{"email": {$exists: true}}`:           {{Key: "email", Value: bson.D{{Key: "$exists", Value: true}}}},
		`{"t": {$in: ["x", null, [1]]}}`:       {{Key: "t", Value: bson.D{{Key: "$in", Value: bson.A{"x", nil, bson.A{int32(1)}}}}}},
		`{"it's a \"name\"": "\\"}`:            {{Key: `it's a "name"`, Value: `\`}},
		`{"": "<ä\n>"}`:                        {{Key: "", Value: "<ä\n>"}},
		`{"$odd name": "email"}`:               {{Key: "$odd name", Value: "email"}},
		`{"id": ObjectId("` + id.Hex() + `")}`: {{Key: "id", Value: id}},
		`{"at": ISODate("2024-03-01T12:00:00.5Z")}`: {
			{Key: "at", Value: time.Date(2024, 3, 1, 12, 0, 0, 5e8, time.UTC)},
		},
		`{"n": EJSON.parse("{\"$numberLong\":\"9223372036854775807\"}")}`: {{Key: "n", Value: int64(math.MaxInt64)}},
		`{"n": EJSON.parse("{\"$numberDouble\":\"NaN\"}")}`:               {{Key: "n", Value: math.NaN()}},
		`{"n": EJSON.parse("{\"$numberDecimal\":\"1.5\"}")}`:              {{Key: "n", Value: number}},
	} {
		raw := mustMarshal(t, d)
		got := shellDocument(raw)
		if got != want {
			t.Errorf("%v: %s, want %s", raw, got, want)
		}
		call, err := parseCall("schema.index(" + got + ")")
		if err != nil {
			t.Errorf("%s: %v", got, err)
			continue
		}
		if back := mustMarshal(t, call.Args[0]); shellDocument(back) != want || !sameNumbers(raw, back) {
			t.Errorf("%s is read as %v", got, back)
		}
	}
}

// sameNumbers compares two documents, but not the types of their numbers.
func sameNumbers(a, b bson.Raw) bool {
	as, _ := a.Elements()
	bs, _ := b.Elements()
	if len(as) != len(bs) {
		return false
	}
	for i := range as {
		x, isNumber := as[i].Value().AsFloat64OK()
		y, _ := bs[i].Value().AsFloat64OK()
		same := bytes.Equal(as[i].Value().Value, bs[i].Value().Value) || isNumber && x == y
		if as[i].Key() != bs[i].Key() || !same && as[i].Value().Type != bson.TypeEmbeddedDocument && as[i].Value().Type != bson.TypeArray {
			return false
		}
	}
	return true
}
