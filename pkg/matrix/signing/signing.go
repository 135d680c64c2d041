// Package signing makes and checks the signatures of servers: ed25519 keys and their files, the signing
// of JSON objects in general, and the documents in which servers publish their keys.
//
// The signing of events, which are redacted first, is in package event and uses this one.
//
// Guarantees: pure; time and randomness are arguments. A Key is immutable and safe for concurrent use.
// Verification of ed25519 goes through Verify alone.
//
// Imported by everything but infra/; imports matrix/* and the standard library's pure parts.
package signing

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/id"
)

// Reasons for which a signature does not count; match them with errors.Is.
var (
	ErrMissing   = errors.New("not signed by the server")
	ErrNoKey     = errors.New("no known key that was valid then")
	ErrInvalid   = errors.New("signature does not match")
	ErrMalformed = errors.New("malformed signature")
	ErrKeyFile   = errors.New("malformed signing key")
)

// A Key is a private signing key and its id.
type Key struct {
	id      id.KeyID
	private ed25519.PrivateKey
}

// NewKey makes the key that a seed of 32 bytes stands for.
func NewKey(keyID id.KeyID, seed []byte) (Key, error) {
	if _, err := id.ParseServerKeyID(string(keyID)); err != nil {
		return Key{}, fmt.Errorf("signing key: %w", err)
	}
	if len(seed) != ed25519.SeedSize {
		return Key{}, fmt.Errorf("%w: seed of %d bytes", ErrKeyFile, len(seed))
	}
	return Key{id: keyID, private: ed25519.NewKeyFromSeed(seed)}, nil
}

// ParseKey reads a key from one line "ed25519 version base64seed", the form of the key file.
func ParseKey(line string) (Key, error) {
	fields := strings.Fields(line)
	if len(fields) != 3 || fields[0] != id.AlgorithmEd25519 {
		return Key{}, fmt.Errorf("%w: want \"ed25519 VERSION SEED\"", ErrKeyFile)
	}
	seed, err := DecodeBase64(fields[2])
	if err != nil {
		return Key{}, fmt.Errorf("%w: seed is not base64", ErrKeyFile) // never quotes the seed
	}
	return NewKey(id.NewKeyID(fields[0], fields[1]), seed)
}

// ParseKeyFile reads every key of a key file: one a line, blank lines and "#" comments allowed. The
// first one is the one to sign with.
func ParseKeyFile(text string) ([]Key, error) {
	var keys []Key
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		k, err := ParseKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: no key", ErrKeyFile)
	}
	return keys, nil
}

// Format returns the line that ParseKey reads. It holds the secret.
func (k Key) Format() string {
	return id.AlgorithmEd25519 + " " + k.id.Version() + " " + base64.RawStdEncoding.EncodeToString(k.private.Seed())
}

// String returns the key's id, so that printing a key does not give it away.
func (k Key) String() string { return string(k.id) }

// ID returns the key's id.
func (k Key) ID() id.KeyID { return k.id }

// Public returns the key to verify with.
func (k Key) Public() ed25519.PublicKey {
	return ed25519.PublicKey(k.private[ed25519.SeedSize:])
}

// Sign signs a message.
func (k Key) Sign(message []byte) []byte { return ed25519.Sign(k.private, message) }

// Verify checks a signature: the only place of the project that decides which ones are accepted.
func Verify(public ed25519.PublicKey, message, signature []byte) bool {
	return len(public) == ed25519.PublicKeySize && ed25519.Verify(public, message, signature)
}

// VerifyKey is a server's public key and when it counts. Times are in milliseconds of Unix time.
type VerifyKey struct {
	Key ed25519.PublicKey
	// ValidUntil bounds the use of a current key: the lesser of what its server said and seven days
	// after the answer came (KeyDocument.Keys does that).
	ValidUntil int64
	// Expired is when a key went out of use; 0 for a current key.
	Expired int64
}

// ValidAt tells whether the key counts for what was signed at ts. ValidUntil is not looked at where the
// room version ignores it (enforce false).
func (k VerifyKey) ValidAt(ts int64, enforce bool) bool {
	if k.Expired != 0 {
		return ts <= k.Expired
	}
	return !enforce || ts <= k.ValidUntil
}

// Keys finds the keys of servers. Implementations answer from what was fetched before: they do not
// block.
type Keys interface {
	VerifyKey(server id.ServerName, key id.KeyID) (VerifyKey, bool)
}

// A Request names a key that is needed, for fetching it before verification.
type Request struct {
	Server id.ServerName
	Key    id.KeyID
	// ValidAt is the time at which the key must be valid, 0 if that is not enforced: the
	// minimum_valid_until_ts of a query.
	ValidAt int64
}

// DecodeBase64 decodes base64 as servers write it: with or without padding, in either alphabet.
func DecodeBase64(s string) ([]byte, error) {
	s = strings.TrimRight(s, "=")
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		encoding = base64.RawURLEncoding
	}
	b, err := encoding.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("base64: %w", err)
	}
	return b, nil
}
