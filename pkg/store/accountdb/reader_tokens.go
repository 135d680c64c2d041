package accountdb

import (
	"context"
	"fmt"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// RefreshTokenByHash reads a refresh token.
func (r *Reader) RefreshTokenByHash(ctx context.Context, s shard.ID, hash [32]byte) (t RefreshToken, ok bool, err error) {
	g, err := r.q.GetRefreshToken(ctx, GetRefreshTokenParams{Shard: int16(s), Hash: hash[:]})
	if ok, err = found("refresh token", err); !ok {
		return t, false, err
	}
	return refreshToken(ListRefreshTokensRow(g)), true, nil
}

// RefreshTokens reads a device's refresh tokens: one, or for a while more.
func (r *Reader) RefreshTokens(ctx context.Context, s shard.ID, userID, deviceID string) ([]RefreshToken, error) {
	rows, err := r.q.ListRefreshTokens(ctx, ListRefreshTokensParams{Shard: int16(s), UserID: userID, DeviceID: deviceID})
	if err != nil {
		return nil, fmt.Errorf("read refresh tokens: %w", err)
	}
	out := make([]RefreshToken, len(rows))
	for i, g := range rows {
		out[i] = refreshToken(g)
	}
	return out, nil
}

// RefreshLine reads the tokens of a line that are good.
func (r *Reader) RefreshLine(ctx context.Context, s shard.ID, userID string, line []byte) ([]RefreshToken, error) {
	rows, err := r.q.ListRefreshLine(ctx, ListRefreshLineParams{Shard: int16(s), UserID: userID, Line: line})
	if err != nil {
		return nil, fmt.Errorf("read a line of refresh tokens: %w", err)
	}
	out := make([]RefreshToken, len(rows))
	for i, g := range rows {
		out[i] = refreshToken(ListRefreshTokensRow(g))
	}
	return out, nil
}

func refreshToken(g ListRefreshTokensRow) RefreshToken {
	t := RefreshToken{UserID: g.UserID, DeviceID: g.DeviceID, Parent: g.Parent, Created: g.Created, Line: g.Line}
	copy(t.Hash[:], g.Hash)
	copy(t.Access[:], g.AccessHash)
	if g.Expires != nil {
		t.Expires = *g.Expires
	}
	if g.N != nil {
		t.N = *g.N
	}
	return t
}

// LoginTokenByHash reads whom a login token lets in, and until when, in ms.
func (r *Reader) LoginTokenByHash(ctx context.Context, s shard.ID, hash [32]byte) (userID string, expires int64, ok bool, err error) {
	g, err := r.q.GetLoginToken(ctx, GetLoginTokenParams{Shard: int16(s), Hash: hash[:]})
	if ok, err = found("login token", err); !ok {
		return "", 0, false, err
	}
	return g.UserID, g.Expires, true, nil
}
