package cli

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// checkMongoURI refuses an ambiguous connection string. The driver's own errors would quote parts
// of a password that is not percent-encoded.
func checkMongoURI(uri string) error {
	if uri == "" {
		return nil // reported as missing
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
		return usagef("%s has a character that must be percent-encoded, most likely in the user name or the password: "+
			"%%40 for @, %%2F for /, %%3A for : and %%25 for %%", mongoURIVar)
	}
	return nil
}

// databaseOf returns the database that a connection string names, or "".
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

// withoutSecrets returns an error's text without the secrets of a connection string, in every form
// in which an error may quote them.
func withoutSecrets(err error, uri string) string {
	text := err.Error()
	for _, secret := range secretsOf(uri) {
		text = strings.ReplaceAll(text, secret, "…")
	}
	return text
}

// secretsOf returns the secret parts of a connection string in all their forms, the longest first.
func secretsOf(uri string) []string {
	var secrets []string
	rest, _ := cutScheme(uri)
	beforeQuery, query, found := strings.Cut(rest, "?")
	if !found {
		query = rest // the ? may have been forgotten
	}
	if userinfo, _, found := strings.Cut(beforeQuery, "@"); found {
		_, password, _ := strings.Cut(userinfo, ":")
		secrets = append(secrets, formsOf(password)...)
	}
	for parameter := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		name, value, _ := strings.Cut(parameter, "=")
		switch name = strings.ToLower(name); {
		case strings.Contains(name, "password"):
			secrets = append(secrets, formsOf(value)...)
		case name == "authmechanismproperties": // AWS_SESSION_TOKEN:…
			for property := range strings.SplitSeq(value, ",") {
				name, value, _ := strings.Cut(property, ":")
				if strings.Contains(strings.ToLower(name), "token") {
					secrets = append(secrets, formsOf(value)...)
				}
			}
		}
	}
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return s == "" })
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return slices.Compact(secrets)
}

// formsOf returns value as it is and unescaped, and each of them also as the driver quotes it.
func formsOf(value string) []string {
	forms := []string{value}
	if unescaped, err := url.QueryUnescape(value); err == nil {
		forms = append(forms, unescaped)
	}
	if unescaped, err := url.PathUnescape(value); err == nil {
		forms = append(forms, unescaped)
	}
	for _, form := range slices.Clone(forms) {
		quoted := strconv.Quote(form)
		forms = append(forms, quoted[1:len(quoted)-1])
	}
	return forms
}

// withoutScheme returns what follows any scheme. Without a scheme it returns all of uri.
func withoutScheme(uri string) string {
	if _, rest, ok := strings.Cut(uri, "://"); ok {
		return rest
	}
	return uri
}

// cutScheme returns what follows the scheme, and whether the scheme is one of MongoDB's.
func cutScheme(uri string) (rest string, ok bool) {
	scheme, rest, ok := strings.Cut(uri, "://")
	return rest, ok && (scheme == "mongodb" || scheme == "mongodb+srv")
}
