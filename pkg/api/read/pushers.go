package read

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
)

func (a *Accounts) pushers(w http.ResponseWriter, r *http.Request) error {
	list, err := a.o.Accounts.Pushers(r.Context(), auth.Must(r.Context()).UserID)
	if err != nil {
		return err
	}
	type pusher struct {
		Kind              string         `json:"kind"`
		AppID             string         `json:"app_id"`
		Pushkey           string         `json:"pushkey"`
		AppDisplayName    string         `json:"app_display_name"`
		DeviceDisplayName string         `json:"device_display_name"`
		ProfileTag        string         `json:"profile_tag,omitempty"`
		Lang              string         `json:"lang"`
		Data              jsontext.Value `json:"data"`
		Enabled           bool           `json:"org.matrix.msc3881.enabled"`
		DeviceID          string         `json:"org.matrix.msc3881.device_id"`
	}
	out := make([]pusher, len(list))
	for i := range list {
		p := &list[i]
		out[i] = pusher{p.Kind, p.AppID, p.Pushkey, p.AppDisplayName, p.DeviceDisplayName, p.ProfileTag, p.Lang, p.Data, !p.Disabled, p.DeviceID}
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string][]pusher{"pushers": out})
}
