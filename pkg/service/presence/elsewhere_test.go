package presence_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/service/presence"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
)

// Another server speaks of its own users, in words that there are, and at a length that may be.
func TestElsewhere(t *testing.T) {
	now := time.UnixMilli(1_000_000_000_000)
	content := fmt.Sprintf(`{"push":[
		{"user_id":"@a:far.test","presence":"online","status_msg":"hi","last_active_ago":5000,"currently_active":true},
		{"user_id":"@b:far.test","presence":"unavailable","last_active_ago":-7},
		{"user_id":"@c:far.test","presence":"busy"},
		{"user_id":"@d:heddle.test","presence":"online"},
		{"user_id":"nobody","presence":"online"},
		{"user_id":"@e:far.test","presence":"online","status_msg":%q}
	]}`, strings.Repeat("x", 1000))
	list, err := presence.Elsewhere("far.test", []byte(content), now)
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, []any{"@a:far.test", entry.PresenceOnline, "hi", now.UnixMilli() - 5000}, []any{list[0].UserId, list[0].Presence, list[0].StatusMsg, list[0].LastActive})
	require.Equal(t, []any{"@b:far.test", entry.PresenceUnavailable, now.UnixMilli()}, []any{list[1].UserId, list[1].Presence, list[1].LastActive})
	for _, bad := range []string{``, `[]`, `{"push":{}}`, `{"push":[{"user_id":1}]}`} {
		_, err := presence.Elsewhere("far.test", []byte(bad), now)
		require.Error(t, err, bad)
	}
}

func FuzzElsewhere(f *testing.F) {
	f.Add([]byte(`{"push":[{"user_id":"@a:far.test","presence":"online","last_active_ago":5000}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		list, _ := presence.Elsewhere("far.test", content, time.Now())
		for _, p := range list {
			require.True(t, strings.HasSuffix(p.UserId, ":far.test"))
		}
	})
}
