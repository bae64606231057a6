-- Schema mika-2015: a site's own torrents(id, info_hash, release_name), users(id, passkey, username)
-- and xbt_client_whitelist(peer_id, vstring) stay as they are; what else Mika keeps stands beside them.
-- An empty line ends a statement. Each may be repeated, because MySQL commits after every one.

-- A user or torrent without a row here has the defaults.
CREATE TABLE IF NOT EXISTS mika_users (
    id         INT UNSIGNED    NOT NULL PRIMARY KEY,
    enabled    TINYINT         NOT NULL DEFAULT 1,
    can_leech  TINYINT         NOT NULL DEFAULT 1,
    uploaded   BIGINT UNSIGNED NOT NULL DEFAULT 0,
    downloaded BIGINT UNSIGNED NOT NULL DEFAULT 0,
    snatches   BIGINT UNSIGNED NOT NULL DEFAULT 0,
    announces  BIGINT UNSIGNED NOT NULL DEFAULT 0,
    seed_time  BIGINT UNSIGNED NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

CREATE TABLE IF NOT EXISTS mika_torrents (
    id           INT UNSIGNED    NOT NULL PRIMARY KEY,
    info_hash_v2 BINARY(20),
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
    UNIQUE KEY mika_torrents_by_second_hash (info_hash_v2)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

CREATE TABLE IF NOT EXISTS mika_peers (
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

CREATE TABLE IF NOT EXISTS mika_history (
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
    IF NOT (OLD.id <=> NEW.id AND CAST(OLD.passkey AS BINARY) <=> CAST(NEW.passkey AS BINARY)
            AND CAST(OLD.username AS BINARY) <=> CAST(NEW.username AS BINARY)) THEN
        INSERT INTO mika_feed (kind, `key`) VALUES ('user', NEW.id);
    END IF;
END;

-- Peers go with their user or torrent; what was counted of them stays in history.
DROP TRIGGER IF EXISTS mika_users_delete;

CREATE TRIGGER mika_users_delete AFTER DELETE ON users FOR EACH ROW
BEGIN
    DELETE FROM mika_peers WHERE user_id = OLD.id;
    DELETE FROM mika_users WHERE id = OLD.id;
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
    IF NOT (OLD.id <=> NEW.id
            AND CAST(OLD.info_hash AS BINARY) <=> CAST(NEW.info_hash AS BINARY)
            AND CAST(OLD.release_name AS BINARY) <=> CAST(NEW.release_name AS BINARY)) THEN
        INSERT INTO mika_feed (kind, `key`) VALUES ('torrent', NEW.id);
    END IF;
END;

DROP TRIGGER IF EXISTS mika_torrents_delete;

CREATE TRIGGER mika_torrents_delete AFTER DELETE ON torrents FOR EACH ROW
BEGIN
    DELETE FROM mika_peers WHERE torrent_id = OLD.id;
    DELETE FROM mika_torrents WHERE id = OLD.id;
    INSERT INTO mika_feed (kind, `key`) VALUES ('torrent', OLD.id);
END;

DROP TRIGGER IF EXISTS mika_whitelist_insert;

CREATE TRIGGER mika_whitelist_insert AFTER INSERT ON xbt_client_whitelist FOR EACH ROW
    INSERT INTO mika_feed (kind, `key`) VALUES ('whitelist', 0);

DROP TRIGGER IF EXISTS mika_whitelist_update;

CREATE TRIGGER mika_whitelist_update AFTER UPDATE ON xbt_client_whitelist FOR EACH ROW
    INSERT INTO mika_feed (kind, `key`) VALUES ('whitelist', 0);

DROP TRIGGER IF EXISTS mika_whitelist_delete;

CREATE TRIGGER mika_whitelist_delete AFTER DELETE ON xbt_client_whitelist FOR EACH ROW
    INSERT INTO mika_feed (kind, `key`) VALUES ('whitelist', 0);

-- The rows beside those of the site. Their totals leave the feed alone.
DROP TRIGGER IF EXISTS mika_own_users_insert;

CREATE TRIGGER mika_own_users_insert AFTER INSERT ON mika_users FOR EACH ROW
BEGIN
    IF NOT (NEW.enabled <=> 1 AND NEW.can_leech <=> 1) THEN
        INSERT INTO mika_feed (kind, `key`) VALUES ('user', NEW.id);
    END IF;
END;

DROP TRIGGER IF EXISTS mika_own_users_update;

CREATE TRIGGER mika_own_users_update AFTER UPDATE ON mika_users FOR EACH ROW
BEGIN
    IF NOT (OLD.enabled <=> NEW.enabled AND OLD.can_leech <=> NEW.can_leech) THEN
        INSERT INTO mika_feed (kind, `key`) VALUES ('user', NEW.id);
    END IF;
END;

DROP TRIGGER IF EXISTS mika_own_users_delete;

CREATE TRIGGER mika_own_users_delete AFTER DELETE ON mika_users FOR EACH ROW
BEGIN
    IF NOT (OLD.enabled <=> 1 AND OLD.can_leech <=> 1) THEN
        INSERT INTO mika_feed (kind, `key`) VALUES ('user', OLD.id);
    END IF;
END;

DROP TRIGGER IF EXISTS mika_own_torrents_insert;

CREATE TRIGGER mika_own_torrents_insert AFTER INSERT ON mika_torrents FOR EACH ROW
BEGIN
    IF NOT (NEW.info_hash_v2 IS NULL AND NEW.enabled <=> 1 AND NEW.reason IS NULL
            AND NEW.multi_up <=> 1 AND NEW.multi_dn <=> 1) THEN
        INSERT INTO mika_feed (kind, `key`) VALUES ('torrent', NEW.id);
    END IF;
END;

DROP TRIGGER IF EXISTS mika_own_torrents_update;

CREATE TRIGGER mika_own_torrents_update AFTER UPDATE ON mika_torrents FOR EACH ROW
BEGIN
    IF NOT (OLD.info_hash_v2 <=> NEW.info_hash_v2 AND OLD.enabled <=> NEW.enabled
            AND CAST(OLD.reason AS BINARY) <=> CAST(NEW.reason AS BINARY)
            AND OLD.multi_up <=> NEW.multi_up AND OLD.multi_dn <=> NEW.multi_dn) THEN
        INSERT INTO mika_feed (kind, `key`) VALUES ('torrent', NEW.id);
    END IF;
END;

DROP TRIGGER IF EXISTS mika_own_torrents_delete;

CREATE TRIGGER mika_own_torrents_delete AFTER DELETE ON mika_torrents FOR EACH ROW
BEGIN
    IF NOT (OLD.info_hash_v2 IS NULL AND OLD.enabled <=> 1 AND OLD.reason IS NULL
            AND OLD.multi_up <=> 1 AND OLD.multi_dn <=> 1) THEN
        INSERT INTO mika_feed (kind, `key`) VALUES ('torrent', OLD.id);
    END IF;
END;
