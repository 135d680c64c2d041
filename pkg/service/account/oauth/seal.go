package oauth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/go-json-experiment/json"
)

// What is sealed. One kind is never taken for another.
const (
	sealClient  = "client"
	sealRequest = "request"
	sealCode    = "code"
	sealDevice  = "device code"
	sealRefresh = "refresh"
	sealTicket  = "account"
)

// maxSealed bounds what is read, in bytes.
const maxSealed = 8 << 10

// seal writes a value so that nobody but this deployment can read it or can have made it: a code and a refresh token hold tokens of /login
// and /refresh, where nobody asks for a verifier or for the client. A client's id alone is signed and not hidden, for the same client is to
// have the same id.
func (p *Provider) seal(kind string, v any) (string, error) {
	if kind != sealClient {
		return p.box.Seal(kind, v)
	}
	body, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding
	return enc.EncodeToString(body) + "." + enc.EncodeToString(p.sum(kind, body)), nil
}

// open reads what was sealed as this kind; false if it was not, or not by this deployment.
func (p *Provider) open(kind, sealed string, v any) bool {
	if kind != sealClient {
		return p.box.Open(kind, sealed, v)
	}
	b, m, ok := strings.Cut(sealed, ".")
	if !ok || len(sealed) > maxSealed {
		return false
	}
	enc := base64.RawURLEncoding.Strict() // one spelling of each
	body, err1 := enc.DecodeString(b)
	sum, err2 := enc.DecodeString(m)
	return err1 == nil && err2 == nil && hmac.Equal(sum, p.sum(kind, body)) && json.Unmarshal(body, v) == nil
}

func (p *Provider) sum(kind string, body []byte) []byte {
	mac := hmac.New(sha256.New, p.key)
	_, _ = mac.Write([]byte(kind))
	_, _ = mac.Write([]byte{0})
	_, _ = mac.Write(body)
	return mac.Sum(nil)
}
