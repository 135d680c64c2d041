package read

import (
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/timeline"
)

// Events told of in one page, if the request does not say.
const (
	defaultRelations = 20
	defaultThreads   = 20
)

// relations answers all three forms: what the path does not name is not asked for.
func (h *Rooms) relations(w http.ResponseWriter, r *http.Request) error {
	room, err := roomVar(r)
	if err != nil {
		return err
	}
	parent, err := id.ParseEventID(httpx.Var(r, "eventId"))
	if err != nil {
		return mxerr.New(mxerr.InvalidParam, "Invalid event id").WithCause(err)
	}
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	q := timeline.RelationsQuery{
		Room: room, Event: parent, RelType: httpx.Var(r, "relType"), Type: httpx.Var(r, "eventType"),
		From: p.Get("from"), To: p.Get("to"),
	}
	dir, err := p.Dir(httpx.Backward)
	if err != nil {
		return err
	}
	q.Dir = dir == httpx.Forward
	if q.Limit, err = p.Limit(defaultRelations, 1000); err != nil {
		return err
	}
	for _, name := range []string{"recurse", "org.matrix.msc3981.recurse"} {
		if !p.Has(name) {
			continue
		}
		recurse, err := p.Bool(name, false)
		if err != nil {
			return err
		}
		q.Recurse = &recurse
		break
	}
	b, err := h.rooms.Relations(r.Context(), viewer(r), q)
	return raw(w, b, err)
}

func (h *Rooms) threads(w http.ResponseWriter, r *http.Request) error {
	room, err := roomVar(r)
	if err != nil {
		return err
	}
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	q := timeline.ThreadsQuery{Room: room, From: p.Get("from")}
	switch p.Get("include") {
	case "", "all":
	case "participated":
		q.Participated = true
	default:
		return mxerr.New(mxerr.InvalidParam, "include is neither all nor participated")
	}
	if q.Limit, err = p.Limit(defaultThreads, 1000); err != nil {
		return err
	}
	if q.Limit == 0 {
		return mxerr.New(mxerr.InvalidParam, "limit is not greater than zero")
	}
	b, err := h.rooms.Threads(r.Context(), viewer(r), q)
	return raw(w, b, err)
}

// mutualRooms answers the stable form, and that of MSC2666, whose token has other names.
func (h *Rooms) mutualRooms(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	name, err := p.Required("user_id")
	if err != nil {
		return err
	}
	other, err := id.ParseUserID(name)
	if err != nil {
		return mxerr.New(mxerr.InvalidParam, "The user ID provided was invalid").WithCause(err)
	}
	if other == auth.Must(r.Context()).UserID {
		return mxerr.New(mxerr.InvalidParam, "You share all your rooms with yourself")
	}
	from := p.Get("from")
	if from == "" {
		from = p.Get("batch_token")
	}
	rooms, total, next, err := h.rooms.MutualRooms(r.Context(), viewer(r), other, from)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, struct {
		Joined   []string `json:"joined"`
		Count    int64    `json:"count"`
		Next     string   `json:"next_batch,omitzero"`
		Unstable string   `json:"next_batch_token,omitzero"`
	}{rooms, total, next, next})
}
