package app

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// asked is an answer as a device sees it.
type asked struct {
	status int
	header http.Header
	body   string
}

func (a asked) member(t *testing.T, name string) string {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(a.body), &m), a.body)
	s, _ := m[name].(string)
	return s
}

// ask makes a request without a token; headers are name, value, ….
func ask(t *testing.T, method, url, body string, headers ...string) asked {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := (&http.Client{Timeout: patient, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return asked{res.StatusCode, res.Header, string(b)}
}

const (
	meetByText = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous"
	meetByJSON = "/_matrix/client/unstable/io.element.msc4388/rendezvous"
)

func TestRendezvous(t *testing.T) {
	f := newFleet(t)
	f.cfg.PublicBaseurl, f.cfg.OAuth.Provide = "https://matrix.example.org", true
	f.cfg.RateLimits.Enabled = false
	w := f.start(t, AllInOne, "one")
	require.Contains(t, ask(t, "GET", w.URL()+"/_matrix/client/versions", "").body, `"org.matrix.msc4108":true`)
	t.Run("text", func(t *testing.T) { meetText(t, w.URL()) })
	t.Run("JSON", func(t *testing.T) { meetJSON(t, w.URL()) })
}

func meetText(t *testing.T, base string) {
	const plain = "text/plain"
	made := ask(t, "POST", base+meetByText, "hello", "Content-Type", plain)
	require.Equal(t, http.StatusCreated, made.status, made.body)
	for _, h := range []string{"Etag", "Expires", "Last-Modified"} {
		require.NotEmpty(t, made.header.Get(h), h)
	}
	require.Contains(t, made.header.Get("Cache-Control"), "no-store")
	require.Contains(t, made.header.Get("Access-Control-Expose-Headers"), "ETag")
	path, ok := strings.CutPrefix(made.member(t, "url"), "https://matrix.example.org")
	require.True(t, ok, made.body)
	at := base + path
	preflight := ask(t, "OPTIONS", at, "", "Origin", "https://app.example.com", "Access-Control-Request-Method", "PUT")
	require.Contains(t, preflight.header.Get("Access-Control-Allow-Headers"), "If-Match")
	require.Contains(t, preflight.header.Get("Access-Control-Allow-Methods"), "PUT")

	got := ask(t, "GET", at, "")
	require.Equal(t, "hello", got.body)
	require.Equal(t, plain, got.header.Get("Content-Type"), "clients compare it as it is")
	require.Equal(t, made.header.Get("Etag"), got.header.Get("Etag"))
	same := ask(t, "GET", at, "", "If-None-Match", got.header.Get("Etag"))
	require.Equal(t, http.StatusNotModified, same.status)
	require.Equal(t, got.header.Get("Etag"), same.header.Get("Etag"))
	require.Empty(t, same.body)

	for name, x := range map[string]struct {
		status  int
		code    string
		body    string
		headers []string
	}{
		"no If-Match":      {400, "M_MISSING_PARAM", "x", []string{"Content-Type", plain}},
		"no text":          {400, "M_INVALID_PARAM", "{}", []string{"Content-Type", "application/json", "If-Match", got.header.Get("Etag")}},
		"too much":         {413, "M_TOO_LARGE", strings.Repeat("x", 4097), []string{"Content-Type", plain, "If-Match", got.header.Get("Etag")}},
		"another's tag":    {412, "M_UNKNOWN", "x", []string{"Content-Type", plain, "If-Match", `"77"`}},
		"a tag that is no": {412, "M_UNKNOWN", "x", []string{"Content-Type", plain, "If-Match", `*`}},
	} {
		a := ask(t, "PUT", at, x.body, x.headers...)
		require.Equal(t, x.status, a.status, "%s: %s", name, a.body)
		require.Equal(t, x.code, a.member(t, "errcode"), name)
		if a.status == http.StatusPreconditionFailed {
			require.Equal(t, "M_CONCURRENT_WRITE", a.member(t, "org.matrix.msc4108.errcode"))
			require.Equal(t, got.header.Get("Etag"), a.header.Get("Etag"))
		}
	}
	put := ask(t, "PUT", at, "and back", "Content-Type", plain, "If-Match", "W/"+got.header.Get("Etag"))
	require.Equal(t, http.StatusAccepted, put.status, put.body)
	require.NotEqual(t, got.header.Get("Etag"), put.header.Get("Etag"))
	next := ask(t, "GET", at, "", "If-None-Match", got.header.Get("Etag"))
	require.Equal(t, "and back", next.body)
	require.Equal(t, put.header.Get("Etag"), next.header.Get("Etag"))
	shown := ask(t, "GET", at, "", "Sec-Fetch-Dest", "document", "Sec-Fetch-Mode", "navigate")
	require.Equal(t, http.StatusForbidden, shown.status, "a person is shown nothing")

	require.Equal(t, http.StatusNoContent, ask(t, "DELETE", at, "").status)
	for _, method := range []string{"GET", "DELETE"} {
		require.Equal(t, http.StatusNotFound, ask(t, method, at, "").status)
	}
	require.Equal(t, http.StatusNotFound, ask(t, "PUT", at, "x", "Content-Type", plain, "If-Match", `"1"`).status)
	require.Equal(t, http.StatusRequestEntityTooLarge, ask(t, "POST", base+meetByText, strings.Repeat("x", 4097), "Content-Type", plain).status)
}

func meetJSON(t *testing.T, base string) {
	require.JSONEq(t, `{"create_available":true}`, ask(t, "GET", base+meetByJSON, "").body)
	made := ask(t, "POST", base+meetByJSON, `{"data":"hello"}`)
	require.Equal(t, http.StatusOK, made.status, made.body)
	require.Contains(t, made.body, "expires_in_ms")
	at, token := base+meetByJSON+"/"+made.member(t, "id"), made.member(t, "sequence_token")
	got := ask(t, "GET", at, "")
	require.Equal(t, "hello", got.member(t, "data"))
	require.Equal(t, token, got.member(t, "sequence_token"))
	put := ask(t, "PUT", at, `{"sequence_token":"`+token+`","data":"and back"}`)
	require.Equal(t, http.StatusOK, put.status, put.body)
	late := ask(t, "PUT", at, `{"sequence_token":"`+token+`","data":"not read"}`)
	require.Equal(t, http.StatusConflict, late.status)
	require.Equal(t, "IO_ELEMENT_MSC4388_CONCURRENT_WRITE", late.member(t, "errcode"))
	got = ask(t, "GET", at, "")
	require.Equal(t, "and back", got.member(t, "data"))
	require.Equal(t, put.member(t, "sequence_token"), got.member(t, "sequence_token"))
	require.Equal(t, 413, ask(t, "PUT", at, `{"sequence_token":"x","data":"`+strings.Repeat("x", 4097)+`"}`).status)
	require.Equal(t, 400, ask(t, "PUT", at, `{"data":"x"}`).status)
	require.Equal(t, 404, ask(t, "GET", base+meetByText+"/"+made.member(t, "id"), "").status, "another protocol's")
	require.Equal(t, 200, ask(t, "DELETE", at, "").status)
	require.Equal(t, 404, ask(t, "GET", at, "").status)
}

// Without a grant for devices there is nothing to meet for, and nothing of it is announced.
func TestNoRendezvousWithoutOAuth(t *testing.T) {
	w := newFleet(t).start(t, AllInOne, "one")
	require.NotContains(t, ask(t, "GET", w.URL()+"/_matrix/client/versions", "").body, `"org.matrix.msc4108":true`)
	for _, path := range []string{meetByText, meetByJSON} {
		a := ask(t, "POST", w.URL()+path, `{"data":"x"}`, "Content-Type", "text/plain")
		require.Equal(t, http.StatusNotFound, a.status)
		require.Equal(t, "M_UNRECOGNIZED", a.member(t, "errcode"))
	}
}
