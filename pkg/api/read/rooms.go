package read

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/appservice"
	"github.com/heddle-im/heddle/pkg/service/timeline"
)

// Rooms answers what is read of rooms.
type Rooms struct {
	server id.ServerName
	rooms  *timeline.Rooms
	remote Remote
	asker  *appservice.Asker // nil: no application service is asked
}

// Asking has application services asked for aliases that are not there.
func (h *Rooms) Asking(asker *appservice.Asker) *Rooms {
	h.asker = asker
	return h
}

// Remote asks other servers. It is *abroad.Abroad.
type Remote interface {
	Alias(ctx context.Context, alias id.RoomAlias) (id.RoomID, []id.ServerName, error)
	Profile(ctx context.Context, user id.UserID, field string) (map[string]json.RawMessage, error)
	Hosts(ctx context.Context, room id.RoomID) ([]string, error)
}

// NewRooms makes the handlers.
func NewRooms(server id.ServerName, rooms *timeline.Rooms, remote Remote) *Rooms {
	return &Rooms{server: server, rooms: rooms, remote: remote}
}

// Handlers gives the handlers by the names of their rows.
func (h *Rooms) Handlers() httpx.Handlers {
	return httpx.Handlers{
		"getRoomEvents":                h.messages,
		"getOneRoomEvent":              h.event,
		"getEventContext":              h.context,
		"getEventByTimestamp":          h.near,
		"getRoomState":                 h.state,
		"getRoomStateWithKey":          h.stateEvent,
		"getMembersByRoom":             h.members,
		"getJoinedMembersByRoom":       h.joinedMembers,
		"getJoinedRooms":               h.joinedRooms,
		"getRoomIdByAlias":             h.alias,
		"getLocalAliases":              h.aliases,
		"getRoomVisibilityOnDirectory": h.visibility,

		"getRelatingEvents":                        h.relations,
		"getRelatingEventsWithRelType":             h.relations,
		"getRelatingEventsWithRelTypeAndEventType": h.relations,
		"getThreadRoots":                           h.threads,
		"getMutualRooms":                           h.mutualRooms,
	}
}

func viewer(r *http.Request) timeline.Viewer {
	c := auth.Must(r.Context())
	return timeline.Viewer{User: c.UserID, Device: c.DeviceID}
}

func roomVar(r *http.Request) (id.RoomID, error) {
	room, err := id.ParseRoomID(httpx.Var(r, "roomId"))
	if err != nil {
		return "", mxerr.New(mxerr.InvalidParam, "Invalid room id").WithCause(err)
	}
	return room, nil
}

// raw answers with a body that a service made.
func raw(w http.ResponseWriter, body []byte, err error) error {
	if err != nil {
		return err
	}
	httpx.WriteRaw(w, http.StatusOK, body)
	return nil
}

func roomFilter(p httpx.Params) (*filter.RoomEventFilter, error) {
	text := p.Get("filter")
	if text == "" {
		return nil, nil
	}
	f, err := filter.ParseRoomEvents([]byte(text))
	if err != nil {
		return nil, mxerr.New(mxerr.InvalidParam, "Invalid filter").WithCause(err)
	}
	return f, nil
}

func (h *Rooms) messages(w http.ResponseWriter, r *http.Request) error {
	room, err := roomVar(r)
	if err != nil {
		return err
	}
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	if !p.Has("dir") { // who may not see the room is told that first
		if err := h.rooms.MaySee(r.Context(), viewer(r), room); err != nil {
			return err
		}
	}
	q := timeline.Page{Room: room, From: p.Get("from"), To: p.Get("to")}
	if q.Dir, err = direction(p); err != nil {
		return err
	}
	if q.Limit, err = p.Limit(10, 1000); err != nil {
		return err
	}
	if q.Filter, err = roomFilter(p); err != nil {
		return err
	}
	b, err := h.rooms.Messages(r.Context(), viewer(r), q)
	return raw(w, b, err)
}

func direction(p httpx.Params) (timeline.Dir, error) {
	dir, err := p.Dir(0)
	return dir == httpx.Forward, err
}

func (h *Rooms) near(w http.ResponseWriter, r *http.Request) error {
	room, err := roomVar(r)
	if err != nil {
		return err
	}
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	ts, ok, err := p.Timestamp("ts")
	switch {
	case err != nil:
		return err
	case !ok:
		return mxerr.New(mxerr.MissingParam, "Missing query parameter ts")
	}
	dir, err := direction(p)
	if err != nil {
		return err
	}
	b, err := h.rooms.Near(r.Context(), viewer(r), room, ts, dir)
	return raw(w, b, err)
}

func (h *Rooms) event(w http.ResponseWriter, r *http.Request) error {
	room, err := roomVar(r)
	if err != nil {
		return err
	}
	b, err := h.rooms.Event(r.Context(), viewer(r), room, httpx.Var(r, "eventId"))
	return raw(w, b, err)
}

func (h *Rooms) context(w http.ResponseWriter, r *http.Request) error {
	room, err := roomVar(r)
	if err != nil {
		return err
	}
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	limit, err := p.Limit(10, 100)
	if err != nil {
		return err
	}
	f, err := roomFilter(p)
	if err != nil {
		return err
	}
	b, err := h.rooms.Context(r.Context(), viewer(r), room, httpx.Var(r, "eventId"), limit, f)
	return raw(w, b, err)
}

func (h *Rooms) state(w http.ResponseWriter, r *http.Request) error {
	room, err := roomVar(r)
	if err != nil {
		return err
	}
	b, err := h.rooms.State(r.Context(), viewer(r), room)
	return raw(w, b, err)
}

func (h *Rooms) stateEvent(w http.ResponseWriter, r *http.Request) error {
	room, err := roomVar(r)
	if err != nil {
		return err
	}
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	format := p.Get("format")
	if format != "" && format != "content" && format != "event" {
		return mxerr.New(mxerr.InvalidParam, "format is neither content nor event")
	}
	b, err := h.rooms.StateEvent(r.Context(), viewer(r), room, httpx.Var(r, "eventType"), httpx.Var(r, "stateKey"), format == "event")
	return raw(w, b, err)
}

func (h *Rooms) members(w http.ResponseWriter, r *http.Request) error {
	room, err := roomVar(r)
	if err != nil {
		return err
	}
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	q := timeline.MembersQuery{Room: room, At: p.Get("at"), Membership: p.Get("membership"), Not: p.Get("not_membership")}
	for name, m := range map[string]string{"membership": q.Membership, "not_membership": q.Not} {
		switch m {
		case "", "join", "invite", "knock", "leave", "ban":
		default:
			return mxerr.Newf(mxerr.InvalidParam, "%s is not a membership", name)
		}
	}
	b, err := h.rooms.Members(r.Context(), viewer(r), q)
	return raw(w, b, err)
}

func (h *Rooms) joinedMembers(w http.ResponseWriter, r *http.Request) error {
	room, err := roomVar(r)
	if err != nil {
		return err
	}
	b, err := h.rooms.JoinedMembers(r.Context(), viewer(r), room)
	return raw(w, b, err)
}

func (h *Rooms) joinedRooms(w http.ResponseWriter, r *http.Request) error {
	rooms, err := h.rooms.JoinedRooms(r.Context(), viewer(r))
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string][]string{"joined_rooms": rooms})
}

func (h *Rooms) alias(w http.ResponseWriter, r *http.Request) error {
	alias, err := id.ParseRoomAlias(httpx.Var(r, "roomAlias"))
	if err != nil {
		return mxerr.New(mxerr.InvalidParam, "Invalid room alias").WithCause(err)
	}
	missing := mxerr.New(mxerr.NotFound, "Room alias not found")
	type answer struct {
		RoomID  string          `json:"room_id"`
		Servers []id.ServerName `json:"servers"`
	}
	if alias.Server() != h.server {
		room, servers, err := h.remote.Alias(r.Context(), alias)
		if err != nil {
			return missing.WithCause(err)
		}
		return httpx.WriteJSON(w, http.StatusOK, answer{string(room), append([]id.ServerName{}, servers...)})
	}
	room, ok, err := h.rooms.Alias(r.Context(), alias)
	if err == nil && !ok {
		var made bool
		if made, err = h.asker.Alias(r.Context(), alias); made {
			room, ok, err = h.rooms.Alias(r.Context(), alias)
		}
	}
	switch {
	case err != nil:
		return err
	case !ok:
		return missing
	}
	servers := []id.ServerName{h.server}
	hosts, err := h.remote.Hosts(r.Context(), id.RoomID(room))
	if err != nil {
		return err
	}
	for _, s := range hosts[:min(len(hosts), maxAliasServers)] {
		servers = append(servers, id.ServerName(s))
	}
	return httpx.WriteJSON(w, http.StatusOK, answer{room, servers})
}

// maxAliasServers bounds the servers that are named with an alias.
const maxAliasServers = 50

func (h *Rooms) aliases(w http.ResponseWriter, r *http.Request) error {
	room, err := roomVar(r)
	if err != nil {
		return err
	}
	list, err := h.rooms.Aliases(r.Context(), viewer(r), room)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string][]string{"aliases": list})
}

func (h *Rooms) visibility(w http.ResponseWriter, r *http.Request) error {
	room, err := roomVar(r)
	if err != nil {
		return err
	}
	public, ok, err := h.rooms.Published(r.Context(), room)
	switch {
	case err != nil:
		return err
	case !ok:
		return mxerr.New(mxerr.NotFound, "Unknown room")
	}
	v := "private"
	if public {
		v = "public"
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]string{"visibility": v})
}
