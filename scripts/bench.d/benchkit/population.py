"""Users, torrents, peers and histories of a private tracker, made by a database itself, and known without asking it."""

from collections import Counter
from dataclasses import dataclass

from .fault import Fault

# Spreads users over the torrents of a stratum: the golden ratio, less 1.
SPREAD = 0.6180339887498949

# Users are in torrents whose popularity is skewed: number N * x^3 for a uniform x, each of theirs from another
# stratum of x.
TORRENT = "FLOOR({torrents} * ({x} * {x} * {x})) + 1"
STRATUM = "((lap + (member * {spread} - FLOOR(member * {spread}))) / {each})"
# The same number as each dialect writes one of 64 bits.
DOUBLE = {"mariadb": f"{SPREAD}e0", "postgres": f"{SPREAD}::float8", "sqlite": f"{SPREAD}"}

PEER_COLUMNS = """user_id, torrent_id, peer_id, base_up, base_down, base_at, uploaded, downloaded, left_bytes,
    ip4, port4, speed_up, speed_down, seed_time, announces, first_announce, last_announce, active, paused"""

HISTORIES = """
    INSERT INTO history (torrent_id, user_id, uploaded, downloaded, seed_time, announces, completed_at,
            first_announce, last_announce)
        SELECT torrent_id, user_id, uploaded, downloaded, seed_time, announces, first_announce, first_announce,
            last_announce
        FROM peers ORDER BY torrent_id, user_id;
"""

FILL = {
    "mariadb": f"""
        INSERT INTO users (id, passkey, username)
            SELECT seq, MD5(seq), CONCAT('user', seq) FROM seq_1_to_{{users}};
        INSERT INTO torrents (id, info_hash, release_name)
            SELECT seq, UNHEX(LEFT(SHA2(seq, 256), 40)), CONCAT('Some.Release.', seq, '.1080p-GROUP')
            FROM seq_1_to_{{torrents}};
        INSERT INTO peers ({PEER_COLUMNS})
            SELECT member, {{torrent}}, CONCAT('-LT20B0-', LPAD(member, 12, '0')), 7000000000 + member, 5000000000,
                UNIX_TIMESTAMP() - 600, 7000000000 + member, 5000000000, IF(lap % 4 = 3, 4096, 0),
                CONCAT('11.', member DIV 65536, '.', member DIV 256 % 256, '.', member % 256), 6881, 50000, 0, 86400,
                50, UNIX_TIMESTAMP() - 86400, UNIX_TIMESTAMP() - 600, 1, 0
            FROM (SELECT seq DIV {{each}} + 1 AS member, seq % {{each}} AS lap FROM seq_0_to_{{last}}) AS numbers;
        {HISTORIES}
        ANALYZE TABLE users, torrents, peers, history;
    """,
    "postgres": f"""
        SET session_replication_role = replica; -- without triggers
        INSERT INTO users (id, passkey, username)
            SELECT n, md5(n::text), 'user' || n FROM generate_series(1, {{users}}) AS it (n);
        INSERT INTO torrents (id, info_hash, release_name)
            SELECT n, substring(sha256(n::text::bytea) FOR 20), 'Some.Release.' || n || '.1080p-GROUP'
            FROM generate_series(1, {{torrents}}) AS it (n);
        INSERT INTO peers ({PEER_COLUMNS})
            SELECT member, {{torrent}}, convert_to('-LT20B0-' || lpad(member::text, 12, '0'), 'LATIN1'),
                7000000000 + member, 5000000000, now - 600, 7000000000 + member, 5000000000,
                CASE lap % 4 WHEN 3 THEN 4096 ELSE 0 END,
                '11.' || member / 65536 || '.' || member / 256 % 256 || '.' || member % 256, 6881, 50000, 0, 86400, 50,
                now - 86400, now - 600, true, false
            FROM (SELECT n / {{each}} + 1 AS member, n % {{each}} AS lap, extract(epoch FROM now())::bigint AS now
                FROM generate_series(0, {{last}}) AS it (n)) AS numbers;
        {HISTORIES}
        VACUUM ANALYZE;
    """,
    "sqlite": f"""
        INSERT INTO users (id, passkey, username)
            WITH RECURSIVE it (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM it WHERE n < {{users}})
            SELECT n, md5(n), 'user' || n FROM it;
        INSERT INTO torrents (id, info_hash, release_name)
            WITH RECURSIVE it (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM it WHERE n < {{torrents}})
            SELECT n, sha(n), 'Some.Release.' || n || '.1080p-GROUP' FROM it;
        INSERT INTO peers ({PEER_COLUMNS})
            WITH RECURSIVE it (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM it WHERE n < {{last}}),
            numbers AS (SELECT n / {{each}} + 1 AS member, n % {{each}} AS lap, unixepoch() AS now FROM it)
            SELECT member, {{torrent}}, CAST(printf('-LT20B0-%012d', member) AS BLOB), 7000000000 + member, 5000000000,
                now - 600, 7000000000 + member, 5000000000, IIF(lap % 4 = 3, 4096, 0),
                printf('11.%d.%d.%d', member / 65536, member / 256 % 256, member % 256), 6881, 50000, 0, 86400, 50,
                now - 86400, now - 600, 1, 0
            FROM numbers;
        {HISTORIES}
        ANALYZE;
    """,
}

@dataclass
class Population:
    """Each user is in `each` torrents with one client; every fourth of these is a leecher."""

    users: int
    torrents: int
    each: int

    def __post_init__(self):
        if self.torrents < self.each**3 * 2:
            raise Fault(f"too few torrents for {self.each} different ones a user: at least {self.each**3 * 2}")

    @property
    def peers(self):
        return self.users * self.each

    def fill(self, database):
        """The SQL that makes all rows."""
        x = STRATUM.format(each=self.each, spread=DOUBLE[database])
        torrent = TORRENT.format(x=x, torrents=self.torrents)
        sizes = {"users": self.users, "torrents": self.torrents, "each": self.each, "last": self.peers - 1}
        return FILL[database].format(torrent=torrent, **sizes)

    def torrent_of(self, user, lap):
        """The id of that torrent of a user."""
        spread = user * SPREAD
        x = (lap + (spread - int(spread))) / self.each
        return int(self.torrents * (x * x * x)) + 1

    @staticmethod
    def left_of(lap):
        """What that client lacks of that torrent, in bytes."""
        return 4096 if lap % 4 == 3 else 0

    def swarms(self):
        """How many peers each torrent has."""
        pairs = ((user, lap) for user in range(1, self.users + 1) for lap in range(self.each))
        return Counter(self.torrent_of(*pair) for pair in pairs)
