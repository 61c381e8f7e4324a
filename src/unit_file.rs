//! The syntax of systemd's unit files (systemd.syntax(7)).
//!
//! The syntax differs from that of INI files: a key may repeat, its order counts, and an empty value resets the list; comments may
//! stand between the lines of a continued value, and `;` and `#` inside a value belong to it. Messages need the line of a setting.
//! Parsers that keep a map of keys, or end a value at `;`, lose this; so the file is read here.

/// A setting of a unit file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// `Section.Key`.
    pub key: String,
    /// Value; empty to reset a list.
    pub value: String,
    /// First line in the file, from 1.
    pub line: usize,
}

/// The settings of a file, in their order.
#[must_use]
pub fn settings(text: &str) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut section = String::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let mut whole = first.trim().to_owned();
        if whole.starts_with(['#', ';']) {
            continue;
        }
        while whole.ends_with('\\') {
            whole.pop();
            // Comments between the lines of a value are left out.
            match lines.by_ref().map(|(_, line)| line.trim()).find(|line| !line.starts_with(['#', ';'])) {
                Some(next) => {
                    whole.push(' ');
                    whole.push_str(next);
                }
                None => break,
            }
        }
        if let Some(name) = whole.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = whole.split_once('=') {
            let key = format!("{section}.{}", key.trim());
            settings.push(Setting { key, value: value.trim().to_owned(), line: index + 1 });
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continued_lines_and_comments_are_read_as_systemd_reads_them() {
        let text =
            "[Socket]\n# one\nListenStream=80\nExecStart=/bin/a \\\n# between\n  b\n;x=1\n[Install]\nA = \n";
        let found: Vec<(String, String, usize)> =
            settings(text).into_iter().map(|one| (one.key, one.value, one.line)).collect();
        let wanted =
            [("Socket.ListenStream", "80", 3), ("Socket.ExecStart", "/bin/a  b", 4), ("Install.A", "", 9)];
        assert_eq!(found, wanted.map(|(key, value, line)| (key.to_owned(), value.to_owned(), line)));
    }

    #[test]
    fn keys_repeat_in_order_and_values_keep_their_signs() {
        let text = "[Socket]\nListenStream=80\nListenStream=\nListenStream=/run/a;b#c\n";
        let found: Vec<(String, usize)> =
            settings(text).into_iter().map(|one| (one.value, one.line)).collect();
        assert_eq!(
            found,
            [("80", 2), ("", 3), ("/run/a;b#c", 4)].map(|(value, line)| (value.to_owned(), line))
        );
    }
}
