package read

import (
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

// Support is where people find help with this server. Empty fields are not told.
type Support struct {
	Page            string
	Admin, Security Contact
}

// Contact is how somebody is reached.
type Contact struct {
	MatrixID id.UserID `json:"matrix_id,omitempty"`
	Email    string    `json:"email_address,omitempty"`
	Role     string    `json:"role"`
}

// Handlers gives the handlers by the names of their rows.
func (s Support) Handlers() httpx.Handlers {
	return httpx.Handlers{"getWellknownSupport": s.wellKnown}
}

func (s Support) wellKnown(w http.ResponseWriter, _ *http.Request) error {
	var contacts []Contact
	for _, c := range []Contact{{s.Admin.MatrixID, s.Admin.Email, "m.role.admin"}, {s.Security.MatrixID, s.Security.Email, "m.role.security"}} {
		if c.MatrixID != "" || c.Email != "" {
			contacts = append(contacts, c)
		}
	}
	if len(contacts) == 0 && s.Page == "" {
		return mxerr.New(mxerr.NotFound, "This server does not say whom to ask")
	}
	return httpx.WriteJSON(w, http.StatusOK, struct {
		Contacts []Contact `json:"contacts,omitempty"`
		Page     string    `json:"support_page,omitempty"`
	}{contacts, s.Page})
}

// thirdParties are the endpoints that ask for what application services bridge to. None is known to this server, so nothing is found.
func thirdParties() httpx.Handlers {
	none := func(http.ResponseWriter, *http.Request) error {
		return mxerr.New(mxerr.NotFound, "No bridge to that network is known")
	}
	by := func(param string) httpx.Handler {
		return func(w http.ResponseWriter, r *http.Request) error {
			p, err := httpx.Query(r)
			if err != nil {
				return err
			}
			if _, err := p.Required(param); err != nil {
				return err
			}
			return none(w, r)
		}
	}
	return httpx.Handlers{
		"getProtocols": nothing, "getProtocolMetadata": none, "queryLocationByProtocol": none, "queryUserByProtocol": none,
		"queryLocationByAlias": by("alias"), "queryUserByID": by("userid"),
	}
}

// nothing is the answer of what has nothing to say.
func nothing(w http.ResponseWriter, _ *http.Request) error { return httpx.WriteEmpty(w) }
