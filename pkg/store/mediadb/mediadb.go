package mediadb

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Errors that say how it stands; match with errors.Is.
var (
	// ErrExists says that the URI has a content already.
	ErrExists = errors.New("media exists")
	// ErrGone says that a blob took so long to be written that it is being removed, or that its content is.
	ErrGone = errors.New("blob is gone")
)

// Kind says where media came from.
type Kind int16

// The kinds, as they are stored.
const (
	Uploaded Kind = iota
	Remote
	Preview
)

// Key is the two parts of an mxc URI.
type Key struct{ Origin, ID string }

func (k Key) uri() string { return "mxc://" + k.Origin + "/" + k.ID }

// Media is what an mxc URI stands for. Times are in milliseconds since 1970.
type Media struct {
	Key
	Kind                Kind
	User                string // "": nobody here
	Created, LastAccess int64
	// SHA256 and Blob are empty until it is uploaded, which may be done until Expires.
	SHA256      []byte
	Blob        string
	Expires     int64
	Size        int64
	ContentType string
	FileName    string
	// Open media may be downloaded without an access token.
	Open          bool
	QuarantinedBy string
	Protected     bool
}

// DB reads and writes them.
type DB struct {
	q      *Queries
	db     pg.Beginner
	shards shard.Map
}

// Primary is a pool on the primary.
type Primary interface {
	DBTX
	pg.Beginner
}

// NewDB makes a DB.
func NewDB(primary Primary, shards shard.Map) *DB { return &DB{New(primary), primary, shards} }

func (d *DB) shard(of string) int16 { return int16(d.shards.Of(of)) }

func (d *DB) shardOf(hash []byte) int16 { return d.shard(hex.EncodeToString(hash)) }

func failed(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// Get reads media; ok says whether there is any.
func (d *DB) Get(ctx context.Context, k Key) (m Media, ok bool, err error) {
	r, err := d.q.GetMedia(ctx, GetMediaParams{Shard: d.shard(k.uri()), Origin: k.Origin, MediaID: k.ID})
	if pg.IsNoRows(err) {
		return Media{}, false, nil
	}
	if err != nil {
		return Media{}, false, failed("read media", err)
	}
	return Media{
		Key: k, Kind: Kind(r.Kind), User: r.UserID, Created: r.Created, LastAccess: r.LastAccess, SHA256: r.Sha256, Blob: r.Blob, Expires: r.Expires,
		Size: r.Size, ContentType: r.ContentType, FileName: r.FileName, Open: r.Open, QuarantinedBy: r.QuarantinedBy, Protected: r.Protected,
	}, true, nil
}

// Begin notes that a blob is going to be written.
func (d *DB) Begin(ctx context.Context, blob string, now int64) error {
	return failed("note a blob", d.q.InsertLoose(ctx, InsertLooseParams{Shard: d.shard(blob), Name: blob, Since: max(now, 1)}))
}

// Abandon notes that a blob which was begun is not needed.
func (d *DB) Abandon(ctx context.Context, blob string) error {
	return failed("note a blob", d.q.LoosenBlob(ctx, LoosenBlobParams{Shard: d.shard(blob), Name: blob}))
}

// Add stores media whose blob is written. The content may be there already; its blob is then the one that counts, and m's is abandoned. If the
// URI is there, which is ErrExists, nothing changes.
func (d *DB) Add(ctx context.Context, m *Media) error {
	return d.attach(ctx, m, func(q *Queries, blob string) (int64, error) {
		return q.InsertMedia(ctx, InsertMediaParams{
			Shard: d.shard(m.uri()), Origin: m.Origin, MediaID: m.ID, Kind: int16(m.Kind), UserID: m.User, Created: m.Created, Sha256: m.SHA256, Blob: blob,
			Size: m.Size, ContentType: m.ContentType, FileName: m.FileName, Open: m.Open,
		})
	})
}

// Complete stores the content of media that was announced. If it has one, or may not get one any more, that is ErrExists.
func (d *DB) Complete(ctx context.Context, m *Media, now int64) error {
	return d.attach(ctx, m, func(q *Queries, blob string) (int64, error) {
		return q.CompleteMedia(ctx, CompleteMediaParams{
			Shard: d.shard(m.uri()), Origin: m.Origin, MediaID: m.ID, Sha256: m.SHA256, Blob: blob, Size: m.Size, ContentType: m.ContentType,
			FileName: m.FileName, Open: m.Open, Now: now,
		})
	})
}

// attempts are how often a transaction is tried that lost against another.
const attempts = 5

func (d *DB) inTx(ctx context.Context, doing string, f func(q *Queries) error) error {
	return failed(doing, pg.InTxRetry(ctx, d.db, pgx.TxOptions{}, attempts, func(tx pgx.Tx) error { return f(d.q.WithTx(tx)) }))
}

func (d *DB) attach(ctx context.Context, m *Media, write func(q *Queries, blob string) (int64, error)) error {
	var blob string
	err := d.inTx(ctx, "store media", func(q *Queries) error {
		n, err := q.TakeLoose(ctx, TakeLooseParams{Shard: d.shard(m.Blob), Name: m.Blob})
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrGone
		}
		if blob, err = q.HoldBlob(ctx, HoldBlobParams{Shard: d.shardOf(m.SHA256), Sha256: m.SHA256, Name: m.Blob}); err != nil {
			return err
		}
		if blob != m.Blob {
			if err := q.LoosenBlob(ctx, LoosenBlobParams{Shard: d.shard(m.Blob), Name: m.Blob}); err != nil {
				return err
			}
		}
		if n, err = write(q, blob); err == nil && n == 0 {
			err = ErrExists
		}
		return err
	})
	if err == nil {
		m.Blob = blob
	}
	return err
}

// Announce stores media without a content, unless its user has as many as most of such already: then it is said when the first of them
// expires.
func (d *DB) Announce(ctx context.Context, m *Media, now int64, most int) (ok bool, next int64, err error) {
	err = d.inTx(ctx, "announce media", func(q *Queries) error {
		if err := q.LockUser(ctx, m.User); err != nil {
			return err
		}
		n, err := q.InsertPending(ctx, InsertPendingParams{
			Shard: d.shard(m.uri()), Origin: m.Origin, MediaID: m.ID, UserID: m.User, Now: now, Expires: m.Expires, Most: int64(most),
		})
		if ok = n > 0; ok || err != nil {
			return err
		}
		next, err = q.NextExpiry(ctx, NextExpiryParams{UserID: m.User, Now: now})
		return err
	})
	return ok, next, err
}

// Used gives how many bytes a user has uploaded.
func (d *DB) Used(ctx context.Context, user string) (int64, error) {
	n, err := d.q.UsedBy(ctx, user)
	return n, failed("sum up a user's media", err)
}

// Delete removes media; ok says whether there was any. Its content goes with the last that has it.
func (d *DB) Delete(ctx context.Context, k Key) (ok bool, err error) {
	return d.remove(ctx, func(q *Queries) ([]byte, error) {
		return q.DeleteMedia(ctx, DeleteMediaParams{Shard: d.shard(k.uri()), Origin: k.Origin, MediaID: k.ID})
	})
}

// DeleteUnused is Delete for what is kept of others and was not used since.
func (d *DB) DeleteUnused(ctx context.Context, k Key, before int64) (ok bool, err error) {
	return d.remove(ctx, func(q *Queries) ([]byte, error) {
		return q.DeleteKept(ctx, DeleteKeptParams{Shard: d.shard(k.uri()), Origin: k.Origin, MediaID: k.ID, Before: before})
	})
}

func (d *DB) remove(ctx context.Context, row func(q *Queries) ([]byte, error)) (ok bool, err error) {
	err = d.inTx(ctx, "delete media", func(q *Queries) error {
		hash, err := row(q)
		ok = err == nil
		if pg.IsNoRows(err) {
			return nil
		}
		if err != nil || hash == nil {
			return err
		}
		at := d.shardOf(hash)
		left, err := q.DropBlob(ctx, DropBlobParams{Shard: at, Sha256: hash})
		if err != nil || left.Refs > 0 {
			return err
		}
		if err := q.DeleteBlob(ctx, DeleteBlobParams{Shard: at, Sha256: hash}); err != nil {
			return err
		}
		names, err := q.DeleteThumbnails(ctx, DeleteThumbnailsParams{Shard: at, Sha256: hash})
		if err != nil {
			return err
		}
		for _, name := range append(names, left.Name) {
			if err := q.LoosenBlob(ctx, LoosenBlobParams{Shard: d.shard(name), Name: name}); err != nil {
				return err
			}
		}
		return nil
	})
	return ok && err == nil, err
}

// Unused lists what is kept of others and was not used since, the oldest first.
func (d *DB) Unused(ctx context.Context, before int64, most int) ([]Key, error) {
	rows, err := d.q.ListKept(ctx, ListKeptParams{Before: before, Most: int32(most)})
	out := make([]Key, len(rows))
	for i, r := range rows {
		out[i] = Key{r.Origin, r.MediaID}
	}
	return out, failed("list unused media", err)
}

// DeleteExpired removes no more than most of what was announced and did not come in time.
func (d *DB) DeleteExpired(ctx context.Context, before int64, most int) (int64, error) {
	n, err := d.q.DeleteExpired(ctx, DeleteExpiredParams{Before: before, Most: int32(most)})
	return n, failed("delete expired media", err)
}

// Touch notes when media were used.
func (d *DB) Touch(ctx context.Context, at map[Key]int64) error {
	if len(at) == 0 {
		return nil
	}
	var p TouchMediaParams
	for k, t := range at {
		p.Shards, p.Origins = append(p.Shards, d.shard(k.uri())), append(p.Origins, k.Origin)
		p.MediaIds, p.Ats = append(p.MediaIds, k.ID), append(p.Ats, t)
	}
	return failed("note the use of media", d.q.TouchMedia(ctx, p))
}

// Condemned gives no more than most blobs that have to be removed: those that nobody refers to any more, and those that were begun before a
// time and never came to anything.
func (d *DB) Condemned(ctx context.Context, begunBefore int64, most int) ([]string, error) {
	if err := d.q.CondemnLoose(ctx, begunBefore); err != nil {
		return nil, failed("list blobs", err)
	}
	rows, err := d.q.ListCondemned(ctx, int32(most))
	out := make([]string, len(rows))
	for i, r := range rows {
		out[i] = r.Name
	}
	return out, failed("list blobs", err)
}

// Removed notes that a condemned blob is not in the store any more.
func (d *DB) Removed(ctx context.Context, blob string) error {
	return failed("forget a blob", d.q.DeleteCondemned(ctx, DeleteCondemnedParams{Shard: d.shard(blob), Name: blob}))
}

// Thumbnail is one of a content.
type Thumbnail struct {
	Width, Height  int
	Crop, Animated bool
	ContentType    string
	Size           int64
	Blob           string
}

// Thumbnails reads those of a content.
func (d *DB) Thumbnails(ctx context.Context, hash []byte) ([]Thumbnail, error) {
	rows, err := d.q.ListThumbnails(ctx, ListThumbnailsParams{Shard: d.shardOf(hash), Sha256: hash})
	out := make([]Thumbnail, len(rows))
	for i, r := range rows {
		out[i] = Thumbnail{int(r.Width), int(r.Height), r.Crop, r.Animated, r.ContentType, r.Size, r.Name}
	}
	return out, failed("list thumbnails", err)
}

// AddThumbnail stores one whose blob is written. If there is one already (ErrExists), or the content is gone (ErrGone), nothing changes.
func (d *DB) AddThumbnail(ctx context.Context, hash []byte, t *Thumbnail) error {
	at := d.shardOf(hash)
	return d.inTx(ctx, "store a thumbnail", func(q *Queries) error {
		n, err := q.TakeLoose(ctx, TakeLooseParams{Shard: d.shard(t.Blob), Name: t.Blob})
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrGone
		}
		// It stays as long as this transaction lasts.
		if _, err := q.LockBlob(ctx, LockBlobParams{Shard: at, Sha256: hash}); pg.IsNoRows(err) {
			return ErrGone
		} else if err != nil {
			return err
		}
		n, err = q.InsertThumbnail(ctx, InsertThumbnailParams{
			Shard: at, Sha256: hash, Width: int32(t.Width), Height: int32(t.Height), Crop: t.Crop, Animated: t.Animated,
			ContentType: t.ContentType, Size: t.Size, Name: t.Blob,
		})
		if err == nil && n == 0 {
			err = ErrExists
		}
		return err
	})
}

// Quarantine withholds media and whatever has the same content, or gives it back if by is empty. What is protected is left alone. It says how many
// there were.
func (d *DB) Quarantine(ctx context.Context, k Key, by string) (int64, error) {
	n, err := d.q.Quarantine(ctx, QuarantineParams{Shard: d.shard(k.uri()), Origin: k.Origin, MediaID: k.ID, By: by})
	return n, failed("quarantine media", err)
}

// Protect keeps media from being quarantined, or ends that.
func (d *DB) Protect(ctx context.Context, k Key, protected bool) (ok bool, err error) {
	n, err := d.q.Protect(ctx, ProtectParams{Shard: d.shard(k.uri()), Origin: k.Origin, MediaID: k.ID, Protected: protected})
	return n > 0, failed("protect media", err)
}

// Preview reads what is kept of a URL, by its hash.
func (d *DB) Preview(ctx context.Context, url [32]byte, now int64) (answer []byte, ok bool, err error) {
	answer, err = d.q.GetPreview(ctx, GetPreviewParams{Shard: d.shardOf(url[:]), UrlHash: url[:], Now: now})
	if pg.IsNoRows(err) {
		return nil, false, nil
	}
	return answer, err == nil, failed("read a preview", err)
}

// KeepPreview keeps what a URL's preview says until a time.
func (d *DB) KeepPreview(ctx context.Context, url [32]byte, answer []byte, now, expires int64) error {
	return failed("keep a preview", d.q.PutPreview(ctx, PutPreviewParams{
		Shard: d.shardOf(url[:]), UrlHash: url[:], Fetched: now, Expires: expires, Answer: answer,
	}))
}

// DeletePreviews removes no more than most that are older.
func (d *DB) DeletePreviews(ctx context.Context, before int64, most int) (int64, error) {
	n, err := d.q.DeletePreviews(ctx, DeletePreviewsParams{Before: before, Most: int32(most)})
	return n, failed("delete previews", err)
}
