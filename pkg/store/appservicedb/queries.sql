-- name: Register :exec
INSERT INTO appservice (id, seen) SELECT unnest(@ids::text[]), (extract(epoch FROM now()) * 1000)::bigint
ON CONFLICT (id) DO UPDATE SET seen = excluded.seen;

-- A new one begins where the log ends; and from then on the log is kept for it.
-- name: InitCursors :exec
INSERT INTO cursor (consumer, shard, pos)
SELECT c.name::text, u.shard, u.pos FROM (SELECT unnest(@consumers::text[]) AS name) c
CROSS JOIN (SELECT unnest(@shards::smallint[]) AS shard, unnest(@positions::bigint[]) AS pos) u
ON CONFLICT (consumer, shard) DO NOTHING;

-- name: Forget :many
DELETE FROM appservice WHERE NOT id = ANY(@ids::text[])
    AND seen < (extract(epoch FROM now()) * 1000)::bigint - @age::bigint RETURNING id;

-- name: DropCursors :exec
DELETE FROM cursor WHERE consumer = ANY(@consumers::text[]);

-- name: Load :one
SELECT txn, body FROM appservice WHERE id = $1;

-- name: LoadCursor :many
SELECT shard, pos FROM cursor WHERE consumer = $1;

-- name: FenceRole :many
SELECT slot FROM role_lease WHERE role = $1 AND slot = $2 AND epoch = $3 FOR SHARE;

-- name: Prepare :execrows
UPDATE appservice SET txn = @txn, body = @body WHERE id = @id AND txn = @before;

-- name: SaveCursor :exec
UPDATE cursor SET pos = u.pos
FROM (SELECT unnest(@shards::smallint[]) AS shard, unnest(@positions::bigint[]) AS pos) u
WHERE cursor.consumer = @consumer AND cursor.shard = u.shard AND cursor.pos < u.pos;

-- name: Taken :exec
UPDATE appservice SET body = NULL WHERE id = @id AND txn = @txn;

-- name: Members :many
-- The users of this server who are in rooms, and those whose membership has changed after a position: these with the event that says what it was
-- then, empty if there was none.
SELECT m.room_nid, m.user_id, (m.pos > r.since)::boolean AS changed, coalesce(CASE WHEN m.pos > r.since THEN (
    SELECT e.json FROM event e
    JOIN atom t ON t.shard = (m.room_nid & 255)::smallint AND t.name = 'm.room.member' AND t.nid = e.type
    JOIN atom k ON k.shard = (m.room_nid & 255)::smallint AND k.name = m.user_id AND k.nid = e.state_key
    WHERE e.room_nid = m.room_nid AND e.ord <= r.since AND e.flags & 4 = 0 ORDER BY e.ord DESC LIMIT 1) END, '')::bytea AS before
FROM (SELECT unnest(@rooms::bigint[]) AS nid, unnest(@since::bigint[]) AS since) r
JOIN member m ON m.room_nid = r.nid AND m.local AND (m.membership = 4 OR m.pos > r.since);

-- name: Aliases :many
SELECT room_id, alias FROM alias WHERE room_id = ANY(@rooms::text[]);

-- name: RoomIDs :many
SELECT nid, room_id FROM room WHERE nid = ANY(@rooms::bigint[]);

-- name: List :exec
INSERT INTO appservice_room (service, network, room_id, shard) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING;

-- name: Unlist :exec
DELETE FROM appservice_room WHERE service = $1 AND network = $2 AND room_id = $3;

-- name: Listed :many
SELECT DISTINCT r.nid, r.room_id, r.version, (EXISTS (SELECT FROM published_room p WHERE p.room_nid = r.nid))::boolean AS published
FROM appservice_room a JOIN room r ON r.shard = a.shard AND r.room_id = a.room_id
WHERE @every::boolean OR a.service = @service::text AND a.network = @network::text;

-- name: RoomsOf :many
-- The rooms that users are in, of this server or others.
SELECT x.user_id, r.nid, r.room_id FROM (
    SELECT m.user_id, m.room_nid FROM member m WHERE m.user_id = ANY(@users::text[]) AND m.local AND m.membership = 4
    UNION ALL
    SELECT m.user_id, m.room_nid FROM (SELECT unnest(@users::text[]) AS user_id) u
    JOIN member m ON substr(m.user_id, strpos(m.user_id, ':') + 1) = substr(u.user_id, strpos(u.user_id, ':') + 1)
        AND m.user_id = u.user_id AND NOT m.local AND m.membership = 4
) x JOIN room r ON r.nid = x.room_nid;
