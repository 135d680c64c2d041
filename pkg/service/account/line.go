package account

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
)

// Line is where a refresh token stands: each is exchanged for the next of the line that began with the login. A token holds its line, signed with
// the cluster's secret, so that one that was spent long ago is known as such though nothing is stored of it.
type Line struct {
	ID []byte `json:"id,omitempty"`
	N  int32  `json:"n,omitempty"` // from 1
}

const (
	lineID   = 8  // bytes
	lineMAC  = 16 // bytes
	lineTail = lineID + 4 + lineMAC
	tokenKey = 32 // the bytes of a token that nobody can guess
)

func newLine() Line {
	l := Line{ID: make([]byte, lineID), N: 1}
	_, _ = rand.Read(l.ID) // never fails
	return l
}

func (l Line) next() Line {
	if l.ID == nil { // of a token from before there were lines
		return newLine()
	}
	return Line{ID: l.ID, N: l.N + 1}
}

// newRefreshToken gives a refresh token of a line. It is a token like others with more behind the random bits.
func (f *Front) newRefreshToken(localpart string, l Line) string {
	body := make([]byte, tokenKey, tokenKey+lineTail)
	_, _ = rand.Read(body) // never fails
	body = append(body, l.ID...)
	body = binary.BigEndian.AppendUint32(body, uint32(l.N)) //nolint:gosec // from 1 on
	body = append(body, f.lineSum(localpart, body)...)
	enc := base64.RawURLEncoding
	t := refreshPrefix + enc.EncodeToString([]byte(localpart)) + "." + enc.EncodeToString(body)
	return t + "." + tokenSum(t)
}

func (f *Front) lineSum(localpart string, body []byte) []byte {
	mac := hmac.New(sha256.New, f.secret)
	_, _ = mac.Write([]byte("refresh token\x00" + localpart + "\x00"))
	_, _ = mac.Write(body)
	return mac.Sum(nil)[:lineMAC]
}

// lineOf gives the line of a well-formed refresh token; nothing if it has none of ours.
func (f *Front) lineOf(localpart, token string) Line {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return Line{}
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || len(body) != tokenKey+lineTail {
		return Line{}
	}
	body, sum := body[:len(body)-lineMAC], body[len(body)-lineMAC:]
	if !hmac.Equal(sum, f.lineSum(localpart, body)) {
		return Line{}
	}
	return Line{ID: body[tokenKey : tokenKey+lineID], N: int32(binary.BigEndian.Uint32(body[tokenKey+lineID:]))} //nolint:gosec // ours, by the sum
}
