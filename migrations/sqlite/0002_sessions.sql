-- What reports are settled against: docs/sql.md explains each column.
ALTER TABLE peers ADD COLUMN sessions BLOB;
ALTER TABLE history ADD COLUMN seeded_floor INTEGER;
ALTER TABLE history ADD COLUMN seeded_from INTEGER;
ALTER TABLE history ADD COLUMN seeded_until INTEGER;
