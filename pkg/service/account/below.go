package account

import (
	"net/url"
	"strings"
)

// Below tells whether a URL is a configured one or below it: the same scheme and host, and a path that begins with its path.
func Below(u *url.URL, start string) bool {
	s, err := url.Parse(start)
	if err != nil || u.User != nil || !strings.EqualFold(u.Scheme, s.Scheme) || !strings.EqualFold(u.Host, s.Host) || u.Opaque != "" {
		return false
	}
	path, base := u.EscapedPath(), strings.TrimSuffix(s.EscapedPath(), "/")
	if strings.Contains(path, "/../") || strings.HasSuffix(path, "/..") || strings.Contains(path, "\\") || strings.Contains(strings.ToLower(path), "%2e") {
		return false
	}
	return path == base || strings.HasPrefix(path, base+"/")
}
