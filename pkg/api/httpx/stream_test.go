package httpx

import (
	"bytes"
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
	half := len(long) / 2
	resume, ended := make(chan struct{}), make(chan error, 1)
	rt := newRouter(t, Options{Handlers: Handlers{"sync": func(w http.ResponseWriter, r *http.Request) (err error) {
		s := NewStream(w)
		switch r.URL.Query().Get("how") {
		case "whole":
			if _, err = s.Write(long[:half]); err == nil {
				<-resume
				_, err = s.Write(long[half:])
			}
			return err
		case "fails at once":
			return mxerr.New(mxerr.Forbidden, "No")
		case "fails late":
			_, _ = s.Write(long)
			return mxerr.New(mxerr.Forbidden, "No")
		default: // is left
			for err == nil {
				_, err = s.Write(long)
			}
			ended <- err
			return err
		}
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

	resp := get("whole")
	require.EqualValues(t, -1, resp.ContentLength)
	require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
	first := make([]byte, half)
	_, err := io.ReadFull(resp.Body, first)
	require.NoError(t, err, "what is made is there before the rest is")
	close(resume)
	body, err := read(resp)
	require.NoError(t, err)
	require.Equal(t, string(long), string(first)+body)

	resp = get("fails at once")
	require.Equal(t, http.StatusForbidden, resp.StatusCode)
	body, err = read(resp)
	require.NoError(t, err)
	require.Contains(t, body, "M_FORBIDDEN")

	resp = get("fails late")
	require.Equal(t, http.StatusOK, resp.StatusCode)
	_, err = read(resp)
	require.Error(t, err, "the client sees that it is cut short")

	require.NoError(t, get("is left").Body.Close())
	require.ErrorIs(t, <-ended, errNotTaken)
}
