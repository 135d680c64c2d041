package signing

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
)

// SignJSON returns an object in canonical form with entity's signature added. signatures and unsigned
// are not covered by it and are kept.
func SignJSON(object []byte, entity string, key Key) ([]byte, error) {
	c, err := canonical(object)
	if err != nil {
		return nil, fmt.Errorf("sign JSON: %w", err)
	}
	old, _ := canonjson.Get(c, "signatures")
	signatures := AppendSignatures(nil, old, id.ServerName(entity), key.ID(), key.Sign(covered(c)))
	out := make([]byte, 0, len(c)+len(signatures)+16)
	out = append(out, `{"signatures":`...)
	out = append(out, signatures...)
	for it := canonjson.Walk(c); it.Next(); {
		if it.KeyIs("signatures") {
			continue
		}
		out = append(out, ',')
		out = append(out, it.Key()...)
		out = append(out, ':')
		out = append(out, it.Value()...)
	}
	out = append(out, '}')
	return canonjson.Canonical(out, canonjson.Options{})
}

// VerifyJSON checks that entity has signed an object with one key.
func VerifyJSON(object []byte, entity string, keyID id.KeyID, public ed25519.PublicKey) error {
	c, err := canonical(object)
	if err != nil {
		return fmt.Errorf("verify JSON: %w", err)
	}
	signatures, _ := canonjson.Get(c, "signatures")
	value, ok := get(get2(signatures, entity), string(keyID))
	if !ok {
		return ErrMissing
	}
	return VerifyBase64(public, covered(c), value)
}

// SignedBy returns the key ids of the ed25519 signatures that an object in canonical form holds for an
// entity.
func SignedBy(object []byte, entity string) []id.KeyID {
	signatures, _ := canonjson.Get(object, "signatures")
	var ids []id.KeyID
	for it := canonjson.Walk(get2(signatures, entity)); it.Next(); {
		if k := id.KeyID(it.KeyString()); k.Algorithm() == id.AlgorithmEd25519 {
			ids = append(ids, k)
		}
	}
	return ids
}

// VerifyServerJSON checks that a server has signed an object, with any of its keys that was valid at ts.
func VerifyServerJSON(object []byte, server id.ServerName, keys Keys, ts int64) error {
	c, err := canonical(object)
	if err != nil {
		return fmt.Errorf("verify JSON: %w", err)
	}
	result := ErrMissing
	signatures, _ := canonjson.Get(c, "signatures")
	message := covered(c)
	for it := canonjson.Walk(get2(signatures, string(server))); it.Next(); {
		keyID := id.KeyID(it.KeyString())
		if keyID.Algorithm() != id.AlgorithmEd25519 {
			continue
		}
		key, ok := keys.VerifyKey(server, keyID)
		if !ok || !key.ValidAt(ts, true) {
			result = ErrNoKey
			continue
		}
		if result = VerifyBase64(key.Key, message, it.Value()); result == nil {
			return nil
		}
	}
	return result
}

// VerifyBase64 checks a signature that stands as a JSON string in unpadded base64. Only the one
// canonical encoding of a signature is accepted.
func VerifyBase64(public ed25519.PublicKey, message, value []byte) error {
	if len(value) != 2+86 || value[0] != '"' || value[87] != '"' || bytes.IndexByte(value, '\\') >= 0 {
		return ErrMalformed
	}
	var signature [66]byte
	n, err := base64.RawStdEncoding.Strict().Decode(signature[:], value[1:87])
	if err != nil || n != ed25519.SignatureSize {
		return ErrMalformed
	}
	if !Verify(public, message, signature[:n]) {
		return ErrInvalid
	}
	return nil
}

// AppendSignatures appends the signatures object old (canonical, may be empty) with one more entry.
func AppendSignatures(dst, old []byte, entity id.ServerName, keyID id.KeyID, signature []byte) []byte {
	entry := canonjson.AppendString(nil, string(keyID))
	entry = append(entry, ':')
	entry = canonjson.AppendString(entry, base64.RawStdEncoding.EncodeToString(signature))

	mine := append([]byte{'{'}, entry...)
	for it := canonjson.Walk(get2(old, string(entity))); it.Next(); {
		if it.KeyString() != string(keyID) {
			mine = append(mine, ',')
			mine = append(mine, it.Key()...)
			mine = append(mine, ':')
			mine = append(mine, it.Value()...)
		}
	}
	mine = append(mine, '}')

	all := canonjson.AppendString([]byte{'{'}, string(entity))
	all = append(all, ':')
	all = append(all, mine...)
	for it := canonjson.Walk(old); it.Next(); {
		if it.KeyString() != string(entity) {
			all = append(all, ',')
			all = append(all, it.Key()...)
			all = append(all, ':')
			all = append(all, it.Value()...)
		}
	}
	all = append(all, '}')
	dst, err := canonjson.Append(dst, all, canonjson.Options{Mode: canonjson.Lax})
	if err != nil {
		panic("signing: malformed signatures: " + err.Error())
	}
	return dst
}

func canonical(object []byte) ([]byte, error) {
	c, err := canonjson.Canonical(object, canonjson.Options{})
	if err != nil {
		return nil, err //nolint:wrapcheck // said by the callers
	}
	if !canonjson.IsObject(c) {
		return nil, fmt.Errorf("%w: not an object", canonjson.ErrSyntax)
	}
	return c, nil
}

// covered returns what a signature of a canonical object covers.
func covered(c []byte) []byte {
	dst := append(make([]byte, 0, len(c)), '{')
	first := true
	for it := canonjson.Walk(c); it.Next(); {
		if it.KeyIs("signatures") || it.KeyIs("unsigned") {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, it.Key()...)
		dst = append(dst, ':')
		dst = append(dst, it.Value()...)
	}
	return append(dst, '}')
}

// get is canonjson.Get for keys that may need escapes.
func get(object []byte, key string) ([]byte, bool) {
	if !canonjson.IsObject(object) {
		return nil, false
	}
	for it := canonjson.Walk(object); it.Next(); {
		if it.KeyString() == key {
			return it.Value(), true
		}
	}
	return nil, false
}

func get2(object []byte, key string) []byte {
	v, _ := get(object, key)
	if !canonjson.IsObject(v) {
		return nil
	}
	return v
}
