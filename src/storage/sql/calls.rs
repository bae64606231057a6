//! Every statement by which the engine reaches a database: its name, parameters and result. What each does is
//! said once, in `schemas/mika/mysql.sql` and `schemas/own/mysql.sql`; of info hashes that are rebuilt, in
//! `schemas/batter/postgres.sql`.

/// The parameters and the result of a named statement.
#[derive(Debug)]
pub struct Call {
    pub name: &'static str,
    /// The parameters that it may use.
    pub params: &'static str,
    /// The columns of the rows that it is for; none for a statement without.
    pub rows: &'static str,
    /// The columns of its result, in this order.
    pub columns: &'static str,
    /// Whether it may be empty, if the database does not support it.
    pub optional: bool,
    /// It is about Mika's own tables: not a schema's, and not to be replaced.
    pub own: bool,
}

// --- the tables of a site: a schema's statements ---

pub static USERS: Call = Call::new("users").with("after limit").gives(USER_COLUMNS);
pub static USER: Call = Call::new("user").with("id").gives(USER_COLUMNS);
pub static USERS_NAMED: Call = Call::new("users_named")
    .with("username")
    .gives(USER_COLUMNS);
pub static USER_OF_PASSKEY: Call = Call::new("user_of_passkey").with("passkey").gives("id");
pub static USERS_KNOWN: Call = Call::new("users_known").of("id").gives("id");
pub static TORRENTS: Call = Call::new("torrents")
    .with("after limit")
    .gives(TORRENT_COLUMNS);
pub static TORRENT: Call = Call::new("torrent").with("id").gives(TORRENT_COLUMNS);
pub static TORRENTS_OF_HASHES: Call = Call::new("torrents_of_hashes")
    .of("info_hash")
    .gives("id info_hash info_hash_v2");
pub static TORRENTS_KNOWN: Call = Call::new("torrents_known").of("id").gives("id");
pub static HASHES_WANTED: Call = Call::new("hashes_wanted")
    .with("after limit noted")
    .gives("id bytes")
    .optional();
pub static HASH_SOURCES: Call = Call::new("hash_sources")
    .of("id")
    .gives(HASH_SOURCE_COLUMNS)
    .optional();
pub static STORE_HASHES: Call = Call::new("store_hashes")
    .of("id info_hash is_lossy")
    .optional();
pub static SET_HASH: Call = Call::new("set_hash")
    .with("id info_hash info_hash_v2")
    .optional();
pub static WHITELIST: Call = Call::new("whitelist").gives("peer_id vstring");
pub static FEED: Call = Call::new("feed")
    .with("after limit")
    .gives("seq kind key age")
    .optional();
pub static FIND_USERS: Call = Call::new("find_users")
    .with("pattern id enabled")
    .gives(USER_COLUMNS)
    .optional();
pub static COUNT_USERS: Call = Call::new("count_users")
    .with("pattern id enabled")
    .gives("count")
    .optional();
pub static FIND_TORRENTS: Call = Call::new("find_torrents")
    .with("pattern id enabled")
    .gives(TORRENT_COLUMNS)
    .optional();
pub static COUNT_TORRENTS: Call = Call::new("count_torrents")
    .with("pattern id enabled")
    .gives("count")
    .optional();
pub static ADD_USER: Call = Call::new("add_user").with("id passkey username").optional();
pub static UPDATE_USER: Call = Call::new("update_user")
    .with("id passkey username enabled can_leech uploaded downloaded")
    .optional();
pub static ADD_TORRENT: Call = Call::new("add_torrent")
    .with("id info_hash info_hash_v2 release_name")
    .optional();
pub static UPDATE_TORRENT: Call = Call::new("update_torrent")
    .with("id release_name enabled has_reason reason multi_up multi_dn")
    .optional();
pub static MOVE_TORRENT: Call = Call::new("move_torrent").with("id new_id").optional();
pub static REMOVE_TORRENTS: Call = Call::new("remove_torrents").of("id unused").optional();
pub static ADD_CLIENT: Call = Call::new("add_client").with("peer_id vstring").optional();
pub static REMOVE_CLIENT: Call = Call::new("remove_client").with("peer_id").optional();
pub static WIPE_USERS: Call = Call::new("wipe_users").with("after last").optional();
pub static WIPE_TORRENTS: Call = Call::new("wipe_torrents").with("after last").optional();
pub static FIX_USERS: Call = Call::new("mend_users").of("id").optional();
pub static FIX_TORRENTS: Call = Call::new("mend_torrents").of("id").optional();
pub static CREDIT_USERS: Call =
    Call::new("credit_users").of("id uploaded downloaded snatches announces seed_time");
pub static CREDIT_TORRENTS: Call =
    Call::new("credit_torrents").of("id uploaded downloaded snatches announces seeders leechers");
pub static CREDIT_SNATCHES: Call = Call::new("credit_snatches").of("id snatches").optional();
pub static ADD_SNATCHED: Call = Call::new("add_snatched")
    .of("info_hash snatches")
    .optional();

const USER_COLUMNS: &str = "id passkey username enabled can_leech uploaded downloaded snatches \
    announces seed_time";
const TORRENT_COLUMNS: &str = "id info_hash info_hash_v2 release_name enabled reason multi_up \
    multi_dn seeders leechers snatches announces uploaded downloaded";

const HASH_SOURCE_COLUMNS: &str = "id info_hash by_hand is_lossy piece_length pieces is_private name length \
    md5sum files";

// --- Mika's own tables ---

/// The key of a peer.
const PEER_KEY: &str = "user_id torrent_id peer_id";

/// A peer that is written, by how often its columns change: first those that each announce changes.
pub const PEER_OFTEN: &str = "user_id torrent_id peer_id base_up base_down base_at sessions uploaded \
    downloaded left_bytes ip4 port4 ip6 port6 speed_up speed_down seed_time announces \
    first_announce active paused last_announce";
pub const PEER: &str = "user_id torrent_id peer_id base_up base_down base_at sessions uploaded \
    downloaded left_bytes ip4 port4 ip6 port6 speed_up speed_down seed_time announces \
    first_announce active paused last_announce dip_up dip_down hnr inactive_since completed_at";
const PEER_SESSIONS: &str = "user_id torrent_id peer_id base_up base_down base_at sessions \
    uploaded downloaded dip_up dip_down";

/// A history that is written, in the same way.
pub const HISTORY_OFTEN: &str = "torrent_id user_id uploaded downloaded seed_time announces \
    last_announce seeded_until";
pub const HISTORY: &str = "torrent_id user_id uploaded downloaded seed_time announces \
    last_announce seeded_until completed_at hnr seeded_floor seeded_from";
const NEW_HISTORY: &str = "torrent_id user_id uploaded downloaded seed_time announces \
    last_announce seeded_until completed_at hnr seeded_floor seeded_from first_announce";

/// A peer and a history that are read for a start or a page.
const PEER_READ: &str = "user_id torrent_id peer_id base_up base_down base_at dip_up dip_down \
    uploaded downloaded left_bytes ip4 port4 ip6 port6 speed_up speed_down seed_time announces \
    first_announce last_announce active paused";
const HISTORY_READ: &str = "torrent_id user_id uploaded downloaded seed_time completed_at hnr";

pub static PEERS_PAGE: Call = Call::own("peers_page")
    .with("user_id torrent_id peer_id since limit")
    .gives(PEER_READ);
pub static HISTORIES_PAGE: Call = Call::own("histories_page")
    .with("torrent_id user_id limit")
    .gives(HISTORY_READ);
pub static PEERS_OF: Call = Call::own("peers_of").with("torrent_id").gives(PEER_READ);
pub static HISTORIES_OF: Call = Call::own("histories_of")
    .with("torrent_id")
    .gives(HISTORY_READ);
pub static WITH_RECORDS: Call = Call::own("with_records")
    .of("torrent_id")
    .gives("torrent_id");
pub static PEERS_OF_USER: Call = Call::own("peers_of_user")
    .with("user_id")
    .gives("torrent_id has_all");
pub static HISTORIES_OF_USER: Call = Call::own("histories_of_user")
    .with("user_id")
    .gives("torrent_id is_snatched hnr");
pub static NEWEST_ANNOUNCE: Call = Call::own("newest_announce").gives("last_announce");
pub static LAST_GONE: Call = Call::own("last_gone").with("before").gives("last_announce");
pub static PRUNE_PEERS: Call = Call::own("prune_peers").with("before limit");
pub static MOVE_RECORDS: Call = Call::own("move_records").with("id new_id");

pub static HELD: Call = Call::own("held")
    .of("place user_id torrent_id peer_id")
    .gives(
        "place announces last_announce active first_announce sessions uploaded downloaded \
         history_announces history_uploaded history_downloaded seed_time \
         history_last_announce completed_at hnr seeded_floor seeded_from seeded_until",
    );
pub static HELD_BASES: Call = Call::own("held_bases")
    .of("place user_id torrent_id peer_id")
    .gives("place base_up base_down base_at dip_up dip_down");
pub static INSERT_PEERS: Call = Call::own("insert_peers").of(PEER);
pub static UPDATE_PEERS: Call = Call::own("update_peers").of(PEER);
pub static UPDATE_PEERS_OFTEN: Call = Call::own("update_peers_often").of(PEER_OFTEN);
pub static UPDATE_SESSIONS: Call = Call::own("update_sessions").of(PEER_SESSIONS);
pub static DELETE_PEERS: Call = Call::own("delete_peers").of(PEER_KEY);
pub static INSERT_HISTORIES: Call = Call::own("insert_histories").of(NEW_HISTORY);
pub static UPDATE_HISTORIES: Call = Call::own("update_histories").of(HISTORY);
pub static UPDATE_HISTORIES_OFTEN: Call = Call::own("update_histories_often").of(HISTORY_OFTEN);
pub static UPDATE_STANDING: Call =
    Call::own("update_standing").of("torrent_id user_id hnr completed_at");

pub static JOURNALS: Call = Call::own("journals").gives("node applied");
pub static APPLIED: Call = Call::own("applied").with("node").gives("applied");
pub static INSERT_JOURNAL: Call = Call::own("insert_journal").with("node");
pub static SET_APPLIED: Call = Call::own("set_applied").with("node applied");
pub static RAISE_APPLIED: Call = Call::own("raise_applied").with("node applied");
pub static FORGET_JOURNAL: Call = Call::own("forget_journal").with("node applied");

pub static FEED_BOUNDS: Call = Call::own("feed_bounds").gives("oldest newest");
pub static TRIM_FEED: Call = Call::own("trim_feed").with("last");

pub static IDENTITY: Call = Call::own("identity").gives("id");
pub static RENEW_IDENTITY: Call = Call::own("renew_identity");
pub static TIME: Call = Call::own("time").gives("time").optional();

// --- what a database says of itself, and the table of migrations ---

pub static MIGRATIONS: Call = Call::own("migrations").gives("name");
pub static CREATE_MIGRATIONS: Call = Call::own("create_migrations");
pub static ADD_MIGRATION: Call = Call::own("add_migration").with("name");
pub static ADD_RELOAD: Call = Call::own("add_reload").with("kind");
pub static TABLES: Call = Call::own("tables").gives("name is_view engine is_unlogged");
pub static COLUMNS: Call = Call::own("columns")
    .with("schema table")
    .gives("name kind is_nullable default_value width charset collation");
pub static COLUMNS_NAMED: Call = Call::own("columns_named")
    .with("name")
    .gives("table_name width charset bits")
    .optional();
pub static COLUMNS_TO_FILL: Call = Call::own("columns_to_fill").gives("table_name column_name");
pub static ID_SEQUENCE: Call = Call::own("id_sequence")
    .with("table")
    .gives("lacking")
    .optional();
pub static TRIGGERS: Call = Call::own("triggers").gives("name table_name statement owner flaw");
pub static FUNCTION: Call = Call::own("function").with("name").gives("text").optional();

/// Every statement of a schema.
pub static CALLS: [&Call; 35] = [
    &USERS,
    &USER,
    &USERS_NAMED,
    &USER_OF_PASSKEY,
    &USERS_KNOWN,
    &TORRENTS,
    &TORRENT,
    &TORRENTS_OF_HASHES,
    &TORRENTS_KNOWN,
    &HASHES_WANTED,
    &HASH_SOURCES,
    &STORE_HASHES,
    &SET_HASH,
    &WHITELIST,
    &FEED,
    &FIND_USERS,
    &COUNT_USERS,
    &FIND_TORRENTS,
    &COUNT_TORRENTS,
    &ADD_USER,
    &UPDATE_USER,
    &ADD_TORRENT,
    &UPDATE_TORRENT,
    &MOVE_TORRENT,
    &REMOVE_TORRENTS,
    &ADD_CLIENT,
    &REMOVE_CLIENT,
    &WIPE_USERS,
    &WIPE_TORRENTS,
    &FIX_USERS,
    &FIX_TORRENTS,
    &CREDIT_USERS,
    &CREDIT_TORRENTS,
    &CREDIT_SNATCHES,
    &ADD_SNATCHED,
];

/// Every statement about Mika's own tables.
pub static OWN_CALLS: [&Call; 33] = [
    &PEERS_PAGE,
    &HISTORIES_PAGE,
    &PEERS_OF,
    &HISTORIES_OF,
    &WITH_RECORDS,
    &PEERS_OF_USER,
    &HISTORIES_OF_USER,
    &NEWEST_ANNOUNCE,
    &LAST_GONE,
    &PRUNE_PEERS,
    &MOVE_RECORDS,
    &HELD,
    &HELD_BASES,
    &INSERT_PEERS,
    &UPDATE_PEERS,
    &UPDATE_PEERS_OFTEN,
    &UPDATE_SESSIONS,
    &DELETE_PEERS,
    &INSERT_HISTORIES,
    &UPDATE_HISTORIES,
    &UPDATE_HISTORIES_OFTEN,
    &UPDATE_STANDING,
    &JOURNALS,
    &APPLIED,
    &INSERT_JOURNAL,
    &SET_APPLIED,
    &RAISE_APPLIED,
    &FORGET_JOURNAL,
    &FEED_BOUNDS,
    &TRIM_FEED,
    &IDENTITY,
    &RENEW_IDENTITY,
    &TIME,
];

/// Every statement about the database itself.
pub static CATALOGUE_CALLS: [&Call; 11] = [
    &MIGRATIONS,
    &CREATE_MIGRATIONS,
    &ADD_MIGRATION,
    &ADD_RELOAD,
    &TABLES,
    &COLUMNS,
    &COLUMNS_NAMED,
    &COLUMNS_TO_FILL,
    &ID_SEQUENCE,
    &TRIGGERS,
    &FUNCTION,
];

// === impl Call ===

impl Call {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            params: "",
            rows: "",
            columns: "",
            optional: false,
            own: false,
        }
    }

    const fn own(name: &'static str) -> Self {
        Self {
            own: true,
            ..Self::new(name)
        }
    }

    const fn with(mut self, params: &'static str) -> Self {
        self.params = params;
        self
    }

    const fn of(mut self, rows: &'static str) -> Self {
        self.rows = rows;
        self
    }

    const fn gives(mut self, columns: &'static str) -> Self {
        self.columns = columns;
        self
    }

    const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// How many columns its result has.
    pub fn width(&self) -> usize {
        self.columns.split_whitespace().count()
    }
}
