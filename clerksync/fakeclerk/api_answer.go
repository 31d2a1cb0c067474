package fakeclerk

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// answer is a complete response of the Backend API, before any of it is sent.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ok answers 200 with v as JSON.
func ok(v any) answer { return okJSON(mustMarshal(v)) }

// okJSON answers 200 with body, which is JSON.
func okJSON(body []byte) answer {
	return answer{
		status: http.StatusOK,
		header: http.Header{"Content-Type": {"application/json"}},
		body:   body,
	}
}

// apiError is Clerk's ClerkError schema.
type apiError struct {
	Message     string         `json:"message"`
	LongMessage string         `json:"long_message"`
	Code        string         `json:"code"`
	Meta        map[string]any `json:"meta,omitempty"`

	status int // HTTP status; 0 means 422
}

// Error makes apiError an error, so that parsers of parameters can return it.
func (e apiError) Error() string { return e.LongMessage }

// badParam is a 422 about one parameter. Its code is "form_param_" and kind, such as "unknown".
func badParam(kind, name, message string) error {
	return apiError{
		Code: "form_param_" + kind, Message: message, LongMessage: name + " " + message,
		Meta: map[string]any{"param_name": name},
	}
}

// refuse answers with an error in Clerk's shape.
func (s *Server) refuse(status int, e apiError) answer {
	return errorAnswer(status, e, s.ids)
}

// errorAnswer makes an answer of Clerk's ClerkErrors schema. ids makes its trace id.
func errorAnswer(status int, e apiError, ids *idSource) answer {
	trace := ids.id("")
	return answer{
		status: status,
		header: http.Header{"Content-Type": {"application/json"}, "Clerk-Trace-Id": {trace}},
		body: mustMarshal(struct {
			Errors  []apiError `json:"errors"`
			TraceID string     `json:"clerk_trace_id"`
		}{[]apiError{e}, trace}),
	}
}

// failed answers with the error of a route about the user id: 404 for ErrUserNotFound, the status of
// an apiError, or else 422.
func (s *Server) failed(err error, id string) answer {
	if errors.Is(err, ErrUserNotFound) {
		return s.refuse(http.StatusNotFound, apiError{
			Code: "resource_not_found", Message: "not found", LongMessage: "No user was found with id " + id,
		})
	}
	var e apiError
	if !errors.As(err, &e) {
		e = apiError{Code: "form_param_invalid", Message: "is invalid", LongMessage: err.Error()}
	}
	return s.refuse(cmp.Or(e.status, http.StatusUnprocessableEntity), e)
}

// mustMarshal encodes a value that is known to be encodable.
func mustMarshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Errorf("fakeclerk: %w", err))
	}
	return b
}

// Fault is what goes wrong with one request to the Backend API or the JWKS. Fields can be combined.
// The zero value changes nothing.
//
//	&Fault{Status: 502, ContentType: "text/html", Body: "<html>502</html>"} // a proxy's error page
//	&Fault{Body: string(anotherUser)}                                       // the wrong object
//	&Fault{Delay: 3 * time.Second}                                          // a slow answer
//	&Fault{Truncate: true}                                                  // a broken connection
//	ErrorFault(500, "internal_clerk_error")                                 // Clerk's own error
type Fault struct {
	// Status and Body replace Clerk's answer. If only Body is set, the status is 200. If neither is set,
	// the answer is Clerk's own.
	Status int
	Body   string

	// ContentType is the Content-Type of an answer that Status or Body replaces. Defaults to
	// application/json.
	ContentType string

	// Header is added to the answer, also to Clerk's own. It replaces headers of the same name.
	Header http.Header

	// BeforeSend is called when the answer is complete but not yet sent. It may block. If it changes a
	// user, the answer still holds the old state.
	BeforeSend func()

	// Delay is how long the complete answer is delayed, by the server's time. It starts before
	// BeforeSend is called, so a test may wait for that call and then advance its Clock.
	Delay time.Duration

	// Truncate breaks the connection after half of the body. To send half a document in a complete
	// answer, set Body.
	Truncate bool

	// Hang never answers. The request ends when the client gives up or the server closes.
	Hang bool
}

// ErrorFault returns a Fault that answers with an error in Clerk's shape, such as 401
// "clerk_key_invalid", 404 "resource_not_found" or 429 "too_many_requests". The Fault's Header is not
// nil, so you can set Retry-After in it.
func ErrorFault(status int, code string) *Fault {
	text := http.StatusText(status)
	a := errorAnswer(status, apiError{Code: code, Message: text, LongMessage: text}, looseIDs)
	return &Fault{Status: status, Body: string(a.body), Header: a.header}
}

// SetFault makes the server call f for each request to the Backend API and the JWKS from now on. If
// f returns nil, the request is answered as Clerk would. A nil f removes the previous one.
//
// f runs on the goroutine of the request, possibly several times at once, before the server acts on
// the request: while f blocks, nothing has happened at Clerk yet. f may call methods of the Server,
// except Close. Answers that come from a Fault's Status or Body do not count against the rate limit.
func (s *Server) SetFault(f func(r *http.Request) *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// replaces reports whether the fault replaces Clerk's answer.
func (f *Fault) replaces() bool { return f.Status != 0 || f.Body != "" }

// answer returns the answer that replaces Clerk's.
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
