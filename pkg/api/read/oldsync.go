package read

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/timeline"
)

// OldSync answers what clients asked before there was /sync, which the specification still has: each is an answer of sync, or of the readers
// of rooms, told in another form.
type OldSync struct {
	engine *msync.Engine
	rooms  *timeline.Rooms
}

// NewOldSync makes the handlers.
func NewOldSync(engine *msync.Engine, rooms *timeline.Rooms) *OldSync { return &OldSync{engine, rooms} }

// Handlers gives the handlers by the names of their rows.
func (h *OldSync) Handlers() httpx.Handlers {
	return httpx.Handlers{"initialSync": h.initial, "roomInitialSync": h.room, "getEvents": h.events, "getOneEvent": h.event}
}

type eventList struct {
	Events []jsontext.Value `json:"events"`
}

// syncAnswer is an answer of /sync, as far as it is told here.
type syncAnswer struct {
	Next        string    `json:"next_batch"`
	AccountData eventList `json:"account_data"`
	Presence    eventList `json:"presence"`
	Rooms       struct {
		Join, Leave map[string]*syncRoom
		Invite      map[string]struct {
			State eventList `json:"invite_state"`
		} `json:"invite"`
	} `json:"rooms"`
}

type syncRoom struct {
	Timeline struct {
		eventList
		Prev string `json:"prev_batch"`
	} `json:"timeline"`
	State       eventList `json:"state_after"`
	Ephemeral   eventList `json:"ephemeral"`
	AccountData eventList `json:"account_data"`
}

// messages is the spec's PaginationChunk.
type messages struct {
	Start string           `json:"start,omitzero"`
	End   string           `json:"end"`
	Chunk []jsontext.Value `json:"chunk"`
}

// roomInfo is the spec's RoomInfo.
type roomInfo struct {
	RoomID      string           `json:"room_id"`
	Membership  string           `json:"membership,omitzero"`
	Invite      jsontext.Value   `json:"invite,omitzero"`
	Messages    *messages        `json:"messages,omitzero"`
	State       []jsontext.Value `json:"state,omitzero"`
	Visibility  string           `json:"visibility,omitzero"`
	AccountData []jsontext.Value `json:"account_data,omitzero"`
}

// ask has a sync done for a user, for no device: nobody's messages to devices are taken for received by it.
func (h *OldSync) ask(ctx context.Context, q msync.Request) (a syncAnswer, err error) {
	body, err := h.engine.Sync(ctx, q)
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(body, &a, json.MatchCaseInsensitiveNames(true))
}

func (h *OldSync) initial(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	f := &filter.Filter{EventFormat: filter.FormatClient}
	limit, err := p.Limit(10, 1000)
	if err != nil {
		return err
	}
	f.Room.Timeline.Limit = &limit
	if f.Room.IncludeLeave, err = p.Bool("archived", false); err != nil {
		return err
	}
	user := auth.Must(r.Context()).UserID
	a, err := h.ask(r.Context(), msync.Request{User: user, Filter: f, StateAfter: true})
	if err != nil {
		return err
	}
	out := struct {
		End         string           `json:"end"`
		Presence    []jsontext.Value `json:"presence"`
		Rooms       []roomInfo       `json:"rooms"`
		AccountData []jsontext.Value `json:"account_data"`
	}{a.Next, some(a.Presence.Events), []roomInfo{}, some(a.AccountData.Events)}
	for _, of := range []struct {
		membership string
		rooms      map[string]*syncRoom
	}{{"join", a.Rooms.Join}, {"leave", a.Rooms.Leave}} {
		for _, name := range slices.Sorted(maps.Keys(of.rooms)) {
			x := of.rooms[name]
			info := roomInfo{
				RoomID: name, Membership: of.membership, State: within(name, x.State.Events), AccountData: some(x.AccountData.Events),
				Messages: &messages{x.Timeline.Prev, a.Next, within(name, x.Timeline.Events)},
			}
			if info.Visibility, err = h.visibility(r.Context(), id.RoomID(name)); err != nil {
				return err
			}
			out.Rooms = append(out.Rooms, info)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Rooms.Invite)) {
		info := roomInfo{RoomID: name, Membership: "invite"}
		for _, e := range a.Rooms.Invite[name].State.Events {
			var m struct {
				Type     string    `json:"type"`
				StateKey id.UserID `json:"state_key"`
			}
			if json.Unmarshal(e, &m) == nil && m.Type == "m.room.member" && m.StateKey == user {
				info.Invite = within(name, []jsontext.Value{e})[0]
			}
		}
		out.Rooms = append(out.Rooms, info)
	}
	return httpx.WriteJSON(w, http.StatusOK, out)
}

func (h *OldSync) visibility(ctx context.Context, room id.RoomID) (string, error) {
	public, _, err := h.rooms.Published(ctx, room)
	if public {
		return "public", err
	}
	return "private", err
}

func (h *OldSync) room(w http.ResponseWriter, r *http.Request) error {
	in, err := roomVar(r)
	if err != nil {
		return err
	}
	ctx, v := r.Context(), viewer(r)
	info := roomInfo{RoomID: string(in)}
	if info.Membership, err = h.rooms.Membership(ctx, v, in); err != nil {
		return err
	}
	state, err := h.rooms.State(ctx, v, in)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(state, &info.State); err != nil {
		return err
	}
	page, err := h.rooms.Messages(ctx, v, timeline.Page{Room: in, Dir: timeline.Backward, Limit: 10})
	if err != nil {
		return err
	}
	var backward messages
	if err := json.Unmarshal(page, &backward); err != nil {
		return err
	}
	slices.Reverse(backward.Chunk)
	info.Messages = &messages{Start: backward.End, End: backward.Start, Chunk: some(backward.Chunk)}
	if info.AccountData, err = h.accountData(ctx, v.User, in); err != nil {
		return err
	}
	if info.Visibility, err = h.visibility(ctx, in); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, info)
}

// accountData gives what a user has attached to a room, of those that the user is in or was in.
func (h *OldSync) accountData(ctx context.Context, user id.UserID, in id.RoomID) ([]jsontext.Value, error) {
	nothing, none, rooms := filter.EventFilter{Types: []string{}}, 0, []string{string(in)}
	f := &filter.Filter{EventFormat: filter.FormatClient, Presence: nothing, AccountData: nothing}
	f.Room = filter.RoomFilter{Rooms: rooms, IncludeLeave: true}
	f.Room.Timeline.Limit, f.Room.State.NotRooms, f.Room.Ephemeral.NotRooms = &none, rooms, rooms
	a, err := h.ask(ctx, msync.Request{User: user, Filter: f})
	if err != nil {
		return nil, err
	}
	for _, rooms := range []map[string]*syncRoom{a.Rooms.Join, a.Rooms.Leave} {
		if x := rooms[string(in)]; x != nil {
			return some(x.AccountData.Events), nil
		}
	}
	return nil, nil
}

// maxEvents is how many events of a room are told by one answer of /events, which has no way to say that some are left out.
const maxEvents = 1000

// events waits for what is new: in all rooms of the user, or in one.
func (h *OldSync) events(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	c := auth.Must(r.Context())
	q := msync.Request{User: c.UserID, Since: p.Get("from"), Filter: &filter.Filter{EventFormat: filter.FormatClient}}
	most := maxEvents
	q.Filter.Room.Timeline.Limit = &most
	if q.Timeout, err = p.Milliseconds("timeout", maxSyncTimeout); err != nil {
		return err
	}
	if p.Has("room_id") {
		in, err := id.ParseRoomID(p.Get("room_id"))
		if err != nil {
			return mxerr.New(mxerr.InvalidParam, "Invalid room id").WithCause(err)
		}
		switch membership, err := h.rooms.Membership(r.Context(), viewer(r), in); {
		case err != nil:
			return err
		case membership != "join":
			return mxerr.New(mxerr.Forbidden, "You are not in this room")
		}
		q.Filter.Room.Rooms = []string{string(in)}
	}
	if q.Since == "" { // from now on
		now, err := h.ask(r.Context(), msync.Request{
			User: c.UserID, Filter: &filter.Filter{EventFormat: filter.FormatClient, Room: filter.RoomFilter{Rooms: []string{}}},
		})
		if err != nil {
			return err
		}
		q.Since = now.Next
	}
	body, pending, err := h.engine.Begin(r.Context(), q, nil)
	if pending != nil {
		return httpx.Later(w, r, func(ctx context.Context) ([]byte, error) {
			body, err := pending.Wait(ctx)
			if err != nil {
				return nil, err
			}
			return news(q.Since, body)
		})
	}
	if err != nil {
		return err
	}
	body, err = news(q.Since, body)
	return raw(w, body, err)
}

// news gives an answer of /sync as one of /events.
func news(from string, body []byte) ([]byte, error) {
	var a syncAnswer
	if err := json.Unmarshal(body, &a, json.MatchCaseInsensitiveNames(true)); err != nil {
		return nil, err
	}
	chunk := []jsontext.Value{}
	for _, rooms := range []map[string]*syncRoom{a.Rooms.Join, a.Rooms.Leave} {
		for _, name := range slices.Sorted(maps.Keys(rooms)) {
			chunk = append(chunk, within(name, rooms[name].Timeline.Events)...)
			chunk = append(chunk, within(name, rooms[name].Ephemeral.Events)...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Rooms.Invite)) {
		chunk = append(chunk, within(name, a.Rooms.Invite[name].State.Events)...)
	}
	return json.Marshal(struct {
		Start string           `json:"start"`
		End   string           `json:"end"`
		Chunk []jsontext.Value `json:"chunk"`
	}{from, a.Next, append(chunk, a.Presence.Events...)})
}

func (h *OldSync) event(w http.ResponseWriter, r *http.Request) error {
	b, err := h.rooms.EventAnywhere(r.Context(), viewer(r), httpx.Var(r, "eventId"))
	return raw(w, b, err)
}

// within gives events of a room, which /sync tells without its id, with it.
func within(room string, events []jsontext.Value) []jsontext.Value {
	out := make([]jsontext.Value, len(events))
	for i, e := range events {
		b, _ := json.Marshal(room) // a text
		b = append(append([]byte(`{"room_id":`), b...), ',')
		out[i] = append(b, e[1:]...) // an event has members
	}
	return out
}

func some(list []jsontext.Value) []jsontext.Value {
	if list == nil {
		return []jsontext.Value{}
	}
	return list
}
