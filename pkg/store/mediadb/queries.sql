-- name: GetMedia :one
SELECT kind, coalesce(user_id, '')::text AS user_id, created, last_access, sha256, coalesce(blob, '')::text AS blob, coalesce(expires, 0)::bigint AS expires,
       size, content_type, file_name, open, coalesce(quarantined_by, '')::text AS quarantined_by, protected
FROM media WHERE shard = @shard AND origin = @origin AND media_id = @media_id;

-- name: InsertLoose :exec
INSERT INTO media_loose (shard, name, since) VALUES (@shard, @name, @since);

-- name: LoosenBlob :exec
INSERT INTO media_loose (shard, name, since) VALUES (@shard, @name, 0) ON CONFLICT (shard, name) DO UPDATE SET since = 0;

-- name: TakeLoose :execrows
-- What is being removed cannot be taken any more.
DELETE FROM media_loose WHERE shard = @shard AND name = @name AND since > 0;

-- name: HoldBlob :one
-- The row's lock keeps apart who takes hold of a content and who lets go of it.
INSERT INTO media_blob (shard, sha256, name, refs) VALUES (@shard, @sha256, @name, 1)
ON CONFLICT (shard, sha256) DO UPDATE SET refs = media_blob.refs + 1
RETURNING name;

-- name: DropBlob :one
UPDATE media_blob SET refs = refs - 1 WHERE shard = @shard AND sha256 = @sha256 RETURNING refs, name;

-- name: DeleteBlob :exec
DELETE FROM media_blob WHERE shard = @shard AND sha256 = @sha256;

-- name: LockBlob :one
SELECT name FROM media_blob WHERE shard = @shard AND sha256 = @sha256 FOR SHARE;

-- name: InsertMedia :execrows
-- What has the content of something that is quarantined is so too.
INSERT INTO media (shard, origin, media_id, kind, user_id, created, last_access, sha256, blob, size, content_type, file_name, open, quarantined_by)
SELECT @shard, @origin, @media_id, @kind, nullif(@user_id::text, ''), @created::bigint, @created::bigint, @sha256, @blob::text, @size, @content_type, @file_name, @open,
       (SELECT q.quarantined_by FROM media q WHERE q.sha256 = @sha256 AND q.quarantined_by IS NOT NULL LIMIT 1)
ON CONFLICT DO NOTHING;

-- name: CompleteMedia :execrows
UPDATE media SET sha256 = @sha256, blob = @blob::text, size = @size, content_type = @content_type, file_name = @file_name, open = @open, last_access = @now::bigint,
       quarantined_by = (SELECT q.quarantined_by FROM media q WHERE q.sha256 = @sha256 AND q.quarantined_by IS NOT NULL LIMIT 1)
WHERE media.shard = @shard AND media.origin = @origin AND media.media_id = @media_id AND media.sha256 IS NULL AND media.expires > @now::bigint;

-- name: LockUser :exec
-- Uploads that a user has announced are counted one after the other.
SELECT pg_advisory_xact_lock(hashtextextended(@user_id::text, 34));

-- name: InsertPending :execrows
INSERT INTO media (shard, origin, media_id, kind, user_id, created, last_access, expires, open)
SELECT @shard, @origin, @media_id, 0, @user_id::text, @now::bigint, @now::bigint, @expires::bigint, false
WHERE @most::bigint > (SELECT count(*) FROM media p WHERE p.user_id = @user_id::text AND p.sha256 IS NULL AND p.expires > @now::bigint);

-- name: NextExpiry :one
SELECT coalesce(min(expires), 0)::bigint FROM media WHERE user_id = @user_id::text AND sha256 IS NULL AND expires > @now::bigint;

-- name: UsedBy :one
SELECT coalesce(sum(size), 0)::bigint FROM media WHERE user_id = @user_id::text;

-- name: DeleteMedia :one
DELETE FROM media WHERE shard = @shard AND origin = @origin AND media_id = @media_id RETURNING sha256;

-- name: DeleteKept :one
-- Only if it was not used meanwhile.
DELETE FROM media WHERE shard = @shard AND origin = @origin AND media_id = @media_id AND kind > 0 AND last_access < @before::bigint RETURNING sha256;

-- name: ListKept :many
SELECT origin, media_id FROM media WHERE kind > 0 AND last_access < @before::bigint ORDER BY last_access LIMIT @most::int;

-- name: DeleteExpired :execrows
DELETE FROM media WHERE (shard, origin, media_id) IN (
    SELECT m.shard, m.origin, m.media_id FROM media m WHERE m.sha256 IS NULL AND m.expires < @before::bigint LIMIT @most::int)
AND sha256 IS NULL;

-- name: TouchMedia :exec
UPDATE media SET last_access = greatest(last_access, t.at)
FROM (SELECT unnest(@shards::smallint[]) AS shard, unnest(@origins::text[]) AS origin, unnest(@media_ids::text[]) AS media_id, unnest(@ats::bigint[]) AS at) t
WHERE media.shard = t.shard AND media.origin = t.origin AND media.media_id = t.media_id;

-- name: CondemnLoose :exec
UPDATE media_loose SET since = 0 WHERE since > 0 AND since < @before::bigint;

-- name: ListCondemned :many
SELECT shard, name FROM media_loose WHERE since = 0 LIMIT @most::int;

-- name: DeleteCondemned :exec
DELETE FROM media_loose WHERE shard = @shard AND name = @name AND since = 0;

-- name: ListThumbnails :many
SELECT width, height, crop, animated, content_type, size, name FROM media_thumbnail WHERE shard = @shard AND sha256 = @sha256;

-- name: InsertThumbnail :execrows
INSERT INTO media_thumbnail (shard, sha256, width, height, crop, animated, content_type, size, name)
VALUES (@shard, @sha256, @width, @height, @crop, @animated, @content_type, @size, @name)
ON CONFLICT DO NOTHING;

-- name: DeleteThumbnails :many
DELETE FROM media_thumbnail WHERE shard = @shard AND sha256 = @sha256 RETURNING name;

-- name: Quarantine :execrows
-- Everything with the same content, but for what is protected.
UPDATE media SET quarantined_by = nullif(@by::text, '')
WHERE ((media.shard = @shard AND media.origin = @origin AND media.media_id = @media_id)
    OR media.sha256 = (SELECT q.sha256 FROM media q WHERE q.shard = @shard AND q.origin = @origin AND q.media_id = @media_id))
  AND (NOT media.protected OR @by::text = '');

-- name: Protect :execrows
UPDATE media SET protected = @protected WHERE shard = @shard AND origin = @origin AND media_id = @media_id;

-- name: GetPreview :one
SELECT answer FROM url_preview WHERE shard = @shard AND url_hash = @url_hash AND expires > @now::bigint;

-- name: PutPreview :exec
INSERT INTO url_preview (shard, url_hash, fetched, expires, answer) VALUES (@shard, @url_hash, @fetched, @expires, @answer)
ON CONFLICT (shard, url_hash) DO UPDATE SET fetched = excluded.fetched, expires = excluded.expires, answer = excluded.answer;

-- name: DeletePreviews :execrows
DELETE FROM url_preview WHERE (shard, url_hash) IN (SELECT u.shard, u.url_hash FROM url_preview u WHERE u.expires < @before::bigint LIMIT @most::int);
