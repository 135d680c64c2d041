package e2ee

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

// What keys may be at most.
const (
	maxKeyJSON = 16 << 10
	// maxMerged is what a key may be with all the signatures that came to it.
	maxMerged    = 2 * maxKeyJSON
	maxNameLen   = 255
	maxKeysAtOne = 500 // one-time keys in one upload
)

// storable tells whether a name can be kept: of a bounded length, and without what PostgreSQL's texts cannot hold.
func storable(s string) bool { return len(s) <= maxNameLen && strings.IndexByte(s, 0) < 0 }

// signed is a JSON object with signatures.
type signed map[string]json.RawMessage

func parseSigned(b []byte) (signed, bool) {
	var s signed
	if json.Unmarshal(b, &s) != nil || s == nil {
		return nil, false
	}
	return s, true
}

func (s signed) signatures() map[string]map[string]string {
	var m map[string]map[string]string
	if json.Unmarshal(s["signatures"], &m) != nil || m == nil {
		m = make(map[string]map[string]string)
	}
	return m
}

// body gives what is signed.
func (s signed) body() []byte {
	c := maps.Clone(s)
	delete(c, "signatures")
	delete(c, "unsigned")
	return canonical(c)
}

func canonical(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	out, err := canonjson.Canonical(b, canonjson.Options{})
	if err != nil {
		return nil
	}
	return out
}

// mergeSignatures gives next with the signatures of old and next; same is false if they are not the same object otherwise.
func mergeSignatures(old, next []byte) (merged []byte, same bool) {
	a, ok := parseSigned(old)
	b, ok2 := parseSigned(next)
	if !ok || !ok2 || !bytes.Equal(a.body(), b.body()) {
		return nil, false
	}
	all := a.signatures()
	for user, sigs := range b.signatures() {
		if all[user] == nil {
			all[user] = sigs
			continue
		}
		maps.Copy(all[user], sigs)
	}
	if len(all) > 0 {
		b["signatures"] = canonical(all)
	}
	return canonical(b), true
}

// bounded refuses a key to which too many signatures have come.
func bounded(merged []byte) error {
	if len(merged) > maxMerged {
		return mxerr.New(mxerr.TooLarge, "The key has too many signatures")
	}
	return nil
}

// withSignature gives a key with one more signature; nil if it is none.
func withSignature(key []byte, user, keyID, signature string) []byte {
	s, ok := parseSigned(key)
	if !ok {
		return nil
	}
	all := s.signatures()
	if all[user] == nil {
		all[user] = make(map[string]string)
	}
	all[user][keyID] = signature
	s["signatures"] = canonical(all)
	return canonical(s)
}

func invalid(what string) error { return mxerr.New(mxerr.InvalidParam, what) }

func badJSON(what string) error { return mxerr.New(mxerr.BadJSON, what) }

// object gives a key in its canonical form.
func object(b []byte, what string) (json.RawMessage, error) {
	if len(b) > maxKeyJSON {
		return nil, mxerr.New(mxerr.TooLarge, what+" is too large")
	}
	out, err := canonjson.Canonical(b, canonjson.Options{})
	if err != nil || !canonjson.IsObject(out) {
		return nil, badJSON(what + " is not a JSON object")
	}
	return out, nil
}

// checkDeviceKeys checks the identity keys that a device uploads.
func checkDeviceKeys(user, device string, raw []byte) (json.RawMessage, error) {
	b, err := object(raw, "device_keys")
	if err != nil {
		return nil, err
	}
	var k struct {
		UserID     *string                      `json:"user_id"`
		DeviceID   *string                      `json:"device_id"`
		Algorithms []string                     `json:"algorithms"`
		Keys       map[string]string            `json:"keys"`
		Signatures map[string]map[string]string `json:"signatures"`
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return nil, badJSON("device_keys has members of the wrong type")
	}
	switch {
	case k.UserID == nil || k.DeviceID == nil || k.Algorithms == nil || k.Keys == nil || k.Signatures == nil:
		return nil, badJSON("device_keys lacks a member")
	case *k.UserID != user:
		return nil, invalid("device_keys are of another user")
	case *k.DeviceID != device:
		return nil, invalid("device_keys are of another device")
	}
	for name := range k.Keys {
		if alg, dev, ok := strings.Cut(name, ":"); !ok || alg == "" || dev != device {
			return nil, invalid("device_keys has a key that is not of the device: " + name)
		}
	}
	if _, ok := canonjson.Get(b, "unsigned"); ok { // what the server says of it, is for the server to say
		s, _ := parseSigned(b)
		delete(s, "unsigned")
		b = canonical(s)
	}
	return b, nil
}

// checkKeys checks one-time or fallback keys.
func checkKeys(keys map[string]json.RawMessage, fallback bool) ([]NewKey, error) {
	if len(keys) > maxKeysAtOne {
		return nil, mxerr.New(mxerr.TooLarge, "Too many keys at once")
	}
	var out []NewKey
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		alg, kid, ok := strings.Cut(name, ":")
		if !ok || alg == "" || kid == "" || !storable(name) {
			return nil, invalid("Keys are named algorithm:id")
		}
		raw := keys[name]
		if len(raw) > maxKeyJSON {
			return nil, mxerr.New(mxerr.TooLarge, "The key "+name+" is too large")
		}
		b, err := canonjson.Canonical(raw, canonjson.Options{})
		if err != nil || len(b) == 0 || b[0] != '{' && (b[0] != '"' || fallback) {
			return nil, badJSON("The key " + name + " is neither a string nor an object")
		}
		if b[0] == '{' {
			if key, ok := canonjson.GetString(b, "key"); !ok || key == "" {
				return nil, badJSON("The key " + name + " has no member key")
			}
		}
		if fallback && slices.ContainsFunc(out, func(k NewKey) bool { return k.Algorithm == alg }) {
			return nil, invalid("There can be one fallback key for each algorithm")
		}
		out = append(out, NewKey{Algorithm: alg, KeyID: kid, JSON: b})
	}
	return out, nil
}

// crossKey is a cross-signing key.
type crossKey struct {
	json   json.RawMessage
	public string
}

func (k crossKey) keyID() id.KeyID { return id.KeyID("ed25519:" + k.public) }

// bytes gives the public key, nil if it is none.
func (k crossKey) bytes() ed25519.PublicKey { return public(k.public) }

func public(base64 string) ed25519.PublicKey {
	b, err := signing.DecodeBase64(base64)
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil
	}
	return b
}

// checkCrossKey checks a cross-signing key of a usage.
func checkCrossKey(user, usage string, raw []byte) (crossKey, error) {
	b, err := object(raw, "The "+usage+" key")
	if err != nil {
		return crossKey{}, err
	}
	var k struct {
		UserID string            `json:"user_id"`
		Usage  []string          `json:"usage"`
		Keys   map[string]string `json:"keys"`
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return crossKey{}, badJSON("The " + usage + " key has members of the wrong type")
	}
	switch {
	case k.UserID != user:
		return crossKey{}, invalid("The " + usage + " key is of another user")
	case !slices.Contains(k.Usage, usage):
		return crossKey{}, invalid("The " + usage + " key is for another usage")
	case len(k.Keys) != 1:
		return crossKey{}, invalid("The " + usage + " key must be one key")
	}
	for name, p := range k.Keys {
		if name != "ed25519:"+p {
			return crossKey{}, invalid("The " + usage + " key must be named by itself")
		}
		if public(p) == nil {
			return crossKey{}, invalid("The " + usage + " key is not an ed25519 key")
		}
		return crossKey{b, p}, nil
	}
	return crossKey{}, nil
}

// signedBy tells whether a key is signed by another key of the user.
func signedBy(key []byte, user string, by crossKey) bool {
	return signing.VerifyJSON(key, user, by.keyID(), by.bytes()) == nil
}
