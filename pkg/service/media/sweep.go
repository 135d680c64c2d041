package media

import (
	"context"
	"errors"
	"fmt"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/store/mediadb"
)

// piece is how much is removed between two looks at whether to go on.
const piece = 200

// Sweep removes what has served its time: what was announced and did not come, media of others that nobody uses, previews, and contents that
// nothing refers to. One worker does it at a time, under a role; two would do no harm.
func (s *Service) Sweep(ctx context.Context) error {
	now := s.now()
	const day = 24 * 60 * 60 * 1000
	err := s.pieces(ctx, "expired", func() (int64, error) { return s.o.DB.DeleteExpired(ctx, now-day, piece) })
	err = errors.Join(err, s.pieces(ctx, "previews", func() (int64, error) { return s.o.DB.DeletePreviews(ctx, now, piece) }))
	if s.cfg.Retention > 0 {
		_, rerr := s.PurgeRemote(ctx, now-s.cfg.Retention.Milliseconds())
		err = errors.Join(err, rerr)
	}
	return errors.Join(err, s.pieces(ctx, "contents", func() (int64, error) { return s.removeContents(ctx, now) }))
}

func (s *Service) pieces(ctx context.Context, of string, remove func() (int64, error)) error {
	for ctx.Err() == nil {
		n, err := remove()
		s.removed.WithLabelValues(of).Add(float64(n))
		if err != nil {
			return fmt.Errorf("remove %s: %w", of, err)
		}
		if n < piece {
			return nil
		}
	}
	return ctx.Err()
}

// PurgeRemote removes what is kept of others and was not used since a time, in milliseconds, and says how much that was.
func (s *Service) PurgeRemote(ctx context.Context, before int64) (total int64, err error) {
	err = s.pieces(ctx, "remote", func() (int64, error) {
		keys, err := s.o.DB.Unused(ctx, before, piece)
		for i, k := range keys {
			ok, derr := s.o.DB.DeleteUnused(ctx, k, before)
			if derr != nil {
				return int64(i), derr
			}
			if ok {
				total++
			}
		}
		return int64(len(keys)), err
	})
	return total, err
}

// removeContents removes blobs that nothing refers to.
func (s *Service) removeContents(ctx context.Context, now int64) (int64, error) {
	names, err := s.o.DB.Condemned(ctx, now-s.cfg.WriteTime.Milliseconds(), piece)
	if err != nil {
		return 0, err
	}
	for i, name := range names {
		if err := s.o.Blobs.Delete(ctx, name); err != nil {
			return int64(i), err
		}
		if err := s.o.DB.Removed(ctx, name); err != nil {
			return int64(i), err
		}
	}
	return int64(len(names)), nil
}

// Delete removes media; ok says whether there was any. The content goes soon, unless other media have it too.
func (s *Service) Delete(ctx context.Context, uri id.MXC) (ok bool, err error) {
	return s.o.DB.Delete(ctx, keyOf(uri))
}

// Quarantine withholds media, and all with the same content that is not protected, or gives it back if by is empty. It says how many there
// were.
func (s *Service) Quarantine(ctx context.Context, uri id.MXC, by id.UserID) (int64, error) {
	return s.o.DB.Quarantine(ctx, keyOf(uri), string(by))
}

// Protect keeps media from being quarantined, or ends that.
func (s *Service) Protect(ctx context.Context, uri id.MXC, protected bool) (ok bool, err error) {
	return s.o.DB.Protect(ctx, keyOf(uri), protected)
}

func keyOf(uri id.MXC) mediadb.Key { return mediadb.Key{Origin: string(uri.Server), ID: uri.Media} }
