package abroad

import (
	"context"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

// Cache keeps what may be lost. It is *soft.Store.
type Cache interface {
	Get(ctx context.Context, key string) (value []byte, ok bool, err error)
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error
}

const (
	lobbyLimit = 4 << 20
	lobbyWait  = 10 * time.Second
	// spaceKept is for how long it is believed what a server told of a space, and spaceMost how much of that is kept.
	spaceKept = 5 * time.Minute
	spaceMost = 256 << 10
)

// Directory asks a server for its public directory, with the body of POST /publicRooms, and gives the answer as it came.
func (a *Abroad) Directory(ctx context.Context, server id.ServerName, body []byte) ([]byte, error) {
	raw, err := a.o.Remote.Ask(ctx, server, "POST", fedPath("v1", "publicRooms"), nil, body, lobbyLimit, lobbyWait, true)
	if err != nil {
		return nil, (&mxerr.Error{Code: mxerr.Unknown, HTTPStatus: 502, Message: "The server's directory could not be fetched"}).WithCause(err)
	}
	return raw, nil
}

// Space asks servers, one after the other, for a room and its children, and gives the first answer as it came. It is believed for some minutes.
func (a *Abroad) Space(ctx context.Context, servers []id.ServerName, r id.RoomID) ([]byte, error) {
	var last error = mxerr.New(mxerr.NotFound, "No server is known that is in the room")
	for _, s := range servers {
		if s == a.o.Server {
			continue
		}
		key := "space " + string(s) + " " + string(r)
		if raw, ok, err := a.o.Cache.Get(ctx, key); err == nil && ok {
			return raw, nil
		}
		raw, err := a.o.Remote.Ask(ctx, s, "GET", fedPath("v1", "hierarchy", string(r)), nil, nil, lobbyLimit, lobbyWait, false)
		if err != nil {
			last = err
			continue
		}
		if len(raw) <= spaceMost {
			_ = a.o.Cache.Set(ctx, key, raw, spaceKept) // it may be lost
		}
		return raw, nil
	}
	return nil, last
}
