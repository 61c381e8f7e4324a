use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::board::{Action, Board, Hands, Key, Row, Tone, keys};
use super::{bytes_of, draw};

fn board() -> Board {
    let row = |name: &str, bound: &str, counts: [&str; 4]| Row {
        key: name.to_owned(),
        cells: [name, bound]
            .into_iter()
            .chain(counts)
            .map(|text| (text.to_owned(), if text.ends_with('!') { Tone::Bad } else { Tone::Plain }))
            .collect(),
    };
    Board {
        status: " three-claims on web   7s   24 arrivals".to_owned(),
        columns: ["LISTENER", "BOUND TO", "eth0", "eth1", "lo", "TOTAL"].map(str::to_owned).into(),
        named: 2,
        rows: vec![
            row("everywhere", "tcp 0.0.0.0:8081", ["6", "3", "3", "12"]),
            row("loopback", "tcp 127.0.0.1:8082", ["-", "-", "3", "3"]),
            row("eth1-only?", "tcp 10.0.0.10:8083", ["3!", "3", "-", "6"]),
        ],
        stream_heading: "LAST ARRIVALS".to_owned(),
        stream: (1..30)
            .map(|number| (format!("16:33:37  everywhere  eth0  line {number}"), Tone::Plain))
            .collect(),
        count: 24,
    }
}

/// The picture as lines without blanks at the end.
fn picture(width: u16, height: u16, hands: &Hands, reason: &[String]) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame.buffer_mut(), &board(), hands, reason, true, 5)).unwrap();
    let buffer = terminal.backend().buffer();
    (0..height)
        .map(|y| {
            let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
            line.trim_end().to_owned()
        })
        .collect()
}

#[test]
fn the_usual_size_shows_the_table_and_the_last_lines() {
    let lines = picture(80, 24, &Hands::default(), &[]);
    assert_eq!(lines[0], " three-claims on web   7s   24 arrivals");
    assert_eq!(lines[1], "LISTENER    BOUND TO            eth0  eth1  lo  TOTAL");
    assert_eq!(lines[2], "everywhere  tcp 0.0.0.0:8081       6     3   3     12");
    assert_eq!(lines[4], "eth1-only?  tcp 10.0.0.10:8083    3!     3   -      6");
    assert_eq!(lines[5], "LAST ARRIVALS");
    assert!(lines[22].ends_with("line 29"), "{lines:#?}");
    assert!(lines[23].starts_with("q end  space pause"), "{lines:#?}");
}

#[test]
fn small_sizes_fold_columns_and_keep_the_selected_one() {
    let lines = picture(40, 10, &Hands::default(), &[]);
    assert!(lines[1].contains("eth0") && lines[1].contains('+'), "{lines:#?}");
    assert!(lines.iter().any(|line| line.ends_with("line 29")), "{lines:#?}");
    let mut hands = Hands::default();
    for _ in 0..9 {
        hands.key(Key::Right, &board());
    }
    assert_eq!(hands.column.as_deref(), Some("TOTAL"));
    let lines = picture(40, 10, &hands, &[]);
    assert!(lines[1].contains("TOTAL"), "{lines:#?}");
    let lines = picture(20, 5, &Hands::default(), &[]);
    assert!(lines[2].starts_with("every"), "{lines:#?}");
    assert!(lines[4].starts_with("q end"), "{lines:#?}");
    // The selected row is among those shown.
    let mut hands = Hands::default();
    for _ in 0..2 {
        hands.key(Key::Down, &board());
    }
    assert!(picture(20, 5, &hands, &[]).iter().any(|line| line.starts_with("eth1")), "20x5");
}

#[test]
fn no_size_and_no_state_upsets_it() {
    let states = [
        Hands::default(),
        Hands { help: true, ..Hands::default() },
        Hands { reason: true, ..Hands::default() },
        Hands { typing: true, filter: "e\u{1b}[2J".repeat(50), ..Hands::default() },
        Hands {
            paused: Some(board()),
            row: Some("gone".to_owned()),
            column: Some("lo".to_owned()),
            ..Hands::default()
        },
    ];
    let reason = vec!["a long reason with 名前 and more words than fit".to_owned(); 40];
    for width in [0, 1, 2, 7, 20, 33, 80, 300] {
        for height in [0, 1, 2, 3, 5, 9, 24, 100] {
            for hands in &states {
                for line in picture(width, height, hands, &reason) {
                    assert!(!line.contains('\u{1b}'), "{line:?}");
                }
            }
        }
    }
}

#[test]
fn a_pause_a_reason_and_a_filter_are_shown() {
    let mut hands = Hands::default();
    assert_eq!(hands.key(Key::Char(' '), &board()), Action::Draw);
    assert!(picture(80, 24, &hands, &[])[0].starts_with("PAUSED, 5 more since"), "paused");
    hands.key(Key::Char(' '), &board());
    hands.key(Key::Enter, &board());
    assert_eq!(picture(80, 24, &hands, &["why".to_owned()])[1], "why");
    hands.key(Key::Escape, &board());
    for key in keys(b"/loop\r") {
        hands.key(key, &board());
    }
    let lines = picture(80, 24, &hands, &[]);
    assert!(lines[2].starts_with("loopback") && lines[3].starts_with("LAST"), "{lines:#?}");
    assert!(lines[23].starts_with("filter: loop"), "{lines:#?}");
    assert_eq!(hands.key(Key::Control('c'), &board()), Action::End);
    assert_eq!(hands.key(Key::Control('z'), &board()), Action::Suspend);
    assert_eq!(hands.key(Key::Char('r'), &board()), Action::Refresh);
}

#[test]
fn bytes_become_keys() {
    assert_eq!(
        keys(b"a\x1b[A\x1bOB\x1b[1;5C\x1b[3~\x1b\r\x7f\x03"),
        [Key::Char('a'), Key::Up, Key::Down, Key::Escape, Key::Enter, Key::Backspace, Key::Control('c')]
    );
    assert_eq!(keys("äß名".as_bytes()), [Key::Char('ä'), Key::Char('ß'), Key::Char('名')]);
    // Whatever a terminal sends.
    for first in 0..=255_u8 {
        for second in [0, 0x1b, b'[', 0x80, 0xff] {
            let _ = keys(&[0x1b, first, second]);
            let _ = keys(&[first, second]);
        }
    }
}

#[test]
fn only_what_changed_is_written() {
    let area = ratatui::layout::Rect::new(0, 0, 20, 2);
    let (mut before, mut after) =
        (ratatui::buffer::Buffer::empty(area), ratatui::buffer::Buffer::empty(area));
    before.set_string(0, 0, "12 arrivals", ratatui::style::Style::new());
    after.set_string(0, 0, "13 arrivals", ratatui::style::Style::new());
    let mut out = Vec::new();
    bytes_of(&mut out, &before, &after);
    assert_eq!(String::from_utf8(out).unwrap(), "\u{1b}[1;2H\u{1b}[0m3\u{1b}[0m");
    let mut out = Vec::new();
    bytes_of(&mut out, &after, &after);
    assert!(out.is_empty());
}
