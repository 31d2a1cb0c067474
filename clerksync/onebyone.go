package clerksync

import (
	"context"
	"errors"
	"iter"
)

// oneByOne makes a BatchStore of any Store, but for Undeleted: a Store that cannot
// list its records cannot be searched for ghosts.
type oneByOne struct{ Store }

func (s oneByOne) UpsertBatch(ctx context.Context, us []*User) ([]Result, error) {
	results := make([]Result, len(us))
	errs := make(map[int]error)
	for i, u := range us {
		var err error
		if results[i], err = s.Upsert(ctx, u); err != nil {
			errs[i] = err
		}
	}
	if len(errs) > 0 {
		return results, &BatchError{Errs: errs}
	}
	return results, nil
}

func (s oneByOne) Users(ctx context.Context, ids []string) (map[string]*User, error) {
	found := make(map[string]*User, len(ids))
	for _, id := range ids {
		u, err := s.User(ctx, id)
		if err == nil {
			found[id] = u
		} else if !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	return found, nil
}

func (s oneByOne) Stamps(ctx context.Context, ids []string) (map[string]Stamp, error) {
	users, err := s.Users(ctx, ids)
	stamps := make(map[string]Stamp, len(users))
	for id, u := range users {
		stamps[id] = Stamp{
			ClerkID:        id,
			ClerkUpdatedAt: u.ClerkUpdatedAt, SyncedAt: u.SyncedAt, CreatedAt: u.CreatedAt, DeletedAt: u.DeletedAt,
			IsActive: u.IsActive,
		}
	}
	return stamps, err
}

func (s oneByOne) Undeleted(context.Context) iter.Seq2[Stamp, error] {
	return func(func(Stamp, error) bool) {}
}
