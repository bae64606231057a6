-- Schema batter: what Mika keeps of the users and torrents of a site whose own tables stay as they are. The tables of
-- migrations/postgres follow under the names mika_peers and mika_history, and so do the triggers that the head of
-- the schema's file names. An empty line ends a statement.

-- A user without a row here has the defaults.
CREATE TABLE IF NOT EXISTS mika_users (
    id         bigint  NOT NULL PRIMARY KEY,
    can_leech  boolean NOT NULL DEFAULT true,
    uploaded   bigint  NOT NULL DEFAULT 0,
    downloaded bigint  NOT NULL DEFAULT 0,
    snatches   bigint  NOT NULL DEFAULT 0,
    announces  bigint  NOT NULL DEFAULT 0,
    seed_time  bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 80);

-- The info hash is NULL until it is rebuilt from the site's row.
CREATE TABLE IF NOT EXISTS mika_torrents (
    id            bigint        NOT NULL PRIMARY KEY,
    info_hash     bytea,
    info_hash_v2  bytea,
    hash_by_hand  boolean       NOT NULL DEFAULT false,
    -- The uploaded file had fields that are not in the site's own download.
    hash_is_lossy boolean       NOT NULL DEFAULT false,
    -- In place of the site's name.
    release_name  text,
    enabled       boolean       NOT NULL DEFAULT true,
    reason        text,
    multi_up      numeric(7, 3) NOT NULL DEFAULT 1,
    multi_dn      numeric(7, 3) NOT NULL DEFAULT 1,
    seeders       bigint        NOT NULL DEFAULT 0,
    leechers      bigint        NOT NULL DEFAULT 0,
    snatches      bigint        NOT NULL DEFAULT 0,
    announces     bigint        NOT NULL DEFAULT 0,
    uploaded      bigint        NOT NULL DEFAULT 0,
    downloaded    bigint        NOT NULL DEFAULT 0
) WITH (fillfactor = 80);

-- Not unique: the site's rows need not be, and a second one with the same hash is reported.
CREATE INDEX IF NOT EXISTS mika_torrents_by_hash ON mika_torrents (info_hash);

CREATE INDEX IF NOT EXISTS mika_torrents_by_second_hash ON mika_torrents (info_hash_v2);

CREATE TABLE IF NOT EXISTS mika_whitelist (
    peer_id text COLLATE "C" NOT NULL PRIMARY KEY,
    vstring text NOT NULL DEFAULT ''
);

-- Rows go with those of the site.
CREATE OR REPLACE FUNCTION mika_user_gone() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM mika_users WHERE id = OLD.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER mika_user_gone AFTER DELETE ON auth_user FOR EACH ROW
EXECUTE FUNCTION mika_user_gone();

CREATE OR REPLACE FUNCTION mika_torrent_gone() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM mika_torrents WHERE id = OLD.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER mika_torrent_gone AFTER DELETE ON torrents_torrent FOR EACH ROW
EXECUTE FUNCTION mika_torrent_gone();

-- The info hash of a changed row is rebuilt, unless it was set by hand.
CREATE OR REPLACE FUNCTION mika_hash_outdated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    IF OLD.piece_length IS DISTINCT FROM NEW.piece_length
        OR OLD.pieces IS DISTINCT FROM NEW.pieces
        OR OLD.is_private IS DISTINCT FROM NEW.is_private
        OR OLD.name IS DISTINCT FROM NEW.name
        OR OLD.length IS DISTINCT FROM NEW.length
        OR OLD.md5sum IS DISTINCT FROM NEW.md5sum
        OR OLD.files IS DISTINCT FROM NEW.files THEN
        UPDATE mika_torrents SET info_hash = NULL WHERE id = NEW.id AND NOT hash_by_hand;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER mika_hash_outdated AFTER UPDATE ON torrents_torrent FOR EACH ROW
EXECUTE FUNCTION mika_hash_outdated();

-- The rows beside those of the site. Their totals leave the feed alone, and so does a hash that is rebuilt: each
-- node does that by itself where the feed has the site's row.
CREATE OR REPLACE FUNCTION mika_own_users() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NOT NEW.can_leech
        OR TG_OP = 'UPDATE' AND OLD.can_leech IS DISTINCT FROM NEW.can_leech THEN
        INSERT INTO mika_feed (kind, key) VALUES ('user', NEW.id);
    ELSIF TG_OP = 'DELETE' AND NOT OLD.can_leech THEN
        INSERT INTO mika_feed (kind, key) VALUES ('user', OLD.id);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER mika_own_users_insert AFTER INSERT ON mika_users FOR EACH ROW
EXECUTE FUNCTION mika_own_users();

CREATE TRIGGER mika_own_users_update AFTER UPDATE ON mika_users FOR EACH ROW
EXECUTE FUNCTION mika_own_users();

CREATE TRIGGER mika_own_users_delete AFTER DELETE ON mika_users FOR EACH ROW
EXECUTE FUNCTION mika_own_users();

CREATE OR REPLACE FUNCTION mika_own_torrents_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    IF NEW.hash_by_hand OR NOT NEW.enabled OR NEW.release_name IS NOT NULL OR NEW.reason IS NOT NULL
        OR NEW.multi_up <> 1 OR NEW.multi_dn <> 1 THEN
        INSERT INTO mika_feed (kind, key) VALUES ('torrent', NEW.id);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER mika_own_torrents_insert AFTER INSERT ON mika_torrents FOR EACH ROW
EXECUTE FUNCTION mika_own_torrents_insert();

CREATE OR REPLACE FUNCTION mika_own_torrents_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    IF OLD.info_hash IS NOT NULL AND OLD.info_hash IS DISTINCT FROM NEW.info_hash
        OR OLD.info_hash_v2 IS DISTINCT FROM NEW.info_hash_v2
        OR OLD.hash_by_hand IS DISTINCT FROM NEW.hash_by_hand
        OR OLD.release_name IS DISTINCT FROM NEW.release_name
        OR OLD.enabled IS DISTINCT FROM NEW.enabled
        OR OLD.reason IS DISTINCT FROM NEW.reason
        OR OLD.multi_up IS DISTINCT FROM NEW.multi_up
        OR OLD.multi_dn IS DISTINCT FROM NEW.multi_dn THEN
        INSERT INTO mika_feed (kind, key) VALUES ('torrent', NEW.id);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER mika_own_torrents_update AFTER UPDATE ON mika_torrents FOR EACH ROW
EXECUTE FUNCTION mika_own_torrents_update();

CREATE OR REPLACE FUNCTION mika_own_torrents_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO mika_feed (kind, key) VALUES ('torrent', OLD.id);
    RETURN NULL;
END
$$;

CREATE TRIGGER mika_own_torrents_delete AFTER DELETE ON mika_torrents FOR EACH ROW
EXECUTE FUNCTION mika_own_torrents_delete();
