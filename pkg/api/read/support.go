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
