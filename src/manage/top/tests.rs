//! Drawing on a test terminal, and keys.

use std::time::Duration;

use anyhow::anyhow;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Cell;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::draw;
use super::history::RateHistory;
use super::view::{Tab, TopView};
use crate::view::TrackerStats;

/// Figures of the second `at` after the start of a tracker.
fn stats(at: u64) -> TrackerStats {
    TrackerStats::from_json(&document(at)).unwrap()
}

fn document(at: u64) -> Value {
    json!({
        "version": "0.1.0", "mode": "private", "node": "tracker-1", "uptime": at,
        "announces": { "http": 30 * at, "https": 4 * at, "udp": 1500 * at },
        "refusals": { "unknown_torrent": 5 * at, "missing_passkey": 12, "never_seen": 0 },
        "swarms": 41_250,
        "peers": {
            "ipv4": { "seeders": 190_312, "leechers": 22_100, "paused": 812 },
            "ipv6": { "seeders": 60_312, "leechers": 9_100, "paused": 44 },
        },
        "snatches": 55_123,
        "registry": { "users": 130, "torrents": 48_210, "clients": 4 },
        "journal": { "pending": 900, "backlog": 1200, "age": 8, "batches": 20_311, "batch_failures": 2, "spilled": 0 },
        "storage": { "driver": "mysql", "up": true, "problem": null },
        "cache": { "driver": "redis", "up": false, "problem": "connection \u{1b}[31mrefused" },
        "connections": { "open": 2400, "accepted": 10 * at },
        "memory": 61_000_000,
        "clients": [{ "client": "qBittorrent", "version": "4.6.2", "started": 90_211 }],
        "busiest": [
            { "info_hash": "00252b263d3b3f20232f7e7f80ffc328615a302d", "name": "a film\u{202e}gpj", "seeders": 900, "leechers": 12 },
            { "info_hash": "10252b263d3b3f20232f7e7f80ffc328615a302d", "name": null, "seeders": 7, "leechers": 0 },
        ],
        "of_a_later_version": [],
    })
}

fn view() -> TopView {
    let mut view = TopView::new("127.0.0.1:34001".into(), stats(3600));
    for second in 1..=3 {
        let at = Duration::from_secs(second);
        view.update(at, Ok(stats(3600 + second)));
    }
    view
}

fn drawn(view: &mut TopView, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::frame(frame, view)).unwrap();
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(width.into()).map(|cells| {
        let line: String = cells.iter().map(Cell::symbol).collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn press(view: &mut TopView, code: KeyCode) {
    view.handle(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
}

#[test]
fn a_picture_of_80_columns_and_24_lines_holds_it_all() {
    let expected = "\
\x20Mika  tracker-1 · private · 0.1.0  up 1h 0m                    ■ cache (redis)
 swarms 41,250 snatches 55,123 connections 2,400 memory 58.17 MiB users 130
┌ Announces a second ──────────────────────┐┌ Peers 282,680 ───────────────────┐
│UDP          1,500                     ███││        seeders leechers    paused│
│HTTP            30                     ███││IPv4    190,312   22,100       812│
│HTTPS          4.0                     ███││IPv6     60,312    9,100        44│
│Refused        5.0                     ███││both    250,624   31,200       856│
└──────────────────────────────────────────┘└──────────────────────────────────┘
┌ Journal ─────────────────────────────────┐┌ Health ──────────────────────────┐
│Lag            8 s                     ███││● storage (mysql): up             │
│900 pending, 1,200 not in storage         ││■ cache (redis): connection \\u{1b}│
│20,311 batches, 2 failed, 0 spilled       ││● journal: keeps up               │
└──────────────────────────────────────────┘└──────────────────────────────────┘
┌ Busiest torrents   Clients   Refusals  ──────────────────────────────────────┐
│   Seeders    Leechers  Torrent                                               │
│       900          12  a film\\u{202e}gpj                                     │
│         7           0  10252b263d3b3f20232f7e7f80ffc328615a302d              │
│                                                                              │
│                                                                              │
│                                                                              │
│                                                                              │
│                                                                              │
└──────────────────────────────────────────────────────────────────────────────┘
 cache (redis): connection \\u{1b}[31mrefused";
    let picture = drawn(&mut view(), 80, 24);
    assert_eq!(picture, expected, "\n{picture}");
}

#[test]
fn every_list_is_reached_and_names_of_strangers_are_escaped() {
    let mut view = view();
    assert!(drawn(&mut view, 80, 24).contains("a film\\u{202e}gpj"));
    press(&mut view, KeyCode::Tab);
    assert_eq!(view.list, Tab::Clients);
    assert!(drawn(&mut view, 80, 24).contains("qBittorrent 4.6.2"));
    press(&mut view, KeyCode::Right);
    let refusals = drawn(&mut view, 80, 24);
    assert!(
        refusals.contains("unknown torrent") && refusals.contains("5.0"),
        "{refusals}"
    );
    assert!(!refusals.contains("never seen"), "{refusals}");
    press(&mut view, KeyCode::Tab);
    assert_eq!(view.list, Tab::Torrents);
    press(&mut view, KeyCode::Left);
    assert_eq!(view.list, Tab::Refusals);
    press(&mut view, KeyCode::Down);
    assert_eq!(view.position.selected(), Some(0));
}

#[test]
fn a_pause_keeps_the_figures_and_trouble_is_shown() {
    let mut view = view();
    press(&mut view, KeyCode::Char('p'));
    view.update(Duration::from_secs(9), Ok(stats(9000)));
    assert_eq!(view.stats.uptime, 3603);
    assert!(drawn(&mut view, 80, 24).contains("‖ paused"));
    press(&mut view, KeyCode::Char('p'));
    view.update(
        Duration::from_secs(10),
        Err(anyhow!("no connection: the API at x")),
    );
    let picture = drawn(&mut view, 80, 24);
    assert!(
        picture.contains("no contact") && picture.contains("the API at x"),
        "{picture}"
    );
    view.update(Duration::from_secs(11), Ok(stats(9000)));
    assert_eq!((view.stats.uptime, view.trouble.is_none()), (9000, true));
}

#[test]
fn keys_help_and_quit() {
    let mut view = view();
    press(&mut view, KeyCode::Char('?'));
    assert!(drawn(&mut view, 80, 24).contains("any key closes it"));
    press(&mut view, KeyCode::Char('q'));
    assert!(
        !view.help && !view.has_quit(),
        "the first key closes the help"
    );
    press(&mut view, KeyCode::Esc);
    assert!(view.has_quit());
}

#[test]
fn any_size_of_window_is_drawn() {
    for (width, height) in [(1, 1), (59, 24), (80, 15), (60, 16), (81, 17), (250, 80)] {
        let mut view = view();
        view.help = true;
        drawn(&mut view, width, height);
    }
}

#[test]
fn rates_restart_with_the_tracker() {
    let mut history = RateHistory::default();
    history.push(Duration::ZERO, &stats(100));
    assert!(history.now().is_none());
    history.push(Duration::from_millis(500), &stats(101));
    let rates = history.now().unwrap();
    assert_eq!(
        (rates.udp, rates.http, rates.reasons["unknown_torrent"]),
        (3000.0, 60.0, 10.0)
    );
    assert_eq!(history.bars(10, |rates| rates.https), [8000]);
    history.push(Duration::from_secs(1), &stats(2));
    assert!(history.now().is_none());
    // An answer at the same moment gives no rate.
    history.push(Duration::from_secs(1), &stats(3));
    assert!(history.now().is_none());
}
