//! Draws a board into a buffer of any size.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::board::{Board, Hands, Row, Tone};

/// Columns between two columns of the table.
const GAP: u16 = 2;

/// Columns that a name needs at least.
const NARROW: usize = 8;

const KEYS: &str = "q end  space pause  / filter  arrows select  enter reason  ? keys";

const HELP: [&str; 8] = [
    "q, Ctrl-C    end; the summary follows on the screen",
    "space        pause the picture; nothing else is paused",
    "/TEXT enter  show only rows and lines with this text; esc shows all",
    "arrows, j k  select a row and a column",
    "enter        why the selected value is what it is; esc closes",
    "r            read again (audit)",
    "Ctrl-Z       stop; fg goes on",
    "?            these keys",
];

/// Draws everything. `reason` explains the selected value while [`Hands::reason`] is set; `color` is false for NO_COLOR.
pub fn draw(buffer: &mut Buffer, board: &Board, hands: &Hands, reason: &[String], color: bool, missed: u64) {
    let area = buffer.area;
    buffer.set_style(area, Style::reset());
    let (width, height) = (area.width, area.height);
    let pen = Pen { color };
    let mut status = board.status.clone();
    if hands.paused.is_some() {
        status = format!("PAUSED, {missed} more since  {status}");
    }
    let strong = Style::new().add_modifier(Modifier::REVERSED);
    line(buffer, 0, &status, strong, width);
    buffer.set_style(Rect { height: 1.min(height), ..area }, strong);
    if height < 2 {
        return;
    }
    let footer = height - 1;
    let room = footer.saturating_sub(1);
    if hands.help {
        lines(buffer, 1, room, &HELP.map(str::to_owned), width);
    } else if hands.reason {
        lines(buffer, 1, room, reason, width);
    } else {
        let rows = hands.rows(board);
        // The stream gets what the table does not need, and a third at least.
        let wanted = u16::try_from(rows.len() + 1).unwrap_or(u16::MAX);
        let stream = if room < 6 { 0 } else { (room / 3).max(room.saturating_sub(wanted)).max(2) };
        table(buffer, 1, room - stream, board, &rows, hands, &pen);
        if stream > 0 {
            let top = 1 + room - stream;
            let heading = format!("{} ", board.stream_heading);
            line(buffer, top, &heading, Style::new().add_modifier(Modifier::UNDERLINED), width);
            let shown = hands.stream(board);
            let first = shown.len().saturating_sub(usize::from(stream - 1));
            for (number, (text, tone)) in (1..stream).zip(shown.iter().skip(first)) {
                line(buffer, top + number, text, pen.style(*tone), width);
            }
        }
    }
    let foot = match (hands.typing, hands.filter.is_empty()) {
        (true, _) => format!("/{}_", crate::escape::escape(&hands.filter)),
        (false, false) => format!("filter: {} (esc shows all)  {KEYS}", crate::escape::escape(&hands.filter)),
        (false, true) => KEYS.to_owned(),
    };
    line(buffer, footer, &foot, pen.style(Tone::Faint), width);
}

struct Pen {
    color: bool,
}

impl Pen {
    /// Without colours, bold and underlined text carry the meaning; a problem has a mark in its text as well.
    fn style(&self, tone: Tone) -> Style {
        let style = Style::new();
        match tone {
            Tone::Plain => style,
            Tone::Faint => style.add_modifier(Modifier::DIM),
            Tone::Bad if self.color => style.fg(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Bad => style.add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            Tone::Fresh if self.color => style.fg(Color::Green).add_modifier(Modifier::BOLD),
            Tone::Fresh => style.add_modifier(Modifier::BOLD),
        }
    }
}

fn line(buffer: &mut Buffer, y: u16, text: &str, style: Style, width: u16) {
    if y < buffer.area.height {
        buffer.set_stringn(0, y, text, usize::from(width), style);
    }
}

/// Lines with breaks at the width.
fn lines(buffer: &mut Buffer, top: u16, room: u16, texts: &[String], width: u16) {
    let mut y = top;
    for text in texts {
        let mut rest = text.as_str();
        loop {
            if y >= top + room {
                return;
            }
            let (end, _) = buffer.set_stringn(0, y, rest, usize::from(width), Style::new());
            y += 1;
            let shown = shown_bytes(rest, end);
            if shown == 0 || shown >= rest.len() {
                break;
            }
            rest = &rest[shown..];
        }
    }
}

/// How many bytes of a text fit into so many columns.
fn shown_bytes(text: &str, columns: u16) -> usize {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
        if used > usize::from(columns) {
            return at;
        }
    }
    text.len()
}

fn wide(text: &str) -> u16 {
    u16::try_from(unicode_width::UnicodeWidthStr::width(text)).unwrap_or(u16::MAX)
}

/// The table: columns that name the row, then as many values as fit; the number of others is at the end.
fn table(buffer: &mut Buffer, top: u16, room: u16, board: &Board, rows: &[&Row], hands: &Hands, pen: &Pen) {
    if room == 0 {
        return;
    }
    let width = buffer.area.width;
    let columns = board.columns.len();
    let size = |column: usize| -> u16 {
        let cells = rows.iter().filter_map(|row| row.cells.get(column)).map(|(text, _)| wide(text));
        cells.chain(board.columns.get(column).map(|text| wide(text))).max().unwrap_or(0)
    };
    let mut sizes: Vec<u16> = (0..columns).map(size).collect();
    let values: u16 =
        sizes.iter().skip(board.named).map(|size| size.saturating_add(GAP)).fold(0, u16::saturating_add);
    // Names may use what the values leave, and a half at least.
    let names = width.saturating_sub(values).max(width / 2);
    let mut named = board.named.min(columns);
    // Columns that are too narrow say nothing: the last ones are left out.
    while named > 1 && named * NARROW > usize::from(names) {
        named -= 1;
    }
    let total =
        |sizes: &[u16]| sizes.iter().map(|size| size.saturating_add(GAP)).fold(0, u16::saturating_add);
    while let Some(widest) = (0..named).max_by_key(|&column| sizes[column])
        && sizes[widest] > 3
        && total(&sizes[..named]) > names
    {
        sizes[widest] -= 1;
    }
    let selected_column = hands.selected_column(board);
    let left: u16 = sizes.iter().take(named).map(|size| size + GAP).sum();
    let shown = visible(&sizes, board.named.min(columns), selected_column, width.saturating_sub(left));
    let mut places: Vec<(usize, u16)> = Vec::new();
    let mut x = 0;
    for column in (0..named).chain(shown.clone()) {
        places.push((column, x));
        x += sizes[column] + GAP;
    }
    let hidden = columns - board.named.min(columns) - shown.len();
    let heading = Style::new().add_modifier(Modifier::BOLD);
    for &(column, x) in &places {
        put(buffer, x, top, &board.columns[column], sizes[column], column >= board.named, heading);
    }
    if hidden > 0 {
        put(buffer, x.min(width.saturating_sub(4)), top, &format!("+{hidden}"), 4, false, heading);
    }
    let selected = hands.selected(rows);
    let fit = usize::from(room - 1);
    let first = if selected < fit { 0 } else { selected + 1 - fit };
    for (number, row) in rows.iter().enumerate().skip(first).take(fit) {
        let y = top + 1 + u16::try_from(number - first).unwrap_or(0);
        for &(column, x) in &places {
            let Some((text, tone)) = row.cells.get(column) else { continue };
            let mut style = pen.style(*tone);
            let here = number == selected && selected_column.is_none_or(|at| at == column);
            if here || (number == selected && column < named) {
                style = style.add_modifier(Modifier::REVERSED);
            }
            put(buffer, x, y, text, sizes[column], column >= board.named, style);
        }
    }
}

/// The values that fit, with the selected one among them.
fn visible(sizes: &[u16], named: usize, selected: Option<usize>, room: u16) -> std::ops::Range<usize> {
    let fits = |range: std::ops::Range<usize>| {
        let used: u16 =
            sizes[range.clone()].iter().map(|size| size.saturating_add(GAP)).fold(0, u16::saturating_add);
        // The last column needs no gap; hidden columns need their number.
        let more = if range.len() < sizes.len() - named { 4 } else { 0 };
        used.saturating_sub(GAP).saturating_add(more) <= room
    };
    let selected = selected.unwrap_or(named).max(named);
    let mut start = named;
    while start < selected && !fits(start..selected + 1) {
        start += 1;
    }
    let mut end = (selected + 1).min(sizes.len()).max(start);
    while end < sizes.len() && fits(start..end + 1) {
        end += 1;
    }
    start..end
}

/// Text in a column, cut with an ellipsis.
fn put(buffer: &mut Buffer, x: u16, y: u16, text: &str, size: u16, right: bool, style: Style) {
    if x >= buffer.area.width || y >= buffer.area.height {
        return;
    }
    let room = size.min(buffer.area.width - x);
    let long = wide(text) > room;
    let shift = if right && !long { room.saturating_sub(wide(text)) } else { 0 };
    let text = if long && room > 1 {
        format!("{}…", &text[..shown_bytes(text, room - 1)])
    } else {
        text.to_owned()
    };
    buffer.set_stringn(x + shift, y, text, usize::from(room - shift), style);
}
