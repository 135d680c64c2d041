-- name: Hosts :many
-- The other servers that have a user in the rooms, or had one after a position.
SELECT DISTINCT m.room_nid, substr(m.user_id, strpos(m.user_id, ':') + 1)::text AS host
FROM (SELECT unnest(@rooms::bigint[]) AS nid, unnest(@since::bigint[]) AS since) r
JOIN member m ON m.room_nid = r.nid AND NOT m.local AND (m.membership = 4 OR m.pos > r.since);

-- name: StillThere :many
-- Which of some servers have a user in a room, or had one after a position.
SELECT h.host::text AS host FROM (SELECT unnest(@hosts::text[]) AS host) h
WHERE EXISTS (SELECT FROM member m WHERE substr(m.user_id, strpos(m.user_id, ':') + 1) = h.host AND m.room_nid = @room_nid
        AND NOT m.local AND m.membership = 4)
   OR EXISTS (SELECT FROM member m WHERE substr(m.user_id, strpos(m.user_id, ':') + 1) = h.host AND m.pos > @since::bigint
        AND m.room_nid = @room_nid AND NOT m.local AND m.membership <> 4);

-- name: Creates :many
SELECT w.nid::bigint AS room_nid, e.json FROM (SELECT unnest(@rooms::bigint[]) AS nid) w
CROSS JOIN LATERAL (SELECT a.nid FROM atom a WHERE a.shard = (w.nid & 255)::smallint AND a.name = 'm.room.create' LIMIT 1) t
CROSS JOIN LATERAL (SELECT a.nid FROM atom a WHERE a.shard = (w.nid & 255)::smallint AND a.name = '' LIMIT 1) k
CROSS JOIN LATERAL (SELECT c.event_nid FROM current_state c WHERE c.room_nid = w.nid AND c.type = t.nid AND c.state_key = k.nid LIMIT 1) c
CROSS JOIN LATERAL (SELECT e.json FROM event e WHERE e.nid = c.event_nid LIMIT 1) e;

-- name: AllHosts :many
SELECT DISTINCT substr(user_id, strpos(user_id, ':') + 1)::text AS host FROM member WHERE NOT local;

-- name: RoomsOf :many
SELECT DISTINCT room_nid FROM member
WHERE substr(user_id, strpos(user_id, ':') + 1) = @host::text AND NOT local AND membership = 4;

-- name: Departures :many
-- How users of a server have gone from rooms after the positions of the rooms' shards, if this server made them go.
SELECT m.room_nid, m.pos, e.event_id, e.json FROM (SELECT unnest(@shards::smallint[]) AS shard, unnest(@above::bigint[]) AS above) s
JOIN member m ON substr(m.user_id, strpos(m.user_id, ':') + 1) = @host::text AND NOT m.local AND m.membership <> 4
    AND m.pos > s.above AND (m.room_nid & 255) = s.shard
JOIN event e ON e.nid = m.event_nid AND e.ord IS NOT NULL
JOIN atom a ON a.nid = e.sender AND substr(a.name, strpos(a.name, ':') + 1) = @server::text
ORDER BY m.pos LIMIT @most;

-- name: Latest :many
-- Of each room the latest event of this server, and the latest change of a membership, beyond a position. The latter may be one that another
-- server has left to this one to be told of.
SELECT x.room_nid, x.nid, x.ord, x.event_id, x.json, x.sender
FROM (SELECT unnest(@rooms::bigint[]) AS nid, unnest(@above::bigint[]) AS above) AS r
CROSS JOIN LATERAL (
    (SELECT e.room_nid, e.nid, e.ord, e.event_id, e.json, a.name AS sender FROM event e JOIN atom a ON a.nid = e.sender
     WHERE e.room_nid = r.nid AND e.ord > r.above AND e.flags & 7 = 0 AND substr(a.name, strpos(a.name, ':') + 1) = @server::text
     ORDER BY e.ord DESC LIMIT 1)
    UNION
    (SELECT e.room_nid, e.nid, e.ord, e.event_id, e.json, a.name AS sender FROM event e JOIN atom a ON a.nid = e.sender
     JOIN atom t ON t.nid = e.type AND t.name = 'm.room.member'
     WHERE e.room_nid = r.nid AND e.ord > r.above AND e.flags & 7 = 0 ORDER BY e.ord DESC LIMIT 1)
) x ORDER BY x.ord;

-- name: ListsChanged :many
-- The users of this server whose devices changed after the positions of their shards, and who share a room with a server.
SELECT d.user_id, d.pos FROM (SELECT unnest(@shards::smallint[]) AS shard, unnest(@above::bigint[]) AS above) s
JOIN device_list d ON d.shard = s.shard AND d.pos > s.above
WHERE substr(d.user_id, strpos(d.user_id, ':') + 1) = @server::text AND EXISTS (
    SELECT FROM member m JOIN member o ON o.room_nid = m.room_nid AND NOT o.local AND o.membership = 4
        AND substr(o.user_id, strpos(o.user_id, ':') + 1) = @host::text
    WHERE m.user_id = d.user_id AND m.local AND m.membership = 4)
ORDER BY d.user_id;

-- name: RoomsOfUser :many
SELECT room_nid FROM member WHERE user_id = $1 AND local AND membership = 4;

-- name: Behind :many
SELECT destination, shard, pos FROM fed_behind WHERE slot = $1;

-- name: SetBehind :exec
INSERT INTO fed_behind (slot, destination, shard, pos)
SELECT @slot::smallint, unnest(@destinations::text[]), unnest(@shards::smallint[]), unnest(@positions::bigint[])
ON CONFLICT (destination, shard) DO UPDATE SET pos = excluded.pos, slot = excluded.slot;

-- name: DropBehind :exec
DELETE FROM fed_behind b USING (SELECT unnest(@destinations::text[]) AS destination, unnest(@shards::smallint[]) AS shard) k
WHERE b.destination = k.destination AND b.shard = k.shard AND b.slot = @slot::smallint;

-- name: FenceSlot :many
SELECT slot FROM role_lease WHERE role = $1 AND slot = $2 AND epoch = $3 FOR SHARE;

-- name: SaveCursor :exec
UPDATE cursor SET pos = u.pos
FROM (SELECT unnest(@shards::smallint[]) AS shard, unnest(@positions::bigint[]) AS pos) u
WHERE cursor.consumer = @consumer AND cursor.shard = u.shard AND cursor.pos < u.pos;

-- name: EDUs :many
SELECT seq, type, content FROM fed_edu WHERE shard = $1 AND destination = $2 ORDER BY seq LIMIT $3;

-- name: EDUDestinations :many
SELECT DISTINCT destination FROM fed_edu WHERE shard = $1;

-- name: TrimEDUs :execrows
-- The oldest of what waits for a destination for which more waits than is kept.
DELETE FROM fed_edu e
USING (SELECT x.destination, x.seq
       FROM (SELECT w.destination, w.seq, row_number() OVER (PARTITION BY w.destination ORDER BY w.seq DESC) AS n
             FROM fed_edu w WHERE w.shard = @shard) x
       WHERE x.n > @keep::bigint LIMIT @most) old
WHERE e.shard = @shard AND e.destination = old.destination AND e.seq = old.seq;

-- name: DropEDUs :exec
DELETE FROM fed_edu WHERE shard = $1 AND destination = $2 AND seq = ANY(@seqs::bigint[]);

-- name: RoomsOfGuests :many
-- The rooms that users of another server are in.
SELECT m.user_id, m.room_nid FROM member m
WHERE substr(m.user_id, strpos(m.user_id, ':') + 1) = @host::text AND NOT m.local AND m.membership = 4 AND m.user_id = ANY(@users::text[])
ORDER BY m.user_id, m.room_nid;
