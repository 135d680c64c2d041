package eventauth

import (
	"crypto/ed25519"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

// What is looked at of a third-party invitation. An event has room for hundreds of keys and signatures; an identity server
// gives one signature and two or three keys. Without a bound one event would cost 400,000 verifications; with it, 32.
const (
	maxThirdPartyKeys       = 8
	maxThirdPartySignatures = 4
)

// thirdPartySigned is the signed part of an invitation that answers a third-party invite event.
type thirdPartySigned struct {
	present    bool // third_party_invite has signed
	complete   bool // signed has mxid and token
	mxid       string
	token      string
	message    []byte // what was signed: signed without signatures and unsigned, canonical
	signatures [][]byte
}

func parseSigned(thirdParty []byte) *thirdPartySigned {
	s := &thirdPartySigned{}
	signed, ok := canonjson.Get(thirdParty, "signed")
	if !ok {
		return s
	}
	s.present = true
	mxid, hasMXID := canonjson.Get(signed, "mxid")
	token, hasToken := canonjson.Get(signed, "token")
	s.complete = hasMXID && hasToken
	mx, isString := canonjson.String(mxid)
	tok, alsoString := canonjson.String(token)
	if !isString || !alsoString {
		s.complete = false
		return s
	}
	s.mxid, s.token = mx, tok

	s.message = append(make([]byte, 0, len(signed)), '{')
	for it := canonjson.Walk(signed); it.Next(); {
		if it.KeyIs("signatures") || it.KeyIs("unsigned") {
			continue
		}
		if len(s.message) > 1 {
			s.message = append(s.message, ',')
		}
		s.message = append(append(append(s.message, it.Key()...), ':'), it.Value()...)
	}
	s.message = append(s.message, '}')

	signatures, _ := canonjson.Get(signed, "signatures")
	for server := canonjson.Walk(signatures); server.Next(); {
		for key := canonjson.Walk(server.Value()); key.Next(); {
			sig, ok := canonjson.String(key.Value())
			raw, err := signing.DecodeBase64(sig)
			if ok && err == nil && len(raw) == ed25519.SignatureSize && strings.HasPrefix(key.KeyString(), "ed25519:") &&
				len(s.signatures) < maxThirdPartySignatures {
				s.signatures = append(s.signatures, raw)
			}
		}
	}
	return s
}

// VerifyThirdParty says whether a signature of the third-party invitation that invite answers matches one of its keys. It is
// the one part of the rules that is dear; its answer for two given events never changes.
func VerifyThirdParty(invite *Reduced, with *ThirdPartyInvite) bool {
	s := invite.details().invite
	if s == nil || with == nil {
		return false
	}
	for _, sig := range s.signatures {
		for i := range with.keys {
			if signing.Verify(with.keys[i][:], s.message, sig) {
				return true
			}
		}
	}
	return false
}
