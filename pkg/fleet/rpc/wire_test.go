package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/wire"
)

// Whatever a writer refuses with, the client at the other end sees the same bytes.
func TestRefusalsAreCarriedWithoutLoss(t *testing.T) {
	value := rapid.OneOf(
		rapid.Just[any](nil), rapid.Map(rapid.Bool(), toAny), rapid.Map(rapid.String(), toAny),
		rapid.Map(rapid.Int64Range(-1<<53+1, 1<<53-1), toAny),
		rapid.Map(rapid.SliceOf(rapid.String()), toAny), rapid.Map(rapid.MapOf(rapid.String(), rapid.Int32()), toAny),
	)
	rapid.Check(t, func(t *rapid.T) {
		e := &mxerr.Error{
			Code: mxerr.Code(rapid.StringMatching("[A-Z._]{1,30}").Draw(t, "code")), HTTPStatus: rapid.IntRange(400, 599).Draw(t, "status"),
			Message: rapid.String().Draw(t, "message"), RetryAfterMs: rapid.Int64Range(0, 1<<53).Draw(t, "retry"),
			Extra: rapid.MapOfN(rapid.StringMatching("[a-z_]+"), value, 0, 4).Draw(t, "extra"),
		}
		data, err := proto.Marshal(toWire(nil, e))
		require.NoError(t, err)
		_, back := decodeAnswer(data)
		var got *mxerr.Error
		require.ErrorAs(t, back, &got)
		require.Equal(t, e.Code, got.Code)
		require.Equal(t, e.HTTPStatus, got.HTTPStatus)
		require.Equal(t, e.RetryAfterMs, got.RetryAfterMs)
		require.Equal(t, e.Message, got.Message)
		want, err := json.Marshal(e.Body())
		require.NoError(t, err)
		have, err := json.Marshal(got.Body())
		require.NoError(t, err)
		require.JSONEq(t, string(want), string(have))
		require.Equal(t, string(e.AppendJSON(nil)), string(got.AppendJSON(nil)), "the bytes that a client gets")
	})
}

func toAny[T any](v T) any { return v }

func FuzzServeHTTP(f *testing.F) {
	good, _ := proto.Marshal(&wire.Request{Method: "do", Shard: 1, Key: []byte("k"), TimeoutMs: 1000, Payload: []byte("p")})
	for _, seed := range [][]byte{nil, good, good[:len(good)-1], {0xff}, {8, 1}} {
		f.Add(seed)
	}
	s := NewServer(ServerConfig{Secret: []byte("s"), Handlers: map[string]Handler{
		"do": func(_ context.Context, r Request) ([]byte, error) { return r.Payload, nil },
	}})
	require.NoError(f, s.Open(context.Background(), 1))
	f.Fuzz(func(t *testing.T, body []byte) {
		nonce := newNonce()
		req := httptest.NewRequest(http.MethodPost, Path, bytes.NewReader(body))
		req.Header.Set(nonceHeader, nonce)
		req.Header.Set(authHeader, s.signer.sign(asks, nonce, body))
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, req)
		require.Equal(t, http.StatusOK, rec.Code)
		require.True(t, s.signer.verify(answers, nonce, rec.Body.Bytes(), rec.Header().Get(authHeader)))
		_, _ = decodeAnswer(rec.Body.Bytes())
	})
}

func FuzzAnswer(f *testing.F) {
	good, _ := proto.Marshal(toWire(nil, mxerr.New(mxerr.Forbidden, "no").With("x", 1)))
	f.Add(good)
	f.Add([]byte{8, 3})
	f.Fuzz(func(_ *testing.T, data []byte) {
		if _, err := decodeAnswer(data); err != nil {
			_ = err.Error()
		}
	})
}
