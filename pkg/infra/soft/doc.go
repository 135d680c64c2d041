// Package soft keeps what may be lost: rate-limit buckets, presence,
// short-lived sessions, caches of remote keys. In Redis, where all workers see
// it, or in this process if there is one worker or no Redis.
//
// Guarantees: a value is gone after its time to live and may be gone sooner;
// no call takes longer than about twice Config.Timeout; when Redis is away,
// calls fail with ErrUnavailable at once after the first few, and Take and
// Increment go on, counted in this process alone, so that limits stay limits.
//
// Concurrency: a Store is safe for use by any number of goroutines.
//
// It is the only importer of go-redis. account, presence, api/auth, api/httpx,
// config and app may import it.
package soft
