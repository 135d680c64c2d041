package fedclient

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

const (
	keyTimeout    = 15 * time.Second
	documentLimit = 512 << 10
)

// ServerKeys asks a server for the document of its keys.
func (c *Client) ServerKeys(ctx context.Context, server id.ServerName) ([]byte, error) {
	return c.Do(ctx, server, Request{
		Method: "GET", Path: "/_matrix/key/v2/server", Timeout: keyTimeout, Limit: documentLimit, Unsigned: true,
	})
}

// QueryKeys asks a notary for the documents of other servers' keys.
func (c *Client) QueryKeys(ctx context.Context, notary id.ServerName, keys []signing.Request) ([][]byte, error) {
	type criteria struct {
		MinimumValidUntil int64 `json:"minimum_valid_until_ts,omitempty"`
	}
	ask := map[id.ServerName]map[id.KeyID]criteria{}
	for _, k := range keys {
		if ask[k.Server] == nil {
			ask[k.Server] = map[id.KeyID]criteria{}
		}
		ask[k.Server][k.Key] = criteria{k.ValidAt}
	}
	body, err := json.Marshal(map[string]any{"server_keys": ask})
	if err != nil {
		return nil, fmt.Errorf("encode key query: %w", err)
	}
	raw, err := c.Do(ctx, notary, Request{
		Method: "POST", Path: "/_matrix/key/v2/query", Body: body, Timeout: keyTimeout, Unsigned: true,
	})
	if err != nil {
		return nil, err
	}
	var answer struct {
		ServerKeys []json.RawMessage `json:"server_keys"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, fmt.Errorf("%w: %s: keys: %w", ErrMalformed, notary, err)
	}
	out := make([][]byte, len(answer.ServerKeys))
	for i, d := range answer.ServerKeys {
		out[i] = d
	}
	return out, nil
}
