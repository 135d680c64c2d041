package media_test

import (
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/media"
)

// parts answers as servers do at the endpoint that wants a signature.
func parts(content, contentType, disposition string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		m := multipart.NewWriter(w)
		w.Header().Set("Content-Type", "multipart/mixed; boundary="+m.Boundary())
		about, _ := m.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/json"}})
		_, _ = io.WriteString(about, "{}")
		h := textproto.MIMEHeader{"Content-Type": {contentType}}
		if disposition != "" {
			h.Set("Content-Disposition", disposition)
		}
		part, _ := m.CreatePart(h)
		_, _ = io.WriteString(part, content)
		_ = m.Close()
	}
}

func TestMediaOfAnotherServer(t *testing.T) {
	w := newWorld(t)
	s := w.worker(media.Config{})
	var asked atomic.Int32
	w.answers(func(rw http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		require.Equal(t, "/_matrix/federation/v1/media/download/one", r.URL.Path)
		require.Equal(t, "other.org", r.Host)
		require.Equal(t, "X-Matrix", r.Header.Get("Authorization"))
		require.Equal(t, "5000", r.URL.Query().Get("timeout_ms"))
		parts("from elsewhere", "text/css", `inline; filename*=utf-8''%F0%9F%90%94`)(rw, r)
	})
	for range 2 {
		c, err := s.Download(t.Context(), media.Want{URI: elsewhere("one"), Wait: 5 * time.Second})
		require.NoError(t, err)
		require.Equal(t, "from elsewhere", all(t, c))
		require.Equal(t, "text/css", c.ContentType)
		require.Equal(t, "🐔", c.FileName)
	}
	require.EqualValues(t, 1, asked.Load())
	_, err := s.Download(t.Context(), media.Want{URI: elsewhere("two"), Local: true})
	refused(t, err, mxerr.NotFound, 404)
	require.EqualValues(t, 1, asked.Load())
}

// A server that does not know the endpoint is asked at the old one, without a signature.
func TestServersOfOldTimes(t *testing.T) {
	for name, unknown := range map[string]http.HandlerFunc{
		"Matrix": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"errcode":"M_UNRECOGNIZED","error":"?"}`)
		},
		"plain": http.NotFound,
		"words": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "invalid origin", http.StatusBadRequest) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := w.worker(media.Config{})
			w.answers(func(rw http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/_matrix/federation/") {
					unknown(rw, r)
					return
				}
				require.Equal(t, "/_matrix/media/v3/download/other.org/one", r.URL.Path)
				require.Equal(t, "false", r.URL.Query().Get("allow_remote"))
				require.Empty(t, r.Header.Get("Authorization"))
				rw.Header().Set("Content-Type", "text/plain")
				rw.Header().Set("Content-Disposition", "attachment; filename=x.txt")
				_, _ = io.WriteString(rw, "old")
			})
			c, err := s.Download(t.Context(), media.Want{URI: elsewhere("one")})
			require.NoError(t, err)
			require.Equal(t, "old", all(t, c))
			require.Equal(t, "x.txt", c.FileName)
		})
	}
}

func TestOneFetchForMany(t *testing.T) {
	w := newWorld(t)
	s := w.worker(media.Config{})
	var asked atomic.Int32
	let := make(chan struct{})
	w.answers(func(rw http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		<-let
		parts("shared", "text/plain", "")(rw, r)
	})
	var together sync.WaitGroup
	var waiting atomic.Int32
	for range 20 {
		together.Go(func() {
			waiting.Add(1)
			c, err := s.Download(t.Context(), media.Want{URI: elsewhere("one")})
			if err != nil {
				t.Errorf("download: %v", err)
				return
			}
			all(t, c)
		})
	}
	require.Eventually(t, func() bool { return waiting.Load() == 20 && asked.Load() == 1 }, 10*time.Second, time.Millisecond)
	close(let)
	together.Wait()
	// Who came after the fetch had ended found it.
	require.EqualValues(t, 1, asked.Load())
	require.Equal(t, 1, w.blobs())
}

// Two workers that fetch the same at the same time have one content in the end.
func TestTwoWorkersFetchTheSame(t *testing.T) {
	w := newWorld(t)
	one, two := w.worker(media.Config{}), w.worker(media.Config{})
	var asked sync.WaitGroup
	asked.Add(2)
	w.answers(func(rw http.ResponseWriter, r *http.Request) {
		asked.Done()
		asked.Wait()
		parts("shared", "text/plain", "")(rw, r)
	})
	var together sync.WaitGroup
	for _, s := range []*media.Service{one, two} {
		together.Go(func() {
			c, err := s.Download(t.Context(), media.Want{URI: elsewhere("one")})
			if err != nil {
				t.Errorf("download: %v", err)
				return
			}
			all(t, c)
		})
	}
	together.Wait()
	require.NoError(t, one.Sweep(t.Context()))
	require.Equal(t, 1, w.blobs())
}

func TestHostileServers(t *testing.T) {
	refuse := func(status int, code string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = fmt.Fprintf(w, `{"errcode":%q,"error":"no"}`, code)
		}
	}
	raw := func(contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			_, _ = io.WriteString(w, body)
		}
	}
	located := func(to string) http.HandlerFunc {
		return raw("multipart/mixed; boundary=x", "--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x\r\nLocation: "+to+"\r\n\r\n\r\n--x--\r\n")
	}
	endless := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "multipart/mixed; boundary=x")
		_, _ = io.WriteString(w, "--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x\r\nContent-Type: text/plain\r\n\r\n")
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}
	w := newWorld(t)
	s := w.worker(media.Config{MaxRemote: 1000})
	n := 0
	for name, c := range map[string]struct {
		h      http.HandlerFunc
		code   mxerr.Code
		status int
	}{
		"does not have it":    {refuse(404, "M_NOT_FOUND"), mxerr.NotFound, 404},
		"not uploaded yet":    {refuse(504, "M_NOT_YET_UPLOADED"), mxerr.NotYetUploaded, 504},
		"too large for it":    {refuse(502, "M_TOO_LARGE"), mxerr.TooLarge, 502},
		"refuses":             {refuse(403, "M_FORBIDDEN"), mxerr.Unknown, 502},
		"fails":               {refuse(500, "M_UNKNOWN"), mxerr.Unknown, 502},
		"is not there":        {nil, mxerr.Unknown, 502},
		"too large":           {parts(strings.Repeat("x", 1001), "text/plain", ""), mxerr.TooLarge, 502},
		"endless":             {endless, mxerr.TooLarge, 502},
		"not of two parts":    {raw("text/plain", "hello"), mxerr.Unknown, 502},
		"no boundary":         {raw("multipart/mixed", "--x"), mxerr.Unknown, 502},
		"one part":            {raw("multipart/mixed; boundary=x", "--x\r\n\r\n{}\r\n--x--\r\n"), mxerr.Unknown, 502},
		"cut short":           {raw("multipart/mixed; boundary=x", "--x\r\n\r\n{}\r\n--x\r\nContent-Type: text/plain\r\n\r\nhal"), mxerr.Unknown, 502},
		"long metadata":       {raw("multipart/mixed; boundary=x", "--x\r\n\r\n"+strings.Repeat("x", 70<<10)+"\r\n--x\r\n\r\nx\r\n--x--"), mxerr.Unknown, 502},
		"elsewhere, inside":   {located("https://127.0.0.1:1/x"), mxerr.Unknown, 502},
		"elsewhere, in clear": {located("http://example.com/x"), mxerr.Unknown, 502},
		"elsewhere, a file":   {located("file:///etc/passwd"), mxerr.Unknown, 502},
	} {
		t.Run(name, func(t *testing.T) {
			w.answers(c.h)
			n++
			_, err := s.Download(t.Context(), media.Want{URI: elsewhere(fmt.Sprint("one-", n))})
			refused(t, err, c.code, c.status)
			require.NoError(t, s.Sweep(t.Context()))
			require.Zero(t, w.blobs())
		})
	}
}

// Who does not have something is not asked again at once, and is asked again later.
func TestFailuresAreRemembered(t *testing.T) {
	w := newWorld(t)
	s := w.worker(media.Config{})
	var asked atomic.Int32
	w.answers(func(rw http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		rw.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(rw, `{"errcode":"M_NOT_FOUND","error":"no"}`)
	})
	for range 3 {
		_, err := s.Download(t.Context(), media.Want{URI: elsewhere("one")})
		refused(t, err, mxerr.NotFound, 404)
	}
	require.EqualValues(t, 1, asked.Load())
	w.now.Add(2 * time.Minute.Milliseconds())
	w.answers(parts("there", "text/plain", ""))
	c, err := s.Download(t.Context(), media.Want{URI: elsewhere("one")})
	require.NoError(t, err)
	require.Equal(t, "there", all(t, c))
}

// Media of others that nobody looks at go, and are fetched again.
func TestRetention(t *testing.T) {
	w := newWorld(t)
	s := w.worker(media.Config{Retention: 24 * time.Hour, Flush: 5 * time.Millisecond})
	w.answers(parts("from elsewhere", "text/plain", ""))
	own := upload(t, s, file("own", "", ""))
	for _, name := range []string{"used", "unused"} {
		c, err := s.Download(t.Context(), media.Want{URI: elsewhere(name)})
		require.NoError(t, err)
		all(t, c)
	}
	w.now.Add(20 * time.Hour.Milliseconds())
	c, err := s.Download(t.Context(), media.Want{URI: elsewhere("used")})
	require.NoError(t, err)
	all(t, c)
	require.Eventually(t, func() bool {
		var at int64
		require.NoError(t, w.db.Pool.QueryRow(t.Context(), "SELECT last_access FROM media WHERE media_id = 'used'").Scan(&at))
		return at == w.now.Load()
	}, 10*time.Second, 5*time.Millisecond)
	w.now.Add(10 * time.Hour.Milliseconds())
	require.NoError(t, s.Sweep(t.Context()))
	w.answers(nil)
	for uri, kept := range map[string]bool{"used": true, "unused": false} {
		c, err := s.Download(t.Context(), media.Want{URI: elsewhere(uri), Local: true})
		if !kept {
			refused(t, err, mxerr.NotFound, 404)
			continue
		}
		require.NoError(t, err)
		all(t, c)
	}
	c, err = s.Download(t.Context(), media.Want{URI: own})
	require.NoError(t, err)
	all(t, c)
}
