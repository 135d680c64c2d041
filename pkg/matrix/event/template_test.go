package event_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

func FuzzParseTemplate(f *testing.F) {
	f.Add([]byte(`{"auth_events":["$a"],"content":{"membership":"join"},"depth":7,"origin_server_ts":1,"prev_events":["$b"],"room_id":"!r:a.example",` +
		`"sender":"@u:b.example","state_key":"@u:b.example","type":"m.room.member"}`))
	f.Add([]byte(`{"depth":-1,"origin_server_ts":1e3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, v := range roomver.All() {
			p, err := event.ParseTemplate(v, data)
			if err != nil {
				require.Nil(t, p)
				continue
			}
			require.NotEmpty(t, p.Type)
			require.NotEmpty(t, p.Sender)
			require.NotNil(t, p.Content)
		}
	})
}
