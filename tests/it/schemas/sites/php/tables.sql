CREATE TABLE class (
    id TINYINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name VARCHAR(30) NOT NULL,
    can_download ENUM('yes','no') NOT NULL DEFAULT 'yes',
    banned ENUM('yes','no') NOT NULL DEFAULT 'no'
) ENGINE=InnoDB DEFAULT CHARSET=latin1;
CREATE TABLE users (
    uid INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    username VARCHAR(40) NOT NULL,
    passhash CHAR(32) NOT NULL,
    passkey CHAR(32) NOT NULL DEFAULT '',
    status ENUM('pending','confirmed') NOT NULL DEFAULT 'pending',
    class TINYINT UNSIGNED NOT NULL DEFAULT 1,
    uploaded BIGINT UNSIGNED NOT NULL DEFAULT 0,
    downloaded BIGINT UNSIGNED NOT NULL DEFAULT 0,
    last_access INT UNSIGNED NOT NULL DEFAULT 0,
    KEY passkey (passkey), UNIQUE KEY username (username)
) ENGINE=InnoDB DEFAULT CHARSET=latin1;
CREATE VIEW user_permissions AS
    SELECT u.uid, u.status = 'confirmed' AND c.banned = 'no' AS may_connect, c.can_download = 'yes' AS may_leech
    FROM users AS u JOIN class AS c ON c.id = u.class;
CREATE TABLE torrents (
    fid INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    info_hash CHAR(40) NOT NULL,
    filename VARCHAR(255) NOT NULL,
    visible ENUM('yes','no') NOT NULL DEFAULT 'yes',
    freeleech ENUM('yes','no') NOT NULL DEFAULT 'no',
    seeders INT UNSIGNED NOT NULL DEFAULT 0,
    leechers INT UNSIGNED NOT NULL DEFAULT 0,
    times_completed INT UNSIGNED NOT NULL DEFAULT 0,
    UNIQUE KEY info_hash (info_hash)
) ENGINE=InnoDB DEFAULT CHARSET=latin1;
CREATE TABLE agents (agent VARCHAR(8) NOT NULL, agent_name VARCHAR(40) NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=latin1;
