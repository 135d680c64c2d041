-- The multi-row writers. Each array holds one column; the arrays of a statement have the same length.

-- name: InsertAtoms :exec
INSERT INTO atom (nid, shard, name)
SELECT unnest(@nid::bigint[]), unnest(@shard::smallint[]), unnest(@name::text[])
ON CONFLICT (shard, name) DO NOTHING;

-- name: InsertRooms :exec
INSERT INTO room (nid, shard, room_id, version, pos)
SELECT unnest(@nid::bigint[]), unnest(@shard::smallint[]), unnest(@room_id::text[]), unnest(@version::text[]),
       unnest(@pos::bigint[]);

-- name: InsertEvents :exec
INSERT INTO event (nid, room_nid, ord, event_id, type, state_key, sender, depth, ts, flags, state_before, state_after,
                   extremities, prev, auth, replaces, redacted_by, relates_to, rel_type, sender_device, txn_id, counts, json, relation)
SELECT unnest(@nid::bigint[]), unnest(@room_nid::bigint[]), unnest(@ord::bigint[]), unnest(@event_id::text[]),
       unnest(@type::bigint[]), unnest(@state_key::bigint[]), unnest(@sender::bigint[]), unnest(@depth::bigint[]),
       unnest(@ts::bigint[]), unnest(@flags::smallint[]), unnest(@state_before::bigint[]), unnest(@state_after::bigint[]),
       unnest(@extremities::bytea[]), unnest(@prev::bytea[]), unnest(@auth::bytea[]), unnest(@replaces::bigint[]),
       unnest(@redacted_by::bigint[]), unnest(@relates_to::text[]), unnest(@rel_type::bigint[]),
       unnest(@sender_device::text[]), unnest(@txn_id::text[]), unnest(@counts::bytea[]), unnest(@json::bytea[]),
       unnest(@relation::smallint[]);

-- name: PlaceEvents :exec
UPDATE event SET ord = u.ord, flags = u.flags, state_before = u.state_before, state_after = u.state_after,
                 extremities = u.extremities, prev = u.prev
FROM (SELECT unnest(@nid::bigint[]) AS nid, unnest(@ord::bigint[]) AS ord, unnest(@flags::smallint[]) AS flags,
             unnest(@state_before::bigint[]) AS state_before, unnest(@state_after::bigint[]) AS state_after,
             unnest(@extremities::bytea[]) AS extremities, unnest(@prev::bytea[]) AS prev) u
WHERE event.nid = u.nid;

-- name: MarkRedacted :exec
UPDATE event SET redacted_by = u.redacted_by
FROM (SELECT unnest(@nid::bigint[]) AS nid, unnest(@redacted_by::bigint[]) AS redacted_by) u
WHERE event.nid = u.nid;

-- name: UpsertThreadParts :exec
INSERT INTO thread_part (room_nid, root, sender, ord)
SELECT unnest(@room_nid::bigint[]), unnest(@root::text[]), unnest(@sender::bigint[]), unnest(@ord::bigint[])
ON CONFLICT (room_nid, root, sender) DO UPDATE SET ord = greatest(thread_part.ord, excluded.ord);

-- name: RefreshThreadParts :exec
-- Puts right who takes part in the threads of events that have just been redacted.
WITH gone AS (
    SELECT DISTINCT room_nid, relates_to, sender FROM event WHERE nid = ANY(@nids::bigint[]) AND relation = 2
), last AS (
    SELECT g.room_nid, g.relates_to, g.sender, (
        SELECT max(e.ord) FROM event e
        WHERE e.room_nid = g.room_nid AND e.relates_to = g.relates_to AND e.relation = 2 AND e.ord IS NOT NULL
          AND e.sender = g.sender AND e.redacted_by = 0
    ) AS ord
    FROM gone g
), left_over AS (
    DELETE FROM thread_part t USING last l
    WHERE t.room_nid = l.room_nid AND t.root = l.relates_to AND t.sender = l.sender AND l.ord IS NULL
)
UPDATE thread_part t SET ord = l.ord FROM last l
WHERE t.room_nid = l.room_nid AND t.root = l.relates_to AND t.sender = l.sender AND l.ord IS NOT NULL;

-- name: UpsertForkedStates :exec
INSERT INTO forked_state (room_nid, event_nid, snapshot)
SELECT unnest(@room_nid::bigint[]), unnest(@event_nid::bigint[]), unnest(@snapshot::bigint[])
ON CONFLICT (room_nid, event_nid) DO UPDATE SET snapshot = excluded.snapshot;

-- name: InsertStateSnapshots :exec
INSERT INTO state_snapshot (nid, room_nid, step, entries, chain, delta)
SELECT unnest(@nid::bigint[]), unnest(@room_nid::bigint[]), unnest(@step::integer[]), unnest(@entries::integer[]),
       unnest(@chain::bytea[]), unnest(@delta::bytea[]);

-- name: UpsertCurrentState :exec
INSERT INTO current_state (room_nid, type, state_key, event_nid, pos)
SELECT unnest(@room_nid::bigint[]), unnest(@type::bigint[]), unnest(@state_key::bigint[]), unnest(@event_nid::bigint[]),
       unnest(@pos::bigint[])
ON CONFLICT (room_nid, type, state_key) DO UPDATE SET event_nid = excluded.event_nid, pos = excluded.pos;

-- name: DeleteCurrentState :exec
DELETE FROM current_state c
USING (SELECT unnest(@room_nid::bigint[]) AS room_nid, unnest(@type::bigint[]) AS type, unnest(@state_key::bigint[]) AS state_key) u
WHERE c.room_nid = u.room_nid AND c.type = u.type AND c.state_key = u.state_key;

-- name: UpsertMembers :exec
INSERT INTO member (room_nid, user_id, membership, event_nid, pos, local, push_class, push_offset, push_base)
SELECT unnest(@room_nid::bigint[]), unnest(@user_id::text[]), unnest(@membership::smallint[]), unnest(@event_nid::bigint[]),
       unnest(@pos::bigint[]), unnest(@local::boolean[]), unnest(@push_class::smallint[]), unnest(@push_offset::bigint[]),
       unnest(@push_base::bigint[])
ON CONFLICT (room_nid, user_id) DO UPDATE SET
    membership = excluded.membership, event_nid = excluded.event_nid, local = excluded.local, forgotten = false,
    -- a new profile is no change of membership: the position and the push counts stay
    pos = CASE WHEN member.membership = excluded.membership THEN member.pos ELSE excluded.pos END,
    push_class = CASE WHEN member.membership = excluded.membership THEN member.push_class ELSE excluded.push_class END,
    push_offset = CASE WHEN member.membership = excluded.membership THEN member.push_offset ELSE excluded.push_offset END,
    push_base = CASE WHEN member.membership = excluded.membership THEN member.push_base ELSE excluded.push_base END;

-- name: ForgetMembers :exec
UPDATE member SET forgotten = true
FROM (SELECT unnest(@room_nid::bigint[]) AS room_nid, unnest(@user_id::text[]) AS user_id) u
WHERE member.room_nid = u.room_nid AND member.user_id = u.user_id;

-- name: UpsertReceipts :exec
INSERT INTO receipt (room_nid, user_id, kind, thread, event_id, event_ord, ts, pos)
SELECT unnest(@room_nid::bigint[]), unnest(@user_id::text[]), unnest(@kind::text[]), unnest(@thread::text[]),
       unnest(@event_id::text[]), unnest(@event_ord::bigint[]), unnest(@ts::bigint[]), unnest(@pos::bigint[])
ON CONFLICT (room_nid, user_id, kind, thread) DO UPDATE SET
    event_id = excluded.event_id, event_ord = excluded.event_ord, ts = excluded.ts, pos = excluded.pos;

-- name: InsertAliases :exec
INSERT INTO alias (shard, alias, room_id, creator, pos)
SELECT unnest(@shard::smallint[]), unnest(@alias::text[]), unnest(@room_id::text[]), unnest(@creator::text[]),
       unnest(@pos::bigint[]);

-- name: MoveAliases :exec
UPDATE alias a SET room_id = u.room_id, pos = u.pos
FROM (SELECT unnest(@pos::bigint[]) AS pos, unnest(@shard::smallint[]) AS shard, unnest(@alias::text[]) AS alias,
             unnest(@old_room::text[]) AS old_room, unnest(@room_id::text[]) AS room_id) u
WHERE a.shard = u.shard AND a.alias = u.alias AND a.room_id = u.old_room;

-- name: DeleteAliases :exec
DELETE FROM alias a
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@alias::text[]) AS alias) u
WHERE a.shard = u.shard AND a.alias = u.alias;

-- name: UpsertPublishedRooms :exec
INSERT INTO published_room (room_nid, room_id, pos)
SELECT unnest(@room_nid::bigint[]), unnest(@room_id::text[]), unnest(@pos::bigint[])
ON CONFLICT (room_nid) DO UPDATE SET room_id = excluded.room_id, pos = excluded.pos;

-- name: DeletePublishedRooms :exec
DELETE FROM published_room WHERE room_nid = ANY(@room_nid::bigint[]);
