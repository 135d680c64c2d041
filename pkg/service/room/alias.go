package room

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/trace"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// setAlias makes an alias. Nothing is in memory of it: the row that has to be new decides.
func (t *term) setAlias(ctx context.Context, key []byte, c *SetAlias) (work, error) {
	if c.Alias.Server() != t.host.Server {
		return work{}, mxerr.New(mxerr.InvalidParam, "the alias is of another server")
	}
	if c.From != "" {
		return t.moveAlias(ctx, key, c)
	}
	w := t.submit(ctx, key, Answer{Room: c.Room}, &roomdb.Alias{
		Alias: string(c.Alias), RoomID: string(c.Room), Creator: string(c.By),
	})
	finish := w.finish
	w.finish = func(ctx context.Context) (Answer, error) {
		a, err := finish(ctx)
		if errors.Is(err, commit.ErrConflict) {
			err = mxerr.New(mxerr.RoomInUse, "the alias is taken")
		}
		return a, err
	}
	return w, nil
}

func (t *term) moveAlias(ctx context.Context, key []byte, c *SetAlias) (work, error) {
	row, ok, err := t.host.DB.Alias(ctx, t.shard, string(c.Alias))
	switch {
	case err != nil:
		return work{}, err
	case !ok || row.RoomID != string(c.From):
		return work{}, mxerr.New(mxerr.NotFound, "the room has no such alias")
	}
	return t.submit(ctx, key, Answer{Room: c.Room}, &roomdb.AliasMoved{
		Alias: string(c.Alias), From: string(c.From), RoomID: string(c.Room),
	}), nil
}

func (t *term) deleteAlias(ctx context.Context, key []byte, c *DeleteAlias) (work, error) {
	row, ok, err := t.host.DB.Alias(ctx, t.shard, string(c.Alias))
	switch {
	case err != nil:
		return work{}, err
	case !ok:
		return work{}, mxerr.New(mxerr.NotFound, "there is no such alias")
	case !c.Force && row.Creator != string(c.By):
		return work{}, mxerr.New(mxerr.Forbidden, "the alias is another's")
	}
	return t.submit(ctx, key, Answer{}, &roomdb.AliasGone{Alias: string(c.Alias)}), nil
}

// submit proposes rows that hang on no room.
func (t *term) submit(ctx context.Context, key []byte, a Answer, rows ...entry.Row) work {
	w := work{answer: a}
	w.ticket = t.host.Committer.Submit(&entry.Proposal{
		Shard: t.shard, Epoch: t.epoch, Key: key, Result: encodeAnswer(a), Rows: rows,
		Trace: trace.SpanContextFromContext(ctx),
	})
	w.finish = func(ctx context.Context) (Answer, error) { return t.outcome(ctx, w.ticket, a) }
	return w
}
