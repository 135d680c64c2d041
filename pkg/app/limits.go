package app

import "github.com/heddle-im/heddle/pkg/api/auth"

// newLimiter makes the rate limits of this process's API, which all workers count together as long as there is a Redis.
func newLimiter(b *base) *auth.Limits {
	cfg := auth.DefaultLimits()
	cfg.Enabled = b.cfg.RateLimits.Enabled
	return auth.NewLimits(cfg, b.soft)
}
