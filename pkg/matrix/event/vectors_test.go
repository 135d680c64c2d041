package event_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

// specKey is the key of the specification's test vectors.
func specKey(t testing.TB) signing.Key {
	t.Helper()
	seed, err := base64.RawStdEncoding.DecodeString("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
	require.NoError(t, err)
	key, err := signing.NewKey("ed25519:1", seed)
	require.NoError(t, err)
	return key
}

// The specification's two signed events ("Event Signing" in its appendices), as version 1 would have
// them: what that version wants and the vectors lack is not part of what was hashed there, so that the
// events are read as trusted and their hashes compared with those that are printed.
func TestSpecEventSigning(t *testing.T) {
	vectors := map[string]struct{ unsigned, hash, signature string }{
		"minimal": {
			`{"auth_events":[],"content":{},"depth":3,"hashes":{},"origin":"domain","origin_server_ts":1000000,` +
				`"prev_events":[],"room_id":"!x:domain","sender":"@a:domain","signatures":{},"type":"X","unsigned":{"age_ts":1000000}}`,
			"5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
			"KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
		},
		"redactable content": {
			`{"content":{"body":"Here is the message content"},"event_id":"$0:domain","hashes":{},"origin":"domain",` +
				`"origin_server_ts":1000000,"room_id":"!r:domain","sender":"@u:domain","signatures":{},"type":"m.room.message",` +
				`"unsigned":{"age_ts":1000000}}`,
			"onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
			"Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
		},
	}
	for name, v := range vectors {
		t.Run(name, func(t *testing.T) {
			// The second one has no depth and no links at all, which no room version allows.
			e, err := event.ParseVector(roomver.MustGet(roomver.V4), []byte(v.unsigned))
			require.NoError(t, err)
			hash := e.ContentHash()
			require.Equal(t, v.hash, base64.RawStdEncoding.EncodeToString(hash[:]))

			hashed := strings.Replace(string(e.JSON()), `"hashes":{}`, `"hashes":{"sha256":"`+v.hash+`"}`, 1)
			e, err = event.ParseVector(roomver.MustGet(roomver.V4), []byte(hashed))
			require.NoError(t, err)
			key := specKey(t)
			signed := e.SignVector("domain", key)
			want := strings.Replace(hashed, `"signatures":{}`, `"signatures":{"domain":{"ed25519:1":"`+v.signature+`"}}`, 1)
			require.Equal(t, want, string(signed))
			require.True(t, canonjson.IsCanonical(signed, canonjson.Options{}))
		})
	}
}
