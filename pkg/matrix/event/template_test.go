package event_test

import (
	"strings"
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

// Some servers leave the time to who builds the event.
func TestTemplateWithoutTime(t *testing.T) {
	const template = `{"content":{"membership":"join"},"depth":5,"prev_events":[],"auth_events":[],"room_id":"!r:a.test","sender":"@u:b.test","state_key":"@u:b.test","type":"m.room.member"}`
	p, err := event.ParseTemplate(roomver.MustGet("10"), []byte(template))
	require.NoError(t, err)
	require.Zero(t, p.OriginServerTS)
	require.Equal(t, int64(5), p.Depth)
	_, err = event.ParseTemplate(roomver.MustGet("10"), []byte(strings.Replace(template, `"depth":5,`, "", 1)))
	require.ErrorIs(t, err, event.ErrFormat)
}
