package account

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
)

// The prefixes by which secret scanners, and we, know a token's kind.
const (
	accessPrefix  = "hed_"
	refreshPrefix = "her_"
	loginPrefix   = "hel_"
)

// ErrBadToken is the error of an access token that this server cannot have given out.
var ErrBadToken = errors.New("malformed access token")

// newToken gives a token of a local user: prefix, localpart, 256 random bits and a checksum over all of it. The
// localpart is there because it says the shard, so that one look-up finds the token; the checksum lets a mistyped or
// invented token be refused without a query.
func newToken(prefix, localpart string) string {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails, by its documentation
	enc := base64.RawURLEncoding
	t := prefix + enc.EncodeToString([]byte(localpart)) + "." + enc.EncodeToString(secret[:])
	return t + "." + tokenSum(t)
}

func tokenSum(t string) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], crc32.ChecksumIEEE([]byte(t)))
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// TokenLocalpart gives the localpart of the user that an access token claims to be of, or [ErrBadToken]. It proves nothing but
// that the token is well formed.
func TokenLocalpart(token string) (string, error) { return localpartOf(accessPrefix, token) }

func localpartOf(prefix, token string) (string, error) {
	rest, ok := strings.CutPrefix(token, prefix)
	if !ok || len(token) > 600 {
		return "", ErrBadToken
	}
	parts := strings.Split(rest, ".")
	if len(parts) != 3 || tokenSum(token[:strings.LastIndexByte(token, '.')]) != parts[2] {
		return "", ErrBadToken
	}
	lp, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil || len(lp) == 0 {
		return "", ErrBadToken
	}
	return string(lp), nil
}

// HashToken gives what is stored of a token. A token holds 256 random bits, so that one round of SHA-256 suffices.
func HashToken(token string) [32]byte { return sha256.Sum256([]byte(token)) }

// newDeviceID gives a device id as other servers make them: ten capital letters.
func newDeviceID() string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	var b [10]byte
	_, _ = rand.Read(b[:])
	for i := range b {
		b[i] = letters[int(b[i])%len(letters)]
	}
	return string(b[:])
}
