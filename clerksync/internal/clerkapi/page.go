package clerkapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
)

// ListedUser is a user of Clerk's list. Only what a comparison of versions needs is
// decoded: most users of most runs are unchanged.
type ListedUser struct {
	ID      string // empty if it is not the id of a user
	Version int64  // updated_at in milliseconds, 0 for none
	Created int64  // created_at in milliseconds, 0 for none
	Raw     json.RawMessage
}

// key tells users apart, also those without an id.
func (u *ListedUser) key() string {
	if u.ID == "" {
		return string(u.Raw)
	}
	return u.ID
}

var errNotAPage = errors.New("the answer is not a list of users")

// ParsePage cuts a JSON list of users into its users. It looks at each byte once;
// encoding/json would look three times. Users that need a write are decoded later.
func ParsePage(page json.RawMessage) ([]ListedUser, error) {
	s := jsonScanner{b: page}
	var users []ListedUser
	if !s.take('[') {
		return nil, errNotAPage
	}
	for first := true; !s.take(']'); first = false {
		if !first && !s.take(',') {
			return nil, errNotAPage
		}
		u, ok := s.user()
		if !ok {
			return nil, errNotAPage
		}
		users = append(users, u)
	}
	s.space()
	if s.i != len(page) {
		return nil, errNotAPage
	}
	return users, nil
}

// user reads an object. If a name comes twice, the last one counts, as in encoding/json.
func (s *jsonScanner) user() (u ListedUser, ok bool) {
	s.space()
	start := s.i
	if !s.take('{') {
		return u, false
	}
	for first := true; !s.take('}'); first = false {
		if !first && !s.take(',') {
			return u, false
		}
		s.space()
		name, ok := s.text()
		if !ok || !s.take(':') {
			return u, false
		}
		value, ok := s.value()
		if !ok {
			return u, false
		}
		switch string(name) {
		case "id":
			u.ID = ""
			if n := len(value); value[0] == '"' && ValidUserID(string(value[1:n-1])) {
				u.ID = string(value[1 : n-1])
			}
		case "updated_at":
			u.Version = milliseconds(value)
		case "created_at":
			u.Created = milliseconds(value)
		}
	}
	u.Raw = json.RawMessage(s.b[start:s.i:s.i])
	return u, true
}

// milliseconds reads one of Clerk's times; 0 if it is not a time.
func milliseconds(value []byte) int64 {
	ms, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || ms < 0 {
		return 0
	}
	return ms
}

// jsonScanner finds the ends of JSON values. It notices a value that is cut short, but
// does not check what is inside.
type jsonScanner struct {
	b []byte
	i int
}

func (s *jsonScanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\n' || s.b[s.i] == '\t' || s.b[s.i] == '\r') {
		s.i++
	}
}

// take skips space and goes past c. It reports false if the next character is another.
func (s *jsonScanner) take(c byte) bool {
	s.space()
	if s.i == len(s.b) || s.b[s.i] != c {
		return false
	}
	s.i++
	return true
}

// text goes past a string and returns what is between its quotes, still escaped.
func (s *jsonScanner) text() ([]byte, bool) {
	if s.i == len(s.b) || s.b[s.i] != '"' {
		return nil, false
	}
	s.i++
	start := s.i
	for {
		n := bytes.IndexByte(s.b[s.i:], '"')
		if n < 0 {
			return nil, false
		}
		end := s.i + n
		s.i = end + 1
		escapes := 0
		for end-escapes > start && s.b[end-escapes-1] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return s.b[start:end], true
		}
	}
}

// value goes past a value and returns it.
func (s *jsonScanner) value() ([]byte, bool) {
	s.space()
	start, depth := s.i, 0
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case '"':
			if _, ok := s.text(); !ok {
				return nil, false
			}
			if depth == 0 {
				return s.b[start:s.i], true
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // the end of the list or object around a number or a literal
				return s.b[start:s.i], s.i > start
			}
			if depth--; depth == 0 {
				s.i++
				return s.b[start:s.i], true
			}
		case ',', ' ', '\n', '\t', '\r':
			if depth == 0 {
				return s.b[start:s.i], s.i > start
			}
		}
		s.i++
	}
	return nil, false
}
