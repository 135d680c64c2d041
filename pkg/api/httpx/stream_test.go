package httpx

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

func TestStream(t *testing.T) {
	long := bytes.Repeat([]byte("warp and weft, "), 20_000)
	resume, ended := make(chan struct{}), make(chan error, 1)
	write := func(w http.ResponseWriter, list ...[]byte) (*Stream, error) {
		s := NewStream(w)
		for _, b := range list {
			if _, err := s.Write(b); err != nil {
				return s, err
			}
		}
		return s, nil
	}
	rt := newRouter(t, Options{Handlers: Handlers{"sync": func(w http.ResponseWriter, r *http.Request) (err error) {
		s := NewStream(w)
		switch r.URL.Query().Get("how") {
		case "short":
			s, err = write(w, []byte("war"), []byte("p"))
		case "long":
			if s, err = write(w, long[:len(long)/2]); err == nil {
				<-resume
				_, err = s.Write(long[len(long)/2:])
			}
		case "fails early":
			_, _ = write(w, []byte("warp"))
			return mxerr.New(mxerr.Forbidden, "No")
		case "fails late":
			_, _ = write(w, long)
			return mxerr.New(mxerr.Forbidden, "No")
		case "is left":
			for err == nil {
				_, err = s.Write(long)
			}
			ended <- err
			return err
		}
		if err != nil {
			return err
		}
		return s.Close()
	}}})
	server := httptest.NewServer(rt)
	defer server.Close()
	get := func(how string) *http.Response {
		resp, err := server.Client().Get(server.URL + "/_matrix/client/v3/sync?how=" + url.QueryEscape(how))
		require.NoError(t, err)
		return resp
	}
	read := func(resp *http.Response) (string, error) {
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, resp.Body.Close())
		return string(b), err
	}

	resp := get("short")
	require.EqualValues(t, 4, resp.ContentLength)
	body, err := read(resp)
	require.NoError(t, err)
	require.Equal(t, "warp", body)

	resp = get("long")
	require.EqualValues(t, -1, resp.ContentLength)
	require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
	first := make([]byte, len(long)/2)
	_, err = io.ReadFull(resp.Body, first)
	require.NoError(t, err, "what is made is there before the rest is")
	close(resume)
	body, err = read(resp)
	require.NoError(t, err)
	require.Equal(t, string(long), string(first)+body)

	resp = get("fails early")
	require.Equal(t, http.StatusForbidden, resp.StatusCode)
	body, err = read(resp)
	require.NoError(t, err)
	require.Contains(t, body, "M_FORBIDDEN")

	resp = get("fails late")
	require.Equal(t, http.StatusOK, resp.StatusCode)
	_, err = read(resp)
	require.Error(t, err, "the client sees that it is cut short")

	require.NoError(t, get("is left").Body.Close())
	require.True(t, errors.Is(<-ended, errNotTaken))
}
