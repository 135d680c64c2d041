package event

import (
	"fmt"
	"slices"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

// A SignatureError says which server's signature is missing or wrong.
type SignatureError struct {
	Server id.ServerName
	Reason error // one of package signing's
}

// Error implements error.
func (e *SignatureError) Error() string {
	return fmt.Sprintf("signature of %.64s: %v", e.Server, e.Reason)
}

// Unwrap returns the reason.
func (e *SignatureError) Unwrap() error { return e.Reason }

// AppendSigners appends the servers that must have signed the event:
//
//   - the sender's, unless the event is an invite that answers a third-party invite: those are sent by
//     whichever server the invited user chose;
//   - in room versions 1 and 2 the server of the event id;
//   - from room version 8 the server of the user who authorised a restricted join.
func (e *Event) AppendSigners(signers []id.ServerName) []id.ServerName {
	add := func(s id.ServerName) {
		if !slices.Contains(signers, s) {
			signers = append(signers, s)
		}
	}
	if !e.IsThirdPartyInvite() {
		add(e.sender.Server())
	}
	if e.rules.SignedByEventIDServer {
		add(e.id.Server())
	}
	if e.rules.SignedByAuthorisingServer && e.typ == TypeMember {
		if v, ok := canonjson.Get(e.Content(), "join_authorised_via_users_server"); ok {
			user, _ := canonjson.String(v)
			add(id.UserID(user).Server()) // no server signs for what is not a user id
		}
	}
	return signers
}

// IsThirdPartyInvite tells whether the event is an invite with content.third_party_invite.
func (e *Event) IsThirdPartyInvite() bool {
	if e.typ != TypeMember || e.Membership() != Invite {
		return false
	}
	v, ok := canonjson.Get(e.Content(), "third_party_invite")
	return ok && canonjson.IsObject(v)
}

// AppendKeyRequests appends the keys that Verify will ask for, so that they can be fetched before.
func (e *Event) AppendKeyRequests(requests []signing.Request) []signing.Request {
	var stack [3]id.ServerName
	var at int64
	if e.rules.EnforceKeyValidity {
		at = e.ts
	}
	for _, server := range e.AppendSigners(stack[:0]) {
		for it := canonjson.Walk(e.signaturesOf(server)); it.Next(); {
			if k := id.KeyID(it.KeyString()); k.Algorithm() == id.AlgorithmEd25519 {
				requests = append(requests, signing.Request{Server: server, Key: k, ValidAt: at})
			}
		}
	}
	return requests
}

// Verify checks that every server of AppendSigners has signed the event. Signatures by keys that are
// unknown, of other algorithms, or not valid at the event's time do not count; of the others at least
// one is needed, and none may be wrong. The error is a *SignatureError.
func (e *Event) Verify(keys signing.Keys) error {
	var servers [3]id.ServerName
	var stack [scratch]byte
	var signed []byte
	for _, server := range e.AppendSigners(servers[:0]) {
		if signed == nil {
			signed = e.appendRedacted(stack[:0], false)
		}
		if err := e.verifyServer(keys, server, signed); err != nil {
			return &SignatureError{Server: server, Reason: err}
		}
	}
	return nil
}

func (e *Event) verifyServer(keys signing.Keys, server id.ServerName, signed []byte) error {
	valid, result := 0, signing.ErrMissing
	for it := canonjson.Walk(e.signaturesOf(server)); it.Next(); {
		keyID := id.KeyID(it.KeyString())
		if !strings.HasPrefix(string(keyID), id.AlgorithmEd25519+":") {
			continue
		}
		key, ok := keys.VerifyKey(server, keyID)
		if !ok || !key.ValidAt(e.ts, e.rules.EnforceKeyValidity) {
			result = signing.ErrNoKey
			continue
		}
		if err := signing.VerifyBase64(key.Key, signed, it.Value()); err != nil {
			return err
		}
		valid++
	}
	if valid == 0 {
		return result
	}
	return nil
}

// VerifyWith checks the one signature that server made with a key.
func (e *Event) VerifyWith(server id.ServerName, keyID id.KeyID, public []byte) error {
	sig, ok := canonjson.Get(e.signaturesOf(server), string(keyID))
	if !ok {
		return &SignatureError{Server: server, Reason: signing.ErrMissing}
	}
	var stack [scratch]byte
	if err := signing.VerifyBase64(public, e.appendRedacted(stack[:0], false), sig); err != nil {
		return &SignatureError{Server: server, Reason: err}
	}
	return nil
}

// SignedBy tells whether the event holds any signature, right or wrong, of a server.
func (e *Event) SignedBy(server id.ServerName) bool {
	it := canonjson.Walk(e.signaturesOf(server))
	return it.Next()
}

// signaturesOf returns the object of a server's signatures, nil if there is none.
func (e *Event) signaturesOf(server id.ServerName) []byte {
	if server == "" {
		return nil
	}
	v, _ := canonjson.Get(e.value(fSignatures), string(server))
	if !canonjson.IsObject(v) {
		return nil
	}
	return v
}

// Sign returns the event with one more signature, or the one that server had with this key replaced.
func (e *Event) Sign(server id.ServerName, key signing.Key) *Event {
	var stack [scratch]byte
	signature := key.Sign(e.appendRedacted(stack[:0], false))
	return e.withSignatures(signing.AppendSignatures(nil, e.value(fSignatures), server, key.ID(), signature))
}

// withSignatures returns the event with other signatures, which are canonical.
func (e *Event) withSignatures(signatures []byte) *Event {
	s := e.f[fSignatures]
	buf := make([]byte, 0, len(e.json)+len(signatures)-int(s.end-s.start))
	buf = append(buf, e.json[:s.start]...)
	buf = append(buf, signatures...)
	buf = append(buf, e.json[s.end:]...)
	signed, err := ParseTrusted(e.rules, buf, e.id)
	if err != nil {
		panic("event: signing broke an event: " + err.Error())
	}
	signed.unsigned, signed.flags = e.unsigned, e.flags
	return signed
}
