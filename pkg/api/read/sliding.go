package read

import (
	"context"
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/presence"
)

// sliding answers simplified sliding sync (MSC4186).
func (s *Sync) sliding(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	c := auth.Must(r.Context())
	q := new(msync.SlidingRequest)
	if err := httpx.DecodeOptional(r, q); err != nil {
		return err
	}
	q.User, q.Device, q.Pos = c.UserID, c.DeviceID, p.Get("pos")
	if q.Timeout, err = p.Milliseconds("timeout", maxSyncTimeout); err != nil {
		return err
	}
	shown, ok := presence.Online, true
	if s := p.Get("set_presence"); s != "" {
		shown, ok = presence.Parse(s)
	}
	if !ok {
		return mxerr.New(mxerr.InvalidParam, "set_presence is none of offline, online and unavailable")
	}
	if err := q.Check(); err != nil {
		return err
	}
	ended := s.presence.Sync(r.Context(), string(c.UserID), string(c.DeviceID), shown)
	body, pending, err := s.engine.BeginSliding(r.Context(), q)
	if pending != nil {
		return httpx.Later(w, r, func(ctx context.Context) ([]byte, error) {
			defer ended()
			return pending.Wait(ctx)
		})
	}
	ended()
	if err != nil {
		return err
	}
	httpx.WriteRaw(w, http.StatusOK, body)
	return nil
}
