package clerksync_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
)

func TestCanonicalExtra(t *testing.T) {
	t.Parallel()
	type plan string
	three := 3
	deep := any("bottom")
	for range 33 {
		deep = []any{deep}
	}
	nested := map[string]any{"a": []any{1.5, nil, "x"}}
	later := time.Date(2026, 3, 1, 13, 0, 0, 1_999_999, time.FixedZone("CET", 3600))
	for name, tt := range map[string]struct {
		in, want any
		fault    string
	}{
		"string":          {in: "a", want: "a"},
		"named string":    {in: plan("pro"), want: "pro"},
		"invalid UTF-8":   {in: "a\xff", want: "a\uFFFD"},
		"bool":            {in: true, want: true},
		"int":             {in: 3, want: int64(3)},
		"uint8":           {in: uint8(3), want: int64(3)},
		"float32":         {in: float32(0.5), want: 0.5},
		"json integer":    {in: json.Number("9007199254740993"), want: int64(9007199254740993)},
		"json fraction":   {in: json.Number("0.5"), want: 0.5},
		"pointer":         {in: &three, want: int64(3)},
		"time":            {in: later, want: t0.Add(time.Millisecond)},
		"strings":         {in: []string{"a", "b"}, want: []any{"a", "b"}},
		"empty slice":     {in: []int{}, want: []any{}},
		"array":           {in: [2]bool{true, false}, want: []any{true, false}},
		"map":             {in: map[plan]int{"a": 1}, want: map[string]any{"a": int64(1)}},
		"nested nil":      {in: []any{nil}, want: []any{nil}},
		"raw JSON":        {in: nested, want: nested},
		"raw message":     {in: json.RawMessage(`{"a":[1,null]}`), want: map[string]any{"a": []any{1.0, nil}}},
		"raw null":        {in: json.RawMessage(`null`)},
		"no raw message":  {in: json.RawMessage(nil)},
		"not JSON":        {in: json.RawMessage(`{`), fault: "not JSON"},
		"bytes":           {in: []byte("a"), fault: "cannot be stored"},
		"nil":             {in: nil},
		"nil pointer":     {in: (*int)(nil)},
		"nil slice":       {in: []string(nil)},
		"nil map":         {in: map[string]int(nil)},
		"too large":       {in: uint64(math.MaxUint64), fault: "does not fit"},
		"not a number":    {in: math.NaN(), fault: "NaN"},
		"infinite":        {in: []any{math.Inf(1)}, fault: "+Inf"},
		"no json number":  {in: json.Number("x"), fault: "not a number"},
		"json NaN":        {in: json.Number("NaN"), fault: "NaN"},
		"a cycle":         {in: cycle(), fault: "nested over"},
		"struct":          {in: struct{ A int }{1}, fault: "cannot be stored"},
		"function":        {in: func() {}, fault: "cannot be stored"},
		"other keys":      {in: map[int]string{1: "a"}, fault: "cannot be stored"},
		"nested operator": {in: map[string]any{"$where": "1"}, want: map[string]any{"$where": "1"}},
		"nested dot":      {in: []any{map[string]any{"a.b": 1}}, want: []any{map[string]any{"a.b": int64(1)}}},
		"nested empty":    {in: map[string]any{"": "\x00", "\x00": 1}, want: map[string]any{"": "\x00", "\x00": int64(1)}},
		"nested invalid":  {in: map[string]any{"a\xff": 1}, want: map[string]any{"a\uFFFD": int64(1)}},
		"nested twice":    {in: map[string]any{"a\xff": 1, "a\xfe": 1}, fault: "not UTF-8"},
		"too deep":        {in: deep, fault: "nested over"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, err := (&clerksync.User{ClerkID: "user_1", Extra: map[string]any{"x": tt.in}}).Canonical()
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) || !strings.Contains(err.Error(), "Extra") {
					t.Errorf("error is %v, want it to say %q", err, tt.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, ok := u.Extra["x"]
			if diff := cmp.Diff(tt.want, got); diff != "" || ok != (tt.want != nil) {
				t.Errorf("value (-want +got):\n%s", diff)
			}
			again, err := u.Canonical()
			if err != nil || !cmp.Equal(u, again) {
				t.Errorf("the canonical form of the canonical form differs: %v", err)
			}
		})
	}
}

func cycle() any {
	var v any
	v = &v
	return v
}

func TestCanonicalText(t *testing.T) {
	t.Parallel()
	bad := "a\xff"
	u, err := (&clerksync.User{
		ClerkID: "user_1", Email: bad, Name: bad, Role: clerksync.Role(bad),
		Profile: clerksync.Profile{FirstName: bad, LastName: bad, FullName: bad, ImageURL: bad, PhoneNumber: bad,
			Birthday: bad, Gender: bad},
		Location: &clerksync.Location{Country: bad, City: bad, State: bad, Timezone: bad},
	}).Canonical()
	if err != nil {
		t.Fatal(err)
	}
	if raw := fmt.Sprintf("%+v %+v", u, u.Location); strings.Contains(raw, "\xff") ||
		strings.Count(raw, "a\uFFFD") != 14 {
		t.Errorf("not all text is UTF-8: %q", raw)
	}
	if u, err := (&clerksync.User{ClerkID: "user_1", Location: &clerksync.Location{}}).Canonical(); err != nil ||
		u.Location != nil {
		t.Errorf("an empty location: %+v, %v", u, err)
	}
	for name, u := range map[string]*clerksync.User{"nil": nil, "no id": {}, "invalid id": {ClerkID: bad},
		"invalid name": {ClerkID: "user_1", Extra: map[string]any{bad: 1}}} {
		if c, err := u.Canonical(); err == nil {
			t.Errorf("%s: got %+v", name, c)
		}
	}
}

// Users can choose names in Extra, and the errors are logged.
func TestNamesInErrors(t *testing.T) {
	t.Parallel()
	for name, shown := range map[string]bool{
		"plan.tier": true, "$set": true, "email": true, "": true,
		"ada.lovelace@example.com": false, "Ada Lovelace $": false, "\xff": false, strings.Repeat("a", 65) + ".": false,
	} {
		_, err := (&clerksync.User{ClerkID: "user_1", Extra: map[string]any{name: 1}}).Canonical()
		if err == nil {
			t.Fatalf("%q is accepted", name)
		}
		if got := strings.Contains(err.Error(), fmt.Sprintf("Extra[%q]", name)); got != shown {
			t.Errorf("%q: the error is %v", name, err)
		}
	}
}

func TestExtraNames(t *testing.T) {
	t.Parallel()
	bad := []string{"", "$set", "a$", "a.b", "a\x00", "_id", "__v", "extraFields"}
	raw, _ := json.Marshal(fullUser())
	var record map[string]any
	_ = json.Unmarshal(raw, &record)
	delete(record, "extra")
	for name := range record {
		bad = append(bad, name)
	}
	bad = append(bad, "clerkCreatedAt", "clerkUpdatedAt", "syncedAt", "deletedAt")
	for _, name := range bad {
		if _, err := (&clerksync.User{ClerkID: "user_1", Extra: map[string]any{name: 1}}).Canonical(); err == nil {
			t.Errorf("the name %q is accepted", name)
		} else if want := fmt.Sprintf("Extra[%q]", name); name != "a\x00" && !strings.Contains(err.Error(), want) {
			t.Errorf("the error %q does not name %s", err, want)
		}
	}
	for _, name := range []string{"plan", "Email", "a b", "é", "_x"} {
		if _, err := (&clerksync.User{ClerkID: "user_1", Extra: map[string]any{name: 1}}).Canonical(); err != nil {
			t.Errorf("the name %q is not accepted: %v", name, err)
		}
	}
	if _, err := (&clerksync.User{}).Canonical(); err == nil {
		t.Error("a User without a ClerkID is accepted")
	}
}

// What is omitted from Extra is not checked: it may be omitted because it is invalid.
func TestCanonicalOmit(t *testing.T) {
	t.Parallel()
	u := &clerksync.User{
		ClerkID: "user_1", Extra: map[string]any{"a.b": 1, "bad": func() {}, "good": 1},
		Omit: []string{"email", "bad", "a.b", "email"},
	}
	c, err := u.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	want := &clerksync.User{
		ClerkID: "user_1", Extra: map[string]any{"good": int64(1)}, Omit: []string{"a.b", "bad", "email"},
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("canonical form (-want +got):\n%s", diff)
	}
	u.Omit[0] = "extraFields"
	if c, err := u.Canonical(); err != nil || c.Extra != nil {
		t.Errorf("with extraFields omitted: %+v, %v", c, err)
	}
	if c.Omit[2] != "email" {
		t.Error("the canonical form shares Omit with the argument")
	}
}
