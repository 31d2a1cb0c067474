package mongostore

import (
	"cmp"
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

// userSurvey counts what would become of Clerk's users, without writing.
type userSurvey struct {
	store               *Store
	byExternal, byEmail func(context.Context, []*clerksync.User) ([]clerksync.Adoption, error)
	counts              AdoptionCounts
	extra               map[string]bool // the names that Map sets, at most maxNames
	roleFromClerk       bool
}

// newUserSurvey returns a survey of the ways of adoption that these Options allow.
func (i *inspector) newUserSurvey() (*userSurvey, error) {
	u := &userSurvey{store: i.store, extra: make(map[string]bool)}
	if i.store.codec.idIsClerkID() {
		return u, nil // no record can get a Clerk id
	}
	has := Adopt{}
	if i.opts.Adopt != nil {
		has = *i.opts.Adopt
	}
	way := func(a *Adopt) (*Store, error) {
		opts := *i.opts
		opts.Adopt = a
		return newStore(i.store.coll.raw, &opts)
	}
	field := cmp.Or(has.ByExternalID, "_id")
	external, err := way(&Adopt{ByExternalID: field})
	if err != nil {
		return nil, err
	}
	u.byExternal = external.Adoptions
	u.counts.ByExternalID = AdoptionWay{On: has.ByExternalID != "", Field: field}
	if i.store.codec.drops("email") {
		return u, nil
	}
	email, err := way(&Adopt{ByEmail: true, Trusted: append(bson.D{}, has.Trusted...)})
	if err != nil {
		return nil, err
	}
	u.byEmail = email.Adoptions
	u.counts.ByEmail = AdoptionWay{On: has.ByEmail, Field: i.store.codec.path("email")}
	return u, nil
}

// visit counts some users.
func (u *userSurvey) visit(ctx context.Context, us []*clerksync.User) error {
	ids := make([]string, len(us))
	for i, user := range us {
		ids[i] = user.ClerkID
		u.roleFromClerk = u.roleFromClerk || user.RoleFromClerk
		for name := range user.Extra {
			if len(u.extra) < maxNames {
				u.extra[name] = true
			}
		}
	}
	known, err := u.store.Stamps(ctx, ids)
	if err != nil {
		return err
	}
	u.counts.Users += len(us)
	u.counts.Linked += len(known)
	unknown := us[:0:0]
	for _, user := range us {
		if _, ok := known[user.ClerkID]; !ok {
			unknown = append(unknown, user)
		}
	}
	return u.count(ctx, unknown)
}

// count counts users who have no record.
func (u *userSurvey) count(ctx context.Context, us []*clerksync.User) error {
	external, err := askWay(ctx, u.byExternal, us)
	if err != nil {
		return err
	}
	email, err := askWay(ctx, u.byEmail, us)
	if err != nil {
		return err
	}
	for i, user := range us {
		ext, mail := external[i], email[i]
		u.counts.ByExternalID.add(user.ExternalID, ext)
		u.counts.ByEmail.add(user.Email, mail)
		if ext.By == "" && ext.Err == nil {
			ext = mail // e-mail is tried if the external id names no record
		}
		switch {
		case ext.Err != nil:
		case ext.By != "":
			u.counts.Either++
		default:
			u.counts.New++
		}
	}
	return nil
}

// add counts a user who has value, and what the way would do to the user.
func (w *AdoptionWay) add(value string, a clerksync.Adoption) {
	if value != "" {
		w.Has++
	}
	switch {
	case a.Err != nil:
		w.Refuses++
	case a.By != "":
		w.Adopts++
	}
}

// askWay returns no adoptions none if a way does not exist.
func askWay(
	ctx context.Context, way func(context.Context, []*clerksync.User) ([]clerksync.Adoption, error), us []*clerksync.User,
) ([]clerksync.Adoption, error) {
	if way == nil || len(us) == 0 {
		return make([]clerksync.Adoption, len(us)), nil
	}
	return way(ctx, us)
}
