package fakeclerk

import (
	"bytes"
	"cmp"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// handler returns the Backend API and the control API. Calls takes the patterns of the Backend API.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	control := s.control()
	mux.Handle(controlPath, control)
	mux.Handle(controlPath+"/", control)
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
		publicJWKSRoute:                 s.getJWKS,
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

// serve counts a request and answers it: with the fault that SetFault chose, or as Clerk would.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, pattern string, route func(*http.Request) answer) {
	status := 0 // no answer
	defer func() { s.logRequest(r, status) }()
	// Read the body first: until then, net/http does not notice that the client has gone.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))

	s.mu.Lock()
	s.calls[pattern]++
	choose, down := s.fault, s.outage.now(s.Now())
	s.mu.Unlock()
	var fault *Fault
	if choose != nil {
		fault = choose(r)
	}
	fault = cmp.Or(fault, down, &Fault{})
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
	if fault.Delay > 0 { // start before BeforeSend, which may tell a test to advance the clock
		defer s.time.AfterFunc(fault.Delay, func() { close(elapsed) })()
	} else {
		close(elapsed)
	}
	if fault.BeforeSend != nil {
		fault.BeforeSend()
	}
	s.wait(r, elapsed)
	status = a.status
	if status == http.StatusTooManyRequests {
		s.mu.Lock()
		s.limited++
		s.mu.Unlock()
	}
	s.send(w, a, fault.Truncate)
}

// answer makes the answer that Clerk would give: it checks the key and the rate limit, then calls
// the route.
func (s *Server) answer(r *http.Request, pattern string, route func(*http.Request) answer) answer {
	if pattern == publicJWKSRoute {
		return route(r)
	}
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

// send writes an answer. If cut is true, it breaks the connection after half of the body.
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
	panic(http.ErrAbortHandler) // breaks the connection without logging
}

// wait returns once done is closed. It aborts the request if the client goes away or the server
// closes first. A nil done never closes.
func (s *Server) wait(r *http.Request, done <-chan struct{}) {
	select {
	case <-done:
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	case <-s.ctx.Done():
		panic(http.ErrAbortHandler)
	}
}

// logRequest writes the line of a request to the log. The status is 0 if it got no answer.
func (s *Server) logRequest(r *http.Request, status int) {
	if s.logger != nil {
		s.logger.InfoContext(r.Context(), "request", "method", r.Method, "path", r.URL.Path, "status", status)
	}
}

// organizationPath matches the endpoints of organizations.
var organizationPath = regexp.MustCompile(`^/v1/(organizations|organization_[a-z]+|users/[^/]+/organization_[a-z]+)(/|$)`)

// noRoute answers requests for paths that Clerk or fakeclerk does not have. To the endpoints of
// organizations it gives the answer of an instance that has the feature off. The code and the texts
// are those that users have reported; Clerk's documentation does not have them.
func (s *Server) noRoute(r *http.Request) answer {
	if organizationPath.MatchString(r.URL.Path) {
		return s.refuse(http.StatusForbidden, apiError{
			Code: "organization_not_enabled_in_instance", Message: "access denied",
			LongMessage: "The organizations feature is not enabled for this instance.",
		})
	}
	return s.refuse(http.StatusNotFound, apiError{
		Code: "resource_not_found", Message: "not found",
		LongMessage: "The resource was not found, or fakeclerk does not have it",
	})
}

// olderThan reports whether a request asks for an API version before the given one, a date. A
// request without the header gets the newest version.
func olderThan(r *http.Request, version string) bool {
	asked := r.Header.Get("Clerk-API-Version")
	return asked != "" && asked < version
}

// window is the time span whose requests count against the rate limit. It starts with a request and
// lasts for rateWindow. That Clerk's windows are fixed rather than sliding is an assumption.
type window struct {
	start time.Time
	n     int
}

// admit counts a request against the rate limit. If the limit is exceeded, it returns the number of
// seconds after which the client may try again.
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

// Calls returns how many requests the Backend API has received since the start, or since
// [Server.ResetCalls]. It counts refused requests and faults too. route is a pattern of
// [http.ServeMux] with the wildcard {id}, such as "GET /v1/users", "GET /v1/users/count",
// "GET /v1/users/{id}" or "GET /v1/jwks". An empty route counts all requests, including those
// for routes that do not exist.
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

// RateLimited returns how many requests got a 429, from the rate limit or from a [Fault], since the
// start or since [Server.ResetCalls].
func (s *Server) RateLimited() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limited
}

// ResetCalls sets the counts of [Server.Calls] and [Server.RateLimited] to zero. It does not affect
// the rate limit.
func (s *Server) ResetCalls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.calls)
	s.limited = 0
}
