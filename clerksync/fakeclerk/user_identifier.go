package fakeclerk

import (
	"strings"

	"github.com/clerk/clerk-sdk-go/v2"
)

// identifier is an e-mail address, a phone number, a wallet or, without an id, a username or external
// id.
type identifier struct{ id, text string }

func (u *UserObject) emails() []identifier {
	return identifiers(u.EmailAddresses, func(e *clerk.EmailAddress) identifier {
		return identifier{e.ID, e.EmailAddress}
	})
}

func (u *UserObject) phones() []identifier {
	return identifiers(u.PhoneNumbers, func(p *clerk.PhoneNumber) identifier {
		return identifier{p.ID, p.PhoneNumber}
	})
}

func (u *UserObject) wallets() []identifier {
	return identifiers(u.Web3Wallets, func(w *clerk.Web3Wallet) identifier {
		return identifier{w.ID, w.Web3Wallet}
	})
}

func (u *UserObject) name() string {
	return strings.TrimSpace(deref(u.FirstName) + " " + deref(u.LastName))
}

func identifiers[T any](from []T, f func(T) identifier) []identifier {
	list := make([]identifier, len(from))
	for i, v := range from {
		list[i] = f(v)
	}
	return list
}

func texts(list []identifier) []string {
	s := make([]string, len(list))
	for i, v := range list {
		s[i] = v.text
	}
	return s
}

// first returns the text of the primary identifier, or "" if there is none.
func first(list []identifier, primary *string) string {
	for _, v := range list {
		if primary != nil && v.id == *primary {
			return v.text
		}
	}
	return ""
}

func optional(s *string) []identifier {
	if s == nil {
		return nil
	}
	return []identifier{{text: *s}}
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
