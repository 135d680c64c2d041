-- The multi-row writers. Each array holds one column; the arrays of a statement have the same length.
-- What belongs to a device is written only while there is the device: it may have been removed since the row was prepared.

-- name: UpsertDeviceKeys :exec
INSERT INTO device_key (shard, user_id, device_id, json, pos)
SELECT u.* FROM (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id,
    unnest(@json::bytea[]) AS json, unnest(@pos::bigint[]) AS pos) u
WHERE EXISTS (SELECT FROM device d WHERE d.shard = u.shard AND d.user_id = u.user_id AND d.device_id = u.device_id)
ON CONFLICT (shard, user_id, device_id) DO UPDATE SET json = excluded.json, pos = excluded.pos;

-- name: InsertOneTimeKeys :exec
INSERT INTO one_time_key (shard, user_id, device_id, algorithm, key_id, json, pos)
SELECT u.* FROM (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id,
    unnest(@algorithm::text[]) AS algorithm, unnest(@key_id::text[]) AS key_id, unnest(@json::bytea[]) AS json, unnest(@pos::bigint[]) AS pos) u
WHERE EXISTS (SELECT FROM device d WHERE d.shard = u.shard AND d.user_id = u.user_id AND d.device_id = u.device_id);

-- name: SpendOneTimeKeys :exec
WITH spent AS (
    DELETE FROM one_time_key k
    USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id,
        unnest(@algorithm::text[]) AS algorithm, unnest(@key_id::text[]) AS key_id) u
    WHERE k.shard = u.shard AND k.user_id = u.user_id AND k.device_id = u.device_id AND k.algorithm = u.algorithm AND k.key_id = u.key_id
    RETURNING k.shard, k.user_id, k.device_id, k.algorithm, k.key_id, k.json)
INSERT INTO spent_key (shard, user_id, device_id, algorithm, key_id, json) SELECT shard, user_id, device_id, algorithm, key_id, json FROM spent
ON CONFLICT (shard, user_id, device_id, algorithm, key_id) DO UPDATE SET json = excluded.json;

-- name: DeleteSpentKeys :exec
DELETE FROM spent_key k
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id) u
WHERE k.shard = u.shard AND k.user_id = u.user_id AND k.device_id = u.device_id;

-- name: UpsertFallbackKeys :exec
INSERT INTO fallback_key (shard, user_id, device_id, algorithm, key_id, json, used)
SELECT u.* FROM (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id,
    unnest(@algorithm::text[]) AS algorithm, unnest(@key_id::text[]) AS key_id, unnest(@json::bytea[]) AS json, unnest(@used::boolean[]) AS used) u
WHERE EXISTS (SELECT FROM device d WHERE d.shard = u.shard AND d.user_id = u.user_id AND d.device_id = u.device_id)
ON CONFLICT (shard, user_id, device_id, algorithm) DO UPDATE SET key_id = excluded.key_id, json = excluded.json, used = excluded.used;

-- name: UpsertCrossSigningKeys :exec
INSERT INTO cross_signing_key (shard, user_id, usage, json, pos)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@usage::text[]), unnest(@json::bytea[]), unnest(@pos::bigint[])
ON CONFLICT (shard, user_id, usage) DO UPDATE SET json = excluded.json, pos = excluded.pos;

-- name: UpsertKeySignatures :exec
INSERT INTO key_signature (shard, user_id, target, target_key, key_id, signature, pos)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@target::text[]), unnest(@target_key::text[]), unnest(@key_id::text[]),
       unnest(@signature::text[]), unnest(@pos::bigint[])
ON CONFLICT (shard, user_id, target, target_key, key_id) DO UPDATE SET signature = excluded.signature, pos = excluded.pos;

-- name: InsertToDevice :exec
INSERT INTO to_device (shard, user_id, device_id, pos, json)
SELECT u.* FROM (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id,
    unnest(@pos::bigint[]) AS pos, unnest(@json::bytea[]) AS json) u
WHERE EXISTS (SELECT FROM device d WHERE d.shard = u.shard AND d.user_id = u.user_id AND d.device_id = u.device_id);

-- name: DeleteToDeviceUpTo :exec
DELETE FROM to_device t
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id,
    unnest(@pos::bigint[]) AS pos) u
WHERE t.shard = u.shard AND t.user_id = u.user_id AND t.device_id = u.device_id AND t.pos <= u.pos;

-- name: UpsertDehydrated :exec
INSERT INTO dehydrated_device (shard, user_id, device_id, data)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@device_id::text[]), unnest(@data::bytea[])
ON CONFLICT (shard, user_id) DO UPDATE SET device_id = excluded.device_id, data = excluded.data;

-- name: UpsertBackupVersions :exec
INSERT INTO backup_version (shard, user_id, version, algorithm, auth_data, etag, count, deleted)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@version::bigint[]), unnest(@algorithm::text[]),
       unnest(@auth_data::bytea[]), unnest(@etag::bigint[]), unnest(@count::bigint[]), unnest(@deleted::boolean[])
ON CONFLICT (shard, user_id, version) DO UPDATE SET
    auth_data = excluded.auth_data, etag = excluded.etag, count = excluded.count, deleted = excluded.deleted;

-- name: UpsertBackupKeys :exec
INSERT INTO backup_key (shard, user_id, version, room_id, session_id, first_index, forwarded, verified, data)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@version::bigint[]), unnest(@room_id::text[]), unnest(@session_id::text[]),
       unnest(@first_index::bigint[]), unnest(@forwarded::bigint[]), unnest(@verified::boolean[]), unnest(@data::bytea[])
ON CONFLICT (shard, user_id, version, room_id, session_id) DO UPDATE SET
    first_index = excluded.first_index, forwarded = excluded.forwarded, verified = excluded.verified, data = excluded.data;

-- name: DeleteBackupKeys :exec
-- At most so many of them; an empty room or session stands for all.
DELETE FROM backup_key WHERE ctid = ANY(ARRAY(
    SELECT b.ctid FROM backup_key b
    WHERE b.shard = @shard AND b.user_id = @user_id AND b.version = @version
      AND (@room_id::text = '' OR b.room_id = @room_id::text) AND (@session_id::text = '' OR b.session_id = @session_id::text)
    LIMIT @most::int));
