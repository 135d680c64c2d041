package read

import (
	"context"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/store/delaydb"
)

// Waiting knows the events of a user that are to be sent later. It is *delaydb.DB.
type Waiting interface {
	Waiting(ctx context.Context, user string) ([]delaydb.Event, error)
}

// Delayed answers which events wait to be sent.
type Delayed struct{ waiting Waiting }

// NewDelayed makes the handler.
func NewDelayed(w Waiting) *Delayed { return &Delayed{w} }

// Handlers gives the handlers by the names of their rows.
func (h *Delayed) Handlers() httpx.Handlers { return httpx.Handlers{"getDelayedEvents": h.list} }

type delayedEvent struct {
	DelayID      string         `json:"delay_id"`
	Room         string         `json:"room_id"`
	Type         string         `json:"type"`
	StateKey     *string        `json:"state_key,omitzero"`
	Delay        int64          `json:"delay"`
	RunningSince int64          `json:"running_since"`
	Content      jsontext.Value `json:"content"`
}

func (h *Delayed) list(w http.ResponseWriter, r *http.Request) error {
	waiting, err := h.waiting.Waiting(r.Context(), string(auth.Must(r.Context()).UserID))
	if err != nil {
		return err
	}
	out := make([]delayedEvent, len(waiting))
	for i, e := range waiting {
		out[i] = delayedEvent{e.ID, e.Room, e.Type, e.StateKey, e.Delay, e.Since, e.Content}
	}
	return httpx.WriteJSON(w, http.StatusOK, struct {
		Delayed []delayedEvent `json:"delayed_events"`
	}{out})
}
