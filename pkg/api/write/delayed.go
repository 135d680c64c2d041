package write

import (
	"context"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/store/delaydb"
)

// Delays sends events later (MSC4140). It is *delay.Engine.
type Delays interface {
	Asked(ctx context.Context, user, device, txn string) (delayID string, ok bool, err error)
	Schedule(ctx context.Context, ev delaydb.Event) (delayID string, err error)
	Restart(ctx context.Context, delayID string) error
	Cancel(ctx context.Context, delayID string) error
	Now(ctx context.Context, delayID string) error
}

// delayParam asks of the usual endpoints that send events that they do so later.
const delayParam = "org.matrix.msc4140.delay"

type delayAnswer struct {
	DelayID string `json:"delay_id"`
}

// SendDelayed has a delayed event sent by its user. It is a delay.Send.
func SendDelayed(w room.Writer) func(ctx context.Context, key []byte, e *delaydb.Event) error {
	return func(ctx context.Context, key []byte, e *delaydb.Event) error {
		target, err := parseRoom(e.Room)
		if err != nil {
			return err
		}
		user, err := parseUser(e.User)
		if err != nil {
			return err
		}
		by := room.Origin{User: user}
		var cmd room.Command = &room.Send{Room: target, By: by, Type: e.Type, Content: e.Content}
		if e.StateKey != nil {
			cmd = &room.SendState{Room: target, By: by, Type: e.Type, StateKey: *e.StateKey, Content: e.Content}
		}
		_, err = w.Do(ctx, key, cmd)
		return err
	}
}

// askedToDelay tells by how many milliseconds a request wants its event put off.
func (h *Rooms) askedToDelay(r *http.Request) (ms int64, ok bool, err error) {
	p, err := httpx.Query(r)
	if err != nil || !p.Has(delayParam) {
		return 0, false, err
	}
	ms, ok, err = p.Int(delayParam)
	if err == nil && (!ok || ms < 0) {
		err = mxerr.New(mxerr.InvalidParam, delayParam+" is not a number of milliseconds")
	}
	return ms, err == nil, err
}

// sendLater schedules what send or setState would send now.
func (h *Rooms) sendLater(w http.ResponseWriter, r *http.Request, stateKey *string, ms int64) error {
	ev, answered, err := h.delayed(w, r)
	if answered || err != nil {
		return err
	}
	ev.StateKey, ev.Delay = stateKey, ms
	if ev.Content, err = eventContent(r); err != nil {
		return err
	}
	return h.schedule(w, r, ev)
}

func (h *Rooms) sendDelayed(w http.ResponseWriter, r *http.Request) error {
	ev, answered, err := h.delayed(w, r)
	if answered || err != nil {
		return err
	}
	var q struct {
		DelayMS  *int64         `json:"delay_ms"`
		Delay    *int64         `json:"delay"` // as older proposals name it
		StateKey *string        `json:"state_key"`
		Content  jsontext.Value `json:"content"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.DelayMS == nil {
		q.DelayMS = q.Delay
	}
	switch {
	case q.DelayMS == nil:
		return mxerr.New(mxerr.MissingParam, "The request has no delay")
	case *q.DelayMS < 0:
		return mxerr.New(mxerr.InvalidParam, "The delay is negative")
	case len(q.Content) == 0:
		return mxerr.New(mxerr.MissingParam, "The request has no content")
	}
	ev.Delay, ev.StateKey, ev.Content = *q.DelayMS, q.StateKey, q.Content
	return h.schedule(w, r, ev)
}

// delayed gives of an event what the path and the caller say; answered says that the caller has asked for it before, and is told so.
func (h *Rooms) delayed(w http.ResponseWriter, r *http.Request) (ev delaydb.Event, answered bool, err error) {
	c, err := active(r)
	if err != nil {
		return ev, false, err
	}
	in, err := pathRoom(r)
	if err != nil {
		return ev, false, err
	}
	by, err := originWithTxn(r, c)
	if err != nil {
		return ev, false, err
	}
	ev = delaydb.Event{User: string(c.UserID), Device: string(c.DeviceID), Room: string(in), Type: httpx.Var(r, "eventType")}
	if by.Txn != "" { // which names an event together with the rest of the path
		ev.Txn = ev.Room + " " + ev.Type + " " + by.Txn
	}
	if ev.Txn == "" {
		return ev, false, nil
	}
	delayID, ok, err := h.o.Delays.Asked(r.Context(), ev.User, ev.Device, ev.Txn)
	if err != nil || !ok {
		return ev, false, err
	}
	return ev, true, httpx.WriteJSON(w, http.StatusOK, delayAnswer{delayID})
}

// schedule checks an event as far as that can be done now, and has it sent later.
func (h *Rooms) schedule(w http.ResponseWriter, r *http.Request, ev delaydb.Event) error {
	c, ctx := auth.Must(r.Context()), r.Context()
	in, err := pathRoom(r)
	if err != nil {
		return err
	}
	var object map[string]jsontext.Value
	if err := httpx.Unmarshal(ev.Content, &object); err != nil {
		return err
	}
	if len(ev.Content) > event.MaxSize {
		return mxerr.New(mxerr.TooLarge, "The event is too large")
	}
	joined, err := h.o.Directory.Joined(ctx, in, c.UserID)
	if err != nil {
		return err
	}
	if !joined {
		return mxerr.New(mxerr.Forbidden, "You are not in the room")
	}
	if ev.StateKey != nil {
		cmd := &room.SendState{Room: in, By: room.Origin{User: c.UserID}, Type: ev.Type, StateKey: *ev.StateKey, Content: ev.Content}
		if err := h.checkState(ctx, c, cmd); err != nil {
			return err
		}
		ev.Content = cmd.Content
	}
	if err := h.limit(ctx, route.RateMessage, in); err != nil {
		return err
	}
	delayID, err := h.o.Delays.Schedule(ctx, ev)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, delayAnswer{delayID})
}

func (h *Rooms) updateDelayed(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Action string `json:"action"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.Action == "" {
		return mxerr.New(mxerr.MissingParam, "The request has no action")
	}
	known, err := h.onDelayed(r, q.Action)
	if err == nil && !known {
		err = mxerr.New(mxerr.InvalidParam, "There is no such action")
	}
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, struct{}{})
}

func (h *Rooms) actOnDelayed(w http.ResponseWriter, r *http.Request) error {
	if err := httpx.DecodeOptional(r, &struct{}{}); err != nil {
		return err
	}
	known, err := h.onDelayed(r, httpx.Var(r, "action"))
	if err == nil && !known {
		err = &mxerr.Error{Code: mxerr.Unrecognized, HTTPStatus: http.StatusNotFound, Message: "There is no such action"}
	}
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, struct{}{})
}

func (h *Rooms) onDelayed(r *http.Request, action string) (known bool, err error) {
	delayID := httpx.Var(r, "delayId")
	switch action {
	case "restart":
		return true, h.o.Delays.Restart(r.Context(), delayID)
	case "send":
		return true, h.o.Delays.Now(r.Context(), delayID)
	case "cancel":
		return true, h.o.Delays.Cancel(r.Context(), delayID)
	}
	return false, nil
}
