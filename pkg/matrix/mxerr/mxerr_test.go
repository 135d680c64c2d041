package mxerr_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

func TestCauseStaysPrivate(t *testing.T) {
	cause := errors.New("password is hunter2")
	err := fmt.Errorf("log in: %w", mxerr.New(mxerr.Forbidden, "Invalid username or password").WithCause(cause))
	e := mxerr.From(err)
	require.Equal(t, map[string]any{"errcode": "M_FORBIDDEN", "error": "Invalid username or password"}, e.Body())
	require.Equal(t, 403, e.HTTPStatus)
	require.ErrorIs(t, err, cause)
	require.Contains(t, e.Error(), "hunter2")
}

func TestAnythingElseIsHidden(t *testing.T) {
	e := mxerr.From(errors.New("relation \"event\" does not exist"))
	require.Equal(t, 500, e.HTTPStatus)
	require.Equal(t, map[string]any{"errcode": "M_UNKNOWN", "error": "Internal server error"}, e.Body())
}

func TestWithDoesNotChangeTheOriginal(t *testing.T) {
	a := mxerr.New(mxerr.UnknownToken, "Expired").With("soft_logout", true)
	b := a.With("soft_logout", false).WithStatus(400)
	require.Equal(t, true, a.Body()["soft_logout"])
	require.Equal(t, false, b.Body()["soft_logout"])
	require.Equal(t, 401, a.HTTPStatus)
}

func TestLimited(t *testing.T) {
	require.Equal(t, int64(1500), mxerr.Limited(1500).Body()["retry_after_ms"])
	require.Equal(t, 429, mxerr.Limited(1500).HTTPStatus)
}

func TestAppendJSON(t *testing.T) {
	require.JSONEq(t, `{"errcode":"M_LIMIT_EXCEEDED","error":"Too many requests","retry_after_ms":1500}`, string(mxerr.Limited(1500).AppendJSON(nil)))
	e := mxerr.New(mxerr.IncompatibleRoomVersion, `no "12"`).With("room_version", "12").With("a", []int{1}).With("bad", func() {})
	require.JSONEq(t, `{"errcode":"M_INCOMPATIBLE_ROOM_VERSION","error":"no \"12\"","a":[1],"room_version":"12"}`, string(e.AppendJSON(nil)))
}

func TestParse(t *testing.T) {
	e, ok := mxerr.Parse(400, []byte(`{ "errcode":"M_INCOMPATIBLE_ROOM_VERSION", "error":"no \"12\"", "room_version":"12", "retry_after_ms":7 }`))
	require.True(t, ok)
	require.Equal(t, mxerr.IncompatibleRoomVersion, e.Code)
	require.Equal(t, 400, e.HTTPStatus)
	require.Equal(t, `no "12"`, e.Message)
	require.Equal(t, "12", e.Extra["room_version"])
	require.EqualValues(t, 7, e.RetryAfterMs)
	for _, body := range []string{"", "[]", "<html>", `{"errcode":1}`, `{"error":"x"}`, `{"errcode":""}`} {
		_, ok := mxerr.Parse(500, []byte(body))
		require.False(t, ok, body)
	}
}
