//! Draws `top`. It fits 80 columns and 24 lines; larger windows give more room to the list.

use ratatui::Frame;
use ratatui::layout::Constraint::{self, Fill, Length};
use ratatui::layout::{Alignment, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Sparkline, Table};
use strum::VariantArray as _;

use super::history::Rates;
use super::view::{Tab, TopView};
use crate::manage::health::{self, Level};
use crate::manage::print::{count, duration, escape, size};
use crate::view::{RoleCounts, TrackerStats};

/// Smaller windows show only a message.
const WIDTH_MIN: u16 = 60;
const HEIGHT_MIN: u16 = 16;

/// A rate that has a line of its own: label, value and colour.
type RateLine = (&'static str, fn(&Rates) -> f64, Color);

const RATE_LINES: [RateLine; 4] = [
    ("UDP", |rates| rates.udp, Color::Blue),
    ("HTTP", |rates| rates.http, Color::Cyan),
    ("HTTPS", |rates| rates.https, Color::Magenta),
    ("Refused", |rates| rates.refusals, Color::Yellow),
];

const KEYS: [(&str, &str); 7] = [
    ("q, Esc", "quit"),
    ("Tab, ← →", "another list"),
    ("1 2 3", "that list"),
    ("↑ ↓", "a line up or down"),
    ("PgUp PgDn", "ten lines"),
    ("p, Space", "pause: the figures stay as they are"),
    ("?", "this help; any key closes it"),
];

pub fn frame(frame: &mut Frame, view: &mut TopView) {
    let area = frame.area();
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        let text =
            format!("The window is too small: {WIDTH_MIN} × {HEIGHT_MIN} is the minimum. q quits.");
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let [head, strip, rates, state, list, foot] = Layout::vertical([
        Length(1),
        Length(1),
        Length(RATE_LINES.len() as u16 + 2),
        Length(5),
        Fill(1),
        Length(1),
    ])
    .areas(area);
    draw_head(frame, view, head);
    draw_strip(frame, view, strip);
    let halves = Layout::horizontal([Fill(5), Fill(4)]);
    let [left, right] = halves.areas(rates);
    draw_rates(frame, view, left);
    draw_peers(frame, &view.stats, right);
    let [left, right] = halves.areas(state);
    draw_journal(frame, view, left);
    draw_health(frame, &view.stats, right);
    draw_list(frame, view, list);
    draw_foot(frame, view, foot);
    if view.help {
        draw_help(frame, area);
    }
}

fn draw_head(frame: &mut Frame, view: &TopView, area: Rect) {
    let stats = &view.stats;
    let about = [stats.node.as_str(), &stats.mode, &stats.version].map(escape);
    let up = duration(stats.uptime);
    let state = state(view);
    let [left, right] = Layout::horizontal([Fill(1), Length(state.width() as u16)]).areas(area);
    let about = format!(" {}  up {up}", about.join(" · "));
    let line = Line::from(vec![" Mika ".bold().reversed(), about.into()]);
    frame.render_widget(line, left);
    frame.render_widget(state, right);
}

/// The overall state, in a few words.
fn state(view: &TopView) -> Line<'static> {
    if view.trouble.is_some() {
        return "■ no contact ".fg(Color::Red).bold().into();
    }
    if view.paused {
        return "‖ paused ".fg(Color::Yellow).bold().into();
    }
    let health = health::lines(&view.stats);
    let worst = health.iter().max_by_key(|line| line.level);
    match worst {
        Some(it) if it.level != Level::Good => {
            let (mark, color) = mark(it.level);
            format!("{mark} {} ", escape(&it.name))
                .fg(color)
                .bold()
                .into()
        }
        _ => "● all is well ".fg(Color::Green).into(),
    }
}

fn mark(level: Level) -> (&'static str, Color) {
    match level {
        Level::Good => ("●", Color::Green),
        Level::Late => ("▲", Color::Yellow),
        Level::Bad => ("■", Color::Red),
    }
}

/// As many figures as fit.
fn draw_strip(frame: &mut Frame, view: &TopView, area: Rect) {
    let stats = &view.stats;
    let figures = [
        ("swarms", count(stats.swarms)),
        ("snatches", count(stats.snatches)),
        ("connections", count(stats.connections.open)),
        ("memory", size(stats.memory)),
        ("torrents", count(stats.registry.torrents)),
        ("users", count(stats.registry.users)),
    ];
    // A public tracker has no users.
    let shown = if stats.mode == "public" {
        &figures[..5]
    } else {
        &figures[..]
    };
    let mut line = Line::default();
    for (name, text) in shown {
        let figure = [format!(" {name} ").dim(), Span::from(text.as_str()).bold()];
        let width: usize = figure.iter().map(Span::width).sum();
        if line.width() + width <= area.width.into() {
            line.extend(figure);
        }
    }
    frame.render_widget(line, area);
}

fn draw_rates(frame: &mut Frame, view: &TopView, area: Rect) {
    let inside = boxed(frame, "Announces a second", area);
    let lines =
        Layout::vertical([Length(1); RATE_LINES.len()]).areas::<{ RATE_LINES.len() }>(inside);
    for ((label, of, color), line) in RATE_LINES.into_iter().zip(lines) {
        let [name, number, bars] = Layout::horizontal([Length(8), Length(9), Fill(1)])
            .spacing(1)
            .areas(line);
        let now = view
            .history
            .now()
            .map_or_else(|| "…".into(), |rates| rate(of(rates)));
        frame.render_widget(label, name);
        frame.render_widget(Line::from(now).bold().right_aligned(), number);
        draw_bars(frame, view, of, color, bars);
    }
}

/// The newest value at the right edge.
fn draw_bars(frame: &mut Frame, view: &TopView, of: fn(&Rates) -> f64, color: Color, area: Rect) {
    let bars = view.history.bars(area.width.into(), of);
    let width = bars.len() as u16;
    let area = Rect {
        x: area.right() - width,
        width,
        ..area
    };
    frame.render_widget(
        Sparkline::default()
            .data(&bars)
            .style(Style::new().fg(color)),
        area,
    );
}

fn draw_peers(frame: &mut Frame, stats: &TrackerStats, area: Rect) {
    let total = stats.peers.total();
    let inside = boxed(frame, &format!("Peers {}", count(total.total())), area);
    let row = |name: &'static str, roles: &RoleCounts| {
        let cells = [roles.seeders, roles.leechers, roles.paused]
            .map(count)
            .map(right);
        Row::new(std::iter::once(Line::from(name)).chain(cells))
    };
    let head = Row::new(["", "seeders", "leechers", "paused"].map(|title| right(title.to_owned())));
    let widths = [Length(5), Fill(1), Fill(1), Fill(1)];
    let rows = [
        row("IPv4", &stats.peers.ipv4),
        row("IPv6", &stats.peers.ipv6),
        row("both", &total).bold(),
    ];
    frame.render_widget(Table::new(rows, widths).header(head.dim()), inside);
}

fn draw_journal(frame: &mut Frame, view: &TopView, area: Rect) {
    let inside = boxed(frame, "Journal", area);
    let [lag, changes, batches] = Layout::vertical([Length(1); 3]).areas(inside);
    let journal = &view.stats.journal;
    let [text, bars] = Layout::horizontal([Length(18), Fill(1)])
        .spacing(1)
        .areas(lag);
    let value = format!("{} s", journal.age);
    frame.render_widget(
        Line::from(vec!["Lag ".into(), format!("{value:>14}").bold()]),
        text,
    );
    draw_bars(frame, view, |rates| rates.age, Color::Magenta, bars);
    let (pending, backlog) = (count(journal.pending), count(journal.backlog));
    frame.render_widget(
        format!("{pending} pending, {backlog} not in storage").as_str(),
        changes,
    );
    let text = format!(
        "{} batches, {} failed, {} spilled",
        count(journal.batches),
        count(journal.batch_failures),
        count(journal.spilled)
    );
    frame.render_widget(text.as_str(), batches);
}

fn draw_health(frame: &mut Frame, stats: &TrackerStats, area: Rect) {
    let inside = boxed(frame, "Health", area);
    let lines: Vec<Line> = health::lines(stats)
        .iter()
        .map(|line| {
            let (mark, color) = mark(line.level);
            let text = format!(" {}: {}", escape(&line.name), escape(&line.text));
            Line::from(vec![mark.fg(color), text.into()])
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), inside);
}

fn draw_list(frame: &mut Frame, view: &mut TopView, area: Rect) {
    let titles = Tab::VARIANTS.iter().flat_map(|&list| {
        let title = Span::from(format!(" {list} "));
        [
            if list == view.list {
                title.bold().reversed()
            } else {
                title.dim()
            },
            " ".into(),
        ]
    });
    let block = Block::bordered()
        .border_style(Style::new().dim())
        .title(titles.collect::<Line>());
    let table = match view.list {
        Tab::Torrents => torrents(&view.stats),
        Tab::Clients => clients(&view.stats),
        Tab::Refusals => refusals(view),
    };
    let chosen = Style::new().add_modifier(Modifier::REVERSED);
    frame.render_stateful_widget(
        table.block(block).row_highlight_style(chosen),
        area,
        &mut view.position,
    );
}

fn torrents(stats: &TrackerStats) -> Table<'static> {
    let rows = stats.busiest.iter().map(|torrent| {
        Row::new([
            right(count(torrent.seeders.into())),
            right(count(torrent.leechers.into())),
            escape(torrent.label()).into_owned().into(),
        ])
    });
    let widths = [Length(10), Length(10), Fill(1)];
    list(rows.collect(), &widths, ["Seeders", "Leechers"], "Torrent")
}

fn clients(stats: &TrackerStats) -> Table<'static> {
    let rows = stats.clients.iter().map(|client| {
        Row::new([
            right(count(client.started)),
            escape(&client.label()).into_owned().into(),
        ])
    });
    list(
        rows.collect(),
        &[Length(12), Fill(1)],
        ["Started"],
        "Client",
    )
}

fn refusals(view: &TopView) -> Table<'static> {
    let now = view.history.now();
    let rows = view.stats.reasons().into_iter().map(|(reason, total)| {
        let per_second = now.and_then(|rates| rates.reasons.get(reason)).copied();
        Row::new([
            right(count(total)),
            right(per_second.map_or_else(|| "…".into(), rate)),
            escape(&reason.replace('_', " ")).into_owned().into(),
        ])
    });
    let widths = [Length(12), Length(10), Fill(1)];
    list(rows.collect(), &widths, ["Total", "a second"], "Reason")
}

/// A table of numbers and, last, a name.
fn list<const N: usize>(
    rows: Vec<Row<'static>>,
    widths: &[Constraint],
    numbers: [&'static str; N],
    name: &'static str,
) -> Table<'static> {
    let titles = numbers.into_iter().map(|title| right(title.to_owned()));
    let head = Row::new(titles.chain([Line::from(name)])).dim();
    Table::new(rows, widths.to_vec())
        .header(head)
        .column_spacing(2)
}

/// The problem in full, or else the keys.
fn draw_foot(frame: &mut Frame, view: &TopView, area: Rect) {
    let health = health::lines(&view.stats);
    let away = health.iter().find(|line| line.level == Level::Bad);
    let line = match (&view.trouble, away) {
        (Some(trouble), _) => Line::from(format!(" {}", escape(trouble))).fg(Color::Red),
        (None, Some(it)) => {
            let text = format!(" {}: {}", escape(&it.name), escape(&it.text));
            Line::from(text).fg(Color::Red)
        }
        (None, None) => Line::from(format!(
            " q quit   Tab another list   ↑↓ scroll   p pause   ? help   {}",
            view.address
        ))
        .dim(),
    };
    frame.render_widget(line, area);
}

fn draw_help(frame: &mut Frame, area: Rect) {
    let lines: Vec<Line> = KEYS
        .iter()
        .map(|(keys, what)| Line::from(vec![format!(" {keys:<11}").bold(), (*what).into()]))
        .collect();
    let place = area.centered(Length(52), Length(lines.len() as u16 + 2));
    frame.render_widget(Clear, place);
    let block = Block::bordered()
        .title(" Keys ")
        .title_alignment(Alignment::Center);
    frame.render_widget(Paragraph::new(lines).block(block), place);
}

/// Draws a border with a title; returns the inner area.
fn boxed(frame: &mut Frame, title: &str, area: Rect) -> Rect {
    let block = Block::bordered()
        .border_style(Style::new().dim())
        .title(Line::from(format!(" {title} ")).bold());
    let inside = block.inner(area);
    frame.render_widget(block, area);
    inside
}

fn right(text: String) -> Line<'static> {
    Line::from(text).right_aligned()
}

/// A rate, with one decimal below ten.
fn rate(value: f64) -> String {
    if value < 9.95 {
        format!("{value:.1}")
    } else {
        count(value.round() as u64)
    }
}
