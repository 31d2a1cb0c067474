package clerkapi

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/idset"
)

// Position is a place in Clerk's list of users, in the order in which they signed up.
type Position struct {
	After   string `json:"after,omitempty"`   // the last user passed
	Created int64  `json:"created,omitempty"` // that user's created_at
	Passed  int    `json:"passed,omitempty"`  // how many users were passed
}

// Page is one page of Clerk's list: its users, when it was requested, and the position
// after it.
type Page struct {
	Users []ListedUser
	AsOf  time.Time
	Until Position
}

// Pager walks Clerk's users from the first who signed up to the last. It is not safe for
// concurrent use.
//
// It pages by key: each page begins after the last user of the one before, so deletions
// in between shift nothing. If Clerk does not accept that (an API version before
// 2026-05-12), or repeats itself, it pages by offset. Then each page begins with users
// that the one before ended with, so nobody is missed if deletions shift the list.
//
// https://clerk.com/docs/reference/backend-api/tag/users/get/users
type Pager struct {
	clerk *BulkReader
	size  int
	seen  *idset.Set
	total int // users that Clerk says it has, at the last count

	start, at Position
	// anchors are users that the next page may begin after, the best first. They are the
	// last users of the page before; Clerk may have deleted the very last.
	anchors []string
	tried   int // anchors that Clerk rejected

	byOffset bool
	offset   int
	idle     int // pages by offset without a new user, since the last that had one
	done     bool
}

// maxAnchors is how many of the last users the next page tries to begin after. If Clerk
// rejects all of them, paging continues by offset.
const maxAnchors = 3

// NewPager returns a Pager that begins after from. total is how many users there are.
func NewPager(clerk *BulkReader, size int, from Position, total int) *Pager {
	from.Passed = min(from.Passed, total) // some may have been deleted since
	p := &Pager{clerk: clerk, size: size, seen: idset.New(total - from.Passed), total: total, start: from, at: from}
	if from.After != "" {
		p.anchors = []string{from.After} // not among seen: it may have been deleted since
	}
	return p
}

// Seen reports whether the walk has passed a user with this id.
func (p *Pager) Seen(id string) bool { return p.seen.Has(id) }

// Passed is how many users the walk has passed, those of a run it resumes included.
func (p *Pager) Passed() int { return p.at.Passed }

// Total is how many users Clerk says it has, at the last count.
func (p *Pager) Total() int { return p.total }

// Complete reports whether the walk has passed at least 99 % of the users: some sign up
// and others are deleted while it goes on.
func (p *Pager) Complete() bool { return p.done && p.at.Passed >= p.total-p.total/100 }

// Next returns the next users, none of them twice. A page without users is the end.
func (p *Pager) Next(ctx context.Context) (page Page, err error) {
	for len(page.Users) == 0 && !p.done && err == nil {
		if p.byOffset {
			page, err = p.nextByOffset(ctx)
		} else {
			page, err = p.nextByKey(ctx)
		}
	}
	return page, err
}

func (p *Pager) nextByKey(ctx context.Context) (Page, error) {
	params := p.params(p.size)
	if len(p.anchors) > 0 {
		params.Set("starting_after", p.anchors[0])
	}
	users, asOf, err := p.clerk.Users(ctx, params)
	if len(p.anchors) > 0 && rejectsParameter(err) {
		p.tried++
		if p.anchors = p.anchors[1:]; len(p.anchors) == 0 {
			p.goByOffset()
		}
		return Page{}, nil
	}
	if err != nil {
		return Page{}, err
	}
	before := p.at
	unseen := p.markSeen(users)
	if len(users)-len(unseen) > p.tried {
		p.goByOffset() // Clerk repeats itself, so it may also have left out users
		return Page{Users: unseen, AsOf: asOf, Until: before}, nil
	}
	p.tried = 0
	p.pass(users)
	return Page{Users: unseen, AsOf: asOf, Until: p.at}, p.checkEnd(ctx, len(users) < p.size, len(unseen) == 0)
}

func (p *Pager) goByOffset() {
	p.byOffset = true
	p.offset = max(0, p.at.Passed-p.size)
}

func (p *Pager) nextByOffset(ctx context.Context) (Page, error) {
	size := max(p.size, 10)
	overlap := size / 10
	params := p.params(size)
	params.Set("offset", strconv.Itoa(p.offset))
	// Even a restart from the first page would have reached a new user by now: Clerk ignores
	// the offset, and the list would never end.
	if p.idle++; p.idle > 10+3*p.at.Passed/size {
		p.done = true
		return Page{}, nil
	}
	users, asOf, err := p.clerk.Users(ctx, params)
	if err != nil {
		return Page{}, err
	}
	if p.offset > 0 && !p.overlaps(users) {
		p.offset = max(0, p.offset-size)
		return Page{}, nil
	}
	unseen := p.markSeen(users)
	if len(unseen) > 0 {
		p.idle = 0
	}
	p.pass(users)
	p.offset += max(1, len(users)-min(overlap, len(users)/2))
	return Page{Users: unseen, AsOf: asOf, Until: p.at}, p.checkEnd(ctx, len(users) < size, len(unseen) == 0)
}

// overlaps reports whether a page by offset begins with users the walk has passed, so
// that none was left out before it.
func (p *Pager) overlaps(users []ListedUser) bool {
	return len(users) > 0 &&
		(users[0].Created < p.at.Created || users[0].key() == p.start.After || p.seen.Has(users[0].key()))
}

// params sorts by created_at, which never changes.
func (p *Pager) params(limit int) url.Values {
	return url.Values{"order_by": {"created_at"}, "limit": {strconv.Itoa(limit)}}
}

// markSeen marks users as seen and returns those that were not.
func (p *Pager) markSeen(users []ListedUser) []ListedUser {
	unseen := make([]ListedUser, 0, len(users))
	for _, u := range users {
		if !p.seen.Add(u.key()) {
			continue
		}
		unseen = append(unseen, u)
		if u.Created >= p.start.Created && u.key() != p.start.After { // the resumed run has counted the others
			p.at.Passed++
		}
	}
	return unseen
}

// pass moves the position to the end of a page.
func (p *Pager) pass(users []ListedUser) {
	var anchors []string
	for _, u := range slices.Backward(users) {
		if u.ID == "" {
			continue
		}
		if anchors = append(anchors, u.ID); len(anchors) == maxAnchors {
			break
		}
		p.at.Created = max(p.at.Created, u.Created)
	}
	if len(anchors) > 0 {
		p.anchors, p.at.After = anchors, anchors[0]
	}
}

// checkEnd ends the walk at a short page, which is the last one, unless Clerk counts more
// users than were passed and the page had new ones.
func (p *Pager) checkEnd(ctx context.Context, short, nothingNew bool) (err error) {
	if !short {
		return nil
	}
	if p.total, err = p.clerk.Count(ctx); err == nil {
		p.done = nothingNew || p.at.Passed >= p.total
	}
	return err
}
