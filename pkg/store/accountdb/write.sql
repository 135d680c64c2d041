-- The multi-row writers. Each array holds one column; the arrays of a statement have the same length.

-- name: InsertAccounts :exec
INSERT INTO account (shard, user_id, password_hash, kind, admin, locked, suspended, deactivated, erased, reset_until, created, pos)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@password_hash::text[]), unnest(@kind::smallint[]),
       unnest(@admin::boolean[]), unnest(@locked::boolean[]), unnest(@suspended::boolean[]), unnest(@deactivated::boolean[]),
       unnest(@erased::boolean[]), unnest(@reset_until::bigint[]), unnest(@created::bigint[]), unnest(@pos::bigint[]);

-- name: UpsertAccounts :exec
INSERT INTO account (shard, user_id, password_hash, kind, admin, locked, suspended, deactivated, erased, reset_until, created, pos)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@password_hash::text[]), unnest(@kind::smallint[]),
       unnest(@admin::boolean[]), unnest(@locked::boolean[]), unnest(@suspended::boolean[]), unnest(@deactivated::boolean[]),
       unnest(@erased::boolean[]), unnest(@reset_until::bigint[]), unnest(@created::bigint[]), unnest(@pos::bigint[])
ON CONFLICT (shard, user_id) DO UPDATE SET
    password_hash = excluded.password_hash, kind = excluded.kind, admin = excluded.admin, locked = excluded.locked,
    suspended = excluded.suspended, deactivated = excluded.deactivated, erased = excluded.erased,
    reset_until = excluded.reset_until, pos = excluded.pos;

-- name: UpsertDevices :exec
INSERT INTO device (shard, user_id, device_id, display_name, last_seen, last_seen_ip, user_agent, created, pos)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@device_id::text[]), unnest(@display_name::text[]),
       unnest(@last_seen::bigint[]), unnest(@last_seen_ip::text[]), unnest(@user_agent::text[]), unnest(@created::bigint[]),
       unnest(@pos::bigint[])
ON CONFLICT (shard, user_id, device_id) DO UPDATE SET
    display_name = excluded.display_name, last_seen = greatest(device.last_seen, excluded.last_seen),
    last_seen_ip = CASE WHEN excluded.last_seen > device.last_seen THEN excluded.last_seen_ip ELSE device.last_seen_ip END,
    user_agent = CASE WHEN excluded.last_seen > device.last_seen THEN excluded.user_agent ELSE device.user_agent END,
    pos = excluded.pos;

-- name: InsertAccessTokens :exec
INSERT INTO access_token (shard, hash, user_id, device_id, expires, created, pos)
SELECT unnest(@shard::smallint[]), unnest(@hash::bytea[]), unnest(@user_id::text[]), unnest(@device_id::text[]),
       unnest(@expires::bigint[]), unnest(@created::bigint[]), unnest(@pos::bigint[]);

-- name: DeleteDeviceTokens :exec
DELETE FROM access_token t
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id) u
WHERE t.shard = u.shard AND t.user_id = u.user_id AND t.device_id = u.device_id;

-- name: DeleteDevices :exec
DELETE FROM device d
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id) u
WHERE d.shard = u.shard AND d.user_id = u.user_id AND d.device_id = u.device_id;

-- name: DeleteAccessTokens :exec
DELETE FROM access_token t
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@hash::bytea[]) AS hash) u
WHERE t.shard = u.shard AND t.hash = u.hash;

-- name: UpsertRegistrationTokens :exec
INSERT INTO registration_token (shard, token, uses_allowed, pending, completed, expires)
SELECT unnest(@shard::smallint[]), unnest(@token::text[]), unnest(@uses_allowed::integer[]), unnest(@pending::integer[]),
       unnest(@completed::integer[]), unnest(@expires::bigint[])
ON CONFLICT (shard, token) DO UPDATE SET
    uses_allowed = excluded.uses_allowed, pending = excluded.pending, completed = excluded.completed, expires = excluded.expires;

-- name: DeleteRegistrationTokens :exec
DELETE FROM registration_token r
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@token::text[]) AS token) u
WHERE r.shard = u.shard AND r.token = u.token;

-- name: UpsertProfiles :exec
INSERT INTO profile (shard, user_id, field, value, pos)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@field::text[]), unnest(@value::bytea[]), unnest(@pos::bigint[])
ON CONFLICT (shard, user_id, field) DO UPDATE SET value = excluded.value, pos = excluded.pos;

-- name: DeleteProfiles :exec
DELETE FROM profile p
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@field::text[]) AS field) u
WHERE p.shard = u.shard AND p.user_id = u.user_id AND p.field = u.field;

-- name: UpsertAccountData :exec
INSERT INTO account_data (shard, user_id, room_id, type, content, pos)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@room_id::text[]), unnest(@type::text[]),
       unnest(@content::bytea[]), unnest(@pos::bigint[])
ON CONFLICT (shard, user_id, room_id, type) DO UPDATE SET content = excluded.content, pos = excluded.pos;

-- name: InsertFilters :exec
INSERT INTO filter (shard, user_id, filter_id, json)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@filter_id::text[]), unnest(@json::bytea[])
ON CONFLICT (shard, user_id, filter_id) DO NOTHING;

-- name: UpsertRefreshTokens :exec
INSERT INTO refresh_token (shard, hash, user_id, device_id, access_hash, parent, expires, created, line, n)
SELECT unnest(@shard::smallint[]), unnest(@hash::bytea[]), unnest(@user_id::text[]), unnest(@device_id::text[]),
       unnest(@access_hash::bytea[]), unnest(@parent::bytea[]), unnest(@expires::bigint[]), unnest(@created::bigint[]),
       unnest(@line::bytea[]), unnest(@n::integer[])
ON CONFLICT (shard, hash) DO UPDATE SET parent = excluded.parent;

-- name: DeleteDeviceRefreshTokens :exec
DELETE FROM refresh_token t
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id) u
WHERE t.shard = u.shard AND t.user_id = u.user_id AND t.device_id = u.device_id;

-- name: DeleteRefreshTokens :exec
DELETE FROM refresh_token t
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@hash::bytea[]) AS hash) u
WHERE t.shard = u.shard AND t.hash = u.hash;

-- name: InsertLoginTokens :exec
INSERT INTO login_token (shard, hash, user_id, expires)
SELECT unnest(@shard::smallint[]), unnest(@hash::bytea[]), unnest(@user_id::text[]), unnest(@expires::bigint[]);

-- name: DeleteLoginTokens :exec
DELETE FROM login_token t
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@hash::bytea[]) AS hash) u
WHERE t.shard = u.shard AND t.hash = u.hash;

-- name: DeleteAccountDataOf :exec
DELETE FROM account_data d
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id) u
WHERE d.shard = u.shard AND d.user_id = u.user_id;

-- name: DeleteFiltersOf :exec
DELETE FROM filter f
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id) u
WHERE f.shard = u.shard AND f.user_id = u.user_id;

-- name: UpsertPushers :exec
INSERT INTO pusher (
    shard, user_id, app_id, pushkey, kind, app_display_name, device_display_name, profile_tag, lang, data, device_id, created, disabled)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@app_id::text[]), unnest(@pushkey::text[]), unnest(@kind::text[]),
       unnest(@app_display_name::text[]), unnest(@device_display_name::text[]), unnest(@profile_tag::text[]), unnest(@lang::text[]),
       unnest(@data::bytea[]), unnest(@device_id::text[]), unnest(@created::bigint[]), unnest(@disabled::boolean[])
ON CONFLICT (shard, user_id, app_id, pushkey) DO UPDATE SET
    kind = excluded.kind, app_display_name = excluded.app_display_name, device_display_name = excluded.device_display_name,
    profile_tag = excluded.profile_tag, lang = excluded.lang, data = excluded.data, device_id = excluded.device_id, created = excluded.created,
    disabled = excluded.disabled;

-- name: DeletePushers :exec
DELETE FROM pusher p
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@app_id::text[]) AS app_id,
              unnest(@pushkey::text[]) AS pushkey) u
WHERE p.shard = u.shard AND p.user_id = u.user_id AND p.app_id = u.app_id AND p.pushkey = u.pushkey;

-- name: DeleteDevicePushers :exec
DELETE FROM pusher p
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id) u
WHERE p.shard = u.shard AND p.user_id = u.user_id AND p.device_id = u.device_id;

-- name: DeleteDeviceKeys :exec
DELETE FROM device_key k
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id) u
WHERE k.shard = u.shard AND k.user_id = u.user_id AND k.device_id = u.device_id;

-- name: DeleteDeviceOneTimeKeys :exec
DELETE FROM one_time_key k
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id) u
WHERE k.shard = u.shard AND k.user_id = u.user_id AND k.device_id = u.device_id;

-- name: DeleteDeviceSpentKeys :exec
DELETE FROM spent_key k
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id) u
WHERE k.shard = u.shard AND k.user_id = u.user_id AND k.device_id = u.device_id;

-- name: DeleteDeviceFallbackKeys :exec
DELETE FROM fallback_key k
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id) u
WHERE k.shard = u.shard AND k.user_id = u.user_id AND k.device_id = u.device_id;

-- name: DeleteDeviceMessages :exec
DELETE FROM to_device t
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id) u
WHERE t.shard = u.shard AND t.user_id = u.user_id AND t.device_id = u.device_id;

-- name: DeleteDehydrated :exec
DELETE FROM dehydrated_device t
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id) u
WHERE t.shard = u.shard AND t.user_id = u.user_id AND t.device_id = u.device_id;

-- name: UpsertDeviceLists :exec
INSERT INTO device_list (shard, user_id, pos)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@pos::bigint[])
ON CONFLICT (shard, user_id) DO UPDATE SET pos = excluded.pos;

-- name: SeeDevices :exec
-- When and from where devices were last seen; not a change that anybody hears of.
UPDATE device d SET last_seen = u.seen, last_seen_ip = u.ip, user_agent = u.agent
FROM (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@device_id::text[]) AS device_id,
    unnest(@seen::bigint[]) AS seen, unnest(@ip::text[]) AS ip, unnest(@agent::text[]) AS agent) u
WHERE d.shard = u.shard AND d.user_id = u.user_id AND d.device_id = u.device_id AND d.last_seen < u.seen;

-- name: InsertReports :exec
INSERT INTO report (shard, reporter, room_id, event_id, user_id, reason, at)
SELECT unnest(@shard::smallint[]), unnest(@reporter::text[]), unnest(@room_id::text[]), unnest(@event_id::text[]),
       unnest(@user_id::text[]), unnest(@reason::text[]), unnest(@at::bigint[]);

-- name: UpsertThreepids :exec
INSERT INTO threepid (shard, user_id, medium, address, validated_at, added_at)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@medium::text[]), unnest(@address::text[]),
       unnest(@validated_at::bigint[]), unnest(@added_at::bigint[])
ON CONFLICT (shard, user_id, medium, address) DO UPDATE SET validated_at = excluded.validated_at;

-- name: DeleteThreepids :exec
DELETE FROM threepid t
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@medium::text[]) AS medium,
              unnest(@address::text[]) AS address) u
WHERE t.shard = u.shard AND t.user_id = u.user_id AND t.medium = u.medium AND t.address = u.address;

-- name: InsertThreepidBinds :exec
INSERT INTO threepid_bind (shard, user_id, medium, address, id_server)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@medium::text[]), unnest(@address::text[]), unnest(@id_server::text[])
ON CONFLICT DO NOTHING;

-- name: DeleteThreepidBinds :exec
DELETE FROM threepid_bind t
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id, unnest(@medium::text[]) AS medium,
              unnest(@address::text[]) AS address, unnest(@id_server::text[]) AS id_server) u
WHERE t.shard = u.shard AND t.user_id = u.user_id AND t.medium = u.medium AND t.address = u.address AND t.id_server = u.id_server;

-- name: InsertExternalLogins :exec
INSERT INTO external_login (shard, user_id, provider, subject, created)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@provider::text[]), unnest(@subject::text[]), unnest(@created::bigint[])
ON CONFLICT DO NOTHING;

-- name: InsertConsents :exec
INSERT INTO consent (shard, user_id, policy, version, at)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@policy::text[]), unnest(@version::text[]), unnest(@at::bigint[])
ON CONFLICT DO NOTHING;

-- name: DeleteThreepidsOf :exec
DELETE FROM threepid t
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id) u
WHERE t.shard = u.shard AND t.user_id = u.user_id;

-- name: DeleteThreepidBindsOf :exec
DELETE FROM threepid_bind t
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id) u
WHERE t.shard = u.shard AND t.user_id = u.user_id;

-- name: DeleteExternalLoginsOf :exec
DELETE FROM external_login t
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id) u
WHERE t.shard = u.shard AND t.user_id = u.user_id;

-- name: DeleteConsentsOf :exec
DELETE FROM consent t
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id) u
WHERE t.shard = u.shard AND t.user_id = u.user_id;

-- name: UpsertProofs :exec
INSERT INTO proof (shard, hash, kind, body, expires)
SELECT unnest(@shard::smallint[]), unnest(@hash::bytea[]), unnest(@kind::smallint[]), unnest(@body::bytea[]), unnest(@expires::bigint[])
ON CONFLICT (shard, hash) DO UPDATE SET kind = excluded.kind, body = excluded.body, expires = excluded.expires;

-- name: DeleteProofs :exec
DELETE FROM proof t
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@hash::bytea[]) AS hash) u
WHERE t.shard = u.shard AND t.hash = u.hash;

-- name: DeleteExpiredProofs :exec
-- Some that have ended go with each that comes, so that no more pile up than come.
DELETE FROM proof t
USING (SELECT e.shard, e.hash FROM proof e WHERE e.shard = @shard AND e.expires < @before ORDER BY e.expires LIMIT 10) u
WHERE t.shard = u.shard AND t.hash = u.hash;

-- name: DeleteExpiredLoginTokens :exec
DELETE FROM login_token t
USING (SELECT e.shard, e.hash FROM login_token e WHERE e.shard = @shard AND e.expires < @before ORDER BY e.expires LIMIT 10) u
WHERE t.shard = u.shard AND t.hash = u.hash;

-- name: UpsertThreadSubscriptions :exec
INSERT INTO thread_subscription (shard, user_id, room_id, root, subscribed, automatic, ended, pos)
SELECT unnest(@shard::smallint[]), unnest(@user_id::text[]), unnest(@room_id::text[]), unnest(@root::text[]),
       unnest(@subscribed::boolean[]), unnest(@automatic::boolean[]), unnest(@ended::bigint[]), unnest(@pos::bigint[])
ON CONFLICT (shard, user_id, room_id, root) DO UPDATE SET
    subscribed = excluded.subscribed, automatic = excluded.automatic, ended = excluded.ended, pos = excluded.pos;

-- name: DeleteThreadSubscriptionsOf :exec
DELETE FROM thread_subscription t
USING (SELECT unnest(@shard::smallint[]) AS shard, unnest(@user_id::text[]) AS user_id) u
WHERE t.shard = u.shard AND t.user_id = u.user_id;
