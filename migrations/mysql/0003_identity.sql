-- Which database this is: docs/sql.md. The row is made once and stays.

CREATE TABLE IF NOT EXISTS mika_identity (
    one TINYINT     NOT NULL PRIMARY KEY,
    id  VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

INSERT IGNORE INTO mika_identity (one, id) VALUES (1, MD5(CONCAT(UUID(), RAND())));
