package storetest

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// diff returns the fields in which two records differ, one a line. An empty Location equals
// none, and so does an empty Extra.
func diff(got, want *clerksync.User) []string {
	if got == nil || want == nil {
		if got == want {
			return nil
		}
		return []string{fmt.Sprintf("got %s, want %s", describe(got), describe(want))}
	}
	var d []string
	diffValue("", reflect.ValueOf(*got), reflect.ValueOf(*want), &d)
	return d
}

func diffValue(path string, got, want reflect.Value, d *[]string) {
	g, w := got.Interface(), want.Interface()
	switch g := g.(type) {
	case clerksync.User, clerksync.Profile, clerksync.Location:
		for i := range got.NumField() {
			name := strings.TrimPrefix(path+"."+got.Type().Field(i).Name, ".")
			diffValue(name, got.Field(i), want.Field(i), d)
		}
		return
	case *clerksync.Location:
		diffValue(path, orZero(got), orZero(want), d)
		return
	case map[string]any:
		if w, ok := w.(map[string]any); ok {
			diffMaps(path, g, w, d)
			return
		}
	}
	if !sameValue(g, w) {
		*d = append(*d, fmt.Sprintf("%s: got %s, want %s", path, show(g), show(w)))
	}
}

func diffMaps(path string, got, want map[string]any, d *[]string) {
	names := slices.Sorted(maps.Keys(got))
	for name := range want {
		if _, ok := got[name]; !ok {
			names = append(names, name)
		}
	}
	for _, name := range names {
		g, inGot := got[name]
		w, inWant := want[name]
		at := fmt.Sprintf("%s[%q]", path, name)
		switch {
		case !inGot:
			*d = append(*d, fmt.Sprintf("%s: got nothing, want %s", at, show(w)))
		case !inWant:
			*d = append(*d, fmt.Sprintf("%s: got %s, want nothing", at, show(g)))
		case g == nil || w == nil:
			if g != nil || w != nil {
				*d = append(*d, fmt.Sprintf("%s: got %s, want %s", at, show(g), show(w)))
			}
		default:
			diffValue(at, reflect.ValueOf(g), reflect.ValueOf(w), d)
		}
	}
}

func orZero(p reflect.Value) reflect.Value {
	if p.IsNil() {
		return reflect.Zero(p.Type().Elem())
	}
	return p.Elem()
}

// sameValue reports whether two values have the same type and content. Times are compared as
// instants.
func sameValue(a, b any) bool {
	switch a := a.(type) {
	case time.Time:
		b, ok := b.(time.Time)
		return ok && a.Equal(b)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, sameValue)
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, sameValue)
	default:
		return reflect.DeepEqual(a, b)
	}
}

func show(v any) string {
	switch v := v.(type) {
	case time.Time:
		if v.IsZero() {
			return "no time"
		}
		return v.Format(time.RFC3339Nano)
	case clerksync.Role:
		return fmt.Sprintf("%q", string(v))
	default:
		return fmt.Sprintf("%#v", v)
	}
}

// timeFaults lists the times in u that are not in UTC and whole milliseconds.
func timeFaults(u *clerksync.User) (faults []string) {
	inspect := func(name string, t time.Time) {
		if t.Location() != time.UTC || t.Nanosecond()%int(time.Millisecond) != 0 {
			faults = append(faults, fmt.Sprintf("%s is %v: want UTC and whole milliseconds", name, t))
		}
	}
	var values func(name string, v any)
	values = func(name string, v any) {
		switch v := v.(type) {
		case time.Time:
			inspect(name, v)
		case []any:
			for i, e := range v {
				values(fmt.Sprintf("%s[%d]", name, i), e)
			}
		case map[string]any:
			for k, e := range v {
				values(fmt.Sprintf("%s[%q]", name, k), e)
			}
		}
	}
	for i, r := 0, reflect.ValueOf(*u); i < r.NumField(); i++ {
		if t, ok := r.Field(i).Interface().(time.Time); ok {
			inspect(r.Type().Field(i).Name, t)
		}
	}
	values("Extra", u.Extra)
	return faults
}
