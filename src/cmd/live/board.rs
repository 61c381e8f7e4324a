//! What a live view shows, as plain values: a table, a stream of lines, and the state of the keyboard.

/// Meaning of a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Ordinary.
    #[default]
    Plain,
    /// A problem.
    Bad,
    /// Just changed.
    Fresh,
    /// Less important.
    Faint,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Identifies the row when the table changes.
    pub key: String,
    /// Escaped texts, one for each column.
    pub cells: Vec<(String, Tone)>,
}

/// The content of a view. All texts are escaped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Board {
    /// The first line.
    pub status: String,
    /// Headings of the columns.
    pub columns: Vec<String>,
    /// Number of columns that name the row; the others can be selected and are aligned to the right.
    pub named: usize,
    /// The table.
    pub rows: Vec<Row>,
    /// Heading of the lines below.
    pub stream_heading: String,
    /// The lines, oldest first.
    pub stream: Vec<(String, Tone)>,
    /// Counts what happened so far, so that a paused view can say how much it does not show.
    pub count: u64,
}

/// A source of boards.
pub trait Model: Send + 'static {
    /// Changes with everything that a board shows.
    fn revision(&self) -> u64;

    /// The current board.
    fn board(&self) -> Board;

    /// Why a value of the table is what it is: the row, and the column if the table has columns to select.
    fn reason(&self, row: &str, column: Option<&str>) -> Vec<String>;
}

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// Arrow keys.
    Up,
    /// Arrow keys.
    Down,
    /// Arrow keys.
    Left,
    /// Arrow keys.
    Right,
    /// With Ctrl.
    Control(char),
}

/// The keys in bytes from a terminal; unknown sequences are left out.
#[must_use]
pub fn keys(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            0x1b => match tail {
                [b'[' | b'O', code, after @ ..] => {
                    let mut after = after;
                    match code {
                        b'A' => keys.push(Key::Up),
                        b'B' => keys.push(Key::Down),
                        b'C' => keys.push(Key::Right),
                        b'D' => keys.push(Key::Left),
                        // A longer sequence ends with a letter or a tilde.
                        b'0'..=b'?' => {
                            let end = after.iter().position(|byte| (0x40..=0x7e).contains(byte));
                            after = end.and_then(|end| after.get(end + 1..)).unwrap_or_default();
                        }
                        _ => {}
                    }
                    rest = after;
                }
                _ => keys.push(Key::Escape),
            },
            b'\r' | b'\n' => keys.push(Key::Enter),
            0x7f | 0x08 => keys.push(Key::Backspace),
            control @ 0x01..=0x1a => keys.push(Key::Control(char::from(control + b'a' - 1))),
            _ => {
                let length = match first {
                    0xf0.. => 4,
                    0xe0.. => 3,
                    0xc0.. => 2,
                    _ => 1,
                };
                let from = bytes.len() - tail.len() - 1;
                let end = (from + length).min(bytes.len());
                if let Some(c) =
                    std::str::from_utf8(&bytes[from..end]).ok().and_then(|text| text.chars().next())
                {
                    keys.push(Key::Char(c));
                    rest = &bytes[end..];
                }
            }
        }
    }
    keys
}

/// What the driver of the view must do after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Draw again.
    Draw,
    /// End the program.
    End,
    /// Stop the program until it is continued.
    Suspend,
    /// Read the source again.
    Refresh,
}

/// The state of the keyboard.
#[derive(Debug, Clone, Default)]
pub struct Hands {
    /// Selected row, by key.
    pub row: Option<String>,
    /// Selected column, by heading.
    pub column: Option<String>,
    /// Only rows and lines that contain this text are shown.
    pub filter: String,
    /// Whether the filter is being typed.
    pub typing: bool,
    /// The board that is shown while paused.
    pub paused: Option<Board>,
    /// Whether the reason for the selected value is shown.
    pub reason: bool,
    /// Whether the keys are explained.
    pub help: bool,
}

impl Hands {
    /// The rows that the filter lets through.
    pub fn rows<'b>(&self, board: &'b Board) -> Vec<&'b Row> {
        let wanted = |row: &&Row| {
            self.filter.is_empty() || row.cells.iter().any(|(text, _)| text.contains(&self.filter))
        };
        let rows: Vec<&Row> = board.rows.iter().filter(wanted).collect();
        let headings = board.columns.iter().skip(board.named).any(|name| name.contains(&self.filter));
        // The name of a column selects lines, not rows.
        if rows.is_empty() && headings { board.rows.iter().collect() } else { rows }
    }

    /// The lines that the filter lets through, oldest first.
    pub fn stream<'b>(&self, board: &'b Board) -> Vec<&'b (String, Tone)> {
        board.stream.iter().filter(|(text, _)| text.contains(&self.filter)).collect()
    }

    /// Handles a key.
    pub fn key(&mut self, key: Key, board: &Board) -> Action {
        if self.typing {
            match key {
                Key::Enter => self.typing = false,
                Key::Escape => {
                    self.typing = false;
                    self.filter.clear();
                }
                Key::Backspace => drop(self.filter.pop()),
                Key::Char(c) => self.filter.push(c),
                Key::Control('c') => return Action::End,
                Key::Control('z') => return Action::Suspend,
                _ => {}
            }
            return Action::Draw;
        }
        match key {
            Key::Char('q') | Key::Control('c') => return Action::End,
            Key::Control('z') => return Action::Suspend,
            Key::Char('r') => return Action::Refresh,
            Key::Char(' ') => {
                self.paused = if self.paused.is_some() { None } else { Some(board.clone()) };
            }
            Key::Char('/') => {
                self.typing = true;
                self.filter.clear();
            }
            Key::Char('?' | 'h') => self.help = !self.help,
            Key::Escape => {
                if self.reason || self.help {
                    (self.reason, self.help) = (false, false);
                } else {
                    self.filter.clear();
                }
            }
            Key::Enter => self.reason = !self.reason,
            Key::Up | Key::Char('k') => self.move_row(board, -1),
            Key::Down | Key::Char('j') => self.move_row(board, 1),
            Key::Left => self.move_column(board, -1),
            Key::Right => self.move_column(board, 1),
            _ => {}
        }
        Action::Draw
    }

    /// The index of the selected row among `rows`.
    pub fn selected(&self, rows: &[&Row]) -> usize {
        let key = self.row.as_ref();
        key.and_then(|key| rows.iter().position(|row| row.key == *key)).unwrap_or(0)
    }

    /// The index of the selected column, if columns can be selected.
    pub fn selected_column(&self, board: &Board) -> Option<usize> {
        if board.columns.len() <= board.named {
            return None;
        }
        let named = self.column.as_ref();
        let found = named.and_then(|name| board.columns.iter().position(|column| column == name));
        Some(found.filter(|index| *index >= board.named).unwrap_or(board.named))
    }

    fn move_row(&mut self, board: &Board, by: isize) {
        let rows = self.rows(board);
        let last = rows.len().saturating_sub(1);
        let to = self.selected(&rows).saturating_add_signed(by).min(last);
        self.row = rows.get(to).map(|row| row.key.clone());
    }

    fn move_column(&mut self, board: &Board, by: isize) {
        let Some(at) = self.selected_column(board) else { return };
        let to = at.saturating_add_signed(by).clamp(board.named, board.columns.len() - 1);
        self.column = board.columns.get(to).cloned();
    }
}
