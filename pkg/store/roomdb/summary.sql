-- Many rooms at once, as those see them who are not in them.

-- name: RoomsByID :many
SELECT r.nid, r.shard, r.room_id, r.version
FROM (SELECT unnest(@shards::smallint[]) AS shard, unnest(@room_ids::text[]) AS room_id) w
JOIN room r ON r.shard = w.shard AND r.room_id = w.room_id;

-- name: StateOfRooms :many
-- The events of some types, with an empty state key, of the current states of rooms.
-- Each is looked up by its whole key: the planner, who does not know how large the rooms are, may otherwise read all of their states.
WITH w AS MATERIALIZED (SELECT unnest(@room_nids::bigint[]) AS nid),
keys AS MATERIALIZED (
    SELECT s.shard, n.name, t.nid AS type, k.nid AS state_key FROM (SELECT DISTINCT (w.nid & 255)::smallint AS shard FROM w) s
    CROSS JOIN unnest(@types::text[]) n(name)
    CROSS JOIN LATERAL (SELECT a.nid FROM atom a WHERE a.shard = s.shard AND a.name = n.name LIMIT 1) t
    CROSS JOIN LATERAL (SELECT a.nid FROM atom a WHERE a.shard = s.shard AND a.name = '' LIMIT 1) k)
SELECT w.nid::bigint AS room_nid, x.name::text AS type_name, e.event_id, e.redacted_by, e.json
FROM w JOIN keys x ON x.shard = (w.nid & 255)::smallint
CROSS JOIN LATERAL (SELECT c.event_nid FROM current_state c WHERE c.room_nid = w.nid AND c.type = x.type AND c.state_key = x.state_key LIMIT 1) c
CROSS JOIN LATERAL (SELECT e.event_id, e.redacted_by, e.json FROM event e WHERE e.nid = c.event_nid LIMIT 1) e;

-- name: TypeOfRooms :many
-- All events of a type of the current states of rooms.
SELECT c.room_nid, e.event_id, e.redacted_by, e.json
FROM (SELECT unnest(@room_nids::bigint[]) AS nid) w
JOIN atom t ON t.shard = (w.nid & 255)::smallint AND t.name = @type
JOIN current_state c ON c.room_nid = w.nid AND c.type = t.nid
JOIN event e ON e.nid = c.event_nid;

-- name: CountJoined :many
-- How many are in rooms, and whether users of this server are among them.
SELECT room_nid, count(*) AS joined, bool_or(local)::boolean AS here FROM member
WHERE room_nid = ANY(@room_nids::bigint[]) AND membership = 4 GROUP BY room_nid;

-- name: MembershipsIn :many
SELECT room_nid, membership FROM member WHERE room_nid = ANY(@room_nids::bigint[]) AND user_id = @user_id;

-- name: ListPublishedDown :many
-- The directory, the largest rooms first, below a place.
SELECT s.nid, s.room_id, s.version, s.joined FROM (
    SELECT r.nid, r.room_id, r.version,
           (SELECT count(*) FROM member m WHERE m.room_nid = r.nid AND m.membership = 4)::bigint AS joined
    FROM published_room p JOIN room r ON r.nid = p.room_nid) s
WHERE (s.joined, s.nid) < (@joined::bigint, @nid::bigint)
ORDER BY s.joined DESC, s.nid DESC LIMIT @count;

-- name: ListPublishedUp :many
-- The directory above a place, the smallest rooms first.
SELECT s.nid, s.room_id, s.version, s.joined FROM (
    SELECT r.nid, r.room_id, r.version,
           (SELECT count(*) FROM member m WHERE m.room_nid = r.nid AND m.membership = 4)::bigint AS joined
    FROM published_room p JOIN room r ON r.nid = p.room_nid) s
WHERE (s.joined, s.nid) > (@joined::bigint, @nid::bigint)
ORDER BY s.joined, s.nid LIMIT @count;

-- name: CountPublished :one
SELECT count(*) FROM published_room;
