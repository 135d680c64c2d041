package write

import (
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
)

func (a *Accounts) setPusher(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Kind              jsontext.Value `json:"kind"`
		AppID             string         `json:"app_id"`
		Pushkey           string         `json:"pushkey"`
		AppDisplayName    string         `json:"app_display_name"`
		DeviceDisplayName string         `json:"device_display_name"`
		ProfileTag        string         `json:"profile_tag"`
		Lang              string         `json:"lang"`
		Data              jsontext.Value `json:"data"`
		Append            bool           `json:"append"`
		// Enabled may be false: the pusher stays, and nothing is sent to it (MSC3881).
		Enabled *bool `json:"org.matrix.msc3881.enabled"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	c := auth.Must(r.Context())
	p := account.Pusher{
		AppID: q.AppID, Pushkey: q.Pushkey, AppDisplayName: q.AppDisplayName, DeviceDisplayName: q.DeviceDisplayName,
		ProfileTag: q.ProfileTag, Lang: q.Lang, Data: q.Data, DeviceID: string(c.DeviceID),
		Disabled: q.Enabled != nil && !*q.Enabled,
	}
	switch q.Kind.Kind() {
	case 'n':
		if p.AppID == "" || p.Pushkey == "" {
			return mxerr.New(mxerr.MissingParam, "The request does not say which pusher")
		}
		if _, err := a.front.Do(r.Context(), &account.SetPusher{UserID: string(c.UserID), Pusher: p, Remove: true}); err != nil {
			return err
		}
		return httpx.WriteJSON(w, http.StatusOK, empty)
	case '"':
		if err := json.Unmarshal(q.Kind, &p.Kind); err != nil {
			return mxerr.New(mxerr.BadJSON, "kind must be a text or null").WithCause(err)
		}
	case 0:
		return mxerr.New(mxerr.MissingParam, "The request has no kind")
	default:
		return mxerr.New(mxerr.BadJSON, "kind must be a text or null")
	}
	var data struct {
		URL string `json:"url"`
	}
	if len(q.Data) > 0 {
		if err := json.Unmarshal(q.Data, &data); err != nil {
			return mxerr.New(mxerr.BadJSON, "data must be an object, and its url a text").WithCause(err)
		}
	}
	if err := account.CheckPusher(&p, data.URL); err != nil {
		return err
	}
	if err := a.front.SetPusher(r.Context(), c.UserID, p, q.Append, q.Enabled != nil); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}
