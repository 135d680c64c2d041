-- name: Workers :many
SELECT instance, kind, address, version, protocol_min, protocol_max, roles, counter, status
FROM worker ORDER BY instance;

-- name: Forget :execrows
DELETE FROM worker WHERE instance = $1 AND counter = $2;

-- name: ClusterSecret :one
SELECT secret FROM cluster;
