package read

import (
	"net/http"
	"strings"
	"unicode/utf8"

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
}

// NewLobby makes the handlers.
func NewLobby(server id.ServerName, l *lobby.Lobby) *Lobby { return &Lobby{server, l} }

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
	directoryPage    = 100
	maxDirectoryPage = 500
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
	if err := h.own(p.Get("server")); err != nil {
		return err
	}
	q := lobby.DirectoryQuery{Since: p.Get("since")}
	if q.Limit, err = p.Limit(directoryPage, maxDirectoryPage); err != nil {
		return err
	}
	return h.directory(w, r, q)
}

func (h *Lobby) queryPublicRooms(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	var q struct {
		Limit  *int64 `json:"limit"`
		Since  string `json:"since"`
		Filter struct {
			Term  string     `json:"generic_search_term"`
			Types *[]*string `json:"room_types"`
		} `json:"filter"`
		AllNetworks bool    `json:"include_all_networks"`
		Network     *string `json:"third_party_instance_id"`
	}
	if err := httpx.DecodeOptional(r, &q); err != nil {
		return err
	}
	if err := h.own(p.Get("server")); err != nil {
		return err
	}
	d := lobby.DirectoryQuery{Since: q.Since, Term: q.Filter.Term, Limit: directoryPage}
	switch {
	case q.Limit != nil && *q.Limit < 0:
		return mxerr.New(mxerr.InvalidParam, "limit is negative")
	case q.Limit != nil && *q.Limit > 0:
		d.Limit = int(min(*q.Limit, maxDirectoryPage))
	}
	if len(d.Term) > maxTerm || !utf8.ValidString(d.Term) {
		return mxerr.New(mxerr.InvalidParam, "generic_search_term is too long")
	}
	if q.Filter.Types != nil {
		d.Types = []string{}
		for _, t := range *q.Filter.Types {
			if t == nil {
				t = new(string)
			}
			d.Types = append(d.Types, *t)
		}
	}
	if q.Network != nil && *q.Network != "" {
		if q.AllNetworks {
			return mxerr.New(mxerr.InvalidParam, "third_party_instance_id cannot be used with include_all_networks")
		}
		// Only application services list rooms of other networks, and none has.
		return httpx.WriteJSON(w, http.StatusOK, lobby.Directory{Chunk: []lobby.Summary{}, Total: new(int)})
	}
	return h.directory(w, r, d)
}

// own refuses the directories of other servers.
func (h *Lobby) own(server string) error {
	if server == "" || server == string(h.server) {
		return nil
	}
	if _, err := id.ParseServerName(server); err != nil {
		return mxerr.New(mxerr.InvalidParam, "server is no server name").WithCause(err)
	}
	return mxerr.New(mxerr.NotFound, "The directory of that server cannot be fetched from here")
}

func (h *Lobby) directory(w http.ResponseWriter, r *http.Request, q lobby.DirectoryQuery) error {
	if q.Limit == 0 {
		q.Limit = directoryPage
	}
	d, err := h.lobby.Directory(r.Context(), q)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, d)
}

func (h *Lobby) summary(w http.ResponseWriter, r *http.Request) error {
	var room id.RoomID
	var err error
	if s := httpx.Var(r, "roomIdOrAlias"); strings.HasPrefix(s, "#") {
		alias, err := id.ParseRoomAlias(s)
		if err != nil {
			return mxerr.New(mxerr.InvalidParam, "Invalid room alias").WithCause(err)
		}
		ok := alias.Server() == h.server
		if ok {
			if room, ok, err = h.lobby.Resolve(r.Context(), alias); err != nil {
				return err
			}
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
	s, err := h.lobby.Summary(r.Context(), room, user)
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
