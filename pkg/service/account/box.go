package account

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"

	"github.com/go-json-experiment/json"
	"golang.org/x/crypto/chacha20poly1305"
)

// Box seals values that others carry: only this deployment can read them, or make them. It is immutable and safe for concurrent use.
type Box struct{ key []byte }

// NewBox makes a Box from the cluster's secret. What is sealed for one purpose, a box for another does not open.
func NewBox(secret []byte, purpose string) *Box {
	mac := hmac.New(sha256.New, secret)
	_, _ = mac.Write([]byte("box\x00" + purpose))
	return &Box{mac.Sum(nil)}
}

// maxBoxed bounds what is opened, in bytes.
const maxBoxed = 8 << 10

// Seal seals a value as one of a kind.
func (b *Box) Seal(kind string, v any) (string, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	aead, err := chacha20poly1305.NewX(b.key)
	if err != nil {
		return "", err
	}
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(body)+aead.Overhead())
	_, _ = rand.Read(nonce) // never fails, by its documentation
	return base64.RawURLEncoding.EncodeToString(aead.Seal(nonce, nonce, body, []byte(kind))), nil
}

// Open reads what was sealed as this kind; false if it was not, or not by this deployment.
func (b *Box) Open(kind, sealed string, v any) bool {
	if len(sealed) > maxBoxed {
		return false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(sealed) // one spelling of each
	if err != nil {
		return false
	}
	aead, err := chacha20poly1305.NewX(b.key)
	if err != nil || len(raw) < aead.NonceSize() {
		return false
	}
	n := aead.NonceSize()
	body, err := aead.Open(nil, raw[:n], raw[n:], []byte(kind))
	return err == nil && json.Unmarshal(body, v) == nil
}
