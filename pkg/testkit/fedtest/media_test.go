package fedtest_test

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/app"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// asked makes a request of a client, and gives the answer and its body.
func asked(t *testing.T, u *fedtest.User, method, url, contentType string, body []byte, header map[string]string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+u.Token)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := (&http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, b
}

// Two servers show each other their media, one of them split into its kinds of worker.
func TestMedia(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two := fedtest.Run(t, ca, "127.0.0.1"), fedtest.NewHomeserver(t, ca, "localhost")
	two.Start(app.Synchrotron, "synchrotron")
	two.Start(app.FederationReader, "reader")
	two.Start(app.Master, "master")
	alice, bob := one.NewUser(t, "alice"), two.NewUser(t, "bob")

	m := image.NewRGBA(image.Rect(0, 0, 600, 300))
	for x := range 600 {
		m.Set(x, x/2, color.White)
	}
	var picture bytes.Buffer
	require.NoError(t, png.Encode(&picture, m))
	for name, p := range map[string][2]*fedtest.User{"there": {alice, bob}, "back": {bob, alice}} {
		t.Run(name, func(t *testing.T) {
			from, to := p[0], p[1]
			resp, b := asked(t, from, "POST", from.URL+"/_matrix/media/v3/upload?filename=%F0%9F%90%94.png", "image/png", picture.Bytes(), nil)
			require.Equal(t, http.StatusOK, resp.StatusCode, "%s", b)
			uri := strings.TrimSuffix(strings.TrimPrefix(string(b), `{"content_uri":"mxc://`), `"}`)

			download := to.URL + "/_matrix/client/v1/media/download/" + uri
			for range 2 { // the second time from the cache
				resp, b = asked(t, to, "GET", download, "", nil, nil)
				require.Equal(t, http.StatusOK, resp.StatusCode, "%s", b)
				require.Equal(t, picture.Bytes(), b)
				require.Equal(t, "image/png", resp.Header.Get("Content-Type"))
				require.Equal(t, "inline; filename*=utf-8''%F0%9F%90%94.png", resp.Header.Get("Content-Disposition"))
				require.Contains(t, resp.Header.Get("Content-Security-Policy"), "sandbox")
				require.Equal(t, "cross-origin", resp.Header.Get("Cross-Origin-Resource-Policy"))
				require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
			}
			tag := resp.Header.Get("ETag")
			resp, b = asked(t, to, "GET", download+"/other.png", "", nil, map[string]string{"Range": "bytes=10-19"})
			require.Equal(t, http.StatusPartialContent, resp.StatusCode)
			require.Equal(t, picture.Bytes()[10:20], b)
			require.Equal(t, "inline; filename=other.png", resp.Header.Get("Content-Disposition"))
			resp, b = asked(t, to, "GET", download, "", nil, map[string]string{"If-None-Match": tag})
			require.Equal(t, http.StatusNotModified, resp.StatusCode)
			require.Empty(t, b)
			resp, _ = asked(t, to, "GET", download, "", nil, map[string]string{"Range": "bytes=9999999-"})
			require.Equal(t, http.StatusRequestedRangeNotSatisfiable, resp.StatusCode)

			resp, b = asked(t, to, "GET", to.URL+"/_matrix/client/v1/media/thumbnail/"+uri+"?width=96&height=96&method=crop", "", nil, nil)
			require.Equal(t, http.StatusOK, resp.StatusCode, "%s", b)
			c, err := png.DecodeConfig(bytes.NewReader(b))
			require.NoError(t, err)
			require.Equal(t, []int{96, 96}, []int{c.Width, c.Height})

			for path, want := range map[string]int{
				"/_matrix/media/v3/download/" + uri:                                             http.StatusNotFound, // closed
				"/_matrix/client/v1/media/download/" + uri + "x":                                http.StatusNotFound,
				"/_matrix/client/v1/media/download/" + uri[:strings.Index(uri, "/")] + "/a%2Fb": http.StatusBadRequest,
				"/_matrix/client/v1/media/thumbnail/" + uri:                                     http.StatusBadRequest,
				"/_matrix/client/v1/media/preview_url?url=https://example.org/":                 http.StatusNotFound, // not enabled
			} {
				resp, b = asked(t, to, "GET", to.URL+path, "", nil, nil)
				require.Equal(t, want, resp.StatusCode, "%s: %s", path, b)
			}
		})
	}
	resp, b := asked(t, bob, "POST", bob.URL+"/_matrix/media/v1/create", "", nil, nil)
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s", b)
	require.Contains(t, string(b), "unused_expires_at")
	resp, b = asked(t, bob, "GET", bob.URL+"/_matrix/client/v1/media/config", "", nil, nil)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.JSONEq(t, `{"m.upload.size":104857600}`, string(b))
}
