-- name: ListDevicesOf :many
-- The devices of some users with their keys, if they have any.
SELECT u.user_id::text AS user_id, d.device_id, d.display_name, k.json
FROM (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id) u
JOIN device d ON d.shard = u.shard AND d.user_id = u.user_id
LEFT JOIN device_key k ON k.shard = d.shard AND k.user_id = d.user_id AND k.device_id = d.device_id
ORDER BY 1, 2;

-- name: ListCrossSigningOf :many
SELECT c.user_id, c.usage, c.json
FROM (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id) u
JOIN cross_signing_key c ON c.shard = u.shard AND c.user_id = u.user_id;

-- name: ListSignaturesBy :many
SELECT target, target_key, key_id, signature FROM key_signature WHERE shard = $1 AND user_id = $2 AND target = ANY(@targets::text[]);

-- name: ListSignedSince :many
-- Whose keys a user has signed after a position.
SELECT DISTINCT target FROM key_signature WHERE shard = $1 AND user_id = $2 AND pos > $3;

-- name: ListDeviceNames :many
SELECT user_id, device_id FROM device WHERE shard = $1 AND user_id = ANY(@users::text[]) ORDER BY 1, 2;

-- name: GetDeviceListPos :one
SELECT pos FROM device_list WHERE shard = $1 AND user_id = $2;

-- name: ListOneTimeKeys :many
SELECT o.algorithm, o.key_id, o.json, false AS spent FROM one_time_key o WHERE o.shard = $1 AND o.user_id = $2 AND o.device_id = $3
UNION ALL
SELECT s.algorithm, s.key_id, s.json, true FROM spent_key s WHERE s.shard = $1 AND s.user_id = $2 AND s.device_id = $3;

-- name: CountOneTimeKeys :many
SELECT u.user_id::text AS user_id, u.device_id::text AS device_id, k.algorithm, count(*) AS n
FROM (SELECT unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id) u
JOIN one_time_key k ON k.shard = @shard AND k.user_id = u.user_id AND k.device_id = u.device_id
GROUP BY 1, 2, 3;

-- name: ListFallbackKeys :many
SELECT f.user_id, f.device_id, f.algorithm, f.key_id, f.json, f.used
FROM (SELECT unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id) u
JOIN fallback_key f ON f.shard = @shard AND f.user_id = u.user_id AND f.device_id = u.device_id;

-- name: OldestOneTimeKeys :many
SELECT u.user_id::text AS user_id, u.device_id::text AS device_id, u.algorithm::text AS algorithm, k.key_id, k.json
FROM (SELECT unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id, unnest(@algorithm::text[]) AS algorithm) u
CROSS JOIN LATERAL (
    SELECT o.key_id, o.json FROM one_time_key o
    WHERE o.shard = @shard AND o.user_id = u.user_id AND o.device_id = u.device_id AND o.algorithm = u.algorithm
    ORDER BY o.pos, o.key_id LIMIT 1) k;

-- name: ListToDevice :many
SELECT pos, json FROM to_device WHERE shard = $1 AND user_id = $2 AND device_id = $3 AND pos > @above AND pos <= @upto ORDER BY pos LIMIT @most;

-- name: HasToDeviceUpTo :one
SELECT EXISTS (SELECT FROM to_device WHERE shard = $1 AND user_id = $2 AND device_id = $3 AND pos <= $4);

-- name: ToDeviceOverflow :many
-- For each of some devices, the position of the newest message that does not fit beside what came after it, if there is one.
SELECT u.user_id::text AS user_id, u.device_id::text AS device_id, o.pos
FROM (SELECT unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id) u
CROSS JOIN LATERAL (
    SELECT q.pos FROM (
        SELECT t.pos, row_number() OVER w AS n, sum(octet_length(t.json)) OVER w AS bytes FROM to_device t
        WHERE t.shard = @shard AND t.user_id = u.user_id AND t.device_id = u.device_id WINDOW w AS (ORDER BY t.pos DESC)
    ) q WHERE q.n > @keep::bigint OR q.bytes > @keep_bytes::bigint ORDER BY q.pos DESC LIMIT 1) o;

-- name: GetDehydrated :one
SELECT device_id, data FROM dehydrated_device WHERE shard = $1 AND user_id = $2;

-- name: GetBackupVersion :one
SELECT version, algorithm, auth_data, etag, count, deleted FROM backup_version WHERE shard = $1 AND user_id = $2 AND version = $3;

-- name: GetLatestBackupVersion :one
SELECT version, algorithm, auth_data, etag, count, deleted FROM backup_version
WHERE shard = $1 AND user_id = $2 AND (@also_deleted::boolean OR NOT deleted) ORDER BY version DESC LIMIT 1;

-- name: ListBackupKeys :many
-- So many keys after a room and session, in their order.
SELECT room_id, session_id, first_index, forwarded, verified, data FROM backup_key
WHERE shard = $1 AND user_id = $2 AND version = $3 AND (@room_id::text = '' OR room_id = @room_id::text)
  AND (@session_id::text = '' OR session_id = @session_id::text) AND (room_id, session_id) > (@after_room::text, @after_session::text)
ORDER BY room_id, session_id LIMIT @most;

-- name: CountBackupVersions :one
SELECT count(*) FROM backup_version WHERE shard = $1 AND user_id = $2 AND NOT deleted;

-- name: ListBackupKeysAmong :many
SELECT k.room_id, k.session_id, k.first_index, k.forwarded, k.verified, k.data
FROM (SELECT unnest(@room_id::text[]) AS room_id, unnest(@session_id::text[]) AS session_id) u
JOIN backup_key k ON k.shard = @shard AND k.user_id = @user_id AND k.version = @version AND k.room_id = u.room_id AND k.session_id = u.session_id;

-- name: CountBackupKeys :one
SELECT count(*) FROM (SELECT FROM backup_key
WHERE shard = $1 AND user_id = $2 AND version = $3 AND (@room_id::text = '' OR room_id = @room_id::text)
  AND (@session_id::text = '' OR session_id = @session_id::text) LIMIT @most) x;

-- name: RoomsOfUsers :many
-- Where some users are joined: for local users by their own index; for others among the rooms given.
SELECT m.user_id, m.room_nid FROM member m WHERE m.local AND m.user_id = ANY(@locals::text[]) AND m.membership = @joined
UNION ALL
SELECT m.user_id, m.room_nid FROM member m
WHERE m.room_nid = ANY(@rooms::bigint[]) AND m.user_id = ANY(@others::text[]) AND m.membership = @joined;

-- name: ListsChanged :many
-- Users whose device lists changed after the given positions of the shards, and who are joined to one of the rooms.
SELECT c.user_id, c.shard, c.pos FROM (SELECT unnest(@shards::smallint[]) AS shard, unnest(@above::bigint[]) AS above) s
JOIN device_list c ON c.shard = s.shard AND c.pos > s.above
WHERE EXISTS (SELECT FROM member m WHERE m.room_nid = ANY(@rooms::bigint[]) AND m.user_id = c.user_id AND m.membership = @joined);

-- name: MembersMoved :many
-- Who has come to or gone from rooms since the positions given for them.
SELECT m.user_id, m.room_nid, m.membership, m.pos FROM (SELECT unnest(@rooms::bigint[]) AS room_nid, unnest(@above::bigint[]) AS above) r
JOIN member m ON m.room_nid = r.room_nid AND m.pos > r.above;

-- name: MembersOf :many
SELECT DISTINCT m.user_id FROM member m WHERE m.room_nid = ANY(@rooms::bigint[]) AND m.membership = @joined;

-- name: AmongMembers :many
-- Which of some users are joined to one of the rooms.
SELECT u.user_id::text AS user_id FROM (SELECT unnest(@users::text[]) AS user_id) u
WHERE EXISTS (SELECT FROM member m WHERE m.room_nid = ANY(@rooms::bigint[]) AND m.user_id = u.user_id AND m.membership = @joined);
