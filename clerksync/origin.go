package clerksync

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/clerksync/clerksync-go/clerksync/internal/setting"
)

// exampleOrigin is what an error shows if it cannot tell what was meant.
const exampleOrigin = "https://app.example.com"

// normalOrigin returns an origin in the form in which browsers send it, which is the form of
// a token's azp: scheme and host in lower case, no default port, no final slash. If value is
// no such origin, fault says why and what to write instead.
func normalOrigin(value string) (origin, fault string) {
	value = strings.TrimSpace(value)
	u, err := url.Parse(value)
	switch is := setting.Fault(value); {
	case is != "":
		return "", "it " + is + "; write " + exampleOrigin
	case strings.Contains(value, "*"):
		return "", "wildcards are not supported; list each origin, such as " + exampleOrigin
	case err != nil || strings.ContainsAny(value, " ,;\\"):
		return "", "it cannot be read as a URL; write one origin for each entry, such as " + exampleOrigin
	case u.Scheme == "" || u.Host == "":
		return "", "it has no scheme or no host; write " + suggestion(value)
	}
	host, fault := originHost(u)
	switch {
	case fault != "":
		return "", fault
	case u.User != nil:
		return "", "it has a user in it; write " + u.Scheme + "://" + host
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || strings.Contains(value, "#"):
		return "", "it has a path, query or fragment; write " + u.Scheme + "://" + host
	}
	return u.Scheme + "://" + host, ""
}

// suggestion returns a host's name without a scheme as an origin. Other values are not shown:
// they may be secrets.
func suggestion(value string) string {
	u, err := url.Parse("https://" + strings.TrimPrefix(value, "//"))
	if err != nil || strings.Trim(u.Path, "/") != "" || u.User != nil {
		return exampleOrigin
	}
	host, fault := originHost(u)
	name := u.Hostname()
	switch {
	case fault != "" || strings.Contains(name, "_") || !strings.Contains(name, ".") && name != "localhost":
		return exampleOrigin
	case name == "localhost":
		return "http://" + host
	}
	return "https://" + host
}

// defaultPorts are the ports that browsers leave out of an origin.
var defaultPorts = map[string]string{"http": "80", "https": "443"}

// originHost returns host and port in the form in which browsers send them. A scheme other
// than http and https, such as a native app's, has hosts of its own rules.
func originHost(u *url.URL) (host, fault string) {
	host, port := u.Hostname(), u.Port()
	standard, web := defaultPorts[u.Scheme]
	switch {
	case slices.Contains([]string{"ws", "wss", "ftp", "file"}, u.Scheme):
		return "", "no page has the scheme " + u.Scheme + "; write " + exampleOrigin
	case web || strings.Contains(host, ":"):
		if host, fault = webHost(host); fault != "" {
			return "", fault
		}
	}
	if port == "" {
		return host, ""
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", fmt.Sprintf("its port is not between 1 and 65535; write %s://%s", u.Scheme, host)
	}
	if port = strconv.FormatUint(n, 10); port == standard {
		return host, ""
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port), ""
}

// webHost returns a host's name or IP address as browsers write it, IPv6 in brackets.
func webHost(host string) (normal, fault string) {
	host = strings.ToLower(host)
	if ip, err := netip.ParseAddr(host); err == nil {
		return webAddr(ip)
	}
	if strings.ContainsFunc(host, func(c rune) bool { return c > '~' }) {
		return "", "browsers send such a name in Punycode; write https://xn--…, as the browser's developer tools show the header Origin"
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	last := labels[len(labels)-1]
	if _, err := strconv.ParseUint(last, 0, 64); err == nil {
		return "", "its host is not an IP address as browsers write it; write it as http://192.0.2.1"
	}
	if slices.Contains(labels, "") || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		return "", "its host is not a host's name; write " + exampleOrigin
	}
	return host, ""
}

// webAddr returns an IP address as browsers write it.
func webAddr(ip netip.Addr) (normal, fault string) {
	switch {
	case ip.Zone() != "":
		return "", "browsers have no zone in an address; write it as http://[fe80::1]"
	case ip.Is4():
		return ip.String(), ""
	case ip.Is4In6():
		b := ip.As16()
		return fmt.Sprintf("[::ffff:%x:%x]", uint16(b[12])<<8|uint16(b[13]), uint16(b[14])<<8|uint16(b[15])), ""
	}
	return "[" + ip.String() + "]", ""
}
