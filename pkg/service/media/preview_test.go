package media_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/outhttp"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/media"
)

func TestPreview(t *testing.T) {
	w := newWorld(t)
	w.previews = media.NewClient(outhttp.NewGuard(nil, nil), nil)
	s := w.worker(media.Config{})
	image := picture(t, 40, 30)
	var asked atomic.Int32
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch r.URL.Path {
		case "/page":
			rw.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(rw, `<title>T</title><meta property="og:image" content="picture.png">`)
		case "/moved":
			http.Redirect(rw, r, "/page", http.StatusFound)
		case "/picture.png":
			rw.Header().Set("Content-Type", "image/png")
			_, _ = io.WriteString(rw, image)
		case "/endless":
			rw.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(rw, "<title>endless</title>")
			for r.Context().Err() == nil {
				if _, err := io.WriteString(rw, strings.Repeat("<p>x", 10_000)); err != nil {
					return
				}
			}
		case "/loop":
			http.Redirect(rw, r, "/loop", http.StatusFound)
		case "/file":
			rw.Header().Set("Content-Type", "application/zip")
			_, _ = io.WriteString(rw, "PK")
		default:
			http.NotFound(rw, r)
		}
	}))
	t.Cleanup(web.Close)
	t.Cleanup(w.previews.CloseIdleConnections)
	look := func(path string) map[string]any {
		t.Helper()
		b, err := s.Preview(t.Context(), web.URL+path)
		require.NoError(t, err)
		var out map[string]any
		require.NoError(t, json.Unmarshal(b, &out))
		return out
	}
	got := look("/page#part")
	require.Equal(t, "T", got["og:title"])
	require.EqualValues(t, 40, got["og:image:width"])
	require.EqualValues(t, 30, got["og:image:height"])
	require.Equal(t, "image/png", got["og:image:type"])
	require.EqualValues(t, len(image), got["matrix:image:size"])
	uri, err := id.ParseMXC(got["og:image"].(string))
	require.NoError(t, err)
	c, err := s.Download(t.Context(), media.Want{URI: uri})
	require.NoError(t, err)
	require.Equal(t, image, all(t, c))

	require.EqualValues(t, 2, asked.Load())
	require.Equal(t, got, look("/page"), "it is kept")
	require.EqualValues(t, 2, asked.Load())
	w.now.Add(2 * time.Hour.Milliseconds())
	require.Equal(t, "T", look("/page")["og:title"])
	require.EqualValues(t, 4, asked.Load(), "for a while")

	require.Equal(t, "T", look("/moved")["og:title"])
	require.Equal(t, "endless", look("/endless")["og:title"])
	require.Equal(t, "picture.png", look("/picture.png")["og:title"])
	require.Empty(t, look("/file"))
	for _, path := range []string{"/none", "/loop"} {
		_, err := s.Preview(t.Context(), web.URL+path)
		refused(t, err, mxerr.Unknown, 502)
	}
	for _, bad := range []string{"", "x", "file:///etc/passwd", "http://", "ftp://example.org/", "https://user:pw@example.org/", "http://example.org:22/", "https://example.org/" + strings.Repeat("x", 5000)} {
		_, err := s.Preview(t.Context(), bad)
		refused(t, err, mxerr.InvalidParam, 400)
	}
}

// What is in a network that must not be reached is not looked at, whatever leads there.
func TestPreviewOfWhatIsInside(t *testing.T) {
	w := newWorld(t)
	off := w.worker(media.Config{})
	_, err := off.Preview(t.Context(), "https://example.org/")
	refused(t, err, mxerr.Unrecognized, 404)

	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was reached") }))
	t.Cleanup(inside.Close)
	w.previews = media.NewClient(outhttp.NewGuard(nil, networks()), nil)
	s := w.worker(media.Config{})
	for _, u := range []string{inside.URL, strings.Replace(inside.URL, "127.0.0.1", "localhost", 1), strings.Replace(inside.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1)} {
		_, err := s.Preview(t.Context(), u)
		refused(t, err, mxerr.Forbidden, 403)
	}
}
