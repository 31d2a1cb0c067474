package fakeclerk

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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
