-- Mika's own schema for MySQL and MariaDB. docs/sql.md explains each table and column.
-- An empty line ends a statement. Each may be repeated, because MySQL commits after every one.

CREATE TABLE IF NOT EXISTS users (
    id         INT UNSIGNED    NOT NULL AUTO_INCREMENT PRIMARY KEY,
    passkey    VARCHAR(64)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    username   VARCHAR(255)    NOT NULL,
    enabled    TINYINT         NOT NULL DEFAULT 1,
    can_leech  TINYINT         NOT NULL DEFAULT 1,
    uploaded   BIGINT UNSIGNED NOT NULL DEFAULT 0,
    downloaded BIGINT UNSIGNED NOT NULL DEFAULT 0,
    snatches   BIGINT UNSIGNED NOT NULL DEFAULT 0,
    announces  BIGINT UNSIGNED NOT NULL DEFAULT 0,
    seed_time  BIGINT UNSIGNED NOT NULL DEFAULT 0,
    UNIQUE KEY users_by_passkey (passkey),
    KEY users_by_name (username)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

CREATE TABLE IF NOT EXISTS torrents (
    id           INT UNSIGNED    NOT NULL AUTO_INCREMENT PRIMARY KEY,
    info_hash    BINARY(20)      NOT NULL,
    info_hash_v2 BINARY(20),
    release_name VARCHAR(1000)   NOT NULL DEFAULT '',
    enabled      TINYINT         NOT NULL DEFAULT 1,
    reason       VARCHAR(1000),
    multi_up     DECIMAL(7, 3)   NOT NULL DEFAULT 1,
    multi_dn     DECIMAL(7, 3)   NOT NULL DEFAULT 1,
    seeders      INT UNSIGNED    NOT NULL DEFAULT 0,
    leechers     INT UNSIGNED    NOT NULL DEFAULT 0,
    snatches     BIGINT UNSIGNED NOT NULL DEFAULT 0,
    announces    BIGINT UNSIGNED NOT NULL DEFAULT 0,
    uploaded     BIGINT UNSIGNED NOT NULL DEFAULT 0,
    downloaded   BIGINT UNSIGNED NOT NULL DEFAULT 0,
    UNIQUE KEY torrents_by_hash (info_hash),
    UNIQUE KEY torrents_by_second_hash (info_hash_v2)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

CREATE TABLE IF NOT EXISTS whitelist (
    peer_id VARCHAR(20)  CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
    vstring VARCHAR(255) NOT NULL DEFAULT ''
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

CREATE TABLE IF NOT EXISTS peers (
    user_id        INT UNSIGNED    NOT NULL,
    torrent_id     INT UNSIGNED    NOT NULL,
    peer_id        BINARY(20)      NOT NULL,
    base_up        BIGINT UNSIGNED NOT NULL,
    base_down      BIGINT UNSIGNED NOT NULL,
    base_at        BIGINT          NOT NULL,
    dip_up         BIGINT,
    dip_down       BIGINT,
    uploaded       BIGINT UNSIGNED NOT NULL,
    downloaded     BIGINT UNSIGNED NOT NULL,
    left_bytes     BIGINT UNSIGNED,
    ip4            VARCHAR(15)     CHARACTER SET ascii COLLATE ascii_bin,
    port4          SMALLINT UNSIGNED,
    ip6            VARCHAR(45)     CHARACTER SET ascii COLLATE ascii_bin,
    port6          SMALLINT UNSIGNED,
    speed_up       INT UNSIGNED    NOT NULL,
    speed_down     INT UNSIGNED    NOT NULL,
    seed_time      INT UNSIGNED    NOT NULL,
    announces      INT UNSIGNED    NOT NULL,
    first_announce BIGINT          NOT NULL,
    last_announce  BIGINT          NOT NULL,
    active         TINYINT         NOT NULL,
    paused         TINYINT         NOT NULL,
    completed_at   BIGINT,
    hnr            TINYINT         NOT NULL DEFAULT 0,
    -- What may be pruned: NULL while active, so that announces leave its index alone.
    inactive_since BIGINT,
    PRIMARY KEY (user_id, torrent_id, peer_id),
    KEY peers_by_torrent (torrent_id),
    KEY peers_inactive (inactive_since)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

CREATE TABLE IF NOT EXISTS history (
    torrent_id     INT UNSIGNED    NOT NULL,
    user_id        INT UNSIGNED    NOT NULL,
    uploaded       BIGINT UNSIGNED NOT NULL DEFAULT 0,
    downloaded     BIGINT UNSIGNED NOT NULL DEFAULT 0,
    seed_time      BIGINT UNSIGNED NOT NULL DEFAULT 0,
    announces      BIGINT UNSIGNED NOT NULL DEFAULT 0,
    completed_at   BIGINT,
    hnr            TINYINT         NOT NULL DEFAULT 0,
    first_announce BIGINT          NOT NULL DEFAULT 0,
    last_announce  BIGINT          NOT NULL DEFAULT 0,
    PRIMARY KEY (torrent_id, user_id),
    KEY history_by_user (user_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

CREATE TABLE IF NOT EXISTS mika_journal (
    node    VARCHAR(190) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
    applied BIGINT UNSIGNED NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- What changed in the registry, whoever changed it. The triggers look at the columns that the
-- tracker decides by: credit and counters leave the feed alone. They compare bytes, because
-- most collations take A for a.
CREATE TABLE IF NOT EXISTS mika_feed (
    seq      BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    kind     VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    `key`    BIGINT NOT NULL,
    noted_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

DROP TRIGGER IF EXISTS mika_users_insert;

CREATE TRIGGER mika_users_insert AFTER INSERT ON users FOR EACH ROW
    INSERT INTO mika_feed (kind, `key`) VALUES ('user', NEW.id);

DROP TRIGGER IF EXISTS mika_users_update;

CREATE TRIGGER mika_users_update AFTER UPDATE ON users FOR EACH ROW
BEGIN
    IF NOT (OLD.id <=> NEW.id) THEN
        INSERT INTO mika_feed (kind, `key`) VALUES ('user', OLD.id);
    END IF;
    IF NOT (OLD.id <=> NEW.id AND OLD.passkey <=> NEW.passkey
            AND CAST(OLD.username AS BINARY) <=> CAST(NEW.username AS BINARY)
            AND OLD.enabled <=> NEW.enabled AND OLD.can_leech <=> NEW.can_leech) THEN
        INSERT INTO mika_feed (kind, `key`) VALUES ('user', NEW.id);
    END IF;
END;

-- Peers go with their user or torrent; what was counted of them stays in history.
DROP TRIGGER IF EXISTS mika_users_delete;

CREATE TRIGGER mika_users_delete AFTER DELETE ON users FOR EACH ROW
BEGIN
    DELETE FROM peers WHERE user_id = OLD.id;
    INSERT INTO mika_feed (kind, `key`) VALUES ('user', OLD.id);
END;

DROP TRIGGER IF EXISTS mika_torrents_insert;

CREATE TRIGGER mika_torrents_insert AFTER INSERT ON torrents FOR EACH ROW
    INSERT INTO mika_feed (kind, `key`) VALUES ('torrent', NEW.id);

DROP TRIGGER IF EXISTS mika_torrents_update;

CREATE TRIGGER mika_torrents_update AFTER UPDATE ON torrents FOR EACH ROW
BEGIN
    IF NOT (OLD.id <=> NEW.id) THEN
        INSERT INTO mika_feed (kind, `key`) VALUES ('torrent', OLD.id);
    END IF;
    IF NOT (OLD.id <=> NEW.id AND OLD.info_hash <=> NEW.info_hash
            AND OLD.info_hash_v2 <=> NEW.info_hash_v2
            AND CAST(OLD.release_name AS BINARY) <=> CAST(NEW.release_name AS BINARY)
            AND OLD.enabled <=> NEW.enabled
            AND CAST(OLD.reason AS BINARY) <=> CAST(NEW.reason AS BINARY)
            AND OLD.multi_up <=> NEW.multi_up AND OLD.multi_dn <=> NEW.multi_dn) THEN
        INSERT INTO mika_feed (kind, `key`) VALUES ('torrent', NEW.id);
    END IF;
END;

DROP TRIGGER IF EXISTS mika_torrents_delete;

CREATE TRIGGER mika_torrents_delete AFTER DELETE ON torrents FOR EACH ROW
BEGIN
    DELETE FROM peers WHERE torrent_id = OLD.id;
    INSERT INTO mika_feed (kind, `key`) VALUES ('torrent', OLD.id);
END;

DROP TRIGGER IF EXISTS mika_whitelist_insert;

CREATE TRIGGER mika_whitelist_insert AFTER INSERT ON whitelist FOR EACH ROW
    INSERT INTO mika_feed (kind, `key`) VALUES ('whitelist', 0);

DROP TRIGGER IF EXISTS mika_whitelist_update;

CREATE TRIGGER mika_whitelist_update AFTER UPDATE ON whitelist FOR EACH ROW
    INSERT INTO mika_feed (kind, `key`) VALUES ('whitelist', 0);

DROP TRIGGER IF EXISTS mika_whitelist_delete;

CREATE TRIGGER mika_whitelist_delete AFTER DELETE ON whitelist FOR EACH ROW
    INSERT INTO mika_feed (kind, `key`) VALUES ('whitelist', 0);
