package relation_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/relation"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"m.relates_to":{"rel_type":"m.thread","event_id":"$a","is_falling_back":true,"m.in_reply_to":{"event_id":"$b"}}}`))
	f.Add([]byte(`{"m.relates_to":{"rel_type":"m.annotation","event_id":"$a","key":"👍"}}`))
	f.Add([]byte(`{"m.relates_to":[]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		r, ok := relation.Parse(content)
		if !ok {
			require.Equal(t, relation.Relation{}, r)
			return
		}
		require.Equal(t, r.Type == "", r.Parent == "", "both or neither")
		require.True(t, r.Type != "" || r.ReplyTo != "")
	})
}
