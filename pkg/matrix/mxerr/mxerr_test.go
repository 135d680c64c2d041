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
