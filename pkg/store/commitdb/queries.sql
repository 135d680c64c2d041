-- name: GetLease :one
SELECT epoch, holder, holder_pid, holder_started FROM shard_lease WHERE shard = $1;

-- The session that writes stands on the lease rows, so that a claimant can end it.
-- name: BindShards :exec
UPDATE shard_lease SET holder_pid = @pid, holder_started = @started
WHERE holder = @holder AND (holder_pid, holder_started) IS DISTINCT FROM (@pid, @started);

-- name: RaiseEpoch :one
UPDATE shard_lease SET epoch = epoch + 1, holder_pid = @pid, holder_started = @started
WHERE shard = @shard AND epoch = @epoch AND holder = @holder
RETURNING epoch;

-- Waits for the end of every transaction that holds the fence of one of the shards.
-- name: LockShards :exec
SELECT 1 FROM shard_lease WHERE shard = ANY(@shard::smallint[]) ORDER BY shard FOR UPDATE;
