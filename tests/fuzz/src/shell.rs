//! Words for a shell, read back by a parser of shell words.

use bindscope::escape;
use bindscope::model::IfName;

use crate::assert_plain;

/// The words of a command line, with the substitutions of `printf` that [`escape::shell`] writes.
pub fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        rest = match first {
            ' ' | '\n' => {
                words.extend(word.take());
                after
            }
            '\'' => {
                let (text, after) = after.split_once('\'').expect("an open quote");
                word.get_or_insert_default().extend(text.as_bytes());
                after
            }
            '"' => {
                let (format, after) = after
                    .strip_prefix("$(printf '")
                    .and_then(|after| after.split_once("')\""))
                    .expect("double quotes hold a printf and nothing else");
                let mut output = printf(format);
                while output.last() == Some(&b'\n') {
                    output.pop();
                }
                word.get_or_insert_default().extend(output);
                after
            }
            '\\' => {
                let escaped = after.chars().next().expect("a backslash at the end");
                assert_eq!(escaped, '\'', "only a quote is escaped by a backslash");
                word.get_or_insert_default().push(b'\'');
                &after[1..]
            }
            c => {
                assert!(
                    c.is_ascii_alphanumeric() || "._:/@%+-,=>|;".contains(c),
                    "{c:?} is not quoted in {line:?}"
                );
                word.get_or_insert_default().push(c as u8);
                after
            }
        };
    }
    words.extend(word);
    words
}

/// What `printf FORMAT` of POSIX writes, for a format of octal escapes.
fn printf(format: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = format.bytes().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            assert!(byte != b'%' && byte != b'\'', "a format of {format:?}");
            out.push(byte);
            continue;
        }
        let mut value = 0;
        for _ in 0..3 {
            let digit = bytes.next().expect("three digits");
            assert!((b'0'..=b'7').contains(&digit));
            value = value * 8 + u32::from(digit - b'0');
        }
        out.push(u8::try_from(value).expect("a byte"));
    }
    assert!(!format.starts_with('-'), "printf would read an option");
    out
}

/// Any bytes as a word, among others.
pub fn shell(data: &[u8]) {
    let word = escape::shell_bytes(data);
    assert_plain(&word);
    let expected: Vec<u8> = data.iter().copied().filter(|byte| *byte != 0).collect();
    assert_eq!(words(&format!("ip {word} up")), [b"ip".to_vec(), expected.clone(), b"up".to_vec()], "{word}");
    if let Ok(text) = std::str::from_utf8(data) {
        assert_eq!(escape::shell(text), word);
    }
    // Two words side by side stay what they are.
    let (a, b) = expected.split_at(expected.len() / 2);
    let both = format!("{} {}", escape::shell_bytes(a), escape::shell_bytes(b));
    assert_eq!(words(&both), [a.to_vec(), b.to_vec()]);
    plans(data);
}

/// The commands of a network whose interface has these bytes as its name, and whose filter, route and rule name it.
fn plans(data: &[u8]) {
    use bindscope::lab::ops::{Action, Operation, Plan};
    let name = IfName::from_bytes(data);
    let node = String::from_utf8_lossy(data).into_owned();
    let plan = Plan { nodes: vec![node.clone()], ..Plan::default() };
    let path = format!("net/ipv4/conf/{node}/rp_filter");
    let actions = [
        Action::Namespace,
        Action::Setting { path, value: "1".to_owned(), optional: true },
        Action::Port(name.clone(), name.clone()),
        Action::Delete(name.clone()),
        Action::Up(name.clone(), true),
        Action::Rename(name.clone(), name.clone()),
        Action::Settle(name),
        Action::Filter(node),
    ];
    for action in actions {
        for command in plan.commands(&Operation { node: 0, action }) {
            assert_plain(&command);
            let words = words(&command);
            assert!(matches!(words.first().map(Vec::as_slice), Some(b"ip")), "{command}");
        }
    }
}
