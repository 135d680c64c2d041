package id

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A ServerName is "host" or "host:port", where host is a DNS name, an IPv4 address, or an IPv6 address
// in square brackets. Server names are case-sensitive.
type ServerName string

// ParseServerName accepts a server name.
func ParseServerName(s string) (ServerName, error) {
	if !ServerName(s).Valid() {
		return "", fmt.Errorf("%w: %.64q", ErrServerName, s)
	}
	return ServerName(s), nil
}

// ParseServerNameStrict accepts a server name that a new server may take: in lower case, at most 230
// bytes, its DNS labels well-formed.
func ParseServerNameStrict(s string) (ServerName, error) {
	n, err := ParseServerName(s)
	if err != nil {
		return "", err
	}
	if len(s) > 230 || strings.ToLower(s) != s {
		return "", fmt.Errorf("%w: %.64q", ErrServerName, s)
	}
	host, _ := n.split()
	if n.IsIP() {
		return n, nil
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", fmt.Errorf("%w: label %.64q", ErrServerName, label)
		}
	}
	return n, nil
}

// Valid tells whether the name conforms to the grammar.
func (n ServerName) Valid() bool {
	if n == "" || len(n) > MaxLength {
		return false
	}
	host, port := n.split()
	if host == "" || (port != "" && !validPort(port[1:])) {
		return false
	}
	if host[0] == '[' {
		if len(host) < 4 || host[len(host)-1] != ']' {
			return false
		}
		a, err := netip.ParseAddr(host[1 : len(host)-1])
		return err == nil && a.Is6() && a.Zone() == ""
	}
	for i := range len(host) {
		c := host[i]
		if l := c | 0x20; (l < 'a' || l > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	if looksIPv4(host) {
		return ipv4(host)
	}
	return true
}

// Host returns the name without the port; an IPv6 address keeps its brackets.
func (n ServerName) Host() string {
	h, _ := n.split()
	return h
}

// Port returns the explicit port, 0 if there is none.
func (n ServerName) Port() uint16 {
	_, p := n.split()
	if p == "" {
		return 0
	}
	v, err := strconv.ParseUint(p[1:], 10, 16)
	if err != nil {
		return 0
	}
	return uint16(v)
}

// IsIP tells whether the host is an IP address literal.
func (n ServerName) IsIP() bool {
	h, _ := n.split()
	return h != "" && (h[0] == '[' || looksIPv4(h))
}

// String returns the name as it is written.
func (n ServerName) String() string { return string(n) }

// split returns the host and the port with its colon (empty if absent).
func (n ServerName) split() (host, port string) {
	s := string(n)
	from := 0
	if s != "" && s[0] == '[' {
		from = strings.IndexByte(s, ']')
		if from < 0 {
			return s, ""
		}
	}
	i := strings.IndexByte(s[from:], ':')
	if i < 0 {
		return s, ""
	}
	return s[:from+i], s[from+i:]
}

func validPort(p string) bool {
	if p == "" || len(p) > 5 {
		return false
	}
	for i := range len(p) {
		if p[i] < '0' || p[i] > '9' {
			return false
		}
	}
	v, err := strconv.Atoi(p)
	return err == nil && v <= 65535
}

// looksIPv4 tells whether the host has the shape of the grammar's IPv4address, so that it cannot be a
// DNS name: four groups of digits.
func looksIPv4(h string) bool {
	dots := 0
	for i := range len(h) {
		switch {
		case h[i] == '.':
			dots++
		case h[i] < '0' || h[i] > '9':
			return false
		}
	}
	return dots == 3
}

func ipv4(h string) bool {
	value, digits := 0, 0
	for i := range len(h) {
		if h[i] == '.' {
			if digits == 0 {
				return false
			}
			value, digits = 0, 0
			continue
		}
		value = value*10 + int(h[i]-'0')
		if digits++; digits > 3 || value > 255 {
			return false
		}
	}
	return digits > 0
}
