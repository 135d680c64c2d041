-- Which history of which database this is. The timeline is that of the log being written: that of the last checkpoint may
-- be older after a promotion.
SELECT (SELECT system_identifier FROM pg_control_system())::text,
       (SELECT oid FROM pg_database WHERE datname = current_database())::bigint,
       substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
