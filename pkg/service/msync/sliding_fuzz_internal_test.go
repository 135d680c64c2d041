package msync

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// What Check lets pass is within the limits, and can be answered by.
func FuzzSlidingRequest(f *testing.F) {
	for _, seed := range []string{
		`{"conn_id":"room-list","lists":{"all":{"ranges":[[0,19],[30,40]],"timeline_limit":1,"required_state":[["m.room.member","$LAZY"],["*","*"]],
			"filters":{"is_dm":true,"room_types":[null,"m.space"],"tags":["u.x"]}}}}`,
		`{"lists":{"x":{"range":[0,1],"timeline_limit":1000}},"room_subscriptions":{"!r:x":{"timeline_limit":-1}}}`,
		`{"lists":{"":null},"extensions":{"to_device":{"enabled":true,"since":"5","limit":-1},"receipts":{"enabled":true,"lists":null,"rooms":["*"]}}}`,
		`{"lists":{"x":{"ranges":[[],[1],[2,1],null,[9223372036854775807,9223372036854775807]]}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		q := new(SlidingRequest)
		if json.Unmarshal(body, q) != nil || q.Check() != nil {
			return
		}
		require.LessOrEqual(t, len(q.Lists), maxLists)
		require.LessOrEqual(t, len(q.Subscriptions), maxSubscriptions)
		var told config
		for _, l := range q.Lists {
			require.LessOrEqual(t, len(l.Ranges), maxRanges)
			for _, at := range []int{0, 1, 1 << 40} {
				_ = l.in(at)
			}
			told = told.with(&l.RoomConfig)
		}
		for _, c := range q.Subscriptions {
			told = told.with(c)
		}
		require.LessOrEqual(t, told.limit, maxSlidingTimeline)
		require.GreaterOrEqual(t, told.limit, 0)
		if after, _, err := q.Extensions.ToDevice.after(); err == nil {
			require.GreaterOrEqual(t, int64(after), int64(0))
		}
		_ = q.Extensions.Receipts.covers(&slideRoom{listed: &listed{}, subscribed: true, lists: []string{"x"}})
	})
}
