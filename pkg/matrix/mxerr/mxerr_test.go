package mxerr_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

func TestErrorKeepsItsCausePrivate(t *testing.T) {
	secret := errors.New("password of the database")
	err := fmt.Errorf("send event: %w", mxerr.Forbidden("You may not").Wrap(secret))

	e := mxerr.From(err)
	require.Equal(t, 403, e.Status())
	require.Equal(t, mxerr.CodeForbidden, e.Code())
	require.ErrorIs(t, err, secret)
	require.Contains(t, e.Error(), "password")
	require.JSONEq(t, `{"errcode":"M_FORBIDDEN","error":"You may not"}`, string(e.AppendJSON(nil)))
	require.ErrorIs(t, err, mxerr.Forbidden(""))
	require.NotErrorIs(t, err, mxerr.NotFound(""))
	require.True(t, mxerr.HasCode(err, mxerr.CodeForbidden))

	other := mxerr.From(secret)
	require.Equal(t, 500, other.Status())
	require.JSONEq(t, `{"errcode":"M_UNKNOWN","error":"Internal server error"}`, string(other.AppendJSON(nil)))
	require.Nil(t, mxerr.From(nil))
}

func TestCopiesDoNotShare(t *testing.T) {
	base := mxerr.LimitExceeded(1500)
	a := base.With("a", "x")
	b := base.With("b", []int{1}).With("retry_after_ms", 2)
	require.JSONEq(t, `{"errcode":"M_LIMIT_EXCEEDED","error":"Too many requests","retry_after_ms":1500}`, string(base.AppendJSON(nil)))
	require.JSONEq(t, `{"errcode":"M_LIMIT_EXCEEDED","error":"Too many requests","retry_after_ms":1500,"a":"x"}`, string(a.AppendJSON(nil)))
	require.JSONEq(t, `{"errcode":"M_LIMIT_EXCEEDED","error":"Too many requests","retry_after_ms":2,"b":[1]}`, string(b.AppendJSON(nil)))
	ms, ok := base.RetryAfterMS()
	require.True(t, ok)
	require.EqualValues(t, 1500, ms)
	require.Equal(t, 429, a.Status())
	require.Equal(t, 418, a.WithStatus(418).Status())
	require.Equal(t, 429, a.Status())
}

func TestParse(t *testing.T) {
	e, ok := mxerr.Parse(400, []byte(`{ "errcode":"M_INCOMPATIBLE_ROOM_VERSION", "error":"no \"12\"", "room_version":"12" }`))
	require.True(t, ok)
	require.Equal(t, mxerr.CodeIncompatibleRoomVersion, e.Code())
	require.Equal(t, `no "12"`, e.Message())
	require.JSONEq(t, `{"errcode":"M_INCOMPATIBLE_ROOM_VERSION","error":"no \"12\"","room_version":"12"}`, string(e.AppendJSON(nil)))
	for _, body := range []string{"", "[]", "<html>", `{"errcode":1}`, `{"error":"x"}`, `{"errcode":""}`} {
		_, ok := mxerr.Parse(500, []byte(body))
		require.False(t, ok, body)
	}
}
