//! Checks the values, each by itself and in combination.

use std::collections::HashSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use humantime::format_duration;

use super::{
    ApiSection, CacheSection, Config, HttpSection, JournalSection, Mode, Rules, StorageSection,
    Token, UdpSection, days, minutes,
};
use crate::base::addr::{PublicAddress, PublicAddresses, canonical, is_global};
use crate::telemetry::log::LogSettings;
use crate::{cache, storage};

/// The longest time: points in time are whole seconds in 32 bits.
const TIME_MAX: Duration = days(365);

/// The longest `tracker.peer_ttl` of a public tracker, which keeps 16 bits of a peer's last announce.
pub(super) const PUBLIC_TTL_MAX: Duration = minutes(12 * 60);

/// The length of an API token in bytes.
pub(super) const TOKEN_MIN: usize = 16;
const TOKEN_MAX: usize = 256;

/// A key, and what is wrong with its value.
#[derive(Debug)]
pub(super) struct InvalidSetting {
    pub key: &'static str,
    pub text: String,
}

type Checked = Result<(), InvalidSetting>;

pub(super) fn check(config: &Config) -> Checked {
    check_node(&config.node)?;
    check_http(&config.http)?;
    check_udp(&config.udp)?;
    check_api(&config.api)?;
    check_tracker(&config.tracker, config.mode)?;
    check_cache(&config.cache)?;
    check_storage(&config.storage)?;
    check_journal(&config.journal)?;
    check_log(&config.log)
}

/// The name is part of keys and columns, so it is short and plain. Names of journals append a '#'.
pub(super) fn is_node_name(name: &str) -> bool {
    is_name(name) && !name.contains('#')
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

fn check_node(name: &str) -> Checked {
    require("node", is_node_name(name), || {
        format!("expected 1 to 64 printable ASCII characters without blanks and #, found {name:?}")
    })
}

fn check_http(http: &HttpSection) -> Checked {
    require("http.max_connections", http.max_connections >= 1, || {
        "expected at least 1, found 0".into()
    })?;
    let header = &http.forwarded_header;
    require("http.forwarded_header", is_header_name(header), || {
        format!(
            r#"expected the name of a header, such as "X-Forwarded-For" or "X-Real-IP", or "", found {header:?}"#
        )
    })?;
    let mut others = OTHER_HEADERS.split(' ');
    let is_other = others.any(|name| name.eq_ignore_ascii_case(header));
    require("http.forwarded_header", !is_other, || {
        format!(
            r#"expected a header that names the client, such as "X-Forwarded-For" or "X-Real-IP"; {header} never does"#
        )
    })
}

/// Request headers with another meaning than the client's address.
const OTHER_HEADERS: &str = "Accept Accept-Charset Accept-Encoding Accept-Language Authorization \
    Cache-Control Connection Content-Encoding Content-Length Content-Type Cookie Date Expect From \
    Host If-Match If-Modified-Since If-None-Match If-Range If-Unmodified-Since Keep-Alive \
    Max-Forwards Origin Pragma Proxy-Authorization Proxy-Connection Range Referer TE Trailer \
    Transfer-Encoding Upgrade User-Agent Via X-Forwarded-Host X-Forwarded-Port X-Forwarded-Proto";

/// Whether the text is a header name (RFC 9110, `token`), or empty.
fn is_header_name(name: &str) -> bool {
    const OTHERS: &[u8] = b"!#$%&'*+-.^_`|~";
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || OTHERS.contains(&byte);
    name.len() <= 64 && name.bytes().all(is_letter)
}

fn check_udp(udp: &UdpSection) -> Checked {
    // If it is shorter than clients keep an id, they are not answered; if it is longer, an address may be
    // reassigned and still be trusted.
    let (min, max) = (minutes(1), minutes(60));
    between("udp.id_lifetime", udp.id_lifetime, min, max)?;
    let secret = udp.secret.as_os_str();
    require("udp.secret", !secret.is_empty(), || {
        r#"expected the path of a file, such as "mika.secret", found """#.into()
    })
}

fn check_api(api: &ApiSection) -> Checked {
    check_tokens(&api.tokens)?;
    // Clients send NAME:PASSWORD, and the password begins after the first ':' (RFC 7617).
    let is_name = !api
        .username
        .contains(|char: char| char == ':' || char.is_control());
    require("api.username", is_name, || {
        "expected a name without ':' and control characters: with one no login would work, because \
         HTTP basic authentication ends the name at the first ':'"
            .into()
    })?;
    for (host, number) in api.hosts.iter().zip(1..) {
        require("api.hosts", is_host(host), || {
            format!(
                "expected a host name or address, with or without a port, such as \
                 \"tracker.example.org\"; entry {number} is not"
            )
        })?;
    }
    let Some(open) = api
        .listen
        .iter()
        .find(|address| !address.ip().is_loopback())
    else {
        return Ok(());
    };
    require("api.password", !api.is_open(), || {
        format!(
            "expected a password (or a token in api.tokens), because api.listen has {open}, which \
             other hosts can reach: set it here or in MIKA_API_PASSWORD, or listen on 127.0.0.1"
        )
    })
}

/// A host name, an IPv4 address, or an IPv6 address in brackets; and perhaps a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let in_brackets = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_name = |host: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        host.bytes().all(is_plain) && host.bytes().any(|byte| byte.is_ascii_alphanumeric())
    };
    is_port
        && match in_brackets {
            Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
            None => is_name(host),
        }
}

/// Each token needs a name of its own for the log, and must be too long to be guessed.
fn check_tokens(tokens: &[Token]) -> Checked {
    let mut names = HashSet::new();
    let mut texts = HashSet::new();
    for (Token { name, token, .. }, number) in tokens.iter().zip(1..) {
        let is_new = is_name(name) && names.insert(name);
        // The message does not repeat the name: it may be a token in the wrong place.
        require("api.tokens", is_new, || {
            format!(
                "expected a name of its own for each token, of 1 to 64 printable ASCII characters \
                 without blanks; that of entry {number} is not"
            )
        })?;
        let text = token.expose();
        let is_token = (TOKEN_MIN..=TOKEN_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        require("api.tokens", is_token && texts.insert(text), || {
            format!(
                "expected {TOKEN_MIN} to {TOKEN_MAX} printable ASCII characters without blanks in the \
                 token of entry {number}, and another token for each name"
            )
        })?;
    }
    Ok(())
}

fn check_public_addresses(addresses: &PublicAddresses) -> Checked {
    const KEY: &str = "tracker.public_addresses";
    for PublicAddress { network, address } in addresses.iter() {
        let is_of_a_host = !address.is_unspecified() && !address.is_multicast();
        require(KEY, is_of_a_host && *address == canonical(*address), || {
            format!("expected the address of a host, found \"{address}\"")
        })?;
        let Some(network) = network else {
            continue;
        };
        require(KEY, network.addr().is_ipv4() == address.is_ipv4(), || {
            format!("expected an address of the family of {network}, found \"{address}\"")
        })?;
        let is_local = !is_global(network.network()) && !is_global(network.broadcast());
        require(KEY, is_local, || {
            format!("expected a network that the internet can't reach, found \"{network}\"")
        })?;
    }
    Ok(())
}

fn check_tracker(tracker: &Rules, mode: Mode) -> Checked {
    check_times(tracker, mode)?;
    let max = tracker.max_numwant;
    require("tracker.max_numwant", (1..=1000).contains(&max), || {
        format!("expected 1 to 1000, found {max}")
    })?;
    let numwant = tracker.numwant;
    require("tracker.numwant", numwant <= max, || {
        format!("expected at most max_numwant ({max}), found {numwant}")
    })?;
    let at_least_one =
        |key, value: u64| require(key, value >= 1, || "expected at least 1, found 0".into());
    at_least_one("tracker.max_torrents", tracker.max_torrents as u64)?;
    let peers = tracker.max_peers_per_user;
    let is_in_range = (1..=1000).contains(&peers);
    require("tracker.max_peers_per_user", is_in_range, || {
        format!("expected 1 to 1000, found {peers}")
    })?;
    let (records, rate) = (tracker.max_records_per_user, tracker.new_records_rate);
    at_least_one("tracker.max_records_per_user", records.into())?;
    at_least_one(
        "tracker.new_records_burst",
        tracker.new_records_burst.into(),
    )?;
    at_least_one("tracker.new_records_rate", rate.into())?;
    at_least_one("tracker.max_rate", tracker.max_rate)?;
    check_public_addresses(&tracker.public_addresses)?;
    let registers = tracker.auto_register && mode == Mode::Private;
    require("tracker.auto_register", !registers, || {
        r#"expected false, because mode is "private": there, torrents are registered"#.into()
    })
}

fn check_times(rules: &Rules, mode: Mode) -> Checked {
    let [interval, min, ttl, tombstone_ttl, hnr_threshold] = [
        rules.announce_interval,
        rules.min_announce_interval,
        rules.peer_ttl,
        rules.tombstone_ttl,
        rules.hnr_threshold,
    ]
    .map(|seconds| Duration::from_secs(seconds.into()));
    let second = Duration::from_secs(1);
    between("tracker.announce_interval", interval, second, TIME_MAX)?;
    between("tracker.min_announce_interval", min, second, TIME_MAX)?;
    require("tracker.min_announce_interval", min <= interval, || {
        let (min, interval) = (format_duration(min), format_duration(interval));
        format!("expected at most announce_interval ({interval}), found {min}")
    })?;
    // Clients get the interval give or take 5 %, and some announce late.
    require("tracker.peer_ttl", ttl >= interval + interval / 10, || {
        let (ttl, interval) = (format_duration(ttl), format_duration(interval));
        format!("expected at least 1.1 times announce_interval ({interval}), found {ttl}")
    })?;
    let fits_mode = mode == Mode::Private || ttl <= PUBLIC_TTL_MAX;
    require("tracker.peer_ttl", fits_mode, || {
        let (max, ttl) = (as_typed(PUBLIC_TTL_MAX), as_typed(ttl));
        format!(r#"expected at most {max}, because mode is "public", found {ttl}"#)
    })?;
    between("tracker.peer_ttl", ttl, Duration::ZERO, TIME_MAX)?;
    between("tracker.tombstone_ttl", tombstone_ttl, second, TIME_MAX)?;
    let threshold = hnr_threshold;
    between("tracker.hnr_threshold", threshold, Duration::ZERO, TIME_MAX)
}

/// Checks that a value is a plain name. Otherwise it may be a URL with a password in the wrong place,
/// which later messages would repeat.
fn check_word(key: &'static str, word: &str, example: &str) -> Checked {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_word = word.len() <= 64 && word.bytes().all(is_plain);
    require(key, is_word, || {
        format!("expected a name of letters, digits, '-', '_' and '.', such as {example:?}")
    })
}

fn check_cache(cache: &CacheSection) -> Checked {
    check_word("cache.driver", &cache.driver, "memory")?;
    cache::check_url(&cache.driver, &cache.url).map_err(at("cache.url"))
}

fn check_storage(section: &StorageSection) -> Checked {
    let StorageSection {
        driver,
        url,
        schema,
        // Which ones there are, the driver says when it opens.
        statements: _,
        poll_interval,
    } = section;
    check_word("storage.driver", driver, "sqlite")?;
    // The path of a file has folders.
    check_word("storage.schema", &schema.replace('/', "."), "mika")?;
    storage::check_url(driver, url).map_err(at("storage.url"))?;
    between(
        "storage.poll_interval",
        *poll_interval,
        Duration::from_millis(100),
        minutes(1),
    )?;
    storage::check_schema(driver, schema).map_err(at("storage.schema"))
}

/// Attaches the key to a message.
fn at(key: &'static str) -> impl FnOnce(String) -> InvalidSetting {
    move |text| InvalidSetting { key, text }
}

fn check_journal(journal: &JournalSection) -> Checked {
    let flush_min = Duration::from_millis(10);
    let (flush, ack) = (journal.flush_interval, journal.ack_timeout);
    between("journal.flush_interval", flush, flush_min, minutes(60))?;
    between("journal.ack_timeout", ack, Duration::ZERO, minutes(1))?;
    let keep_min = Duration::from_secs(10);
    between("journal.keep", journal.keep, keep_min, minutes(60))?;
    let spill = journal.spill.as_os_str();
    require("journal.spill", !spill.is_empty(), || {
        r#"expected the path of a file, such as "mika.spill", found """#.into()
    })?;
    let max_pending = journal.max_pending;
    require("journal.max_pending", max_pending >= 1000, || {
        format!("expected at least 1000, found {max_pending}")
    })
}

fn check_log(log: &LogSettings) -> Checked {
    let interval = log.stats_interval;
    between("log.stats_interval", interval, Duration::ZERO, TIME_MAX)
}

fn between(key: &'static str, value: Duration, min: Duration, max: Duration) -> Checked {
    require(key, (min..=max).contains(&value), || {
        let [min, max, value] = [min, max, value].map(as_typed);
        format!("expected {min} to {max}, found {value}")
    })
}

/// A time as it is written in the config.
fn as_typed(time: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    let seconds = time.as_secs();
    if seconds >= DAY && seconds.is_multiple_of(DAY) && time.subsec_nanos() == 0 {
        format!("{}d", seconds / DAY)
    } else {
        format_duration(time).to_string()
    }
}

fn require(key: &'static str, holds: bool, text: impl FnOnce() -> String) -> Checked {
    if holds {
        Ok(())
    } else {
        Err(InvalidSetting { key, text: text() })
    }
}
