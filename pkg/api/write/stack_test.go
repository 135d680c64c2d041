package write_test

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/api/write"
	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/account/contact"
	"github.com/heddle-im/heddle/pkg/service/directory"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// stack is the API of a master on a real one: router, gate, handlers, hosts, committer, PostgreSQL.
type stack struct {
	*roomtest.World
	front    *account.Front
	accounts *accountdb.Reader
	router   http.Handler
	tokens   map[string]string
	sessions *account.Sessions
}

func newStack(t testing.TB, change ...func(*write.RoomOptions)) *stack {
	t.Helper()
	return newStackOf(t, account.Config{Enabled: true}, change...)
}

// newStackOf is newStack with accounts as cfg has them.
func newStackOf(t testing.TB, cfg account.Config, change ...func(*write.RoomOptions)) *stack {
	t.Helper()
	w := roomtest.New(t)
	s := &stack{
		World: w, front: w.Accounts(cfg), accounts: accountdb.NewReader(w.DB.Pool), tokens: map[string]string{},
	}
	o := write.RoomOptions{
		Server: roomtest.Server, Writer: w.Host, Accounts: s.front, Profiles: account.NewReader(w.Shards, s.accounts),
		Directory: directory.New(w.Shards, w.Reader), Upgrades: directory.New(w.Shards, w.Reader),
		Related:  directory.New(w.Shards, w.Reader),
		Reported: write.Reported{User: account.NewReader(w.Shards, s.accounts).Exists, Room: directory.New(w.Shards, w.Reader).Known},
		Now:      time.Now, Random: rand.Reader,
	}
	desk := contact.New(contact.Options{Accounts: s.front}) // deals with nobody
	o.Addressed.Invitees = desk
	for _, f := range change {
		f(&o)
	}
	handlers := write.NewAccounts(write.AccountsOptions{Front: s.front, Contacts: desk}).Handlers()
	for name, h := range write.NewRooms(o).Handlers() {
		require.NotContains(t, handlers, name)
		handlers[name] = h
	}
	// Nobody tells these sessions of changes, so there is room for one only: who asks after another is looked up anew.
	s.sessions = account.NewSessions(string(roomtest.Server), w.Shards, s.accounts,
		cache.NewBudget(cache.BudgetConfig{Memory: 1300}, nil), time.Now)
	router, err := httpx.New(httpx.Options{
		Kinds: route.Kinds(), Handlers: handlers, Wrap: auth.NewGate(s.sessions, nil, nil, nil, nil).Wrap, MaxUpload: 1 << 20,
	})
	require.NoError(t, err)
	s.router = router
	return s
}

// in gives the stack for a subtest.
func (s *stack) in(t *testing.T) *stack {
	c := *s
	c.World = s.World.In(t)
	return &c
}

// users registers users.
func (s *stack) users(names ...string) {
	s.T.Helper()
	for _, n := range names {
		s.tokens[n] = s.Register(s.front, roomtest.User(n))
	}
}

// reply is an answer.
type reply struct {
	t      testing.TB
	status int
	body   map[string]any
}

// call makes a request as a user; "" as nobody.
func (s *stack) call(user, method, path, body string) reply {
	s.T.Helper()
	return s.raw(user, method, "/_matrix/client/v3"+path, body)
}

// raw is call with the whole path.
func (s *stack) raw(user, method, path, body string) reply {
	s.T.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	return s.serve(user, httptest.NewRequest(method, path, in).WithContext(s.Ctx()))
}

func (s *stack) serve(user string, r *http.Request) reply {
	s.T.Helper()
	if user != "" {
		require.Contains(s.T, s.tokens, user)
		r.Header.Set("Authorization", "Bearer "+s.tokens[user])
	}
	w := httptest.NewRecorder()
	s.router.ServeHTTP(w, r)
	a := reply{t: s.T, status: w.Code}
	require.Equal(s.T, "application/json", w.Header().Get("Content-Type"))
	require.NoError(s.T, json.Unmarshal(w.Body.Bytes(), &a.body), "%s", w.Body)
	return a
}

// ok demands success, and gives a member of the answer.
func (a reply) ok(member string) string {
	a.t.Helper()
	require.Equal(a.t, http.StatusOK, a.status, "%v", a.body)
	if member == "" {
		require.Empty(a.t, a.body)
		return ""
	}
	v, ok := a.body[member].(string)
	require.True(a.t, ok, "%v", a.body)
	require.NotEmpty(a.t, v)
	return v
}

// refused demands an error.
func (a reply) refused(status int, code string) {
	a.t.Helper()
	require.Equal(a.t, code, a.body["errcode"], "%v", a.body)
	require.Equal(a.t, status, a.status, "%v", a.body)
	require.NotEmpty(a.t, a.body["error"])
}

// create makes a room over the API.
func (s *stack) create(user, body string) id.RoomID {
	s.T.Helper()
	return id.RoomID(s.call(user, "POST", "/createRoom", body).ok("room_id"))
}

// state gives the content of a room's state event, nil if there is none.
func (s *stack) state(r id.RoomID, typ, key string) map[string]any {
	s.T.Helper()
	var raw []byte
	err := s.DB.Pool.QueryRow(s.Ctx(), `
		SELECT e.json FROM current_state c JOIN room r ON r.nid = c.room_nid JOIN event e ON e.nid = c.event_nid
		JOIN atom t ON t.nid = c.type JOIN atom k ON k.nid = c.state_key
		WHERE r.room_id = $1 AND t.name = $2 AND k.name = $3`, string(r), typ, key).Scan(&raw)
	if err != nil {
		require.ErrorContains(s.T, err, "no rows")
		return nil
	}
	return object(s.T, raw)["content"].(map[string]any)
}

// event gives a stored event.
func (s *stack) event(eventID string) map[string]any {
	s.T.Helper()
	rows, err := s.Reader.EventByIDAnywhere(s.Ctx(), eventID)
	require.NoError(s.T, err)
	require.Len(s.T, rows, 1)
	return object(s.T, rows[0].JSON)
}

func object(t testing.TB, raw []byte) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal(raw, &m))
	return m
}

// accountData gives account data of a user, nil if there is none.
func (s *stack) accountData(user string, r id.RoomID, typ string) map[string]any {
	s.T.Helper()
	u := string(roomtest.User(user))
	raw, ok, err := s.accounts.AccountData(s.Ctx(), s.Shards.OfUser(u), u, string(r), typ)
	require.NoError(s.T, err)
	if !ok {
		return nil
	}
	return object(s.T, raw)
}

// refusal is a request that must fail.
type refusal struct {
	user, method, path, body string
	status                   int
	code                     string
}

func (s *stack) refuse(t *testing.T, cases map[string]refusal) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s.in(t).call(c.user, c.method, c.path, c.body).refused(c.status, c.code)
		})
	}
}
