-- name: Workers :many
SELECT instance, kind, address, version, protocol_min, protocol_max, roles, counter, status
FROM worker ORDER BY instance;

-- name: Forget :execrows
DELETE FROM worker WHERE instance = $1 AND counter = $2;

-- name: ClusterSecret :one
SELECT secret FROM cluster;

-- name: FoundCluster :exec
-- The first process of all writes what can never change; every later one finds it.
INSERT INTO cluster (server_name, shards, secret) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;

-- name: GetCluster :one
SELECT server_name, shards, feature_level, secret FROM cluster;

-- name: WorkersUp :many
-- For the operator: the register with the age of each start, by the database's clock.
SELECT instance, kind, address, version, protocol_min, protocol_max, roles, counter, status,
    extract(epoch FROM clock_timestamp() - started)::float8 AS up_seconds
FROM worker ORDER BY instance;

-- name: ServerState :one
SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS in_recovery,
    pg_database_size(current_database()) AS size_bytes,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('synchronous_standby_names') AS synchronous_standby_names;

-- name: ReadLevel :one
-- The cluster's feature level, and the lowest of what the workers in the register read: the level that it can be raised to.
SELECT feature_level AS cluster, coalesce((SELECT min(protocol_max) FROM worker), 0)::int AS readable FROM cluster;

-- name: LockLevel :exec
-- Who registers meanwhile waits, and finds the level raised; who was first is seen by the statement that follows.
SELECT FROM cluster FOR UPDATE;

-- name: RaiseLevel :one
UPDATE cluster SET feature_level = greatest(feature_level, (SELECT min(protocol_max) FROM worker)) RETURNING feature_level;
