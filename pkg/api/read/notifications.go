package read

import (
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/timeline"
)

const (
	defaultNotifications = 20
	maxNotifications     = 50
)

// Notifications answers what users were notified of.
type Notifications struct{ list *timeline.Notifications }

// NewNotifications makes the handlers.
func NewNotifications(list *timeline.Notifications) *Notifications { return &Notifications{list} }

// Handlers gives the handlers by the names of their rows.
func (h *Notifications) Handlers() httpx.Handlers { return httpx.Handlers{"getNotifications": h.get} }

func (h *Notifications) get(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	limit, err := p.Limit(defaultNotifications, maxNotifications)
	if err != nil {
		return err
	}
	q := timeline.NotificationsQuery{From: p.Get("from"), Limit: max(1, limit)}
	switch only := p.Get("only"); only {
	case "":
	case "highlight":
		q.Highlights = true
	default:
		return mxerr.New(mxerr.InvalidParam, "only can be highlight and nothing else")
	}
	c := auth.Must(r.Context())
	body, err := h.list.List(r.Context(), timeline.Viewer{User: c.UserID, Device: c.DeviceID}, q)
	if err != nil {
		return err
	}
	httpx.WriteRaw(w, http.StatusOK, body)
	return nil
}
