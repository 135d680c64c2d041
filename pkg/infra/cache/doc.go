// Package cache bounds what a worker keeps in memory: one Budget in bytes, and
// caches and windows that are charged to it. There is no cache to tune.
//
// Guarantees: charged bytes stay within the budget's limit, but for what is
// inserted while an eviction runs; when the real heap grows beyond what was
// charged, the limit goes down until it does not. A Cache never returns a value
// that is older than the last Set or Delete of its key that was finished
// before the Get began, and loads a key once however many ask for it together.
//
// Concurrency: everything is safe for use by any number of goroutines. Evict
// functions are called without any lock of this package but the one that lets
// a single eviction run at a time.
//
// Any package of layer 3 and up, and infra, may import it.
package cache
