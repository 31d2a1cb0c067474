package clerksync

import (
	"errors"
	"strings"
	"testing"
)

// In whatever order visits leave and lookups fail, a failure is reported once, if no visit heard of it.
func TestAudiences(t *testing.T) {
	t.Parallel()
	failure := errors.New("down")
	for _, tt := range []struct {
		steps string // join, hear (the end of a lookup), give up, fail (a lookup)
		at    int    // the step that reports the failure; -1 for none
	}{
		{"join hear", -1},
		{"join give-up", -1},
		{"join fail hear", -1},
		{"join give-up fail", 2},
		{"join fail give-up", 2},
		{"join join fail give-up hear", -1},
		{"join join fail hear give-up", -1},
		{"join join fail give-up give-up", 4},
		{"join join give-up fail give-up", 4},
		{"join join give-up give-up fail", 4},
		{"join give-up fail fail", 3}, // two lookups; the first is reported too
		{"join fail hear join give-up", -1},
		{"join give-up join fail hear", -1},
		{"fail", 0},
	} {
		var a audiences
		for i, step := range strings.Fields(tt.steps) {
			var got error
			switch step {
			case "join":
				a.join("user_1")
			case "hear":
				got = a.leave("user_1", true)
			case "give-up":
				got = a.leave("user_1", false)
			case "fail":
				got = a.ended("user_1", failure)
			}
			first := strings.Contains(tt.steps, "fail fail") && i == tt.at-1
			if (got != nil) != (i == tt.at || first) {
				t.Errorf("%s: step %d reports %v", tt.steps, i, got)
			}
		}
		if len(a.of) != 0 {
			t.Errorf("%s: %d users are left", tt.steps, len(a.of))
		}
	}
}

// Users do not share their audiences.
func TestAudiencesOfTwoUsers(t *testing.T) {
	t.Parallel()
	var a audiences
	a.join("user_1")
	if err := a.ended("user_2", ErrUnavailable); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a lookup that only another user's visit waits for: %v", err)
	}
	if err := a.leave("user_1", false); err != nil {
		t.Errorf("another user's failure: %v", err)
	}
}
