-- What reports are settled against: docs/sql.md explains each column.

ALTER TABLE peers ADD COLUMN sessions VARBINARY(320);

ALTER TABLE history ADD COLUMN seeded_floor BIGINT;

ALTER TABLE history ADD COLUMN seeded_from BIGINT;

ALTER TABLE history ADD COLUMN seeded_until BIGINT;
