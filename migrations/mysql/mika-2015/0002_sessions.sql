-- What reports are settled against: docs/sql.md explains each column.

ALTER TABLE mika_peers ADD COLUMN sessions VARBINARY(320);

ALTER TABLE mika_history ADD COLUMN seeded_floor BIGINT;

ALTER TABLE mika_history ADD COLUMN seeded_from BIGINT;

ALTER TABLE mika_history ADD COLUMN seeded_until BIGINT;
