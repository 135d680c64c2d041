-- name: Register :one
-- started names this start of the instance: it only grows, whatever the clock of the database does. Who does not read the cluster's
-- feature level gets no row; the lock has whoever raises it at the same time count us, or us see it raised.
WITH c AS (SELECT feature_level FROM cluster FOR SHARE)
INSERT INTO worker AS w (instance, kind, address, version, protocol_min, protocol_max, roles, status, started)
SELECT @instance, @kind, @address, @version, @protocol_min, @protocol_max, @roles, @status, clock_timestamp()
WHERE NOT EXISTS (SELECT FROM c WHERE feature_level > @protocol_max)
ON CONFLICT (instance) DO UPDATE SET
    kind = excluded.kind, address = excluded.address, version = excluded.version,
    protocol_min = excluded.protocol_min, protocol_max = excluded.protocol_max,
    roles = excluded.roles, status = excluded.status, counter = w.counter + 1,
    started = GREATEST(excluded.started, w.started + interval '1 microsecond')
RETURNING started;

-- name: Reregister :execrows
-- The row was removed although we live: the same start of the instance writes it again, unless a later one has.
WITH c AS (SELECT feature_level FROM cluster FOR SHARE)
INSERT INTO worker (instance, kind, address, version, protocol_min, protocol_max, roles, status, started)
SELECT @instance, @kind, @address, @version, @protocol_min, @protocol_max, @roles, @status, @started
WHERE NOT EXISTS (SELECT FROM c WHERE feature_level > @protocol_max)
ON CONFLICT (instance) DO NOTHING;

-- name: Renew :execrows
UPDATE worker SET counter = counter + 1 WHERE instance = $1 AND started = $2;

-- name: RenewWithStatus :execrows
UPDATE worker SET counter = counter + 1, status = $3 WHERE instance = $1 AND started = $2;

-- name: Withdraw :execrows
DELETE FROM worker WHERE instance = $1 AND started = $2;

-- name: Workers :many
SELECT instance, started, counter, roles,
    coalesce((status ->> 'draining')::boolean, false)::boolean AS draining,
    coalesce((status ->> 'nats')::boolean, true)::boolean AS nats
FROM worker ORDER BY instance;

-- name: Primary :one
SELECT pg_is_in_recovery() AS in_recovery, pg_backend_pid() AS pid;

-- name: Leases :many
SELECT 'writer'::text AS role, shard AS slot, epoch, holder, holder_pid, holder_started, address
FROM shard_lease WHERE 'writer' = ANY(@roles::text[])
UNION ALL
SELECT role, slot, epoch, holder, holder_pid, holder_started, address
FROM role_lease WHERE role = ANY(@roles::text[])
ORDER BY 1, 2;

-- name: AllLeases :many
-- For the operator.
SELECT 'writer'::text AS role, shard AS slot, epoch, holder, address FROM shard_lease
UNION ALL
SELECT role, slot, epoch, holder, address FROM role_lease
ORDER BY 1, 2;

-- name: EnsureShards :exec
INSERT INTO shard_lease (shard) SELECT generate_series(0, @last_slot::int) ON CONFLICT DO NOTHING;

-- name: EnsureRole :exec
INSERT INTO role_lease (role, slot) SELECT @role::text, generate_series(0, @last_slot::int) ON CONFLICT DO NOTHING;

-- name: ClaimShard :one
UPDATE shard_lease SET epoch = epoch + 1, holder = @holder, holder_pid = @pid, holder_started = @started, address = @address
WHERE shard = @slot AND epoch = @epoch
RETURNING epoch;

-- name: ClaimRole :one
UPDATE role_lease SET epoch = epoch + 1, holder = @holder, holder_pid = @pid, holder_started = @started, address = @address
WHERE role = @role AND slot = @slot AND epoch = @epoch
RETURNING epoch;

-- name: ReleaseShard :execrows
UPDATE shard_lease SET epoch = epoch + 1, holder = '', holder_pid = 0, holder_started = 'epoch', address = ''
WHERE shard = @slot AND epoch = @epoch AND holder = @holder;

-- name: ReleaseRole :execrows
UPDATE role_lease SET epoch = epoch + 1, holder = '', holder_pid = 0, holder_started = 'epoch', address = ''
WHERE role = @role AND slot = @slot AND epoch = @epoch AND holder = @holder;

-- name: BindShards :exec
UPDATE shard_lease SET holder_pid = @pid, holder_started = @started
WHERE holder = @holder AND (holder_pid, holder_started) IS DISTINCT FROM (@pid, @started);

-- name: RaiseShard :one
UPDATE shard_lease SET epoch = epoch + 1, holder_pid = @pid, holder_started = @started
WHERE shard = @slot AND epoch = @epoch AND holder = @holder
RETURNING epoch;

-- name: GetShardLease :one
SELECT epoch, holder, holder_pid, holder_started, address FROM shard_lease WHERE shard = $1;

-- name: GetRoleLease :one
SELECT epoch, holder, holder_pid, holder_started, address FROM role_lease WHERE role = $1 AND slot = $2;

-- name: FenceShards :many
SELECT l.shard FROM shard_lease l
WHERE (l.shard, l.epoch) IN (SELECT unnest(@shards::smallint[]), unnest(@epochs::bigint[]))
ORDER BY l.shard FOR SHARE OF l;

-- name: FenceRole :many
SELECT slot FROM role_lease WHERE role = $1 AND slot = $2 AND epoch = $3 FOR SHARE;
