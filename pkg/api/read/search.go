package read

import (
	"net/http"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/timeline"
)

// Search answers searches of messages.
type Search struct{ search *timeline.Search }

// NewSearch makes the handlers.
func NewSearch(search *timeline.Search) *Search { return &Search{search} }

// Handlers gives the handlers by the names of their rows.
func (h *Search) Handlers() httpx.Handlers { return httpx.Handlers{"search": h.do} }

// aroundFound is how many events of context are told each way when the request does not say.
const aroundFound = 5

type roomEventsQuery struct {
	Term    *string        `json:"search_term"`
	Keys    []string       `json:"keys"`
	Filter  jsontext.Value `json:"filter"`
	OrderBy *string        `json:"order_by"`
	Context *struct {
		Before   *int `json:"before_limit"`
		After    *int `json:"after_limit"`
		Profiles bool `json:"include_profile"`
	} `json:"event_context"`
	State     bool `json:"include_state"`
	Groupings struct {
		By []struct {
			Key string `json:"key"`
		} `json:"group_by"`
	} `json:"groupings"`
}

func (h *Search) do(w http.ResponseWriter, r *http.Request) error {
	c := auth.Must(r.Context())
	var q struct {
		Categories *struct {
			Events *roomEventsQuery `json:"room_events"`
		} `json:"search_categories"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.Categories == nil {
		return mxerr.New(mxerr.MissingParam, "The request does not say which categories to search")
	}
	if q.Categories.Events == nil { // nothing is asked for
		httpx.WriteRaw(w, http.StatusOK, []byte(`{"search_categories":{}}`))
		return nil
	}
	s, err := q.Categories.Events.query()
	if err != nil {
		return err
	}
	s.From = r.URL.Query().Get("next_batch")
	found, err := h.search.Events(r.Context(), timeline.Viewer{User: c.UserID, Device: c.DeviceID}, s)
	if err != nil {
		return err
	}
	body := append([]byte(nil), `{"search_categories":{"room_events":`...)
	httpx.WriteRaw(w, http.StatusOK, append(append(body, found...), '}', '}'))
	return nil
}

func (q *roomEventsQuery) query() (s timeline.SearchQuery, err error) {
	invalid := func(text string) *mxerr.Error { return mxerr.New(mxerr.InvalidParam, text) }
	switch {
	case q.Term == nil:
		return s, mxerr.New(mxerr.MissingParam, "The request does not say what to search for")
	case len(*q.Term) > maxTerm:
		return s, invalid("search_term is too long")
	}
	s = timeline.SearchQuery{Term: *q.Term, Keys: q.Keys, ByRank: true, State: q.State}
	for _, k := range q.Keys {
		if !slices.Contains([]string{"content.body", "content.name", "content.topic"}, k) {
			return s, invalid("keys: only content.body, content.name and content.topic can be searched")
		}
	}
	if q.OrderBy != nil {
		if s.ByRank = *q.OrderBy == "rank"; !s.ByRank && *q.OrderBy != "recent" {
			return s, invalid("order_by is neither rank nor recent")
		}
	}
	if len(q.Filter) > 0 && q.Filter.Kind() != 'n' {
		if s.Filter, err = filter.ParseRoomEvents(q.Filter); err != nil {
			return s, invalid("Invalid filter").WithCause(err)
		}
	}
	if c := q.Context; c != nil {
		s.Context = &timeline.SearchContext{Before: aroundFound, After: aroundFound, Profiles: c.Profiles}
		if c.Before != nil {
			s.Context.Before = *c.Before
		}
		if c.After != nil {
			s.Context.After = *c.After
		}
		if s.Context.Before < 0 || s.Context.After < 0 {
			return s, invalid("event_context: a limit is negative")
		}
	}
	for _, g := range q.Groupings.By {
		switch {
		case g.Key != timeline.GroupRoom && g.Key != timeline.GroupSender:
			return s, invalid("groupings: results are grouped by room_id and sender only")
		case !slices.Contains(s.Groups, g.Key):
			s.Groups = append(s.Groups, g.Key)
		}
	}
	return s, nil
}
