-- Many rooms at once, as those see them who are not in them.

-- name: RoomsByID :many
SELECT r.nid, r.shard, r.room_id, r.version
FROM (SELECT unnest(@shards::smallint[]) AS shard, unnest(@room_ids::text[]) AS room_id) w
JOIN room r ON r.shard = w.shard AND r.room_id = w.room_id;

-- name: StateOfRooms :many
-- The events of some types, with an empty state key, of the current states of rooms.
SELECT c.room_nid, t.name AS type_name, e.event_id, e.redacted_by, e.json
FROM (SELECT unnest(@room_nids::bigint[]) AS nid) w
JOIN atom k ON k.shard = (w.nid & 255)::smallint AND k.name = ''
JOIN atom t ON t.shard = (w.nid & 255)::smallint AND t.name = ANY(@types::text[])
JOIN current_state c ON c.room_nid = w.nid AND c.type = t.nid AND c.state_key = k.nid
JOIN event e ON e.nid = c.event_nid;

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
