//! Every command line of the documentation is run. A block of commands is marked with a comment in the line before it:
//! `<!-- exit: 1 -->` names other exit codes than 0, `<!-- not run: REASON -->` leaves the block out, and
//! `<!-- file: NAME -->` writes the block to a file that the commands after it use.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bindscope::profile::{FileKind, reference};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, killpg};

use super::stage;
use crate::support::program::{finish, text};

/// A fenced block with the comment in the line before it.
struct Block {
    line: usize,
    language: String,
    mark: Option<String>,
    text: String,
}

/// What is done with a block.
enum Use {
    File(String),
    NotRun,
    Run { lines: Vec<String>, exits: Vec<i32> },
    Other,
}

impl Block {
    fn use_of(&self) -> Use {
        let mark = |name: &str| self.mark.as_deref()?.strip_prefix(name).map(|rest| rest.trim().to_owned());
        if let Some(name) = mark("file:") {
            return Use::File(name);
        }
        if let Some(reason) = mark("not run:") {
            assert!(reason.len() > 5, "line {}: a reason", self.line);
            return Use::NotRun;
        }
        let exits = mark("exit:").unwrap_or_else(|| "0".to_owned());
        let exits = exits.split_whitespace().map(|code| code.parse().unwrap()).collect();
        match self.language.as_str() {
            "console" => Use::Run { lines: commands(&self.text), exits },
            "yaml" => {
                let line = |line: &str| {
                    let line = line.trim_start().trim_start_matches("- ");
                    let command = line.strip_prefix("run: ").unwrap_or(line);
                    command.starts_with("bindscope ").then(|| command.to_owned())
                };
                Use::Run { lines: self.text.lines().filter_map(line).collect(), exits }
            }
            _ => Use::Other,
        }
    }
}

/// The lines after `$ `, with the lines that continue them.
fn commands(text: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut continued = false;
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push(command.to_owned());
        } else if continued {
            let last = commands.last_mut().unwrap();
            last.truncate(last.len() - 1);
            last.push_str(line.trim_start());
        }
        continued = line.ends_with('\\');
    }
    commands
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    let mut mark = None;
    for (index, line) in text.lines().enumerate() {
        if let Some(language) = line.strip_prefix("```") {
            if !open {
                blocks.push(Block {
                    line: index + 1,
                    language: language.to_owned(),
                    mark: mark.take(),
                    text: String::new(),
                });
            }
            open = !open;
        } else if open {
            let block = blocks.last_mut().unwrap();
            block.text.push_str(line);
            block.text.push('\n');
        } else {
            mark = line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->")).map(str::to_owned);
        }
    }
    assert!(!open, "a block that is not closed");
    blocks
}

fn documents() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "crates/ingress/README.md"].iter().map(PathBuf::from).collect();
    let found = std::fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path());
    all.extend(found.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    all.sort();
    assert!(all.len() > 10, "{all:?}");
    all
}

/// One trial for each document with commands.
pub fn trials() -> Vec<Trial> {
    let with_commands = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        blocks(&text)
            .iter()
            .any(|block| matches!(block.use_of(), Use::Run { lines, .. } if !lines.is_empty()))
    };
    documents()
        .into_iter()
        .filter(with_commands)
        .map(|path| {
            Trial::test(format!("commands_of {}", path.display()), move || {
                run_all(&path);
                Ok(())
            })
        })
        .collect()
}

pub fn every_block_is_run_or_says_why_not() {
    let mut count = 0;
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        for block in blocks(&text) {
            let place = format!("{}:{}", path.display(), block.line);
            let commands =
                block.text.lines().any(|line| line.starts_with("$ ") || line.starts_with("bindscope "));
            match block.use_of() {
                Use::Run { lines, .. } => count += lines.len(),
                Use::Other => assert!(!commands, "{place}: mark commands as ```console"),
                Use::File(_) | Use::NotRun => {}
            }
        }
    }
    assert!(count >= 60, "{count} commands");
}

/// Runs the commands of a document in their order, on a host with two links and three servers.
fn run_all(path: &Path) {
    let (host, _peers) = stage::host();
    let _local = stage::tcp(&host, "127.0.0.1:3000");
    let _wide = stage::tcp(&host, "0.0.0.0:9150");
    let _dual = stage::tcp_with(&host, "[::]:9151", |socket| socket.set_only_v6(false).unwrap());
    let directory = tempfile::tempdir().unwrap();
    for block in blocks(&std::fs::read_to_string(path).unwrap()) {
        match block.use_of() {
            Use::File(name) => {
                assert!(!name.contains('/'), "{name}");
                std::fs::write(directory.path().join(name), &block.text).unwrap();
            }
            Use::Run { lines, exits } => {
                for line in lines {
                    let ended = if endless(&line) { format!("exec {line}") } else { line.clone() };
                    let mut command = stage::shell(directory.path(), stage::HOSTS, &ended);
                    command.process_group(0);
                    let child = host.run(|| command.spawn()).unwrap();
                    if endless(&line) {
                        std::thread::sleep(Duration::from_millis(1500));
                        killpg(nix::unistd::Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT)
                            .unwrap();
                    }
                    let output = finish(child);
                    let code = output.status.code();
                    assert!(
                        code.is_some_and(|code| exits.contains(&code)),
                        "{}:{}: {line}\nexit {code:?}, expected {exits:?}\n{}{}",
                        path.display(),
                        block.line,
                        text(&output).0,
                        text(&output).1
                    );
                }
            }
            Use::NotRun | Use::Other => {}
        }
    }
}

/// Whether a command runs until a signal.
fn endless(line: &str) -> bool {
    let watches = line.contains("bindscope listen") || line.contains("--watch");
    watches && !line.contains("--for ") && !line.contains("--count ")
}

/// The references in docs/ are generated. `BINDSCOPE_BLESS=1` writes them.
pub fn references_are_those_of_the_parser() {
    for (kind, path) in [
        (FileKind::Profile, "docs/profile-reference.md"),
        (FileKind::Policy, "docs/policy-reference.md"),
        (FileKind::Lab, "docs/lab-reference.md"),
    ] {
        let found = reference::reference(kind);
        if std::env::var_os("BINDSCOPE_BLESS").is_some() {
            std::fs::write(path, &found).unwrap();
        }
        let expected = std::fs::read_to_string(path).unwrap_or_default();
        assert!(expected == found, "{path} is out of date: run this test with BINDSCOPE_BLESS=1");
    }
}

/// Relative links name a file that exists, and a heading that it has.
pub fn links_lead_somewhere() {
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") || link.contains(' ') {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", path.display());
            if !heading.is_empty() {
                let found = std::fs::read_to_string(&target).unwrap();
                let has =
                    found.lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == heading);
                assert!(has, "{}: no heading for {link}", path.display());
            }
        }
    }
}

/// The anchor of a heading, as GitHub makes it.
fn slug(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() })
        .collect()
}

/// The picture of the README shows what `lab run tutorial` prints. `BINDSCOPE_BLESS=1` draws it.
pub fn picture_is_of_a_real_run() {
    const PICTURE: &str = "docs/assets/lab-run-tutorial.svg";
    let mut command = crate::support::program::bindscope(&["lab", "run", "tutorial", "--color", "always"]);
    let output = command.env("COLUMNS", "80").output().unwrap();
    let (screen, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(1), "{screen}{stderr}");
    let shown = format!("\u{1b}[1m$ bindscope lab run tutorial\u{1b}[0m\n{screen}");
    let picture = anstyle_svg::Term::new().render_svg(&shown);
    if std::env::var_os("BINDSCOPE_BLESS").is_some() {
        std::fs::create_dir_all("docs/assets").unwrap();
        std::fs::write(PICTURE, &picture).unwrap();
    }
    // The notes at the end depend on the machine.
    let words = |picture: &str| {
        let inside = picture.split("<text").nth(1).unwrap_or_default().to_owned();
        let end = inside.find("Note").unwrap_or(inside.len());
        inside[..end].to_owned()
    };
    let expected = std::fs::read_to_string(PICTURE).unwrap_or_default();
    assert!(
        words(&expected) == words(&picture) && words(&picture).contains("claim3"),
        "{PICTURE} is out of date: run this test with BINDSCOPE_BLESS=1\n{screen}"
    );
}
