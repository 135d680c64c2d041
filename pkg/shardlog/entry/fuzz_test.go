package entry_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
)

// FuzzDecode gives each kind's decoder anything: another release may have written it.
func FuzzDecode(f *testing.F) {
	session, err := entry.Session("@a:b", &entry.SessionBody{Change: entry.SessionAdded, DeviceIds: []string{"D"}, VoidTokens: [][]byte{{1}}})
	require.NoError(f, err)
	profile, err := entry.Profile("@a:b", &entry.ProfileBody{Field: "displayname", Value: []byte(`"A"`)})
	require.NoError(f, err)
	typing, err := entry.EncodeTyping(&entry.Typing{Shard: 1, Epoch: 2, N: 3, RoomNid: 4, RoomId: "!r:b", UserIds: []string{"@a:b"}})
	require.NoError(f, err)
	f.Add(uint8(session.Kind), session.Body)
	f.Add(uint8(profile.Kind), profile.Body)
	f.Add(uint8(0), typing)
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		e := &entry.Entry{Kind: entry.Kind(kind), Body: body}
		for k, decode := range map[entry.Kind]func() error{
			entry.KindEvent:       func() error { _, err := entry.DecodeEvent(e); return err },
			entry.KindReceipt:     func() error { _, err := entry.DecodeReceipt(e); return err },
			entry.KindAccountData: func() error { _, err := entry.DecodeAccountData(e); return err },
			entry.KindProfile:     func() error { _, err := entry.DecodeProfile(e); return err },
			entry.KindSession:     func() error { _, err := entry.DecodeSession(e); return err },
		} {
			if err := decode(); k != e.Kind {
				require.Error(t, err, "an entry of kind %d is not read as one of kind %d", e.Kind, k)
			}
		}
		_, _ = entry.DecodeTyping(body)
	})
}
