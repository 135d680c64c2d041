package read_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/api/read"
)

func TestSupport(t *testing.T) {
	for name, x := range map[string]struct {
		support read.Support
		want    string
	}{
		"page":  {read.Support{Page: "https://a.example/help"}, `{"support_page":"https://a.example/help"}`},
		"email": {read.Support{Admin: read.Contact{Email: "a@a.example"}}, `{"contacts":[{"email_address":"a@a.example","role":"m.role.admin"}]}`},
		"all": {
			read.Support{Page: "https://a.example", Admin: read.Contact{MatrixID: "@a:a.example"}, Security: read.Contact{MatrixID: "@s:a.example", Email: "s@a.example"}},
			`{"contacts":[{"matrix_id":"@a:a.example","role":"m.role.admin"},{"matrix_id":"@s:a.example","email_address":"s@a.example","role":"m.role.security"}],"support_page":"https://a.example"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			require.NoError(t, x.support.Handlers()["getWellknownSupport"](w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)))
			require.JSONEq(t, x.want, w.Body.String())
		})
	}
	s := newStack(t)
	s.serves(read.Support{}.Handlers())
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/.well-known/matrix/support", http.NoBody)
	w := httptest.NewRecorder()
	s.router.ServeHTTP(w, r)
	require.Equal(t, http.StatusNotFound, w.Code, "nothing is configured")
	var e map[string]string
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e))
	require.Equal(t, "M_NOT_FOUND", e["errcode"])
}

func TestNoThirdParties(t *testing.T) {
	s := newStack(t)
	s.users(alice)
	s.serves(read.NewAccounts(read.AccountsOptions{}).Handlers())
	require.Empty(t, ok[map[string]any](s, alice, "/v3/thirdparty/protocols"))
	for _, path := range []string{"protocol/irc", "location/irc", "user/irc", "location?alias=%23a:b", "user?userid=@a:b"} {
		s.refused(alice, "/v3/thirdparty/"+path, http.StatusNotFound, "M_NOT_FOUND")
		s.refused("", "/v3/thirdparty/"+path, http.StatusUnauthorized, "M_MISSING_TOKEN")
	}
	s.refused(alice, "/v3/thirdparty/location", http.StatusBadRequest, "M_MISSING_PARAM")
	s.refused(alice, "/v3/thirdparty/user", http.StatusBadRequest, "M_MISSING_PARAM")
}
