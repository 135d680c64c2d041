package federation

import (
	"context"
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/service/lobby"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Lobby tells other servers what rooms show to those who are not in them.
type Lobby struct {
	lobby *lobby.Lobby
	in    func(ctx context.Context, host string, rooms []shard.Nid) (map[shard.Nid]bool, error)
}

// NewLobby makes the handlers. in tells which of rooms a server is in.
func NewLobby(l *lobby.Lobby, in func(ctx context.Context, host string, rooms []shard.Nid) (map[shard.Nid]bool, error)) *Lobby {
	return &Lobby{l, in}
}

// Handlers gives the handlers by the names of their rows.
func (h *Lobby) Handlers() httpx.Handlers {
	return httpx.Handlers{
		"federation.getPublicRooms":    h.publicRooms,
		"federation.queryPublicRooms":  h.queryPublicRooms,
		"federation.getSpaceHierarchy": h.hierarchy,
	}
}

func (h *Lobby) publicRooms(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	limit, err := p.Limit(lobby.DirectoryPage, lobby.MaxDirectoryPage)
	if err != nil {
		return err
	}
	wanted := int64(limit)
	q := &lobby.DirectoryRequest{Since: p.Get("since"), Limit: &wanted}
	if q.AllNetworks, err = p.Bool("include_all_networks", false); err != nil {
		return err
	}
	if n := p.Get("third_party_instance_id"); n != "" {
		q.Network = &n
	}
	return h.directory(w, r, q)
}

func (h *Lobby) queryPublicRooms(w http.ResponseWriter, r *http.Request) error {
	var q lobby.DirectoryRequest
	if err := httpx.DecodeOptional(r, &q); err != nil {
		return err
	}
	return h.directory(w, r, &q)
}

func (h *Lobby) directory(w http.ResponseWriter, r *http.Request, q *lobby.DirectoryRequest) error {
	d, err := h.lobby.Answer(r.Context(), q)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, d)
}

func (h *Lobby) hierarchy(w http.ResponseWriter, r *http.Request) error {
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	suggested, err := p.Bool("suggested_only", false)
	if err != nil {
		return err
	}
	origin := string(auth.Origin(r.Context()))
	space, err := h.lobby.Space(r.Context(), target, suggested, func(ctx context.Context, rooms []shard.Nid) (map[shard.Nid]bool, error) {
		return h.in(ctx, origin, rooms)
	})
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, space)
}
