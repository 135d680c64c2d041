-- Children of events. Those that are redacted, that have no place in the room, or whose senders are to be left out are none.

-- name: CountChildren :many
-- The children of some events, by parent and relation. Those from ord @sure on, which the asker may see, are one group; those
-- before it are grouped by the state after them, by which what may be seen is decided.
SELECT e.relates_to::text AS parent, e.relation,
       (CASE WHEN e.ord >= @sure::bigint THEN 0 ELSE e.state_after END)::bigint AS state,
       count(*) AS children, max(e.ord)::bigint AS last, coalesce(bool_or(e.sender = (SELECT m.nid FROM atom m WHERE m.shard = @shard AND m.name = @asker)), false)::boolean AS own
FROM event e
WHERE e.room_nid = @room_nid AND e.relates_to = ANY(@parents::text[]) AND e.relation IN (1, 2, 3)
  AND e.ord IS NOT NULL AND e.ord <= @upto::bigint AND e.redacted_by = 0
  AND e.sender <> ALL(ARRAY(SELECT i.nid FROM atom i WHERE i.shard = @shard AND i.name = ANY(@without::text[])))
GROUP BY 1, 2, 3;

-- name: LatestReplacements :many
-- Of each parent the latest of the events that replace it.
SELECT e.* FROM event p CROSS JOIN LATERAL (
    SELECT c.* FROM event c
    WHERE c.room_nid = p.room_nid AND c.relates_to = p.event_id AND c.relation = 1 AND c.ord IS NOT NULL AND c.ord <= @upto::bigint
      AND c.redacted_by = 0 AND c.sender = p.sender AND c.type = p.type
      AND (c.ord >= @sure::bigint OR c.state_after = ANY(@states::bigint[]))
    ORDER BY c.ts DESC, c.event_id COLLATE "C" DESC LIMIT 1
) e
WHERE p.room_nid = @room_nid AND p.event_id = ANY(@parents::text[]) AND p.state_key IS NULL AND p.redacted_by = 0;

-- name: ListReferences :many
-- Of each parent the latest of the events that refer to it.
SELECT p.parent::text AS parent, e.event_id FROM (SELECT unnest(@parents::text[]) AS parent) p CROSS JOIN LATERAL (
    SELECT c.event_id, c.ord FROM event c
    WHERE c.room_nid = @room_nid AND c.relates_to = p.parent AND c.relation = 3 AND c.ord IS NOT NULL AND c.ord <= @upto::bigint
      AND c.redacted_by = 0 AND (c.ord >= @sure::bigint OR c.state_after = ANY(@states::bigint[]))
      AND c.sender <> ALL(ARRAY(SELECT i.nid FROM atom i WHERE i.shard = @shard AND i.name = ANY(@without::text[])))
    ORDER BY c.ord DESC LIMIT @count
) e ORDER BY e.ord;

-- name: EventsByOrd :many
SELECT nid, room_nid, ord, event_id, type, state_key, sender, depth, ts, flags, state_before, state_after, extremities, prev,
       auth, replaces, redacted_by, relates_to, rel_type, sender_device, txn_id, counts, json, relation
FROM event WHERE room_nid = @room_nid AND ord = ANY(@ords::bigint[]);

-- name: ChildrenBackward :many
-- An event's children of (above, below), the latest first; rel_type and type are atoms, 0 for any.
SELECT nid, room_nid, ord, event_id, type, state_key, sender, depth, ts, flags, state_before, state_after, extremities, prev,
       auth, replaces, redacted_by, relates_to, rel_type, sender_device, txn_id, counts, json, relation
FROM event
WHERE room_nid = @room_nid AND relates_to = @parent::text AND ord < @below::bigint AND ord > @above::bigint AND redacted_by = 0
  AND (@rel_type::bigint = 0 OR rel_type = @rel_type) AND (@type::bigint = 0 OR type = @type)
  AND (state_key IS NOT NULL OR sender <> ALL(@without::bigint[]))
ORDER BY ord DESC LIMIT @count;

-- name: ChildrenForward :many
SELECT nid, room_nid, ord, event_id, type, state_key, sender, depth, ts, flags, state_before, state_after, extremities, prev,
       auth, replaces, redacted_by, relates_to, rel_type, sender_device, txn_id, counts, json, relation
FROM event
WHERE room_nid = @room_nid AND relates_to = @parent::text AND ord < @below::bigint AND ord > @above::bigint AND redacted_by = 0
  AND (@rel_type::bigint = 0 OR rel_type = @rel_type) AND (@type::bigint = 0 OR type = @type)
  AND (state_key IS NOT NULL OR sender <> ALL(@without::bigint[]))
ORDER BY ord LIMIT @count;

-- name: Descendants :many
-- An event's children, their children and so on, @depth generations, each of which passes; as places in the room. At most
-- @most are looked at.
WITH RECURSIVE related AS (
    SELECT e.event_id, e.ord, 1 AS depth FROM event e
    WHERE e.room_nid = @room_nid AND e.relates_to = @parent::text AND e.ord IS NOT NULL AND e.redacted_by = 0
      AND (@rel_type::bigint = 0 OR e.rel_type = @rel_type) AND (@type::bigint = 0 OR e.type = @type)
      AND (e.state_key IS NOT NULL OR e.sender <> ALL(@without::bigint[]))
    UNION ALL
    SELECT e.event_id, e.ord, r.depth + 1 FROM related r JOIN event e ON e.room_nid = @room_nid AND e.relates_to = r.event_id
    WHERE r.depth < @depth::integer AND e.ord IS NOT NULL AND e.redacted_by = 0
      AND (@rel_type::bigint = 0 OR e.rel_type = @rel_type) AND (@type::bigint = 0 OR e.type = @type)
      AND (e.state_key IS NOT NULL OR e.sender <> ALL(@without::bigint[]))
), bounded AS (SELECT ord FROM related LIMIT @most)
SELECT DISTINCT ord::bigint AS ord FROM bounded WHERE ord < @below::bigint AND ord > @above::bigint;

-- name: ListThreads :many
-- Threads by their latest event, the latest first: each is found at the part whose taker was the last in it.
SELECT t.root, t.ord FROM thread_part t
WHERE t.room_nid = @room_nid AND t.ord < @below::bigint AND t.sender <> ALL(@without::bigint[])
  AND NOT EXISTS (
    SELECT 1 FROM thread_part o
    WHERE o.room_nid = t.room_nid AND o.root = t.root AND o.ord > t.ord AND o.sender <> ALL(@without::bigint[]))
  AND EXISTS (SELECT 1 FROM event r WHERE r.room_nid = t.room_nid AND r.event_id = t.root AND r.ord IS NOT NULL)
  AND (@participant::bigint = 0
    OR EXISTS (SELECT 1 FROM thread_part m WHERE m.room_nid = t.room_nid AND m.root = t.root AND m.sender = @participant)
    OR EXISTS (SELECT 1 FROM event r WHERE r.room_nid = t.room_nid AND r.event_id = t.root AND r.sender = @participant))
ORDER BY t.ord DESC LIMIT @count;

-- name: ListThreadsUntil :many
-- The same for one who may not see what came after @until: thread_part does not know what was the latest before it.
SELECT t.root::text AS root, t.ord::bigint AS ord FROM (
    SELECT e.relates_to AS root, max(e.ord) AS ord, bool_or(e.sender = @participant::bigint) AS own FROM event e
    WHERE e.room_nid = @room_nid AND e.relation = 2 AND e.ord <= @until::bigint AND e.redacted_by = 0
      AND e.relates_to IN (SELECT p.root FROM thread_part p WHERE p.room_nid = @room_nid)
      AND e.sender <> ALL(@without::bigint[])
    GROUP BY e.relates_to
) t
WHERE t.ord < @below::bigint AND EXISTS (SELECT 1 FROM event r WHERE r.room_nid = @room_nid AND r.event_id = t.root AND r.ord <= @until::bigint)
  AND (@participant::bigint = 0 OR t.own
    OR EXISTS (SELECT 1 FROM event r WHERE r.room_nid = @room_nid AND r.event_id = t.root AND r.sender = @participant))
ORDER BY t.ord DESC LIMIT @count;

-- name: ListRelated :many
-- Which of some events have children that pass; an empty list lets everything pass.
SELECT p.parent::text AS parent FROM (SELECT unnest(@parents::text[]) AS parent) p
WHERE EXISTS (
    SELECT 1 FROM event c
    WHERE c.room_nid = @room_nid AND c.relates_to = p.parent AND c.ord IS NOT NULL AND c.redacted_by = 0
      AND (cardinality(@rel_types::bigint[]) = 0 OR c.rel_type = ANY(@rel_types::bigint[]))
      AND (cardinality(@senders::bigint[]) = 0 OR c.sender = ANY(@senders::bigint[])));

-- name: SharedWith :many
-- The first room that a local user is, or was, in, and another one is in.
SELECT r.nid, r.room_id, r.version, a.membership
FROM member a JOIN member b ON b.room_nid = a.room_nid AND b.user_id = @other AND b.membership = 4
JOIN room r ON r.nid = a.room_nid
WHERE a.user_id = @user_id AND a.local
ORDER BY r.nid LIMIT 1;

-- name: MutualRooms :many
-- The rooms that a local user and another one are both in, by nid, after @above; total is the number of them all.
SELECT r.nid, r.room_id, m.total FROM (
    SELECT a.room_nid, count(*) OVER () AS total
    FROM member a JOIN member b ON b.room_nid = a.room_nid AND b.user_id = @other AND b.membership = 4
    WHERE a.user_id = @user_id AND a.local AND a.membership = 4
) m JOIN room r ON r.nid = m.room_nid
WHERE m.room_nid > @above::bigint
ORDER BY m.room_nid LIMIT @count;
