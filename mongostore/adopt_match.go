package mongostore

import (
	"encoding/hex"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// An external id is text, and the app's own id that it stands for may have another type. The
// server compares by type, so a lookup offers each value that the text stands for. A lookup for
// many users finds records of all of them; externalKey tells whose each one is.

// externalValues returns the values that an external id stands for.
func externalValues(id string) bson.A {
	values := bson.A{id}
	if oid, err := bson.ObjectIDFromHex(id); err == nil {
		values = append(values, oid)
	}
	if n, ok := wholeNumber(id); ok {
		values = append(values, n) // equal to the same number of any type
	}
	if uuid, ok := parseUUID(id); ok {
		values = append(values, bson.Binary{Subtype: bson.TypeBinaryUUID, Data: uuid}, bson.Binary{Subtype: bson.TypeBinaryUUIDOld, Data: uuid})
	}
	return values
}

// wholeNumber returns the number that a text is the usual form of: "7", but neither "007" nor "+7".
func wholeNumber(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && strconv.FormatInt(n, 10) == text
}

// parseUUID returns the bytes of a UUID in its usual form, in upper or lower case.
func parseUUID(text string) ([]byte, bool) {
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return nil, false
	}
	uuid, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	return uuid, err == nil && len(uuid) == 16
}

// externalKeys returns the keys of the values that an external id stands for.
func externalKeys(id string) (keys []string) {
	for _, value := range externalValues(id) {
		t, data, _ := bson.MarshalValue(value)
		if key := externalKey(bson.RawValue{Type: t, Value: data}); !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// externalKey returns a text that equal values share, as the server compares them: numbers of
// all types by value. It is empty if no external id stands for the value.
func externalKey(v bson.RawValue) string {
	switch v.Type {
	case bson.TypeString:
		return "string " + v.StringValue()
	case bson.TypeObjectID:
		return "objectId " + v.ObjectID().Hex()
	case bson.TypeBinary:
		subtype, data := v.Binary()
		if subtype == bson.TypeBinaryUUID || subtype == bson.TypeBinaryUUIDOld {
			return "uuid " + string(data)
		}
	case bson.TypeInt32, bson.TypeInt64:
		return "number " + strconv.FormatInt(v.AsInt64(), 10)
	case bson.TypeDouble:
		// 1<<63 is the first float64 that is too large.
		if f := v.Double(); f == math.Trunc(f) && -1<<63 <= f && f < 1<<63 {
			return "number " + strconv.FormatInt(int64(f), 10)
		}
	case bson.TypeDecimal128:
		if n, ok := wholeDecimal(v.Decimal128()); ok {
			return "number " + strconv.FormatInt(n, 10)
		}
	}
	return ""
}

// wholeDecimal returns a decimal that is a whole number.
func wholeDecimal(d bson.Decimal128) (int64, bool) {
	n, exp, err := d.BigInt()
	if err != nil { // infinite, or not a number
		return 0, false
	}
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(exp, -exp))), nil)
	rest := new(big.Int)
	if exp < 0 {
		n.QuoRem(n, power, rest)
	} else {
		n.Mul(n, power)
	}
	return n.Int64(), n.IsInt64() && rest.Sign() == 0
}

// emailForms returns the forms in which a record may have an address: as Clerk writes it, and in
// lower case. Only ASCII letters have a lower case here: "\u212a" (the Kelvin sign) is not "k", and
// an address with it is somebody else's.
func emailForms(email string) []string {
	if email == "" {
		return nil
	}
	lower := strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, email)
	if lower != email {
		return []string{email, lower}
	}
	return []string{email}
}

// valuesAt returns the values at a path in a document, those in arrays too: what a filter on the
// path compares.
func valuesAt(raw bson.Raw, path []string) []bson.RawValue {
	return entries(bson.RawValue{Type: bson.TypeEmbeddedDocument, Value: raw}, path)
}

// values is valuesAt for the name of a field.
func (r *record) values(name string) []bson.RawValue {
	return valuesAt(r.raw, r.codec.segmentsOf(name))
}
