package e2ee

import (
	"bytes"
	"encoding/json"
	"testing"
)

// What passes the checks stays what it is when it is checked again, and merging a key with itself changes nothing.
func FuzzKeys(f *testing.F) {
	f.Add([]byte(`{"user_id":"@a:b","device_id":"D","algorithms":[],"keys":{"ed25519:D":"x"},"signatures":{"@a:b":{"ed25519:D":"y"}},"unsigned":{}}`))
	f.Add([]byte(`{"user_id":"@a:b","usage":["master"],"keys":{"ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}`))
	f.Add([]byte(`{"signed_curve25519:x":{"key":"x"},"curve25519:y":"y"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := checkDeviceKeys("@a:b", "D", b); err == nil {
			again, err := checkDeviceKeys("@a:b", "D", k)
			if err != nil || !bytes.Equal(k, again) {
				t.Fatalf("%s became %s: %v", k, again, err)
			}
			if merged, same := mergeSignatures(k, k); !same || !bytes.Equal(canonical(json.RawMessage(merged)), merged) {
				t.Fatalf("%s merged with itself is %s", k, merged)
			}
		}
		if k, err := checkCrossKey("@a:b", "master", b); err == nil && public(k.public) == nil {
			t.Fatalf("%s has no key", b)
		}
		var keys map[string]json.RawMessage
		if json.Unmarshal(b, &keys) == nil {
			_, _ = checkKeys(keys, false)
			_, _ = checkKeys(keys, true)
		}
	})
}
