-- The readers.

-- name: GetRoom :one
SELECT nid, shard, room_id, version FROM room WHERE shard = @shard AND room_id = @room_id;

-- name: ListRooms :many
SELECT nid, shard, room_id, version FROM room WHERE nid = ANY(@nids::bigint[]) ORDER BY nid;

-- name: LoadRoom :one
-- A room and the event that was the last to take its place: what the room's writer goes on from.
SELECT r.nid, r.version, e.nid AS last_nid, e.event_id, e.depth, e.state_after, e.extremities, e.ord
FROM room r
CROSS JOIN LATERAL (
    SELECT v.nid, v.event_id, v.depth, v.state_after, v.extremities, v.ord
    FROM event v WHERE v.room_nid = r.nid AND v.ord IS NOT NULL
    ORDER BY v.ord DESC LIMIT 1) e
WHERE r.shard = @shard AND r.room_id = @room_id;

-- name: MaxNid :one
-- The largest nid that the tables of the writer hold, of any shard: each look-up is of one row.
SELECT greatest((SELECT max(nid) FROM atom), (SELECT max(nid) FROM room), (SELECT max(nid) FROM event),
                (SELECT max(nid) FROM state_snapshot), 0)::bigint;

-- name: AtomsByName :many
-- One look-up for each name, here and in EventsByID: of a room that has just come, or a database that is new, the planner expects so few rows
-- that it would read all of them each time.
SELECT a.nid, a.name FROM (SELECT DISTINCT unnest(@names::text[]) AS name) n
CROSS JOIN LATERAL (SELECT t.nid, t.name FROM atom t WHERE t.shard = @shard AND t.name = n.name LIMIT 1) a;

-- name: AtomsByNid :many
SELECT nid, name FROM atom WHERE nid = ANY(@nids::bigint[]);

-- name: EventsByNid :many
SELECT nid, room_nid, ord, event_id, type, state_key, sender, depth, ts, flags, state_before, state_after, extremities, prev,
       auth, replaces, redacted_by, relates_to, rel_type, sender_device, txn_id, counts, json, relation
FROM event WHERE nid = ANY(@nids::bigint[]);

-- name: EventsByID :many
SELECT e.* FROM (SELECT DISTINCT unnest(@event_ids::text[]) AS event_id) n
CROSS JOIN LATERAL (
    SELECT v.nid, v.room_nid, v.ord, v.event_id, v.type, v.state_key, v.sender, v.depth, v.ts, v.flags, v.state_before, v.state_after, v.extremities,
           v.prev, v.auth, v.replaces, v.redacted_by, v.relates_to, v.rel_type, v.sender_device, v.txn_id, v.counts, v.json, v.relation
    FROM event v WHERE v.room_nid = @room_nid AND v.event_id = n.event_id LIMIT 1) e;

-- name: EventsByIDAnywhere :many
SELECT nid, room_nid, ord, event_id, type, state_key, sender, depth, ts, flags, state_before, state_after, extremities, prev,
       auth, replaces, redacted_by, relates_to, rel_type, sender_device, txn_id, counts, json, relation
FROM event WHERE event_id = @event_id;

-- name: TimelineBackward :many
SELECT nid, room_nid, ord, event_id, type, state_key, sender, depth, ts, flags, state_before, state_after, extremities, prev,
       auth, replaces, redacted_by, relates_to, rel_type, sender_device, txn_id, counts, json, relation
FROM event WHERE room_nid = @room_nid AND ord < @below::bigint AND ord > @above::bigint
ORDER BY ord DESC LIMIT @count;

-- name: TimelineForward :many
SELECT nid, room_nid, ord, event_id, type, state_key, sender, depth, ts, flags, state_before, state_after, extremities, prev,
       auth, replaces, redacted_by, relates_to, rel_type, sender_device, txn_id, counts, json, relation
FROM event WHERE room_nid = @room_nid AND ord < @below::bigint AND ord > @above::bigint
ORDER BY ord LIMIT @count;

-- name: GetSnapshot :one
SELECT nid, step, entries, chain, delta FROM state_snapshot WHERE nid = @nid;

-- name: ListSnapshots :many
SELECT nid, step, entries, chain, delta FROM state_snapshot WHERE nid = ANY(@nids::bigint[]);

-- name: ListCurrentState :many
SELECT type, state_key, event_nid FROM current_state WHERE room_nid = @room_nid ORDER BY type, state_key;

-- name: CurrentStateEvents :many
-- The events at some entries of the current state, the entries given by their names. Whoever reads at the head of the log needs
-- no nid of them.
SELECT w.type::text AS type_name, w.state_key::text AS state_key_name, e.nid, e.event_id, e.redacted_by, e.json
FROM (SELECT unnest(@types::text[]) AS type, unnest(@state_keys::text[]) AS state_key) w
CROSS JOIN LATERAL (SELECT a.nid FROM atom a WHERE a.shard = @shard::smallint AND a.name = w.type LIMIT 1) t
CROSS JOIN LATERAL (SELECT a.nid FROM atom a WHERE a.shard = @shard::smallint AND a.name = w.state_key LIMIT 1) k
CROSS JOIN LATERAL (SELECT c.event_nid FROM current_state c WHERE c.room_nid = @room_nid AND c.type = t.nid AND c.state_key = k.nid LIMIT 1) c
CROSS JOIN LATERAL (SELECT e.nid, e.event_id, e.redacted_by, e.json FROM event e WHERE e.nid = c.event_nid LIMIT 1) e;

-- name: AllCurrentState :many
SELECT e.nid, e.event_id, e.redacted_by, e.json
FROM current_state c JOIN event e ON e.nid = c.event_nid
WHERE c.room_nid = @room_nid ORDER BY e.nid;

-- name: GetForkedState :one
SELECT snapshot FROM forked_state WHERE room_nid = @room_nid AND event_nid = @event_nid;

-- name: GetMember :one
SELECT room_nid, user_id, membership, event_nid, pos, local, forgotten FROM member WHERE room_nid = @room_nid AND user_id = @user_id;

-- name: ListMembers :many
SELECT room_nid, user_id, membership, event_nid, pos, local, forgotten FROM member WHERE room_nid = @room_nid ORDER BY user_id;

-- name: ListMembersWith :many
SELECT room_nid, user_id, membership, event_nid, pos, local, forgotten FROM member
WHERE room_nid = @room_nid AND membership = ANY(@memberships::smallint[]) ORDER BY user_id;

-- name: ListJoined :many
-- The events by which users are in a room.
SELECT e.json, e.redacted_by <> 0 AS redacted FROM member m JOIN event e ON e.nid = m.event_nid
WHERE m.room_nid = @room_nid AND m.membership = 4;

-- name: ListLocalMembers :many
SELECT user_id FROM member WHERE room_nid = @room_nid AND local AND membership = @membership ORDER BY user_id LIMIT @count;

-- name: ListErased :many
-- Those of some users of this server who were erased.
SELECT a.user_id
FROM (SELECT unnest(@shards::smallint[]) AS shard, unnest(@users::text[]) AS user_id) u
JOIN account a ON a.shard = u.shard AND a.user_id = u.user_id AND a.erased;

-- name: ListLocalMembersAfter :many
SELECT user_id FROM member
WHERE room_nid = @room_nid AND local AND membership = @membership AND user_id > @after ORDER BY user_id LIMIT @count;

-- name: IsHostJoined :one
SELECT EXISTS (SELECT FROM member WHERE substr(user_id, strpos(user_id, ':') + 1) = @host::text AND room_nid = @room_nid
    AND NOT local AND membership = 4);

-- name: ListMemberships :many
-- The rooms of a user of this server.
SELECT m.room_nid, m.membership, m.event_nid, m.pos, m.forgotten, r.room_id, r.version
FROM member m JOIN room r ON r.nid = m.room_nid
WHERE m.user_id = @user_id AND m.local ORDER BY m.room_nid;

-- name: IsJoined :one
SELECT EXISTS (
    SELECT 1 FROM room r JOIN member m ON m.room_nid = r.nid
    WHERE r.shard = @shard AND r.room_id = @room_id AND m.user_id = @user_id AND m.membership = 4);

-- name: ListAnnotationsBy :many
-- A user's annotations of an event, those that are not redacted.
SELECT nid, event_id, json FROM event
WHERE room_nid = @room_nid AND relates_to = @relates_to::text AND relation = 4 AND ord IS NOT NULL AND sender = @sender
  AND redacted_by = 0
LIMIT @count;

-- name: ListReceipts :many
SELECT user_id, kind, thread, event_id, event_ord, ts, pos FROM receipt
WHERE room_nid = @room_nid AND pos > @above::bigint ORDER BY pos;

-- name: ListReceiptsOfUser :many
SELECT user_id, kind, thread, event_id, event_ord, ts, pos FROM receipt
WHERE room_nid = @room_nid AND user_id = @user_id ORDER BY kind, thread;

-- name: GetAlias :one
SELECT alias, room_id, creator FROM alias WHERE shard = @shard AND alias = @alias;

-- name: ListAliases :many
SELECT alias, room_id, creator FROM alias WHERE room_id = @room_id ORDER BY alias;

-- name: IsPublished :one
SELECT EXISTS (SELECT 1 FROM published_room WHERE room_nid = @room_nid);

-- name: CountMembers :many
SELECT membership, count(*) AS n FROM member WHERE room_nid = @room_nid GROUP BY membership;

-- name: FirstMembers :many
-- Those who have been in a room for longest, of some memberships.
SELECT user_id FROM member WHERE room_nid = @room_nid AND membership = ANY(@memberships::smallint[]) ORDER BY pos, user_id LIMIT @count;

-- name: GetStripped :one
SELECT events FROM stripped_state WHERE room_nid = @room_nid AND user_id = @user_id;
