package fakeclerk

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// claims returns the claims of a JWT.
func (s *Server) claims(subject string, opts TokenOptions) (map[string]any, error) {
	iat := opts.IssuedAt
	if iat.IsZero() {
		iat = s.Now()
	}
	nbf, exp := opts.NotBefore, opts.ExpiresAt
	if nbf.IsZero() {
		nbf = iat.Add(-10 * time.Second)
	}
	if exp.IsZero() {
		exp = iat.Add(time.Minute)
	}
	c := map[string]any{
		"iss": cmp.Or(opts.Issuer, s.issuer),
		"sub": subject,
		"iat": iat.Unix(),
		"nbf": nbf.Unix(),
		"exp": exp.Unix(),
		"jti": hex.EncodeToString(s.ids.bytes(10)),
	}
	if opts.AuthorizedParty != "" {
		c["azp"] = opts.AuthorizedParty
	}
	switch opts.Class {
	case SessionToken:
		if err := s.sessionClaims(c, opts); err != nil {
			return nil, err
		}
	case TemplateToken:
	case M2MToken:
		c["sub"] = cmp.Or(subject, s.ids.id("mch_"))
		c["jti"] = s.ids.id("mt_")
	case OAuthToken:
		c["jti"] = s.ids.id("oat_")
		c["client_id"] = s.ids.id("client_")
		c["scope"] = "email profile"
	default:
		return nil, fmt.Errorf("fakeclerk: unknown token class %d", opts.Class)
	}
	override(c, opts.Claims)
	return c, nil
}

// sessionClaims adds the claims that only a session token has.
func (s *Server) sessionClaims(c map[string]any, opts TokenOptions) error {
	c["sid"] = cmp.Or(opts.SessionID, s.ids.id("sess_"))
	c["fva"] = [2]int{0, -1} // minutes since the first factor; -1: no second factor
	if a := opts.Actor; a != nil {
		c["act"] = map[string]any{
			"iss": cmp.Or(a.Issuer, "https://dashboard.clerk.com"),
			"sid": cmp.Or(a.SessionID, s.ids.id("sess_")),
			"sub": a.Subject,
		}
	}
	if opts.Pending {
		c["sts"] = "pending"
	}
	o := opts.Organization
	switch opts.Version {
	case 1:
		if o != nil {
			c["org_id"], c["org_slug"], c["org_role"] = o.ID, o.Slug, o.Role
			c["org_permissions"] = orEmpty(o.Permissions)
		}
	case 0, 2:
		c["v"] = 2
		if !opts.Pending {
			c["sts"] = "active"
		}
		if o != nil {
			claim, features := compactOrganization(o)
			c["o"] = claim
			if features != "" {
				c["fea"] = features
			}
		}
	default:
		return fmt.Errorf("fakeclerk: unknown version %d of the session claims", opts.Version)
	}
	return nil
}

// compactOrganization encodes an organization as version 2 of the session claims does. fea lists the
// features that the permissions are about. In the claim, per lists the permissions, and fpm holds a
// number for each feature: its bit i is set if the feature has the i-th permission. See
// https://clerk.com/docs/guides/sessions/session-tokens.
func compactOrganization(o *Organization) (claim map[string]any, fea string) {
	var features, permissions []string
	bits := make(map[string]int)
	for _, p := range o.Permissions {
		feature, permission, _ := strings.Cut(strings.TrimPrefix(p, "org:"), ":")
		if !slices.Contains(features, feature) {
			features = append(features, feature)
		}
		i := slices.Index(permissions, permission)
		if i < 0 {
			i = len(permissions)
			permissions = append(permissions, permission)
		}
		bits[feature] |= 1 << i
	}
	masks := make([]string, len(features))
	for i, feature := range features {
		masks[i] = fmt.Sprint(bits[feature])
		features[i] = "o:" + feature
	}
	claim = map[string]any{"id": o.ID, "slg": o.Slug, "rol": strings.TrimPrefix(o.Role, "org:")}
	if len(permissions) > 0 {
		claim["per"], claim["fpm"] = strings.Join(permissions, ","), strings.Join(masks, ",")
	}
	return claim, strings.Join(features, ",")
}

// override copies entries to a map. A nil value removes the entry.
func override(in, with map[string]any) {
	maps.Copy(in, with)
	maps.DeleteFunc(in, func(_ string, v any) bool { return v == nil })
}
