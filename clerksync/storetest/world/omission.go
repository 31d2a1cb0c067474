package world

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// The ways in which Clerk's lists may be incomplete.
const (
	lagging     = "Clerk's replica lags behind"
	missingOne  = "Clerk's lists lack a user"
	missingMany = "Clerk's lists are short of its count"
)

// omission is what Clerk leaves out during one Reconcile.
type omission struct {
	ids   map[string]bool // the users
	lists bool            // they are not in pages, nor in lists by id
	one   bool            // each of them alone is not found either: a replica lags behind
	count bool            // they are not counted
	young bool            // this ends when they are as old as lagsBy
}

// lagsBy is how far a replica lags: less than the holdback.
const lagsBy = holdback - time.Minute

// lacks reports whether Clerk leaves the user out now.
func (w *world) lacks(o omission, id string) bool {
	return o.ids[id] && (!o.young || w.isYoung(w.byID[id]))
}

func (w *world) isYoung(u *user) bool { return ms(w.clock.Now())-u.born < lagsBy.Milliseconds() }

// omission chooses what Clerk leaves out: nothing for 0.
func (w *world) omission(n int, p *process) omission {
	living := slices.DeleteFunc(slices.Clone(w.users), func(u *user) bool { return !u.lives() })
	switch n {
	case 1:
		young := slices.DeleteFunc(living, func(u *user) bool { return !w.isYoung(u) })
		if len(young) == 0 || p.skew > 0 { // a clock ahead takes a young record for an older one
			return omission{}
		}
		w.counts.add(lagging)
		return omission{ids: idsOf(young), lists: true, one: true, count: true, young: true}
	case 2:
		w.counts.add(missingOne)
		one := living[len(w.sent)%len(living)]
		return omission{ids: idsOf([]*user{one}), lists: true, count: true}
	case 3:
		w.counts.add(missingMany)
		return omission{ids: idsOf(living[len(living)/2:]), lists: true}
	}
	return omission{}
}

func idsOf(users []*user) map[string]bool {
	ids := make(map[string]bool)
	for _, u := range users {
		ids[u.id] = true
	}
	return ids
}

// edit removes from an answer what Clerk leaves out. It returns the ids on a page of all users.
func (r *run) edit(request *http.Request, response *http.Response) (listed []string) {
	if response.StatusCode != http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil { // the answer is cut off, which the Syncer must notice
		response.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failingReader{err}))
		return nil
	}
	path := request.URL.Path
	switch {
	case strings.HasSuffix(path, "/users/count"):
		body = r.editCount(body)
	case strings.HasSuffix(path, "/users"):
		body, listed = r.editList(body)
		if !isPage(request) {
			listed = nil
		}
	case r.omits.one && r.w.lacks(r.omits, path[strings.LastIndexByte(path, '/')+1:]):
		notFound := fakeclerk.ErrorFault(http.StatusNotFound, "resource_not_found")
		body, response.StatusCode = []byte(notFound.Body), http.StatusNotFound
	}
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	response.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return listed
}

func (r *run) editCount(body []byte) []byte {
	omitted := 0
	for id := range r.omits.ids {
		if r.w.lacks(r.omits, id) && r.w.byID[id].lives() {
			omitted++
		}
	}
	var c struct {
		Count int `json:"total_count"`
	}
	if !r.omits.count || omitted == 0 || json.Unmarshal(body, &c) != nil {
		return body
	}
	return []byte(`{"object":"total_count","total_count":` + strconv.Itoa(c.Count-omitted) + `}`)
}

// editList returns a list without the users whom Clerk leaves out, and the ids of the others.
func (r *run) editList(body []byte) (edited []byte, ids []string) {
	var users []json.RawMessage
	if json.Unmarshal(body, &users) != nil {
		return body, nil
	}
	kept := make([]json.RawMessage, 0, len(users))
	for _, raw := range users {
		var user struct{ ID string }
		_ = json.Unmarshal(raw, &user)
		if r.omits.lists && r.w.lacks(r.omits, user.ID) {
			continue
		}
		kept, ids = append(kept, raw), append(ids, user.ID)
	}
	if len(kept) < len(users) {
		body, _ = json.Marshal(kept)
	}
	return body, ids
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// isPage reports whether a request asks for a page of all users.
func isPage(r *http.Request) bool {
	return strings.HasSuffix(r.URL.Path, "/users") && !r.URL.Query().Has("user_id")
}
