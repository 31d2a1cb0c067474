package sessiontoken

import (
	"encoding/json"
	"testing"
	"time"
)

func TestParseVersion(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for claim, want := range map[string]Version{
		`1772366400`:            {at, true},
		`"1772366400"`:          {at, true},
		`1772366400000`:         {at, false},
		`"1772366400007"`:       {at.Add(7 * time.Millisecond), false},
		``:                      {},
		`null`:                  {},
		`0`:                     {},
		`-1`:                    {},
		`1.5`:                   {},
		`true`:                  {},
		`""`:                    {},
		`"{{user.updated_at}}"`: {},
		`[1772366400]`:          {},
		`99999999999999999999`:  {},
	} {
		if got := ParseVersion(json.RawMessage(claim)); !got.At.Equal(want.At) || got.InSeconds != want.InSeconds {
			t.Errorf("%s: %+v, want %+v", claim, got, want)
		}
	}
}

func TestVersionUsable(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for ahead, want := range map[time.Duration]bool{-time.Hour: true, 24 * time.Hour: true, 24*time.Hour + time.Millisecond: false} {
		if got := !(Version{At: now.Add(ahead)}).Usable(now).At.IsZero(); got != want {
			t.Errorf("%v ahead: usable %t", ahead, got)
		}
	}
}

func TestVersionComparedWithARecord(t *testing.T) {
	second := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ms := func(n int) time.Time { return second.Add(time.Duration(n) * time.Millisecond) }
	for name, tt := range map[string]struct {
		token               Version
		updatedAt, syncedAt time.Time
		newer, matches      bool
	}{
		"no claim":                       {Version{}, ms(0), ms(0), false, false},
		"the same millisecond":           {Version{ms(5), false}, ms(5), ms(5), false, true},
		"a millisecond newer":            {Version{ms(6), false}, ms(5), ms(9000), true, false},
		"a millisecond older":            {Version{ms(4), false}, ms(5), ms(9000), false, false},
		"a record without a version":     {Version{ms(4), false}, time.Time{}, ms(0), true, false},
		"seconds, a record in it":        {Version{second, true}, ms(700), ms(800), false, false},
		"seconds, confirmed 2 s later":   {Version{second, true}, ms(700), ms(2000), false, true},
		"seconds, confirmed just before": {Version{second, true}, ms(700), ms(1999), false, false},
		"seconds, a record before it":    {Version{second, true}, ms(-1), ms(9000), true, false},
		"seconds, a record after it":     {Version{second, true}, ms(1000), ms(9000), false, false},
	} {
		if got := tt.token.NewerThan(tt.updatedAt); got != tt.newer {
			t.Errorf("%s: NewerThan is %t", name, got)
		}
		if got := tt.token.Matches(tt.updatedAt, tt.syncedAt); got != tt.matches {
			t.Errorf("%s: Matches is %t", name, got)
		}
	}
}
