package read

import (
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/appservice"
)

// thirdParties answers what application services know of the networks that they bridge to.
type thirdParties struct{ asker *appservice.Asker }

func (t thirdParties) handlers() httpx.Handlers {
	return httpx.Handlers{
		"getProtocols": t.protocols, "getProtocolMetadata": t.protocol,
		"queryLocationByProtocol": t.find(appservice.Locations), "queryUserByProtocol": t.find(appservice.Users),
		"queryLocationByAlias": t.ofAlias, "queryUserByID": t.ofUser,
	}
}

func (t thirdParties) protocols(w http.ResponseWriter, r *http.Request) error {
	return httpx.WriteJSON(w, http.StatusOK, t.asker.Protocols(r.Context()))
}

func (t thirdParties) protocol(w http.ResponseWriter, r *http.Request) error {
	m, ok := t.asker.Protocol(r.Context(), httpx.Var(r, "protocol"))
	if !ok {
		return mxerr.New(mxerr.NotFound, "No bridge to that network is known")
	}
	return httpx.WriteJSON(w, http.StatusOK, m)
}

// Bounds of the fields that are passed on to an application service.
const (
	maxFields = 50
	maxField  = 1 << 10
)

func (t thirdParties) find(kind appservice.Kind) httpx.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		fields, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return mxerr.New(mxerr.InvalidParam, "The query cannot be read").WithCause(err)
		}
		for _, ours := range []string{"access_token", "user_id", "device_id", "org.matrix.msc3202.device_id"} { // of whoever asks
			fields.Del(ours)
		}
		n := 0
		for name, values := range fields {
			for _, v := range values {
				if n++; n > maxFields || len(name)+len(v) > maxField {
					return mxerr.New(mxerr.InvalidParam, "There is too much to search for")
				}
			}
		}
		return found(w, t.asker.Find(r.Context(), kind, httpx.Var(r, "protocol"), fields))
	}
}

func (t thirdParties) ofAlias(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	name, err := p.Required("alias")
	if err != nil {
		return err
	}
	alias, err := id.ParseRoomAlias(name)
	if err != nil {
		return mxerr.New(mxerr.InvalidParam, "Invalid room alias").WithCause(err)
	}
	return found(w, t.asker.OfAlias(r.Context(), alias))
}

func (t thirdParties) ofUser(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	name, err := p.Required("userid")
	if err != nil {
		return err
	}
	user, err := id.ParseUserID(name)
	if err != nil {
		return mxerr.New(mxerr.InvalidParam, "Invalid user id").WithCause(err)
	}
	return found(w, t.asker.OfUser(r.Context(), user))
}

func found(w http.ResponseWriter, list []json.RawMessage) error {
	if len(list) == 0 {
		return mxerr.New(mxerr.NotFound, "No bridge knows of that")
	}
	return httpx.WriteJSON(w, http.StatusOK, list)
}
