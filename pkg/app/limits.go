package app

import (
	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/infra/soft"
	"github.com/heddle-im/heddle/pkg/route"
)

// newLimiter makes the rate limits of this process's API, which all workers count together as long as there is a Redis.
func newLimiter(b *base) *auth.Limits { return auth.NewLimits(limitsOf(b.cfg.RateLimits), b.soft) }

// limitsOf gives the configured figures by class.
func limitsOf(c config.RateLimits) auth.LimitsConfig {
	return auth.LimitsConfig{Enabled: c.Enabled, Client: rates(map[route.RateClass]config.Rate{
		route.RateRead:       c.Read,
		route.RateSync:       c.Sync,
		route.RateSearch:     c.Search,
		route.RateWrite:      c.Write,
		route.RateMessage:    c.Message,
		route.RateEphemeral:  c.Ephemeral,
		route.RateToDevice:   c.ToDevice,
		route.RateJoin:       c.Join,
		route.RateInvite:     c.Invite,
		route.RateCreateRoom: c.CreateRoom,
		route.RateLogin:      c.Login,
		route.RateRegister:   c.Register,
		route.RateThreepid:   c.Threepid,
		route.RateUpload:     c.Upload,
		route.RateDownload:   c.Download,
		route.RateKeys:       c.Keys,
		route.RateAdmin:      c.Admin,
		route.RateFederation: c.Federation,
	}), Room: rates(map[route.RateClass]config.Rate{route.RateMessage: c.RoomMessage})}
}

// rates leaves out what has no limit.
func rates(of map[route.RateClass]config.Rate) auth.Rates {
	out := auth.Rates{}
	for class, r := range of {
		if r.Limited() {
			out[class] = soft.Rate{PerSecond: r.PerSecond(), Burst: r.Burst}
		}
	}
	return out
}
