-- +goose Up

-- Each refresh token is exchanged for the next of its line, which begins with a login. One that was spent is not here any more; by its line and its
-- number, which it holds itself, signed, it is known as one of a session that lives. NULL in those from before.
ALTER TABLE refresh_token ADD COLUMN line bytea, ADD COLUMN n integer;
