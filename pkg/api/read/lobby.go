package read

import (
	"net/http"
	"strings"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/lobby"
)

// Lobby answers what rooms show to those who are not in them.
type Lobby struct {
	server id.ServerName
	lobby  *lobby.Lobby
	remote Remote
}

// NewLobby makes the handlers. remote resolves aliases of other servers.
func NewLobby(server id.ServerName, l *lobby.Lobby, remote Remote) *Lobby {
	return &Lobby{server, l, remote}
}

// Handlers gives the handlers by the names of their rows.
func (h *Lobby) Handlers() httpx.Handlers {
	return httpx.Handlers{
		"getPublicRooms":    h.publicRooms,
		"queryPublicRooms":  h.queryPublicRooms,
		"getRoomSummary":    h.summary,
		"getSpaceHierarchy": h.hierarchy,
	}
}

// Sizes of pages.
const (
	hierarchyPage    = 50
	maxHierarchyPage = 500
)

// maxTerm bounds what is searched for, in bytes.
const maxTerm = 1024

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
	return h.directory(w, r, p.Get("server"), &lobby.DirectoryRequest{Since: p.Get("since"), Limit: &wanted})
}

func (h *Lobby) queryPublicRooms(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	var q lobby.DirectoryRequest
	if err := httpx.DecodeOptional(r, &q); err != nil {
		return err
	}
	return h.directory(w, r, p.Get("server"), &q)
}

// directory answers with a part of a server's directory, this one's if none is named.
func (h *Lobby) directory(w http.ResponseWriter, r *http.Request, server string, q *lobby.DirectoryRequest) error {
	var d *lobby.Directory
	var err error
	if server == "" || server == string(h.server) {
		d, err = h.lobby.Answer(r.Context(), q)
	} else {
		name, bad := id.ParseServerName(server)
		if bad != nil {
			return mxerr.New(mxerr.InvalidParam, "server is no server name").WithCause(bad)
		}
		d, err = h.lobby.Elsewhere(r.Context(), name, q)
	}
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, d)
}

func (h *Lobby) summary(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	var via []id.ServerName
	for _, s := range p.All("via") {
		if n := id.ServerName(s); n.Valid() && n != h.server {
			via = append(via, n)
		}
	}
	var room id.RoomID
	if s := httpx.Var(r, "roomIdOrAlias"); strings.HasPrefix(s, "#") {
		alias, err := id.ParseRoomAlias(s)
		if err != nil {
			return mxerr.New(mxerr.InvalidParam, "Invalid room alias").WithCause(err)
		}
		ok := true
		if alias.Server() == h.server {
			room, ok, err = h.lobby.Resolve(r.Context(), alias)
		} else if room, via, err = h.remote.Alias(r.Context(), alias); err != nil {
			return mxerr.New(mxerr.NotFound, "Room alias not found").WithCause(err)
		}
		if err != nil {
			return err
		}
		if !ok {
			return mxerr.New(mxerr.NotFound, "Room alias not found")
		}
	} else if room, err = id.ParseRoomID(s); err != nil {
		return mxerr.New(mxerr.InvalidParam, "Invalid room id").WithCause(err)
	}
	var user id.UserID
	if c := auth.From(r.Context()); c != nil {
		user = c.UserID
	}
	s, err := h.lobby.Summary(r.Context(), room, user, via)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, s)
}

func (h *Lobby) hierarchy(w http.ResponseWriter, r *http.Request) error {
	room, err := roomVar(r)
	if err != nil {
		return err
	}
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	q := lobby.HierarchyQuery{Room: room, User: auth.Must(r.Context()).UserID, From: p.Get("from"), Depth: lobby.MaxDepth}
	if q.Limit, err = p.Limit(hierarchyPage, maxHierarchyPage); err != nil {
		return err
	}
	if q.Limit == 0 {
		return mxerr.New(mxerr.InvalidParam, "limit is not greater than zero")
	}
	if q.Suggested, err = p.Bool("suggested_only", false); err != nil {
		return err
	}
	depth, ok, err := p.Int("max_depth")
	switch {
	case err != nil:
		return err
	case ok && depth < 0:
		return mxerr.New(mxerr.InvalidParam, "max_depth is negative")
	case ok:
		q.Depth = int(min(depth, lobby.MaxDepth))
	}
	found, err := h.lobby.Hierarchy(r.Context(), q)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, found)
}
