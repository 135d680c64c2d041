package e2ee

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
)

// CrossSigning are the cross-signing keys that a user uploads; an absent one stays as it is.
type CrossSigning struct {
	Master      json.RawMessage `json:"master_key"`
	SelfSigning json.RawMessage `json:"self_signing_key"`
	UserSigning json.RawMessage `json:"user_signing_key"`
}

// PutCrossSigning sets a user's cross-signing keys. done is false if that would replace keys, and the user has not confirmed it.
func (f *Front) PutCrossSigning(ctx context.Context, user id.UserID, keys *CrossSigning, confirmed bool) (done bool, err error) {
	cmd := &PutCrossSigning{UserID: string(user), Confirmed: confirmed}
	seen := make(map[string]bool)
	for _, k := range []struct {
		usage string
		from  json.RawMessage
		to    *json.RawMessage
	}{
		{e2eedb.Master, keys.Master, &cmd.Master},
		{e2eedb.SelfSigning, keys.SelfSigning, &cmd.SelfSigning},
		{e2eedb.UserSigning, keys.UserSigning, &cmd.UserSigning},
	} {
		if len(k.from) == 0 || string(k.from) == "null" {
			continue
		}
		c, err := checkCrossKey(string(user), k.usage, k.from)
		if err != nil {
			return false, err
		}
		if seen[c.public] {
			return false, invalid("The cross-signing keys must differ")
		}
		seen[c.public] = true
		*k.to = c.json
	}
	a, err := f.do(ctx, cmd)
	return !a.Unconfirmed, err
}

// PutSignatures stores signatures by a user, under the own devices and keys and under master keys of others, and says why it did not
// take some of them.
func (f *Front) PutSignatures(ctx context.Context, user id.UserID, q map[string]map[string]json.RawMessage) (map[string]map[string]any, error) {
	s := &signatures{failures: make(map[string]map[string]any), cmd: &PutSignatures{UserID: string(user)}, user: string(user)}
	own := append(slices.Collect(maps.Keys(q)), string(user))
	slices.Sort(own)
	var local []string
	for _, u := range slices.Compact(own) {
		p, err := id.ParseUserID(u)
		if err != nil {
			return nil, mxerr.New(mxerr.InvalidParam, "Invalid user id").WithCause(err)
		}
		if p.Server() == f.Server {
			local = append(local, u)
		}
	}
	cross, err := f.DB.CrossSigning(ctx, f.Shards, local)
	if err != nil {
		return nil, err
	}
	devices, err := f.DB.Devices(ctx, f.Shards, []string{string(user)})
	if err != nil {
		return nil, err
	}
	s.cross, s.devices = make(map[string]map[string]crossKey), make(map[string][]byte)
	for _, k := range cross {
		if c, err := checkCrossKey(k.UserID, k.Usage, k.JSON); err == nil {
			if s.cross[k.UserID] == nil {
				s.cross[k.UserID] = make(map[string]crossKey)
			}
			s.cross[k.UserID][k.Usage] = c
		}
	}
	for _, d := range devices {
		if d.JSON != nil {
			s.devices[d.DeviceID] = d.JSON
		}
	}
	f.awayMasters(ctx, s, q)
	for u, keys := range q {
		for name, raw := range keys {
			b, err := object(raw, "A key")
			if err == nil && u == string(user) {
				err = s.own(name, b)
			} else if err == nil {
				err = s.other(u, name, b)
			}
			if err != nil {
				s.fail(u, name, err)
			}
		}
	}
	if len(s.cmd.Own)+len(s.cmd.Other) == 0 {
		return s.failures, nil
	}
	a, err := f.do(ctx, s.cmd)
	for _, name := range a.Unknown {
		s.fail(string(user), name, unknownKey())
	}
	return s.failures, err
}

// awayMasters asks other servers for the master keys that are signed.
func (f *Front) awayMasters(ctx context.Context, s *signatures, q map[string]map[string]json.RawMessage) {
	if f.Remote == nil {
		return
	}
	for u := range q {
		server := id.UserID(u).Server()
		if server == f.Server {
			continue
		}
		keys, err := f.Remote.QueryKeys(ctx, server, map[string][]string{u: {}})
		if err != nil {
			continue // its key is unknown then
		}
		if c, err := checkCrossKey(u, e2eedb.Master, keys.Master[u]); err == nil {
			s.cross[u] = map[string]crossKey{e2eedb.Master: c}
		}
	}
}

// signatures is one upload of signatures.
type signatures struct {
	user     string
	cross    map[string]map[string]crossKey
	devices  map[string][]byte
	cmd      *PutSignatures
	failures map[string]map[string]any
}

func (s *signatures) fail(user, name string, err error) {
	if s.failures[user] == nil {
		s.failures[user] = make(map[string]any)
	}
	e := mxerr.From(err)
	s.failures[user][name] = map[string]any{"status": e.HTTPStatus, "errcode": e.Code, "error": e.Message}
}

func unknownKey() error { return mxerr.New(mxerr.NotFound, "Not a key that the server knows") }

func badSignature() error {
	return mxerr.New(mxerr.InvalidSignature, "There is no good signature by a key of yours")
}

// own takes signatures under a key of the signer: a device's, by the self-signing key, or the master key's, by devices.
func (s *signatures) own(name string, b []byte) error {
	if m, ok := s.cross[s.user][e2eedb.Master]; ok && (name == m.public || name == string(m.keyID())) {
		if merged, same := mergeSignatures(m.json, b); !same || merged == nil {
			return unknownKey()
		}
		kept := 0
		obj, _ := parseSigned(b)
		sigs := obj.signatures()[s.user]
		for keyID := range sigs {
			_, device, _ := strings.Cut(keyID, ":")
			if pub := devicePublic(s.devices[device], device); pub != nil && signing.VerifyJSON(b, s.user, id.KeyID(keyID), pub) == nil {
				kept++
				continue
			}
			if keyID != string(m.keyID()) {
				return badSignature()
			}
		}
		if kept == 0 {
			return badSignature()
		}
		s.cmd.Own = append(s.cmd.Own, OwnSignature{Key: b})
		return nil
	}
	stored := s.devices[name]
	if stored == nil {
		return unknownKey()
	}
	if _, same := mergeSignatures(stored, b); !same {
		return unknownKey()
	}
	by, ok := s.cross[s.user][e2eedb.SelfSigning]
	if !ok || !signedBy(b, s.user, by) {
		return badSignature()
	}
	// Of the signatures that came, the one that was looked at is taken.
	obj, _ := parseSigned(b)
	sig := obj.signatures()[s.user][string(by.keyID())]
	s.cmd.Own = append(s.cmd.Own, OwnSignature{DeviceID: name, Key: withSignature(stored, s.user, string(by.keyID()), sig)})
	return nil
}

// devicePublic gives a device's signing key.
func devicePublic(keys []byte, device string) []byte {
	var k struct {
		Keys map[string]string `json:"keys"`
	}
	if json.Unmarshal(keys, &k) != nil {
		return nil
	}
	return public(k.Keys["ed25519:"+device])
}

// other takes a signature under somebody else's master key, by the user-signing key.
func (s *signatures) other(user, name string, b []byte) error {
	m, ok := s.cross[user][e2eedb.Master]
	if !ok || name != m.public && name != string(m.keyID()) {
		return unknownKey()
	}
	if _, same := mergeSignatures(m.json, b); !same {
		return unknownKey()
	}
	by, ok := s.cross[s.user][e2eedb.UserSigning]
	if !ok || !signedBy(b, s.user, by) {
		return badSignature()
	}
	obj, _ := parseSigned(b)
	s.cmd.Other = append(s.cmd.Other, OtherSignature{
		Target: user, TargetKey: m.public, KeyID: string(by.keyID()), Signature: obj.signatures()[s.user][string(by.keyID())],
	})
	return nil
}

// Dehydrate makes a dehydrated device in place of one that there may be.
func (f *Front) Dehydrate(ctx context.Context, user id.UserID, device, name string, data json.RawMessage, u *Upload) (string, error) {
	if device == "" || !storable(device) || !storable(name) {
		return "", invalid("The device needs an id, and not too long a name")
	}
	if len(u.Device) == 0 {
		return "", mxerr.New(mxerr.MissingParam, "The device needs device_keys")
	}
	d, err := object(data, "device_data")
	if err != nil {
		return "", err
	}
	keys, err := u.check(string(user), device)
	if err != nil {
		return "", err
	}
	a, err := f.do(ctx, &Dehydrate{UserID: string(user), DeviceID: device, DisplayName: name, Data: d, Keys: *keys})
	return a.DeviceID, err
}

// Rehydrated removes the dehydrated device.
func (f *Front) Rehydrated(ctx context.Context, user id.UserID) (string, error) {
	a, err := f.do(ctx, &Rehydrated{UserID: string(user)})
	return a.DeviceID, err
}
