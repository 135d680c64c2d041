package read

import (
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/directory"
)

// People answers searches of the user directory.
type People struct{ people *directory.People }

// NewPeople makes the handlers.
func NewPeople(people *directory.People) *People { return &People{people} }

// Handlers gives the handlers by the names of their rows.
func (h *People) Handlers() httpx.Handlers { return httpx.Handlers{"searchUserDirectory": h.search} }

func (h *People) search(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Term  *string `json:"search_term"`
		Limit *int    `json:"limit"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	limit := directory.DefaultPeople
	if q.Limit != nil {
		limit = *q.Limit
	}
	switch {
	case q.Term == nil:
		return mxerr.New(mxerr.MissingParam, "The request does not say what to search for")
	case len(*q.Term) > maxTerm:
		return mxerr.New(mxerr.InvalidParam, "search_term is too long")
	case limit < 0:
		return mxerr.New(mxerr.InvalidParam, "limit is negative")
	}
	found, limited, err := h.people.Search(r.Context(), auth.Must(r.Context()).UserID, *q.Term, limit)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, struct {
		Results []directory.Person `json:"results"`
		Limited bool               `json:"limited"`
	}{found, limited})
}
