-- What lists of a user's rooms ask.

-- name: ActivityOfRooms :many
-- When something last happened in rooms, and when last something that moves a room up in a list. The latter is looked for among the
-- latest events only: a room may have any number of others after it. Of the latest few the latest time counts that is not ahead, as the last of
-- them may come late, or from a clock that is wrong.
WITH w AS MATERIALIZED (SELECT unnest(@room_nids::bigint[]) AS nid),
types AS MATERIALIZED (
    SELECT s.shard, ARRAY(SELECT a.nid FROM unnest(@types::text[]) n(name)
        CROSS JOIN LATERAL (SELECT a.nid FROM atom a WHERE a.shard = s.shard AND a.name = n.name LIMIT 1) a) AS nids
    FROM (SELECT DISTINCT (w.nid & 255)::smallint AS shard FROM w) s)
SELECT w.nid::bigint AS room_nid, l.ts::bigint AS last_ts, coalesce(b.ts, 0)::bigint AS bump_ts
FROM w JOIN types t ON t.shard = (w.nid & 255)::smallint
CROSS JOIN LATERAL (
    SELECT coalesce(max(x.ts) FILTER (WHERE x.ts <= @now_ts::bigint), min(x.ts)) AS ts FROM (
        SELECT e.ts FROM event e WHERE e.room_nid = w.nid AND e.ord IS NOT NULL ORDER BY e.ord DESC LIMIT 5) x) l
LEFT JOIN LATERAL (
    SELECT coalesce(max(y.ts) FILTER (WHERE y.ts <= @now_ts::bigint), min(y.ts)) AS ts FROM (SELECT x.ts FROM (
        SELECT e.ts, e.type FROM event e WHERE e.room_nid = w.nid AND e.ord IS NOT NULL ORDER BY e.ord DESC LIMIT 200) x
    WHERE x.type = ANY(t.nids) LIMIT 5) y) b ON true
WHERE l.ts IS NOT NULL;

-- name: ListReceiptsAt :many
-- A room's receipts at some events, and all of one user.
SELECT user_id, kind, thread, event_id, event_ord, ts, pos FROM receipt
WHERE room_nid = @room_nid AND (user_id = @user_id OR event_id = ANY(@event_ids::text[])) ORDER BY pos;
