//! What a person sees at several widths of the terminal: no line is wider, and the screens stay short.

use std::collections::BTreeSet;

use unicode_width::UnicodeWidthStr as _;

use super::stage;
use crate::support::netns::Netns;
use crate::support::program::{bindscope, text};

/// A host with thirteen listeners of this test.
fn busy_host() -> (Netns, Vec<Netns>, Vec<Box<dyn std::any::Any>>) {
    let (host, peers) = stage::host();
    let mut kept: Vec<Box<dyn std::any::Any>> = Vec::new();
    for address in [
        "127.0.0.1:3000",
        "0.0.0.0:9000",
        "0.0.0.0:9001",
        "192.168.1.10:9002",
        "10.20.0.10:9003",
        "[::1]:9004",
        "[2001:db8:1::10]:9005",
        "[fd20::10]:9006",
    ] {
        kept.push(Box::new(stage::tcp(&host, address)));
    }
    for (port, only) in [(9007, true), (9008, false), (9009, false)] {
        kept.push(Box::new(stage::tcp_with(&host, &format!("[::]:{port}"), |socket| {
            socket.set_only_v6(only).unwrap()
        })));
    }
    kept.push(Box::new(stage::udp(&host, "0.0.0.0:9010")));
    kept.push(Box::new(stage::udp(&host, "[::1]:9011")));
    (host, peers, kept)
}

/// The screens, and how many lines each may have at 80 columns.
const SCREENS: &[(&[&str], usize)] = &[
    (&[], 25),
    // Before the commands that connect: the listeners of this host accept nothing and keep every connection.
    (&["connections"], 25),
    (&["audit"], 30),
    (&["audit", "--port", "9000-9009"], 30),
    (&["interfaces"], 60),
    (&["plan", "default"], 25),
    (&["plan", "tutorial"], 35),
    (&["plan", "0.0.0.0:8080", "[::]:8081", "eth0:8082"], 25),
    (&["plan", "8000-8019"], 25),
    (&["probe", "default"], 35),
    (&["probe", "--ports", "3000,9000-9020"], 50),
    (&["why", "localhost:3000"], 25),
    (&["why", "192.168.1.10:3000"], 25),
    (&["why", "eth0:9008"], 25),
    (&["lab", "run", "tutorial"], 30),
    (&["lab", "list"], 20),
    (&["tutorial"], 45),
    (&["tutorial", "--lang", "es"], 45),
    (&["explain"], 60),
];

fn screen(host: &Netns, arguments: &[&str], columns: usize) -> String {
    let output = host.output(bindscope(arguments).env("COLUMNS", columns.to_string()));
    let (stdout, stderr) = text(&output);
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{arguments:?}: {stdout}{stderr}");
    stdout
}

pub fn no_line_is_wider_than_the_terminal() {
    let (host, _peers, _kept) = busy_host();
    let mut wrong = BTreeSet::new();
    for (arguments, most) in SCREENS {
        for columns in [60, 80, 120, 200] {
            let shown = screen(&host, arguments, columns);
            assert!(!shown.is_empty(), "{arguments:?}");
            if let Some(wide) = shown.lines().find(|line| line.width() > columns) {
                wrong.insert(format!("{arguments:?} at {columns}: {} columns: {wide}", wide.width()));
            }
            if columns >= 80 && shown.lines().count() > *most {
                wrong.insert(format!(
                    "{arguments:?} at {columns}: {} lines, {most} allowed",
                    shown.lines().count()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}

/// Words that say exposure or arrival in another way than the glossary.
const OTHER_WORDS: &[&str] = &[
    "came in on",
    "come in on",
    "comes in on",
    "coming in on",
    "arrived over",
    "arrives over",
    "arrived at interface",
    "this machine only",
    "open to every",
    "open to private",
    "open to hosts",
    "open to any",
    "anybody",
    "everybody",
    "whoever",
    "foretold",
    "foretell",
    "ARRIVED ON",
    "CAME IN",
    "world-reachable",
    "publicly reachable",
    "from the whole world",
    "the link only",
];

/// One vocabulary for exposure and arrival: on every screen, in all texts of the program, and in the documentation.
pub fn exposure_and_arrival_have_one_vocabulary() {
    let (host, _peers, _kept) = busy_host();
    let mut wrong = BTreeSet::new();
    let mut check = |place: &str, text: &str| {
        for (number, line) in text.lines().enumerate() {
            for word in OTHER_WORDS.iter().filter(|word| line.contains(**word)) {
                wrong.insert(format!("{place}:{}: {word}: {}", number + 1, line.trim()));
            }
        }
    };
    for (arguments, _) in SCREENS {
        check(&arguments.join(" "), &screen(&host, arguments, 120));
        let verbose = [*arguments, &["-v"]].concat();
        check(&verbose.join(" "), &screen(&host, &verbose, 120));
    }
    let mut files = vec![std::path::PathBuf::from("README.md")];
    let mut directories = vec!["src".into(), "docs".into(), std::path::PathBuf::from("profiles")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                files.push(path);
            }
        }
    }
    for path in files {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let source = path.extension().is_some_and(|extension| extension == "rs");
        let shown: String = text
            .split("#[cfg(test)]")
            .next()
            .unwrap_or_default()
            .lines()
            .map(|line| {
                if source && line.trim_start().starts_with("//") { "\n" } else { line }.to_owned() + "\n"
            })
            .collect();
        check(&path.display().to_string(), &shown);
    }
    assert!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
    // The five classes, as the program and the glossary write them.
    let guide = std::fs::read_to_string("docs/guide.md").unwrap();
    use bindscope::model::Exposure;
    for exposure in [Exposure::None, Exposure::Loopback, Exposure::Link, Exposure::Private, Exposure::Global]
    {
        assert!(guide.contains(&format!("| {} |", exposure.words())), "{}", exposure.words());
    }
}
