-- What reports are settled against: docs/sql.md explains each column.

ALTER TABLE peers ADD COLUMN IF NOT EXISTS sessions bytea;

ALTER TABLE history ADD COLUMN IF NOT EXISTS seeded_floor bigint;

ALTER TABLE history ADD COLUMN IF NOT EXISTS seeded_from bigint;

ALTER TABLE history ADD COLUMN IF NOT EXISTS seeded_until bigint;
