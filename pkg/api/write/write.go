// Package write holds the handlers of the endpoints that change something: accounts, rooms, receipts, and all else that a
// master serves. Each decodes, calls one verb of a service, and encodes; none holds a rule, a lock or a cache.
//
// It is imported by the composition root.
package write

import (
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

// empty is the answer of what has nothing to say.
var empty = struct{}{} //nolint:gochecknoglobals // a constant that Go cannot declare as one

// self gives the caller, after refusing a path that names another user.
func self(r *http.Request) (*auth.Caller, error) {
	c := auth.Must(r.Context())
	if u := httpx.Var(r, "userId"); u != string(c.UserID) {
		if _, err := id.ParseUserID(u); err != nil {
			return nil, mxerr.New(mxerr.InvalidParam, "Invalid user id").WithCause(err)
		}
		return nil, mxerr.New(mxerr.Forbidden, "You cannot act for another user")
	}
	return c, nil
}
