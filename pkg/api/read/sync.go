package read

import (
	"context"
	"net/http"
	"time"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/presence"
)

// maxSyncTimeout is the longest that a sync waits for something to happen.
const maxSyncTimeout = 5 * time.Minute

// Sync answers /sync.
type Sync struct {
	engine   *msync.Engine
	filters  *filters
	presence *presence.Hub
}

// NewSync makes the handlers. Filters are kept within the budget; m may be nil.
func NewSync(engine *msync.Engine, accounts *account.Reader, who *presence.Hub, b *cache.Budget, m *telemetry.Metrics) *Sync {
	return &Sync{engine, newFilters(accounts, b, m), who}
}

// Handlers gives the handlers by the names of their rows.
func (s *Sync) Handlers() httpx.Handlers {
	return httpx.Handlers{"sync": s.sync, "slidingSync": s.sliding}
}

func (s *Sync) sync(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	c := auth.Must(r.Context())
	q := msync.Request{User: c.UserID, Device: c.DeviceID, Since: p.Get("since")}
	if q.Timeout, err = p.Milliseconds("timeout", maxSyncTimeout); err != nil {
		return err
	}
	for name, flag := range map[string]*bool{
		"full_state": &q.FullState, "use_state_after": &q.StateAfter, "org.matrix.msc4222.use_state_after": &q.StateAfterUnstable,
	} {
		if *flag, err = p.Bool(name, false); err != nil {
			return err
		}
	}
	shown, ok := presence.Online, true
	if s := p.Get("set_presence"); s != "" {
		shown, ok = presence.Parse(s)
	}
	if !ok {
		return mxerr.New(mxerr.InvalidParam, "set_presence is none of offline, online and unavailable")
	}
	if q.Filter, err = s.filters.of(r.Context(), c.UserID, p.Get("filter")); err != nil {
		return err
	}
	ended := s.presence.Sync(r.Context(), string(c.UserID), string(c.DeviceID), shown)
	body, pending, err := s.engine.Begin(r.Context(), q, httpx.NewStream(w))
	if pending != nil {
		return httpx.Later(w, r, func(ctx context.Context) ([]byte, error) {
			defer ended()
			return pending.Wait(ctx)
		})
	}
	ended()
	if err == nil && body != nil { // else it is written
		httpx.WriteRaw(w, http.StatusOK, body)
	}
	return err
}
