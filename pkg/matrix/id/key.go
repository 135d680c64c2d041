package id

import (
	"fmt"
	"strings"
)

// A KeyID is "algorithm:version", such as "ed25519:a_1" for a server's signing key, or
// "curve25519:DEVICE" for a device's.
type KeyID string

// AlgorithmEd25519 is the only algorithm of server signatures.
const AlgorithmEd25519 = "ed25519"

// ParseKeyID accepts a key id of any algorithm.
func ParseKeyID(s string) (KeyID, error) {
	i := strings.IndexByte(s, ':')
	if i <= 0 || i == len(s)-1 || len(s) > MaxLength {
		return "", fmt.Errorf("%w: %.64q", ErrKeyID, s)
	}
	return KeyID(s), nil
}

// ParseServerKeyID accepts a server signing key's id as it may be created: ed25519 and a version of
// letters, digits and underscores.
func ParseServerKeyID(s string) (KeyID, error) {
	k, err := ParseKeyID(s)
	if err != nil {
		return "", err
	}
	if k.Algorithm() != AlgorithmEd25519 || !validKeyVersion(k.Version()) {
		return "", fmt.Errorf("%w: %.64q", ErrKeyID, s)
	}
	return k, nil
}

// NewKeyID joins an algorithm and a version.
func NewKeyID(algorithm, version string) KeyID { return KeyID(algorithm + ":" + version) }

// Algorithm returns what stands before the first colon.
func (k KeyID) Algorithm() string {
	if i := strings.IndexByte(string(k), ':'); i >= 0 {
		return string(k[:i])
	}
	return ""
}

// Version returns what stands after the first colon: a key's name, or a device id.
func (k KeyID) Version() string {
	if i := strings.IndexByte(string(k), ':'); i >= 0 {
		return string(k[i+1:])
	}
	return ""
}

// String returns the id as it is written.
func (k KeyID) String() string { return string(k) }

func validKeyVersion(s string) bool {
	for i := range len(s) {
		c := s[i]
		if l := c | 0x20; (l < 'a' || l > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return s != ""
}

// An MXC is a parsed "mxc://server/media" URI.
type MXC struct {
	Server ServerName
	Media  string
}

// ParseMXC accepts an mxc URI. The media id is held to letters, digits, "-" and "_" since it becomes
// part of paths.
func ParseMXC(s string) (MXC, error) {
	rest, ok := strings.CutPrefix(s, "mxc://")
	if !ok {
		return MXC{}, fmt.Errorf("%w: %.64q", ErrMXC, s)
	}
	server, media, ok := strings.Cut(rest, "/")
	if !ok || !ServerName(server).Valid() || !ValidMediaID(media) {
		return MXC{}, fmt.Errorf("%w: %.64q", ErrMXC, s)
	}
	return MXC{Server: ServerName(server), Media: media}, nil
}

// ValidMediaID tells whether s may be the media id of an mxc URI.
func ValidMediaID(s string) bool {
	for i := range len(s) {
		c := s[i]
		if l := c | 0x20; (l < 'a' || l > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= MaxLength
}

// String returns the URI.
func (m MXC) String() string { return "mxc://" + string(m.Server) + "/" + m.Media }
