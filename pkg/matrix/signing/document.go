package signing

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
)

// ErrDocument is the reason why a server's key document is refused, beside those of its signatures.
var ErrDocument = errors.New("malformed key document")

// maxTrust bounds how long a key is taken as current without asking again, in milliseconds: 7 days.
const maxTrust = 7 * 24 * 60 * 60 * 1000

// maxDocumentKeys bounds the keys of one document, current and old.
const maxDocumentKeys = 512

// An OldKey is a key that a server no longer signs with.
type OldKey struct {
	ID      id.KeyID
	Key     ed25519.PublicKey
	Expired int64 // milliseconds of Unix time
}

// A KeyDocument is what a server publishes of its keys.
type KeyDocument struct {
	Server     id.ServerName
	ValidUntil int64 // milliseconds of Unix time, as the server said
	Current    map[id.KeyID]ed25519.PublicKey
	Old        map[id.KeyID]OldKey
	// JSON is the document in canonical form with its signatures, as a notary passes it on.
	JSON []byte
}

// BuildKeyDocument makes this server's document, signed with every current key.
func BuildKeyDocument(server id.ServerName, current []Key, old []OldKey, validUntil int64) ([]byte, error) {
	if len(current) == 0 {
		return nil, fmt.Errorf("%w: no key", ErrDocument)
	}
	verifyKeys := make(map[string]any, len(current))
	for _, k := range current {
		verifyKeys[string(k.ID())] = map[string]string{"key": base64.RawStdEncoding.EncodeToString(k.Public())}
	}
	oldKeys := make(map[string]any, len(old))
	for _, k := range old {
		oldKeys[string(k.ID)] = map[string]any{
			"key": base64.RawStdEncoding.EncodeToString(k.Key), "expired_ts": k.Expired,
		}
	}
	document, err := canonjson.Marshal(map[string]any{
		"server_name": string(server), "valid_until_ts": validUntil,
		"verify_keys": verifyKeys, "old_verify_keys": oldKeys,
	})
	if err != nil {
		return nil, fmt.Errorf("key document: %w", err)
	}
	for _, k := range current {
		if document, err = SignJSON(document, string(server), k); err != nil {
			return nil, fmt.Errorf("key document: %w", err)
		}
	}
	return document, nil
}

// ParseKeyDocument reads the document that was got when asked for the keys of a server. It must be that
// server's and hold a valid signature by one of its current keys, and none that is wrong.
func ParseKeyDocument(data []byte, asked id.ServerName) (*KeyDocument, error) {
	c, err := canonjson.Canonical(data, canonjson.Options{MaxSize: 1 << 20})
	if err != nil {
		return nil, fmt.Errorf("key document: %w", err)
	}
	name, _ := canonjson.GetString(c, "server_name")
	if name != string(asked) {
		return nil, fmt.Errorf("%w: asked for %.64s, got %.64s", ErrDocument, asked, name)
	}
	d := &KeyDocument{
		Server: asked, JSON: c,
		Current: make(map[id.KeyID]ed25519.PublicKey), Old: make(map[id.KeyID]OldKey),
	}
	var ok bool
	if d.ValidUntil, ok = canonjson.GetInt(c, "valid_until_ts"); !ok {
		return nil, fmt.Errorf("%w: valid_until_ts", ErrDocument)
	}
	if err := d.readKeys(); err != nil {
		return nil, err
	}
	return d, d.verify()
}

// readKeys reads the ed25519 keys; those of other algorithms are left out.
func (d *KeyDocument) readKeys() error {
	current, _ := canonjson.Get(d.JSON, "verify_keys")
	if !canonjson.IsObject(current) {
		return fmt.Errorf("%w: verify_keys", ErrDocument)
	}
	for it := canonjson.Walk(current); it.Next(); {
		keyID := id.KeyID(it.KeyString())
		if keyID.Algorithm() != id.AlgorithmEd25519 {
			continue
		}
		key, err := publicKey(it.Value())
		if err != nil {
			return err
		}
		d.Current[keyID] = key
	}
	old, _ := canonjson.Get(d.JSON, "old_verify_keys")
	if old == nil {
		return nil
	}
	if !canonjson.IsObject(old) {
		return fmt.Errorf("%w: old_verify_keys", ErrDocument)
	}
	for it := canonjson.Walk(old); it.Next(); {
		keyID := id.KeyID(it.KeyString())
		if keyID.Algorithm() != id.AlgorithmEd25519 {
			continue
		}
		key, err := publicKey(it.Value())
		if err != nil {
			return err
		}
		expired, ok := canonjson.GetInt(it.Value(), "expired_ts")
		if !ok || expired <= 0 {
			return fmt.Errorf("%w: expired_ts", ErrDocument)
		}
		d.Old[keyID] = OldKey{ID: keyID, Key: key, Expired: expired}
	}
	if len(d.Current)+len(d.Old) > maxDocumentKeys {
		return fmt.Errorf("%w: too many keys", ErrDocument)
	}
	return nil
}

func publicKey(object []byte) (ed25519.PublicKey, error) {
	text, _ := canonjson.GetString(object, "key")
	key, err := DecodeBase64(text)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: key", ErrDocument)
	}
	return key, nil
}

func (d *KeyDocument) verify() error {
	valid := 0
	signatures, _ := canonjson.Get(d.JSON, "signatures")
	message := covered(d.JSON)
	for it := canonjson.Walk(get2(signatures, string(d.Server))); it.Next(); {
		key, ok := d.Current[id.KeyID(it.KeyString())]
		if !ok {
			continue
		}
		if err := VerifyBase64(key, message, it.Value()); err != nil {
			return fmt.Errorf("key document of %.64s: %w", d.Server, err)
		}
		valid++
	}
	if valid == 0 {
		return fmt.Errorf("key document of %.64s: %w", d.Server, ErrMissing)
	}
	return nil
}

// Keys returns the document's keys as a key ring holds them; now is when the document was got, in
// milliseconds: a current key counts for at most seven days from then, whatever the document says.
func (d *KeyDocument) Keys(now int64) map[id.KeyID]VerifyKey {
	keys := make(map[id.KeyID]VerifyKey, len(d.Current)+len(d.Old))
	for keyID, old := range d.Old {
		keys[keyID] = VerifyKey{Key: old.Key, Expired: old.Expired}
	}
	for keyID, key := range d.Current {
		keys[keyID] = VerifyKey{Key: key, ValidUntil: min(d.ValidUntil, now+maxTrust)}
	}
	return keys
}
