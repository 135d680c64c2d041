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
