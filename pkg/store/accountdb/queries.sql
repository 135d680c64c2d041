-- name: GetAccount :one
SELECT user_id, password_hash, kind, admin, locked, suspended, deactivated, erased, reset_until, created
FROM account WHERE shard = $1 AND user_id = $2;

-- name: AccountExists :one
SELECT EXISTS (SELECT 1 FROM account WHERE shard = $1 AND user_id = $2);

-- name: GetSession :one
-- Whom an access token speaks for: the token, its account's standing, and whether its first use revokes what it came for.
SELECT t.user_id, t.device_id, t.expires, a.kind, a.admin, a.locked, a.suspended, a.deactivated,
       EXISTS (SELECT 1 FROM refresh_token r WHERE r.shard = t.shard AND r.user_id = t.user_id AND r.device_id = t.device_id
               AND r.access_hash = t.hash AND r.parent IS NOT NULL) AS unconfirmed
FROM access_token t JOIN account a ON a.shard = t.shard AND a.user_id = t.user_id
WHERE t.shard = $1 AND t.hash = $2;

-- name: ListTokenHashes :many
SELECT hash, device_id FROM access_token WHERE shard = $1 AND user_id = $2;

-- name: ListDevices :many
SELECT device_id, display_name, last_seen, last_seen_ip, user_agent, created
FROM device WHERE shard = $1 AND user_id = $2 ORDER BY device_id;

-- name: GetDevice :one
SELECT device_id, display_name, last_seen, last_seen_ip, user_agent, created
FROM device WHERE shard = $1 AND user_id = $2 AND device_id = $3;

-- name: GetRegistrationToken :one
SELECT token, uses_allowed, pending, completed, expires FROM registration_token WHERE shard = $1 AND token = $2;

-- name: GetProfile :many
SELECT field, value FROM profile WHERE shard = $1 AND user_id = $2 ORDER BY field;

-- name: GetProfileField :one
SELECT value FROM profile WHERE shard = $1 AND user_id = $2 AND field = $3;

-- name: GetAccountData :one
SELECT content FROM account_data WHERE shard = $1 AND user_id = $2 AND room_id = $3 AND type = $4;

-- name: ListAccountData :many
-- All account data of a user that changed after a position: global (room_id '') and by room. What was deleted has the content {}, and is
-- told as a change only.
SELECT room_id, type, content, pos FROM account_data
WHERE shard = $1 AND user_id = $2 AND pos > $3 AND ($3 > 0 OR content <> '{}') ORDER BY pos;

-- name: ListAccountDataOfRooms :many
-- All account data of a user that is of some rooms.
SELECT room_id, type, content, pos FROM account_data
WHERE shard = $1 AND user_id = $2 AND room_id = ANY(sqlc.arg(rooms)::text[]) ORDER BY pos;

-- name: GetFilter :one
SELECT json FROM filter WHERE shard = $1 AND user_id = $2 AND filter_id = $3;

-- name: GetRefreshToken :one
SELECT hash, user_id, device_id, access_hash, parent, expires, created, line, n FROM refresh_token WHERE shard = $1 AND hash = $2;

-- name: ListRefreshTokens :many
SELECT hash, user_id, device_id, access_hash, parent, expires, created, line, n
FROM refresh_token WHERE shard = $1 AND user_id = $2 AND device_id = $3;

-- name: ListRefreshLine :many
-- The tokens of a line that are good: one, or for a while more.
SELECT hash, user_id, device_id, access_hash, parent, expires, created, line, n
FROM refresh_token WHERE shard = $1 AND user_id = $2 AND line = $3;

-- name: GetLoginToken :one
SELECT user_id, expires FROM login_token WHERE shard = $1 AND hash = $2;

-- name: ListPushers :many
SELECT app_id, pushkey, kind, app_display_name, device_display_name, profile_tag, lang, data, device_id, created, disabled
FROM pusher WHERE shard = $1 AND user_id = $2 ORDER BY app_id, pushkey;

-- name: ListPusherOwners :many
-- The users who have a pusher of this key. It looks into all shards: few have the same, and it is asked when one is set.
SELECT user_id FROM pusher WHERE app_id = $1 AND pushkey = $2;

-- name: ListDataOf :many
-- The global account data of some types of many users.
SELECT a.user_id, a.type, a.content
FROM (SELECT unnest(@shards::smallint[]) AS shard, unnest(@users::text[]) AS user_id) u
JOIN account_data a ON a.shard = u.shard AND a.user_id = u.user_id AND a.room_id = '' AND a.type = ANY(@types::text[]);

-- name: ListProfileFields :many
-- Some fields of the profiles of many users.
SELECT p.user_id, p.field, p.value
FROM (SELECT unnest(@shards::smallint[]) AS shard, unnest(@users::text[]) AS user_id) u
JOIN profile p ON p.shard = u.shard AND p.user_id = u.user_id AND p.field = ANY(@fields::text[]);

-- name: ListOfKind :many
-- Those of some users whose accounts are of a kind.
SELECT a.user_id
FROM (SELECT unnest(@shards::smallint[]) AS shard, unnest(@users::text[]) AS user_id) u
JOIN account a ON a.shard = u.shard AND a.user_id = u.user_id AND a.kind = @kind AND NOT a.deactivated;

-- name: ListPusherUsers :many
-- Those of some users who have pushers that are not switched off.
SELECT DISTINCT p.user_id
FROM (SELECT unnest(@shards::smallint[]) AS shard, unnest(@users::text[]) AS user_id) u
JOIN pusher p ON p.shard = u.shard AND p.user_id = u.user_id AND NOT p.disabled;

-- name: ListPushersOf :many
-- The pushers of many users that are not switched off.
SELECT p.user_id, p.app_id, p.pushkey, p.kind, p.data, p.created
FROM (SELECT unnest(@shards::smallint[]) AS shard, unnest(@users::text[]) AS user_id) u
JOIN pusher p ON p.shard = u.shard AND p.user_id = u.user_id AND NOT p.disabled;

-- name: ListThreepids :many
SELECT medium, address, validated_at, added_at FROM threepid WHERE shard = $1 AND user_id = $2 ORDER BY medium, address;

-- name: GetThreepidOwner :one
-- Whose address it is. It looks into all shards, by an index.
SELECT user_id FROM threepid WHERE medium = $1 AND address = $2 ORDER BY added_at, user_id LIMIT 1;

-- name: ListThreepidBinds :many
SELECT medium, address, id_server FROM threepid_bind WHERE shard = $1 AND user_id = $2 ORDER BY medium, address, id_server;

-- name: GetExternalOwner :one
-- Who logs in as a subject of a provider. It looks into all shards, by an index.
SELECT user_id FROM external_login WHERE provider = $1 AND subject = $2 ORDER BY created, user_id LIMIT 1;

-- name: ListExternalLogins :many
SELECT provider, subject FROM external_login WHERE shard = $1 AND user_id = $2 ORDER BY provider, subject;

-- name: ListConsents :many
SELECT policy, version, at FROM consent WHERE shard = $1 AND user_id = $2 ORDER BY policy, version;

-- name: GetProof :one
SELECT kind, body, expires FROM proof WHERE shard = $1 AND hash = $2;

-- name: GetThreadSubscription :one
SELECT subscribed, automatic, ended FROM thread_subscription WHERE shard = $1 AND user_id = $2 AND room_id = $3 AND root = $4;

-- name: ListThreadSubscriptions :many
-- What became different of a user's subscriptions, the latest first. With only_held, those that are held alone.
SELECT room_id, root, subscribed, automatic, pos FROM thread_subscription
WHERE shard = @shard AND user_id = @user_id AND pos > @above AND pos <= @upto AND (subscribed OR NOT @only_held::boolean)
ORDER BY pos DESC, room_id, root LIMIT @count;
