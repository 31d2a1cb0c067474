package clerksync

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// position is a place in Clerk's list of users, in the order in which they signed
// up.
type position struct {
	After   string `json:"after,omitempty"`   // the last user passed
	Created int64  `json:"created,omitempty"` // that user's created_at
	Passed  int    `json:"passed,omitempty"`  // how many users were passed
}

// clerkPage is users that Clerk listed, as of a time, and how far the list is read
// with them.
type clerkPage struct {
	users []listed
	asOf  time.Time
	until position
}

// pager walks Clerk's users from the first who signed up to the last, by keyset:
// each page begins after the last user of the one before, so that deletions
// meanwhile shift nothing. Where Clerk does not take that (an API version before
// 2026-05-12), or repeats itself, it walks by offset, each page beginning with
// users that the one before ended with: what deletions shift is seen all the same.
//
// https://clerk.com/docs/reference/backend-api/tag/users/get/users
type pager struct {
	clerk *bulkReader
	size  int
	seen  *idSet
	total int // users that Clerk says it has, at the last count

	start, at position
	// anchors are users after whom the next page may begin, the best first: the
	// last ones of the page before, as Clerk may have deleted the very last.
	anchors []string
	tried   int // anchors that Clerk did not take

	byOffset bool
	offset   int
	idle     int // pages by offset with nobody new, since the last that had any
	done     bool
}

// maxAnchors is how many of the last users may be deleted between two pages
// before the walk goes on by offset.
const maxAnchors = 3

// newPager begins after from; total is how many users there are.
func newPager(clerk *bulkReader, size int, from position, total int) *pager {
	from.Passed = min(from.Passed, total) // some may have been deleted since
	p := &pager{clerk: clerk, size: size, seen: newIDSet(total - from.Passed), total: total, start: from, at: from}
	if from.After != "" {
		p.anchors = []string{from.After} // not seen: it may be deleted since
	}
	return p
}

// next returns the next users, none of them twice; none at all once done.
func (p *pager) next(ctx context.Context) (page clerkPage, err error) {
	for len(page.users) == 0 && !p.done && err == nil {
		if p.byOffset {
			page, err = p.nextByOffset(ctx)
		} else {
			page, err = p.nextByKeyset(ctx)
		}
	}
	return page, err
}

func (p *pager) nextByKeyset(ctx context.Context) (clerkPage, error) {
	params := p.params(p.size)
	if len(p.anchors) > 0 {
		params.Set("starting_after", p.anchors[0])
	}
	users, asOf, err := p.clerk.users(ctx, params)
	if len(p.anchors) > 0 && unacceptable(err) {
		p.tried++
		if p.anchors = p.anchors[1:]; len(p.anchors) == 0 {
			p.goByOffset()
		}
		return clerkPage{}, nil
	}
	if err != nil {
		return clerkPage{}, err
	}
	before := p.at
	fresh := p.unseen(users)
	if len(users)-len(fresh) > p.tried {
		p.goByOffset() // and who knows what was left out
		return clerkPage{users: fresh, asOf: asOf, until: before}, nil
	}
	p.tried = 0
	p.pass(users)
	return clerkPage{users: fresh, asOf: asOf, until: p.at}, p.checkEnd(ctx, len(users) < p.size, len(fresh) == 0)
}

func (p *pager) goByOffset() {
	p.byOffset = true
	p.offset = max(0, p.at.Passed-p.size)
}

func (p *pager) nextByOffset(ctx context.Context) (clerkPage, error) {
	size := max(p.size, 10)
	overlap := size / 10
	params := p.params(size)
	params.Set("offset", strconv.Itoa(p.offset))
	// Going back to the first page and coming again takes fewer pages: this list
	// does not heed the offset, and has no end.
	if p.idle++; p.idle > 10+3*p.at.Passed/size {
		p.done = true
		return clerkPage{}, nil
	}
	users, asOf, err := p.clerk.users(ctx, params)
	if err != nil {
		return clerkPage{}, err
	}
	if p.offset > 0 && !p.overlaps(users) {
		p.offset = max(0, p.offset-size)
		return clerkPage{}, nil
	}
	fresh := p.unseen(users)
	if len(fresh) > 0 {
		p.idle = 0
	}
	p.pass(users)
	p.offset += max(1, len(users)-min(overlap, len(users)/2))
	return clerkPage{users: fresh, asOf: asOf, until: p.at}, p.checkEnd(ctx, len(users) < size, len(fresh) == 0)
}

// overlaps reports whether a page by offset begins where the walk has been, so that
// none was left out before it.
func (p *pager) overlaps(users []listed) bool {
	return len(users) > 0 &&
		(users[0].created < p.at.Created || users[0].key() == p.start.After || p.seen.has(users[0].key()))
}

// params asks for users in an order that neither time nor changes move them in.
func (p *pager) params(limit int) url.Values {
	return url.Values{"order_by": {"created_at"}, "limit": {strconv.Itoa(limit)}}
}

// unseen adds users to those seen and passed, and returns the new ones among them.
func (p *pager) unseen(users []listed) []listed {
	fresh := make([]listed, 0, len(users))
	for _, u := range users {
		if !p.seen.add(u.key()) {
			continue
		}
		fresh = append(fresh, u)
		if u.created >= p.start.Created && u.key() != p.start.After { // others the run before has passed
			p.at.Passed++
		}
	}
	return fresh
}

// pass moves the position to the end of a page.
func (p *pager) pass(users []listed) {
	var anchors []string
	for _, u := range slices.Backward(users) {
		if u.id == "" {
			continue
		}
		if anchors = append(anchors, u.id); len(anchors) == maxAnchors {
			break
		}
		p.at.Created = max(p.at.Created, u.created)
	}
	if len(anchors) > 0 {
		p.anchors, p.at.After = anchors, anchors[0]
	}
}

// checkEnd ends the walk at a short page, which is the last one, unless Clerk counts
// more users than were passed and the page had any that are new.
func (p *pager) checkEnd(ctx context.Context, short, nothingNew bool) (err error) {
	if !short {
		return nil
	}
	if p.total, err = p.clerk.count(ctx); err == nil {
		p.done = nothingNew || p.at.Passed >= p.total
	}
	return err
}

// complete reports whether the walk has passed all users but one in a hundred: some
// sign up and others are deleted while it goes on.
func (p *pager) complete() bool { return p.done && p.at.Passed >= p.total-p.total/100 }

// unacceptable reports whether Clerk refused a parameter.
func unacceptable(err error) bool {
	var refused *clerkError
	if !errors.As(err, &refused) {
		return false
	}
	switch refused.status {
	case http.StatusUnprocessableEntity, http.StatusBadRequest:
		return true
	case http.StatusNotFound:
		return refused.code != "" // else it is a proxy's
	}
	return false
}
