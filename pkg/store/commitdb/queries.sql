-- Waits for the end of every transaction that holds the fence of one of the shards.
-- name: LockShards :exec
SELECT 1 FROM shard_lease WHERE shard = ANY(@shard::smallint[]) ORDER BY shard FOR UPDATE;
