package fakeclerk

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// answer is a response of the Backend API, made before any of it is sent.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// handler returns the Backend API. A route's pattern is the name that Calls knows it by.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, serve := range map[string]func(*http.Request) answer{
		"GET /v1/users":                 s.listUsers,
		"POST /v1/users":                s.postUser,
		"GET /v1/users/count":           s.countUsers,
		"GET /v1/users/{id}":            s.getUser,
		"PATCH /v1/users/{id}":          s.patchUser,
		"DELETE /v1/users/{id}":         s.deleteUser,
		"POST /v1/users/{id}/ban":       s.banUser,
		"POST /v1/users/{id}/unban":     s.unbanUser,
		"PATCH /v1/users/{id}/metadata": s.mergeMetadata,
		"PUT /v1/users/{id}/metadata":   s.replaceMetadata,
		jwksRoute:                       s.getJWKS,
		"/":                             s.noRoute,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if !s.begin() {
				panic(http.ErrAbortHandler)
			}
			defer s.wg.Done()
			s.serve(w, r, pattern, serve)
		})
	}
	return mux
}

const jwksRoute = "GET /v1/jwks"

// serve counts a request, and answers it by the fault that is set or by Clerk's rules.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, pattern string, route func(*http.Request) answer) {
	// Read now: net/http notices that a client has gone only once the body is read.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))

	s.mu.Lock()
	s.calls[pattern]++
	choose := s.fault
	s.mu.Unlock()
	var fault *Fault
	if choose != nil {
		fault = choose(r)
	}
	if fault == nil {
		fault = &Fault{}
	}
	if fault.Hang {
		s.wait(r, nil)
	}

	var a answer
	if fault.replaces() {
		a = fault.answer()
	} else {
		a = s.answer(r, pattern, route)
		for name, values := range fault.Header {
			a.header[http.CanonicalHeaderKey(name)] = values
		}
	}
	elapsed := make(chan struct{})
	if fault.Delay > 0 { // before the hook, which may tell a test to advance the clock
		defer s.time.AfterFunc(fault.Delay, func() { close(elapsed) })()
	} else {
		close(elapsed)
	}
	if fault.BeforeSend != nil {
		fault.BeforeSend()
	}
	s.wait(r, elapsed)
	if a.status == http.StatusTooManyRequests {
		s.mu.Lock()
		s.limited++
		s.mu.Unlock()
	}
	s.send(w, a, fault.Truncate)
}

// answer makes the answer of a Clerk without faults.
func (s *Server) answer(r *http.Request, pattern string, route func(*http.Request) answer) answer {
	header := r.Header.Get("Authorization")
	scheme, key, _ := strings.Cut(header, " ")
	switch {
	case header == "":
		return s.refuse(http.StatusUnauthorized, apiError{
			Code: "authentication_invalid", Message: "Invalid authentication",
			LongMessage: "Unable to authenticate the request, you need to supply an active session",
		})
	case !strings.EqualFold(scheme, "Bearer") || strings.TrimSpace(key) != s.secretKey:
		const text = "The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct."
		return s.refuse(http.StatusUnauthorized, apiError{Code: "clerk_key_invalid", Message: text, LongMessage: text})
	}
	if pattern != jwksRoute {
		if retryAfter, admitted := s.admit(); !admitted {
			a := s.refuse(http.StatusTooManyRequests, apiError{
				Code: "too_many_requests", Message: "Too many requests",
				LongMessage: "Too many requests. Please try again in a bit.",
			})
			a.header.Set("Retry-After", strconv.Itoa(retryAfter))
			return a
		}
	}
	return route(r)
}

// send writes an answer; cut ends the connection halfway through the body.
func (s *Server) send(w http.ResponseWriter, a answer, cut bool) {
	h := w.Header()
	h.Set("Date", s.Now().UTC().Format(http.TimeFormat))
	for name, values := range a.header {
		h[name] = values
	}
	if a.status != http.StatusNoContent && a.status != http.StatusNotModified {
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	if !cut {
		_, _ = w.Write(a.body)
		return
	}
	_, _ = w.Write(a.body[:len(a.body)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler) // breaks the connection without a log line
}

// wait returns once done is closed. It gives the request up where the client goes away
// or the server closes first; a nil done never comes.
func (s *Server) wait(r *http.Request, done <-chan struct{}) {
	select {
	case <-done:
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	case <-s.ctx.Done():
		panic(http.ErrAbortHandler)
	}
}

// Calls returns how many requests the Backend API received, whatever it answered, since
// the start or ResetCalls. route is a [http.ServeMux] pattern with the wildcard {id}:
// "GET /v1/users", "GET /v1/users/count", "GET /v1/users/{id}", "GET /v1/jwks" and so
// on. An empty route stands for all of them, and for those that do not exist.
func (s *Server) Calls(route string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if route != "" {
		return s.calls[route]
	}
	n := 0
	for _, c := range s.calls {
		n += c
	}
	return n
}

// RateLimited returns how many requests were answered 429, by the rate limit or by a
// [Fault], since the start or ResetCalls.
func (s *Server) RateLimited() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limited
}

// ResetCalls sets the counts of Calls and RateLimited to zero. The rate limit goes on as it was.
func (s *Server) ResetCalls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.calls)
	s.limited = 0
}

// window is the span in which requests are counted against the rate limit.
type window struct {
	start time.Time
	n     int
}

// admit counts a request against the rate limit. Where it is over, it returns after how
// many seconds to try again.
func (s *Server) admit() (retryAfter int, admitted bool) {
	if s.limit < 0 {
		return 0, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Now()
	if s.window.n == 0 || now.Sub(s.window.start) >= rateWindow {
		s.window = window{start: now}
	}
	if s.window.n >= s.limit {
		left := s.window.start.Add(rateWindow).Sub(now)
		return int((left + time.Second - 1) / time.Second), false
	}
	s.window.n++
	return 0, true
}

// apiError is Clerk's ClerkError schema.
type apiError struct {
	Message     string         `json:"message"`
	LongMessage string         `json:"long_message"`
	Code        string         `json:"code"`
	Meta        map[string]any `json:"meta,omitempty"`

	status int // defaults to 422
}

// Error makes an apiError what the parsers of parameters return.
func (e apiError) Error() string { return e.LongMessage }

// badParam is a 422 about one parameter. kind is "invalid", "unknown", "missing" and so on.
func badParam(kind, name, message string) error {
	return apiError{
		Code: "form_param_" + kind, Message: message, LongMessage: name + " " + message,
		Meta: map[string]any{"param_name": name},
	}
}

// ok answers 200 with v as JSON.
func ok(v any) answer { return okJSON(mustMarshal(v)) }

// okJSON answers 200 with what is JSON already.
func okJSON(body []byte) answer {
	return answer{
		status: http.StatusOK,
		header: http.Header{"Content-Type": {"application/json"}},
		body:   body,
	}
}

// refuse answers an error in Clerk's shape.
func (s *Server) refuse(status int, e apiError) answer {
	return errorAnswer(status, e, s.ids)
}

// errorAnswer is an answer of Clerk's ClerkErrors schema.
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

// failed answers an error of a route: 404 for ErrUserNotFound, mostly 422 for the rest.
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

// olderThan reports whether a request asks for an API version before the given one,
// which is a date. Without the header it gets the newest.
func olderThan(r *http.Request, version string) bool {
	asked := r.Header.Get("Clerk-API-Version")
	return asked != "" && asked < version
}

func (s *Server) noRoute(*http.Request) answer {
	return s.refuse(http.StatusNotFound, apiError{
		Code: "resource_not_found", Message: "not found", LongMessage: "The resource was not found, or fakeclerk lacks it",
	})
}

func (s *Server) getUser(r *http.Request) answer {
	id := r.PathValue("id")
	s.mu.Lock()
	e, found := s.users.find(id)
	s.mu.Unlock()
	if !found {
		return s.failed(ErrUserNotFound, id)
	}
	return okJSON(s.users.json(e))
}

func (s *Server) deleteUser(r *http.Request) answer {
	id := r.PathValue("id")
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.delete(id)
	if err != nil {
		return s.failed(err, id)
	}
	return ok(d)
}

func (s *Server) banUser(r *http.Request) answer {
	return s.changeUser(r, func(u *UserObject) error { u.Banned = true; return nil })
}

func (s *Server) unbanUser(r *http.Request) answer {
	return s.changeUser(r, func(u *UserObject) error { u.Banned = false; return nil })
}

// changeUser answers a request that changes the user named in its path.
func (s *Server) changeUser(r *http.Request, f func(*UserObject) error) answer {
	id := r.PathValue("id")
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.users.get(id)
	if old == nil {
		return s.failed(ErrUserNotFound, id)
	}
	trial, err := old.clone() // so that a refusal changes nothing
	if err == nil {
		err = f(trial)
	}
	if err != nil {
		return s.failed(err, id)
	}
	u, err := s.change(id, true, func(u *UserObject) { *u = *trial })
	if err != nil {
		return s.failed(err, id)
	}
	s.emit("user.updated", u)
	return ok(u)
}

// fieldsOf decodes the JSON object that is a request's body. Without one there are no
// fields, where the body is not required.
func fieldsOf(r *http.Request, required bool) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	err := json.NewDecoder(r.Body).Decode(&fields)
	if errors.Is(err, io.EOF) && !required {
		return nil, nil
	}
	if err != nil {
		return nil, apiError{
			Code: "request_body_invalid", Message: "Request body invalid",
			LongMessage: "The request body is not a JSON object.", status: http.StatusBadRequest,
		}
	}
	return fields, nil
}
