// Package id holds the identifiers of the Matrix specification as distinct string types.
//
// What: user, room, event, device and key identifiers, room aliases, server names and mxc URIs, with
// one parser each. A value obtained from a Parse function is well-formed; a value converted from a
// string that was stored by us, or that comes out of a parsed event, is trusted and not checked again.
//
// Two strictnesses: Parse accepts what servers must accept (the historical grammar), ParseStrict
// accepts what this server may create. Limits are counted in bytes.
//
// Guarantees: no function panics, whatever the input; accessors do not allocate. Values are plain
// strings and safe for concurrent use. Comparison is byte for byte: look-alikes and letter case are
// left alone, as the specification demands.
//
// Imported by everything but infra/; imports only the standard library.
package id

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxLength is the limit, in bytes and with the sigil, of user, room and event ids and room aliases.
const MaxLength = 255

// Reasons for which an identifier is refused; match them with errors.Is.
var (
	ErrEmpty      = errors.New("empty identifier")
	ErrTooLong    = errors.New("identifier longer than 255 bytes")
	ErrSigil      = errors.New("wrong sigil")
	ErrNoServer   = errors.New("no server part")
	ErrServerName = errors.New("malformed server name")
	ErrLocalpart  = errors.New("character not allowed in localpart")
	ErrOpaque     = errors.New("malformed opaque part")
	ErrKeyID      = errors.New("malformed key id")
	ErrMXC        = errors.New("malformed mxc URI")
	ErrDeviceID   = errors.New("malformed device id")
)

// A UserID is "@localpart:server".
type UserID string

// A RoomID is "!opaque:server", or from room version 12 "!hash" without a server.
type RoomID string

// An EventID is "$opaque:server" in room versions 1 and 2, and "$hash" after them.
type EventID string

// A RoomAlias is "#localpart:server".
type RoomAlias string

// A DeviceID is opaque.
type DeviceID string

// ParseUserID accepts every user id that a server must accept over federation, the historical ones
// included: any localpart, even empty, without ":" (which ends it) and NUL.
func ParseUserID(s string) (UserID, error) {
	if err := checkLocalServer(s, '@'); err != nil {
		return "", fmt.Errorf("user id: %w", err)
	}
	return UserID(s), nil
}

// ParseUserIDStrict accepts only the user ids that may be created now.
func ParseUserIDStrict(s string) (UserID, error) {
	u, err := ParseUserID(s)
	if err != nil {
		return "", err
	}
	if !ValidLocalpart(u.Localpart()) {
		return "", fmt.Errorf("user id: %w", ErrLocalpart)
	}
	return u, nil
}

// NewUserID joins a strict localpart and a server name.
func NewUserID(localpart string, server ServerName) (UserID, error) {
	return ParseUserIDStrict("@" + localpart + ":" + string(server))
}

// ValidLocalpart tells whether a user localpart conforms to the current grammar.
func ValidLocalpart(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '-', c == '.', c == '=', c == '_', c == '/', c == '+':
		default:
			return false
		}
	}
	return true
}

// Localpart returns what stands between the sigil and the first colon.
func (u UserID) Localpart() string { return localpart(string(u)) }

// Server returns the server part, empty if there is none.
func (u UserID) Server() ServerName { return serverPart(string(u)) }

// String returns the id as it is written.
func (u UserID) String() string { return string(u) }

// Compliant tells whether the localpart is non-empty and within U+0021 to U+007E: other user ids are
// accepted in events but should not be passed to clients elsewhere.
func (u UserID) Compliant() bool {
	l := u.Localpart()
	for i := range len(l) {
		if l[i] < 0x21 || l[i] > 0x7e {
			return false
		}
	}
	return l != ""
}

// ParseRoomID accepts room ids with a server part and without one; which of them a room may have is
// decided by its version. Without a server part the opaque part must be the 43 characters of URL-safe
// base64 of an event id's hash.
func ParseRoomID(s string) (RoomID, error) {
	if strings.IndexByte(s, ':') < 0 {
		if err := checkHash(s, '!'); err != nil {
			return "", fmt.Errorf("room id: %w", err)
		}
		return RoomID(s), nil
	}
	if err := checkLocalServer(s, '!'); err != nil {
		return "", fmt.Errorf("room id: %w", err)
	}
	return RoomID(s), nil
}

// NewRoomID joins an opaque part and a server name, for room versions before 12.
func NewRoomID(opaque string, server ServerName) (RoomID, error) {
	for i := range len(opaque) {
		if c := opaque[i] | 0x20; (c < 'a' || c > 'z') && (opaque[i] < '0' || opaque[i] > '9') {
			return "", fmt.Errorf("room id: %w", ErrLocalpart)
		}
	}
	if opaque == "" {
		return "", fmt.Errorf("room id: %w", ErrEmpty)
	}
	return ParseRoomID("!" + opaque + ":" + string(server))
}

// RoomIDFromCreate returns the id of the room that a create event of room version 12 or later makes.
func RoomIDFromCreate(e EventID) RoomID {
	if e == "" {
		return ""
	}
	return RoomID("!" + string(e[1:]))
}

// CreateEvent returns the id of the create event that a room id without server part stands for; ok is
// false if the id has a server part.
func (r RoomID) CreateEvent() (e EventID, ok bool) {
	if len(r) == 0 || !r.IsHash() {
		return "", false
	}
	return EventID("$" + string(r[1:])), true
}

// IsHash tells whether the room id has no server part.
func (r RoomID) IsHash() bool { return strings.IndexByte(string(r), ':') < 0 }

// Server returns the server part, empty if there is none (room version 12). It says where the id was
// made, never where the room can be found.
func (r RoomID) Server() ServerName { return serverPart(string(r)) }

// Localpart returns the opaque part.
func (r RoomID) Localpart() string { return localpart(string(r)) }

// String returns the id as it is written.
func (r RoomID) String() string { return string(r) }

// ParseEventID accepts the event ids of every room version: a hash in either base64 alphabet, or the
// older form with a server part.
func ParseEventID(s string) (EventID, error) {
	if strings.IndexByte(s, ':') >= 0 {
		if err := checkLocalServer(s, '$'); err != nil {
			return "", fmt.Errorf("event id: %w", err)
		}
		return EventID(s), nil
	}
	if err := checkSigil(s, '$'); err != nil {
		return "", fmt.Errorf("event id: %w", err)
	}
	if len(s) == 1 || !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return "", fmt.Errorf("event id: %w", ErrOpaque)
	}
	return EventID(s), nil
}

// Server returns the server part, empty from room version 3.
func (e EventID) Server() ServerName { return serverPart(string(e)) }

// String returns the id as it is written.
func (e EventID) String() string { return string(e) }

// ParseRoomAlias accepts a room alias.
func ParseRoomAlias(s string) (RoomAlias, error) {
	if err := checkLocalServer(s, '#'); err != nil {
		return "", fmt.Errorf("room alias: %w", err)
	}
	return RoomAlias(s), nil
}

// ParseRoomAliasStrict accepts a room alias that may be created here: not empty, and without
// whitespace and control characters, which nobody can type or see.
func ParseRoomAliasStrict(s string) (RoomAlias, error) {
	a, err := ParseRoomAlias(s)
	if err != nil {
		return "", err
	}
	l := a.Localpart()
	if l == "" {
		return "", fmt.Errorf("room alias: %w", ErrEmpty)
	}
	for _, c := range l {
		if c <= ' ' || (c >= 0x7f && c <= 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff {
			return "", fmt.Errorf("room alias: %w", ErrLocalpart)
		}
	}
	return a, nil
}

// Localpart returns what stands between the sigil and the first colon.
func (a RoomAlias) Localpart() string { return localpart(string(a)) }

// Server returns the server which answers for the alias.
func (a RoomAlias) Server() ServerName { return serverPart(string(a)) }

// String returns the alias as it is written.
func (a RoomAlias) String() string { return string(a) }

// ParseDeviceID accepts what a client may name its device: 1 to 255 bytes of UTF-8 without control
// characters.
func ParseDeviceID(s string) (DeviceID, error) {
	if s == "" || len(s) > MaxLength || !utf8.ValidString(s) {
		return "", fmt.Errorf("device id: %w", ErrDeviceID)
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return "", fmt.Errorf("device id: %w", ErrDeviceID)
		}
	}
	return DeviceID(s), nil
}

// String returns the id as it is written.
func (d DeviceID) String() string { return string(d) }

func localpart(s string) string {
	if s == "" {
		return ""
	}
	if i := strings.IndexByte(s, ':'); i > 0 {
		return s[1:i]
	}
	return s[1:]
}

func serverPart(s string) ServerName {
	i := strings.IndexByte(s, ':')
	if i < 0 {
		return ""
	}
	return ServerName(s[i+1:])
}

func checkSigil(s string, sigil byte) error {
	switch {
	case s == "":
		return ErrEmpty
	case s[0] != sigil:
		return ErrSigil
	case len(s) > MaxLength:
		return ErrTooLong
	}
	return nil
}

func checkLocalServer(s string, sigil byte) error {
	if err := checkSigil(s, sigil); err != nil {
		return err
	}
	i := strings.IndexByte(s, ':')
	if i < 0 {
		return ErrNoServer
	}
	if strings.IndexByte(s[:i], 0) >= 0 || !utf8.ValidString(s[:i]) {
		return ErrLocalpart
	}
	if !ServerName(s[i+1:]).Valid() {
		return ErrServerName
	}
	return nil
}

// hashLength is the length of an unpadded base64 SHA-256.
const hashLength = 43

func checkHash(s string, sigil byte) error {
	if err := checkSigil(s, sigil); err != nil {
		return err
	}
	if len(s) != 1+hashLength {
		return ErrOpaque
	}
	for i := 1; i < len(s); i++ {
		c := s[i]
		if l := c | 0x20; (l < 'a' || l > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return ErrOpaque
		}
	}
	return nil
}
