package soft

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

type redisBackend struct {
	c                     *redis.Client
	incrBy, compare, gcra *redis.Script
}

func newRedis(cfg Config) (*redisBackend, error) {
	o, err := redis.ParseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = cfg.Timeout, cfg.Timeout, cfg.Timeout, cfg.Timeout
	o.ContextTimeoutEnabled = true
	o.MaxRetries = -1 // one more try could take as long again
	o.DialerRetries = 1
	o.ClientName = "heddle"
	return &redisBackend{
		c: redis.NewClient(o), incrBy: redis.NewScript(incrementScript),
		compare: redis.NewScript(compareScript), gcra: redis.NewScript(gcraScript),
	}, nil
}

const incrementScript = `
local sum = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return sum`

const compareScript = `
local was = redis.call('GET', KEYS[1])
if ARGV[1] == '0' then
  if was then return 0 end
elseif was ~= ARGV[2] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return 1`

// gcraScript keeps one number: when the bucket will be full again, in
// microseconds of the server's clock, which all workers share. These stay below
// 2^53, so Lua's doubles hold them.
const gcraScript = `
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local interval, burst, n = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full = tonumber(redis.call('GET', KEYS[1])) or now
if full < now then full = now end
local new = full + n * interval
local earliest = new - burst * interval
if now < earliest then
  return {0, math.floor((now + burst * interval - full) / interval), earliest - now}
end
if new > now then
  redis.call('SET', KEYS[1], string.format('%.0f', new), 'PX', math.ceil((new - now) / 1000))
end
return {1, math.floor((now - earliest) / interval), 0}`

func (r *redisBackend) get(ctx context.Context, key string) ([]byte, bool, error) {
	b, err := r.c.Get(ctx, key).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, false, nil
	}
	return b, err == nil, err
}

func (r *redisBackend) set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return r.c.Set(ctx, key, value, ttl).Err()
}

func (r *redisBackend) delete(ctx context.Context, keys ...string) error {
	return r.c.Unlink(ctx, keys...).Err()
}

func (r *redisBackend) increment(ctx context.Context, key string, by int64, ttl time.Duration) (int64, error) {
	return r.incrBy.Run(ctx, r.c, []string{key}, by, ttl.Milliseconds()).Int64()
}

func (r *redisBackend) swap(ctx context.Context, key string, old, value []byte, ttl time.Duration) (bool, error) {
	present := "0"
	if old != nil {
		present = "1"
	}
	n, err := r.compare.Run(ctx, r.c, []string{key}, present, old, value, ttl.Milliseconds()).Int64()
	return n == 1, err
}

func (r *redisBackend) take(ctx context.Context, key string, interval time.Duration, burst, n int64) (Allowance, error) {
	v, err := r.gcra.Run(ctx, r.c, []string{key}, interval.Microseconds(), burst, n).Int64Slice()
	if err != nil {
		return Allowance{}, err
	}
	if len(v) != 3 {
		return Allowance{}, errors.New("unexpected answer of the rate limit script")
	}
	return Allowance{OK: v[0] == 1, Remaining: v[1], RetryAfter: time.Duration(v[2]) * time.Microsecond}, nil
}

func (r *redisBackend) ping(ctx context.Context) error { return r.c.Ping(ctx).Err() }

func (r *redisBackend) close() error { return r.c.Close() }
