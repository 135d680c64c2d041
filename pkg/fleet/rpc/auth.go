package rpc

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
)

// The HTTP way carries, in authHeader, a nonce and a MAC over direction, nonce and body, with a key that is derived
// from the cluster's secret for this use alone; the answer carries a MAC over the same nonce, so that neither end can be
// impersonated. A request that is played again has no second effect, by its idempotency key.
const (
	nonceHeader = "X-Heddle-Nonce"
	authHeader  = "X-Heddle-Auth"
	asks        = "request"
	answers     = "response"
	keyPurpose  = "heddle rpc 1"
)

type signer struct{ key []byte }

func newSigner(secret []byte) signer {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(keyPurpose))
	return signer{m.Sum(nil)}
}

func newNonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it cannot fail
	return hex.EncodeToString(b[:])
}

func (s signer) mac(direction, nonce string, body []byte) []byte {
	m := hmac.New(sha256.New, s.key)
	for _, part := range []string{direction, nonce} {
		m.Write([]byte{byte(len(part))})
		m.Write([]byte(part))
	}
	m.Write(body)
	return m.Sum(nil)
}

func (s signer) sign(direction, nonce string, body []byte) string {
	return hex.EncodeToString(s.mac(direction, nonce, body))
}

// verify compares in constant time.
func (s signer) verify(direction, nonce string, body []byte, auth string) bool {
	got, err := hex.DecodeString(auth)
	return err == nil && len(nonce) == 32 && hmac.Equal(got, s.mac(direction, nonce, body))
}
