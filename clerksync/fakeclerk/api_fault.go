package fakeclerk

import (
	"net/http"
	"time"
)

// Fault is what goes wrong with one request to the Backend API, the JWKS included. The
// fields combine; the zero Fault changes nothing.
//
//	&Fault{Status: 502, ContentType: "text/html", Body: "<html>bad gateway</html>"} // a proxy's page
//	&Fault{Status: 200, Body: string(anotherUser)}                                  // the wrong object
//	&Fault{Delay: 3 * time.Second}                                                  // slow
//	&Fault{Truncate: true}                                                          // the connection breaks halfway
//	ErrorFault(500, "internal_clerk_error")                                         // Clerk's own error
type Fault struct {
	// Status and Body replace the answer. Status 0 with a Body is 200; 0 with no Body
	// leaves the answer that Clerk would give.
	Status int
	Body   string

	// ContentType of a Body. Defaults to application/json.
	ContentType string

	// Header is set in the answer, Clerk's own one too.
	Header http.Header

	// BeforeSend is called once the answer is made and before any of it is sent. A user
	// that it changes has changed since the answer was read. It may block.
	BeforeSend func()

	// Delay holds the finished answer back, by the server's clock. It counts from
	// before BeforeSend, so that a test may advance a Clock once that was called.
	Delay time.Duration

	// Truncate breaks the connection after half of the body. For half a document in a
	// complete answer, set Body.
	Truncate bool

	// Hang never answers: the request ends when its client gives up or the server closes.
	Hang bool
}

// ErrorFault returns a Fault that answers an error in Clerk's shape, such as 401
// "clerk_key_invalid", 404 "resource_not_found" or 429 "too_many_requests". Its Header
// is not nil, so that Retry-After can be set.
func ErrorFault(status int, code string) *Fault {
	text := http.StatusText(status)
	a := errorAnswer(status, apiError{Code: code, Message: text, LongMessage: text}, looseIDs)
	return &Fault{Status: status, Body: string(a.body), Header: a.header}
}

// SetFault has f decide, from now on, about each request to the Backend API: nil to
// answer it as Clerk does, or a Fault. A nil f removes the one that was set. f runs on
// the request's goroutine, several at a time, before anything else looks at the
// request; where it blocks, the request has not reached Clerk yet. It may call the
// Server, but not Close. What a Fault answers does not count against the rate limit.
func (s *Server) SetFault(f func(r *http.Request) *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// replaces reports whether the fault has an answer of its own.
func (f *Fault) replaces() bool { return f.Status != 0 || f.Body != "" }

func (f *Fault) answer() answer {
	a := answer{status: f.Status, header: http.Header{}, body: []byte(f.Body)}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	contentType := f.ContentType
	if contentType == "" {
		contentType = "application/json"
	}
	a.header.Set("Content-Type", contentType)
	for name, values := range f.Header {
		a.header[http.CanonicalHeaderKey(name)] = values
	}
	return a
}
