-- name: Ahead :many
-- Of the shards in which a consumer has entries of some kinds before it, the last of these: also before the consumer has a place.
SELECT s::smallint AS shard, x.pos FROM unnest(@shards::smallint[]) AS s
LEFT JOIN cursor c ON c.consumer = @consumer AND c.shard = s
CROSS JOIN LATERAL (
    SELECT l.pos FROM log l WHERE l.shard = s AND l.pos > coalesce(c.pos, 0) AND l.kind = ANY(@kinds::smallint[])
    ORDER BY l.pos DESC LIMIT 1) x;

-- name: Reached :one
SELECT (NOT EXISTS (
    SELECT 1 FROM (SELECT unnest(@shards::smallint[]) AS shard, unnest(@positions::bigint[]) AS pos) u
    LEFT JOIN cursor c ON c.consumer = @consumer AND c.shard = u.shard
    WHERE coalesce(c.pos, 0) < u.pos))::boolean AS reached;

-- name: AddEvents :exec
-- Leaves out what has been redacted since.
INSERT INTO search_event (event_nid, room_nid, ts, words)
SELECT e.nid, e.room_nid, e.ts, u.words
FROM (SELECT unnest(@nids::bigint[]) AS nid, unnest(@words::tsvector[]) AS words) u
JOIN event e ON e.nid = u.nid
WHERE e.redacted_by = 0 AND e.ord IS NOT NULL
ON CONFLICT (event_nid) DO NOTHING;

-- name: DropEvents :exec
DELETE FROM search_event WHERE event_nid IN (
    SELECT e.nid FROM (SELECT unnest(@rooms::bigint[]) AS room, unnest(@ids::text[]) AS id) u
    JOIN event e ON e.room_nid = u.room AND e.event_id = u.id WHERE e.redacted_by <> 0);

-- name: EncryptedRooms :many
SELECT c.room_nid FROM atom t JOIN current_state c ON c.type = t.nid
WHERE t.shard = ANY(@shards::smallint[]) AND t.name = 'm.room.encryption' AND c.room_nid = ANY(@rooms::bigint[]);

-- name: FindRecent :many
SELECT w.event_nid, w.room_nid, w.ts, ts_rank(w.words, (@terms::text)::tsquery)::real AS rank
FROM search_event w
WHERE w.words @@ (@query::text)::tsquery AND w.room_nid = ANY(@rooms::bigint[])
  AND (w.ts, w.event_nid) < (@ts::bigint, @nid::bigint)
ORDER BY w.ts DESC, w.event_nid DESC LIMIT @most;

-- name: FindRanked :many
-- Of very many, the latest are ranked.
SELECT f.event_nid, f.room_nid, f.ts, f.rank::real AS rank
FROM (SELECT w.event_nid, w.room_nid, w.ts, ts_rank(w.words, (@terms::text)::tsquery) AS rank
      FROM (SELECT * FROM search_event e
            WHERE e.words @@ (@query::text)::tsquery AND e.room_nid = ANY(@rooms::bigint[])
            ORDER BY e.ts DESC, e.event_nid DESC LIMIT @candidates) w) f
WHERE (f.rank, f.ts, f.event_nid) < (@rank::real, @ts::bigint, @nid::bigint)
ORDER BY f.rank DESC, f.ts DESC, f.event_nid DESC LIMIT @most;

-- name: CountFound :one
SELECT count(*) FROM (
    SELECT 1 FROM search_event w WHERE w.words @@ (@query::text)::tsquery AND w.room_nid = ANY(@rooms::bigint[]) LIMIT @most) f;

-- name: PutPerson :exec
INSERT INTO directory_person (shard, room_nid, user_id, display_name, avatar_url, words)
VALUES (@shard, @room_nid, @user_id, @display_name, @avatar_url, @words::tsvector)
ON CONFLICT (shard, room_nid, user_id)
DO UPDATE SET display_name = excluded.display_name, avatar_url = excluded.avatar_url, words = excluded.words;

-- name: PutPeople :exec
-- Several people of one room, each once.
INSERT INTO directory_person (shard, room_nid, user_id, display_name, avatar_url, words)
SELECT @shard::smallint, @room_nid::bigint, u.user_id, u.name, u.avatar, u.words
FROM (SELECT unnest(@user_ids::text[]) AS user_id, unnest(@names::text[]) AS name, unnest(@avatars::text[]) AS avatar,
             unnest(@words::tsvector[]) AS words) u
ON CONFLICT (shard, room_nid, user_id)
DO UPDATE SET display_name = excluded.display_name, avatar_url = excluded.avatar_url, words = excluded.words;

-- name: DropPerson :exec
DELETE FROM directory_person WHERE shard = @shard AND room_nid = @room_nid AND user_id = @user_id;

-- name: DropPeopleOf :exec
DELETE FROM directory_person WHERE shard = @shard AND room_nid = @room_nid AND room_nid <> 0;

-- name: CurrentMember :many
-- The member event of one who is in a room now.
SELECT e.json FROM member m JOIN event e ON e.nid = m.event_nid
WHERE m.room_nid = @room_nid AND m.user_id = @user_id AND m.membership = 4 AND NOT m.local AND e.redacted_by = 0;

-- name: RemoteMembers :many
SELECT m.user_id, e.json FROM member m JOIN event e ON e.nid = m.event_nid
WHERE m.room_nid = @room_nid AND m.membership = 4 AND NOT m.local AND m.user_id > @after::text
ORDER BY m.user_id LIMIT @most;

-- name: HasLocal :one
SELECT EXISTS (SELECT 1 FROM member m WHERE m.room_nid = @room_nid AND m.membership = 4 AND m.local)::boolean AS has;

-- name: HasPeople :one
SELECT EXISTS (SELECT 1 FROM directory_person p WHERE p.shard = @shard AND p.room_nid = @room_nid)::boolean AS has;

-- name: RoomRules :many
-- What says whether anybody may join or read a room.
SELECT t.name AS type, e.json FROM current_state c
JOIN atom t ON t.nid = c.type JOIN atom k ON k.nid = c.state_key JOIN event e ON e.nid = c.event_nid
WHERE c.room_nid = @room_nid AND c.type IN (
    SELECT nid FROM atom a WHERE a.shard = @shard AND a.name IN ('m.room.join_rules', 'm.room.history_visibility'))
  AND k.name = '' AND e.redacted_by = 0;

-- name: PutOpen :exec
INSERT INTO directory_open (room_nid) VALUES (@room_nid) ON CONFLICT DO NOTHING;

-- name: DropOpen :exec
DELETE FROM directory_open WHERE room_nid = @room_nid;

-- name: LocalProfile :many
-- The profile of an account that can be found; no row if there is none.
SELECT coalesce((SELECT p.value FROM profile p WHERE p.shard = a.shard AND p.user_id = a.user_id AND p.field = 'displayname'), 'null'::bytea)::bytea AS display_name,
       coalesce((SELECT p.value FROM profile p WHERE p.shard = a.shard AND p.user_id = a.user_id AND p.field = 'avatar_url'), 'null'::bytea)::bytea AS avatar_url
FROM account a WHERE a.shard = @shard AND a.user_id = @user_id AND NOT a.deactivated AND NOT a.erased;

-- name: FindPeople :many
-- Who is found must share a room with the asker, or be in an open one; of a user of another server, the names of such rooms count
-- only. The best name of each is told.
SELECT f.user_id, f.display_name, f.avatar_url FROM (
    SELECT DISTINCT ON (p.user_id) p.user_id, p.display_name, p.avatar_url,
           (lower(p.user_id) LIKE @exact::text)::int + ts_rank(p.words, (@terms::text)::tsquery) AS rank
    FROM directory_person p
    WHERE (p.words @@ (@terms::text)::tsquery OR @beginning::text <> '' AND lower(p.user_id) LIKE @beginning::text)
      AND p.user_id <> @asker::text
      AND CASE WHEN p.room_nid <> 0 THEN
              EXISTS (SELECT 1 FROM directory_open o WHERE o.room_nid = p.room_nid)
              OR EXISTS (SELECT 1 FROM member m WHERE m.room_nid = p.room_nid AND m.user_id = @asker::text AND m.membership = 4)
          ELSE
              EXISTS (SELECT 1 FROM member m JOIN directory_open o ON o.room_nid = m.room_nid
                      WHERE m.user_id = p.user_id AND m.local AND m.membership = 4)
              OR EXISTS (SELECT 1 FROM member m JOIN member t ON t.room_nid = m.room_nid AND t.user_id = p.user_id AND t.membership = 4
                         WHERE m.user_id = @asker::text AND m.local AND m.membership = 4)
          END
    ORDER BY p.user_id, rank DESC, p.display_name) f
ORDER BY f.rank DESC, (f.display_name <> '') DESC, f.user_id LIMIT @most;
