package accountdb

import (
	"context"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// TypeIgnored is the account data that lists whom a user ignores.
const TypeIgnored = "m.ignored_user_list"

// Ignored reads whom a user ignores.
func (r *Reader) Ignored(ctx context.Context, s shard.ID, userID string) (map[string]bool, error) {
	content, ok, err := r.AccountData(ctx, s, userID, "", TypeIgnored)
	if err != nil || !ok {
		return nil, err
	}
	return ParseIgnored(userID, content), nil
}

// ParseIgnored reads such a list; it is never nil. Nobody ignores themselves.
func ParseIgnored(userID string, content []byte) map[string]bool {
	var list struct {
		Users map[string]jsontext.Value `json:"ignored_users"`
	}
	out := make(map[string]bool)
	if json.Unmarshal(content, &list) != nil { // a client wrote it, and may have written anything
		return out
	}
	for u := range list.Users {
		out[u] = true
	}
	delete(out, userID)
	return out
}
