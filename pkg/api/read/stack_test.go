package read_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/api/read"
	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/directory"
	"github.com/heddle-im/heddle/pkg/service/lobby"
	"github.com/heddle-im/heddle/pkg/service/timeline"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/delaydb"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/searchdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// stack is the room API of a synchrotron, beside a master, on a real database.
type stack struct {
	*roomtest.World
	front  *account.Front
	router http.Handler
	serves func(more httpx.Handlers) // makes the router anew, with more handlers
	remote *abroad
	tokens map[id.UserID]string
}

func newStack(t testing.TB) *stack {
	t.Helper()
	w := roomtest.New(t)
	accounts := accountdb.NewReader(w.DB.Pool)
	s := &stack{World: w, front: w.Accounts(account.Config{Enabled: true}), tokens: map[id.UserID]string{}, remote: &abroad{}}
	rooms := timeline.New(readdb.NewReader(w.Reader, w.Shards), accounts, time.Now)
	sessions := account.NewSessions(string(roomtest.Server), w.Shards, accounts,
		cache.NewBudget(cache.BudgetConfig{Memory: 1 << 20}, nil), time.Now)
	handlers := read.NewRooms(roomtest.Server, rooms, s.remote).Handlers()
	maps.Copy(handlers, presenceHandlers(w))
	maps.Copy(handlers, read.NewLobby(roomtest.Server, lobby.New(w.Shards, w.Reader, nil), s.remote).Handlers())
	maps.Copy(handlers, read.NewDelayed(delaydb.NewDB(w.DB.Pool)).Handlers())
	words := searchdb.NewReader(w.DB.Pool)
	maps.Copy(handlers, read.NewNotifications(timeline.NewNotifications(rooms, pushdb.NewReader(w.DB.Pool))).Handlers())
	maps.Copy(handlers, read.NewSearch(timeline.NewSearch(rooms, words)).Handlers())
	maps.Copy(handlers, read.NewPeople(directory.NewPeople(w.Shards, words)).Handlers())
	s.serves = func(more httpx.Handlers) {
		maps.Copy(handlers, more)
		var err error
		s.router, err = httpx.New(httpx.Options{
			Kinds: route.Kinds(), Handlers: handlers,
			Wrap: auth.NewGate(sessions, nil, nil, nil, nil).Wrap, MaxUpload: 1 << 20,
		})
		require.NoError(t, err)
	}
	s.serves(nil)
	return s
}

// users registers users.
func (s *stack) users(users ...id.UserID) {
	s.T.Helper()
	for _, u := range users {
		s.tokens[u] = s.Register(s.front, u)
	}
}

// ignore has a user ignore others.
func (s *stack) ignore(user id.UserID, others ...id.UserID) {
	s.T.Helper()
	list := map[string]any{}
	for _, o := range others {
		list[string(o)] = map[string]any{}
	}
	content, err := json.Marshal(map[string]any{"ignored_users": list})
	require.NoError(s.T, err)
	s.Exec(`INSERT INTO account_data (shard, user_id, type, content, pos) VALUES ($1, $2, 'm.ignored_user_list', $3, 0)
		ON CONFLICT (shard, user_id, room_id, type) DO UPDATE SET content = excluded.content`,
		int16(s.Shards.OfUser(string(user))), string(user), string(content))
}

// get asks as a user, "" as nobody. queries is how many statements the answer took, authentication aside.
func (s *stack) get(user id.UserID, path string) (status int, body json.RawMessage, queries int64) {
	s.T.Helper()
	return s.send(user, http.MethodGet, path, "")
}

// send is get with another method, and a body.
func (s *stack) send(user id.UserID, method, path, sent string) (status int, body json.RawMessage, queries int64) {
	s.T.Helper()
	ctx, tally := pg.WithTally(s.Ctx())
	r := httptest.NewRequest(method, "/_matrix/client"+path, strings.NewReader(sent)).WithContext(ctx)
	if user != "" {
		require.Contains(s.T, s.tokens, user)
		r.Header.Set("Authorization", "Bearer "+s.tokens[user])
	}
	w := httptest.NewRecorder()
	s.router.ServeHTTP(w, r)
	return w.Code, w.Body.Bytes(), tally.Count()
}

// ok demands success, and reads the answer.
func ok[T any](s *stack, user id.UserID, path string) (answer T) {
	s.T.Helper()
	status, body, _ := s.get(user, path)
	require.Equal(s.T, http.StatusOK, status, "%s: %s", path, body)
	require.NoError(s.T, json.Unmarshal(body, &answer), "%s", body)
	return answer
}

// refused demands an error.
func (s *stack) refused(user id.UserID, path string, status int, code string) {
	s.T.Helper()
	s.denied(user, http.MethodGet, path, "", status, code)
}

// denied is refused with another method, and a body.
func (s *stack) denied(user id.UserID, method, path, sent string, status int, code string) {
	s.T.Helper()
	got, body, _ := s.send(user, method, path, sent)
	var e struct {
		Code string `json:"errcode"`
		Text string `json:"error"`
	}
	require.NoError(s.T, json.Unmarshal(body, &e), "%s", body)
	require.Equal(s.T, code, e.Code, "%s: %s", path, body)
	require.Equal(s.T, status, got, "%s: %s", path, body)
	require.NotEmpty(s.T, e.Text)
}

// shown is an event as it is shown.
type shown struct {
	ID       id.EventID     `json:"event_id"`
	Room     id.RoomID      `json:"room_id"`
	Type     string         `json:"type"`
	Sender   id.UserID      `json:"sender"`
	Content  map[string]any `json:"content"`
	Unsigned struct {
		Relations *relations `json:"m.relations"`
	} `json:"unsigned"`
}

type relations struct {
	Replace *shown `json:"m.replace"`
	Thread  *struct {
		Latest       shown `json:"latest_event"`
		Count        int   `json:"count"`
		Participated bool  `json:"current_user_participated"`
	} `json:"m.thread"`
	Reference *struct {
		Chunk []struct {
			ID id.EventID `json:"event_id"`
		} `json:"chunk"`
	} `json:"m.reference"`
	Annotation any `json:"m.annotation"`
}

func (r *relations) references() (list []id.EventID) {
	if r == nil || r.Reference == nil {
		return nil
	}
	for _, e := range r.Reference.Chunk {
		list = append(list, e.ID)
	}
	return list
}

// page is an answer with a chunk.
type page struct {
	Chunk []shown `json:"chunk"`
	Start string  `json:"start"`
	End   string  `json:"end"`
	Next  string  `json:"next_batch"`
	Prev  string  `json:"prev_batch"`
	Depth *int    `json:"recursion_depth"`
}

func (p page) ids() []id.EventID {
	list := []id.EventID{}
	for _, e := range p.Chunk {
		list = append(list, e.ID)
	}
	return list
}
