package cli

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// checkMongoURI finds what makes a connection string ambiguous. The driver's own
// errors would quote parts of a password that is not encoded.
func checkMongoURI(uri string) error {
	if uri == "" {
		return nil // missing
	}
	rest, ok := cutScheme(uri)
	if !ok {
		return usagef("%s does not begin with mongodb:// or mongodb+srv://", mongoURIVar)
	}
	userinfo, hosts, found := strings.Cut(rest, "@")
	if !found {
		return nil
	}
	_, err := url.PathUnescape(userinfo)
	if err != nil || strings.Contains(hosts, "@") || strings.ContainsAny(userinfo, "/?#[]") || strings.Count(userinfo, ":") > 1 {
		return usagef("%s has a character, most likely in the user name or the password, that must be percent-encoded, such as %%40 for @, %%2F for /, %%3A for : and %%25 for %%", mongoURIVar)
	}
	return nil
}

// databaseOf returns the database that a connection string names, if it does.
func databaseOf(uri string) string {
	rest, ok := cutScheme(uri)
	if !ok {
		return ""
	}
	rest, _, _ = strings.Cut(rest, "?")
	if _, hosts, found := strings.Cut(rest, "@"); found {
		rest = hosts
	}
	_, name, _ := strings.Cut(rest, "/")
	if unescaped, err := url.PathUnescape(name); err == nil {
		name = unescaped
	}
	return name
}

// withoutSecrets returns an error's text without the secrets of a connection
// string, in any of the forms that an error could quote them in.
func withoutSecrets(err error, uri string) string {
	text := err.Error()
	for _, secret := range secretsOf(uri) {
		text = strings.ReplaceAll(text, secret, "…")
	}
	return text
}

// secretsOf are the parts of a connection string that nobody is to see, the longest first.
func secretsOf(uri string) []string {
	var secrets []string
	add := func(value string) {
		forms := []string{value}
		if unescaped, err := url.QueryUnescape(value); err == nil {
			forms = append(forms, unescaped)
		}
		if unescaped, err := url.PathUnescape(value); err == nil {
			forms = append(forms, unescaped)
		}
		for _, form := range forms {
			quoted := strconv.Quote(form) // as the driver does
			secrets = append(secrets, form, quoted[1:len(quoted)-1])
		}
	}
	rest, _ := cutScheme(uri)
	beforeQuery, query, found := strings.Cut(rest, "?")
	if !found {
		query = rest // the ? was forgotten, perhaps
	}
	if userinfo, _, found := strings.Cut(beforeQuery, "@"); found {
		_, password, _ := strings.Cut(userinfo, ":")
		add(password)
	}
	for parameter := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		name, value, _ := strings.Cut(parameter, "=")
		switch name = strings.ToLower(name); {
		case strings.Contains(name, "password"):
			add(value)
		case name == "authmechanismproperties": // AWS_SESSION_TOKEN:…
			for property := range strings.SplitSeq(value, ",") {
				if name, value, _ := strings.Cut(property, ":"); strings.Contains(strings.ToLower(name), "token") {
					add(value)
				}
			}
		}
	}
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return s == "" })
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return slices.Compact(secrets)
}

// withoutScheme returns what follows any scheme, or all.
func withoutScheme(uri string) string {
	if _, rest, ok := strings.Cut(uri, "://"); ok {
		return rest
	}
	return uri
}

// cutScheme returns what follows the scheme, and whether it is one of MongoDB's.
func cutScheme(uri string) (rest string, ok bool) {
	scheme, rest, ok := strings.Cut(uri, "://")
	return rest, ok && (scheme == "mongodb" || scheme == "mongodb+srv")
}
