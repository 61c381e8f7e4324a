//! The rules of the house that the compiler does not know: who may import whom, where `unsafe` and the choice of a system
//! may stand, how long a file may be, that every code has its page, and that the sources hold no leftovers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Module, what it may import from the crate, and why not more. docs/architecture.md shows the same table.
const TABLE: &[(&str, &str, &str)] = &[
    ("escape", "", "the escaper is below everything"),
    ("code", "", "the table of codes is below everything"),
    ("unit_file", "", "a syntax, for the inventory and for imports"),
    ("model", "escape", "values without effect, shared by every stage"),
    ("diag", "code model escape", "a diagnostic does not know which stage found it"),
    ("profile", "model diag code escape", "a profile means the same on every machine"),
    ("import", "model profile diag code unit_file", "pure: texts of other programs to a profile"),
    ("plan", "model profile diag code escape", "pure: the host is a value"),
    ("sys", "model escape unit_file", "system calls without decisions"),
    ("attribute", "model", "pure: from kernel answers to an interface"),
    ("reply", "model escape", "pure: bytes in, answer out"),
    (
        "serve",
        "attribute reply plan sys model code",
        "arrivals are values; their presentation is decided elsewhere; plan computes who can reach a socket",
    ),
    ("record", "model code escape", "the events that leave the program"),
    ("audit", "model plan profile code diag escape", "pure: findings follow from the inventory"),
    ("report", "model profile plan audit record code diag escape", "documents and their one reader"),
    ("why", "model plan code diag explain escape", "pure: causes follow from facts"),
    (
        "render",
        "model record report plan audit why code diag escape",
        "pure: no system, no clock, no environment",
    ),
    ("probe", "model sys plan report serve escape", "connects, and compares with the plan"),
    (
        "lab",
        "model sys profile plan report serve probe code escape",
        "builds a network and runs the stages in it",
    ),
    ("explain", "code escape", "pages are text"),
    (
        "library",
        "model sys profile plan report record audit lab diag escape",
        "the stages behind the library's functions; no terminal",
    ),
    (
        "cmd",
        "escape code model diag profile import plan sys attribute reply serve record report render audit why probe lab explain library",
        "the edge: it may call every stage",
    ),
];

/// Files outside `src/sys` that may choose by system, each with its reason.
const SYSTEM_CHOICE_ALLOWED: &[(&str, &str)] = &[];

/// The most lines of a file in `src` and in `crates`, and of a file of tests.
const LONGEST: usize = 620;
const LONGEST_TEST: usize = 720;

/// Directories in which files still import each other in a circle, each with the reason.
const CIRCLES_ALLOWED: &[(&str, &str)] = &[
    ("plan/filter", "decoding, evaluation and text of a ruleset are methods of one type"),
    (
        "plan",
        "the table of sockets holds those of unknown place, which are compared by the rules of conflicts",
    ),
    ("lab", "the replica of a host is run like a lab, and a run names its clients"),
    ("cmd", "an experiment plans, and a plan can be an experiment"),
    ("cmd/lab", "an experiment runs labs, and a run can be an experiment"),
    ("render/html", "results are shown in the picture of their paths, and paths with their results"),
    ("report", "a comparison is read like the documents that it compares"),
];

// ------------------------------------------------------------------------------------------------ the checker

/// The source with comments, the insides of literals, and test modules blanked. Lines stay where they are.
fn code_only(source: &str) -> String {
    blank_tests(&blank_comments_and_literals(source))
}

fn blank_comments_and_literals(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let blank = |out: &mut Vec<u8>, from: usize, to: usize| {
        for byte in &mut out[from..to] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    };
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source.as_bytes()[at..];
        let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        if rest.starts_with(b"//") {
            let end = rest.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |n| at + n);
            blank(&mut out, at, end);
            at = end;
        } else if rest.starts_with(b"/*") {
            let (mut depth, mut end) = (0, at);
            loop {
                if bytes[end..].starts_with(b"/*") {
                    (depth, end) = (depth + 1, end + 2);
                } else if bytes[end..].starts_with(b"*/") {
                    (depth, end) = (depth - 1, end + 2);
                } else {
                    end += 1;
                }
                if depth == 0 || end >= bytes.len() {
                    break;
                }
            }
            blank(&mut out, at, end.min(bytes.len()));
            at = end;
        } else if let Some(hashes) = raw_string(rest).filter(|_| !word_before) {
            let open = at + rest.iter().position(|byte| *byte == b'"').unwrap() + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            let end = source.get(open..).and_then(|text| text.find(&close)).map_or(bytes.len(), |n| open + n);
            blank(&mut out, open, end);
            at = (end + close.len()).min(bytes.len());
        } else if rest[0] == b'"' {
            let mut end = at + 1;
            while end < bytes.len() && bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            blank(&mut out, at + 1, end.min(bytes.len()));
            at = end + 1;
        } else if rest[0] == b'\'' && (rest.get(1) == Some(&b'\\') || char_literal(&source[at..])) {
            let from = if rest.get(1) == Some(&b'\\') { at + 3 } else { at + 1 };
            let end = bytes[from.min(bytes.len())..]
                .iter()
                .position(|byte| *byte == b'\'')
                .map_or(bytes.len(), |n| from + n);
            blank(&mut out, at + 1, end);
            at = end + 1;
        } else {
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// How many `#` a raw string starts with, if one starts here.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let rest = rest.strip_prefix(b"b").unwrap_or(rest).strip_prefix(b"r")?;
    let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
    (rest.get(hashes) == Some(&b'"')).then_some(hashes)
}

/// A character literal, not a lifetime.
fn char_literal(rest: &str) -> bool {
    rest.chars().nth(2) == Some('\'')
}

/// Blanks each item after `#[cfg(test)]`, up to its closing brace or semicolon.
fn blank_tests(source: &str) -> String {
    let mut out = source.to_owned();
    let mut from = 0;
    while let Some(start) = out[from..].find("#[cfg(test)]").map(|n| from + n) {
        let body = start + "#[cfg(test)]".len();
        let (mut depth, mut end) = (0usize, out.len());
        for (at, c) in out[body..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && (c == '}' || c == ';') {
                end = body + at + 1;
                break;
            }
        }
        let blanked: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blanked);
        from = start + blanked.len();
    }
    out
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Where `word` stands as a word of its own.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| !text[..*at].ends_with(is_word) && !text[at + word.len()..].starts_with(is_word))
}

/// The module path of a file below `src`: `sys/linux/poller.rs` is `[sys, linux, poller]`.
fn module_path(file: &str) -> Vec<&str> {
    let mut path: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    if matches!(path.last(), Some(&("mod" | "lib" | "main"))) {
        path.pop();
    }
    path
}

/// Every top-level module that non-test code of the file names, with the line.
fn edges(file: &str, source: &str) -> Vec<(String, usize)> {
    let code = code_only(source);
    let path = module_path(file);
    let mut found = Vec::new();
    for at in words(&code, "crate") {
        if let Some(rest) = code[at + 5..].trim_start().strip_prefix("::") {
            found.extend(heads(rest).into_iter().map(|head| (head, line_of(&code, at))));
        }
    }
    for at in words(&code, "super") {
        if code[..at].trim_end().ends_with("super::") {
            continue;
        }
        let (mut rest, mut up) = (&code[at..], 0);
        while let Some(next) = rest.strip_prefix("super") {
            up += 1;
            rest = next.trim_start().strip_prefix("::").unwrap_or("").trim_start();
        }
        if up == path.len() {
            found.extend(heads(rest).into_iter().map(|head| (head, line_of(&code, at))));
        }
    }
    for at in words(&code, "bindscope") {
        if let Some(rest) = code[at + 9..].strip_prefix("::") {
            found.extend(heads(rest).into_iter().map(|head| (head, line_of(&code, at))));
        }
    }
    found
}

/// The first names of a path or of a group of paths: `{a::b, c::{d}}` gives `a` and `c`.
fn heads(rest: &str) -> Vec<String> {
    BTreeSet::from_iter(paths(rest).into_iter().filter_map(|path| path.into_iter().next()))
        .into_iter()
        .collect()
}

/// Every path of a path or of a group of paths: `a::{b, c::{d}}` gives `a::b` and `a::c::d`.
fn paths(rest: &str) -> Vec<Vec<String>> {
    let rest = rest.trim_start();
    if let Some(group) = rest.strip_prefix('{') {
        let (mut depth, mut start, mut found) = (0usize, 0, Vec::new());
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    found.extend(paths(&group[start..at]));
                    start = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
        return found;
    }
    let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
    if name.is_empty() {
        return if rest.starts_with('*') { vec![vec!["*".into()]] } else { Vec::new() };
    }
    match rest[name.len()..].trim_start().strip_prefix("::") {
        Some(more) => {
            let mut found = paths(more);
            if found.is_empty() {
                found.push(Vec::new());
            }
            found.iter_mut().for_each(|path| path.insert(0, name.clone()));
            found
        }
        None => vec![vec![name]],
    }
}

/// The imports between files or directories of one directory: the directory, the importer and the imported.
fn siblings(sources: &[(String, String)]) -> BTreeSet<(String, String, String)> {
    let modules: BTreeSet<Vec<String>> =
        sources.iter().map(|(file, _)| module_path(file).iter().map(ToString::to_string).collect()).collect();
    let mut found = BTreeSet::new();
    for (file, source) in sources {
        let code = code_only(source);
        let own: Vec<String> = module_path(file).iter().map(ToString::to_string).collect();
        let mut targets = Vec::new();
        for at in words(&code, "crate") {
            targets.extend(code[at + 5..].trim_start().strip_prefix("::").map(paths).unwrap_or_default());
        }
        for at in words(&code, "super").filter(|at| !code[..*at].trim_end().ends_with("super::")) {
            let (mut rest, mut base) = (&code[at..], own.clone());
            while let Some(next) = rest.strip_prefix("super") {
                base.pop();
                rest = next.trim_start().strip_prefix("::").unwrap_or("").trim_start();
            }
            targets.extend(paths(rest).into_iter().map(|path| [base.clone(), path].concat()));
        }
        for mut target in targets {
            while !target.is_empty() && !modules.contains(&target) {
                target.pop();
            }
            let common = own.iter().zip(&target).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to), 1..) = (own.get(common), target.get(common), common) {
                found.insert((own[..common].join("/"), from.clone(), to.clone()));
            }
        }
    }
    found
}

/// The pairs that import each other, directly or through others, by directory.
fn circles(edges: &BTreeSet<(String, String, String)>) -> BTreeSet<(String, String, String)> {
    let mut reach = edges.clone();
    loop {
        let more: Vec<_> = reach
            .iter()
            .flat_map(|(place, from, via)| {
                let next = edges.iter().filter(move |(other, start, _)| other == place && start == via);
                next.map(move |(_, _, to)| (place.clone(), from.clone(), to.clone()))
            })
            .filter(|edge| !reach.contains(edge))
            .collect();
        if more.is_empty() {
            break;
        }
        reach.extend(more);
    }
    let back = |(place, from, to): &(String, String, String)| {
        from < to && reach.contains(&(place.clone(), to.clone(), from.clone()))
    };
    reach.iter().filter(|edge| back(edge)).cloned().collect()
}

/// What is wrong with the imports of a file.
fn import_faults(file: &str, source: &str) -> Vec<String> {
    let path = module_path(file);
    let Some(module) = path.first() else {
        let foreign = edges(file, source).into_iter().filter(|(head, _)| file == "main.rs" && head != "cmd");
        return foreign
            .map(|(head, line)| {
                format!("src/{file}:{line}: the program may use `cmd` only, and this names `{head}`")
            })
            .collect();
    };
    let Some((_, allowed, reason)) = TABLE.iter().find(|(name, ..)| name == module) else {
        return vec![format!("src/{file}: module `{module}` is not in the table of tests/architecture.rs")];
    };
    let mut faults = Vec::new();
    for (head, line) in edges(file, source) {
        let known = TABLE.iter().any(|(name, ..)| *name == head);
        if head == "*" {
            faults.push(format!("src/{file}:{line}: a glob import of the crate root hides what is used"));
        } else if known && head != *module && !allowed.split(' ').any(|name| name == head) {
            faults.push(format!("src/{file}:{line}: `{module}` may not import `{head}`: {reason}"));
        }
    }
    faults
}

/// `unsafe` and choices by system where they do not belong.
fn system_faults(file: &str, source: &str) -> Vec<String> {
    if file.starts_with("sys/") || SYSTEM_CHOICE_ALLOWED.iter().any(|(allowed, _)| *allowed == file) {
        return Vec::new();
    }
    let code = blank_comments_and_literals(source);
    let mut faults: Vec<String> = words(&code, "unsafe")
        .map(|at| format!("src/{file}:{}: `unsafe` belongs under src/sys", line_of(&code, at)))
        .collect();
    for start in ["cfg(", "cfg!(", "cfg_attr("] {
        for (at, _) in code.match_indices(start) {
            let inside = &code[at + start.len()..];
            let mut depth = 1usize;
            let end = inside
                .find(|c| {
                    depth = match c {
                        '(' => depth + 1,
                        ')' => depth - 1,
                        _ => depth,
                    };
                    depth == 0
                })
                .unwrap_or(inside.len());
            let choice = [
                "target_os",
                "target_family",
                "target_env",
                "target_vendor",
                "unix",
                "windows",
                "bindscope_portable",
            ]
            .into_iter()
            .find(|word| words(&inside[..end], word).next().is_some());
            if let Some(word) = choice {
                let line = line_of(&code, at);
                faults.push(format!("src/{file}:{line}: a choice by `{word}` belongs under src/sys"));
            }
        }
    }
    faults
}

fn length_fault(file: &str, source: &str) -> Option<String> {
    let lines = source.lines().count();
    let most = if file.starts_with("tests/") { LONGEST_TEST } else { LONGEST };
    (lines > most).then(|| format!("{file}: {lines} lines; a file above {most} wants to be two"))
}

/// Leftovers and paths of one person's machine.
fn leftover_faults(file: &str, text: &str) -> Vec<String> {
    // In pieces, so that this file does not find itself.
    let whole = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    let anywhere = [
        concat!("unimple", "mented!"),
        concat!("to", "do!("),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
    ];
    let found = whole.into_iter().flat_map(|word| words(text, word).map(move |at| (word, at)));
    let paths = anywhere.into_iter().flat_map(|word| text.match_indices(word).map(move |(at, _)| (word, at)));
    found
        .chain(paths)
        .map(|(word, at)| format!("{file}:{}: `{word}` must not stay", line_of(text, at)))
        .collect()
}

/// The rows of the first Markdown table whose header begins with `Module`: (module, imports in the order given).
fn table_in(markdown: &str) -> Vec<(String, Vec<String>)> {
    let rows = markdown.lines().skip_while(|line| !line.starts_with("| Module")).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let names = |cell: &str| {
                cell.split([',', ' ', '`'])
                    .filter(|word| !word.is_empty())
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            (names(cells[1]).concat(), names(cells[2]))
        })
        .collect()
}

/// Codes without a page and pages without a code.
fn page_faults(codes: &BTreeSet<String>, pages: &BTreeSet<String>) -> Vec<String> {
    let missing =
        codes.difference(pages).map(|code| format!("{code} has no page src/explain/codes/{code}.md"));
    let strays =
        pages.difference(codes).map(|page| format!("src/explain/codes/{page}.md is the page of no code"));
    missing.chain(strays).collect()
}

// ------------------------------------------------------------------------------------------------ this tree

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `directory` whose name ends so, as (path relative to `directory`, text).
fn files(directory: &Path, endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut queue: Vec<PathBuf> = vec![directory.to_path_buf()];
    while let Some(next) = queue.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                queue.push(path);
            } else if endings.iter().any(|ending| path.to_str().unwrap().ends_with(ending)) {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap().replace('\\', "/");
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<(String, String)> {
    let found = files(&root().join("src"), &[".rs"]);
    assert!(found.len() > 30, "the sources were not found");
    found
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn imports_go_one_way() {
    none(&sources().iter().flat_map(|(file, text)| import_faults(file, text)).collect::<Vec<_>>());
}

#[test]
fn the_edges_that_exist_are_seen() {
    let all: BTreeSet<(String, String)> = sources()
        .iter()
        .flat_map(|(file, text)| {
            let module = module_path(file).first().map_or(String::new(), |name| (*name).to_owned());
            edges(file, text).into_iter().map(move |(head, _)| (module.clone(), head))
        })
        .collect();
    for (from, to) in [("serve", "sys"), ("serve", "attribute"), ("reply", "escape"), ("", "cmd")] {
        assert!(all.contains(&(from.to_owned(), to.to_owned())), "{from} -> {to}");
    }
}

#[test]
fn systems_are_told_apart_in_one_place() {
    none(&sources().iter().flat_map(|(file, text)| system_faults(file, text)).collect::<Vec<_>>());
    let ingress = files(&root().join("crates/ingress/src"), &[".rs"]);
    assert!(ingress.len() > 5, "the sources of crates/ingress were not found");
    none(&ingress.iter().flat_map(|(file, text)| system_faults(file, text)).collect::<Vec<_>>());
    for (file, reason) in SYSTEM_CHOICE_ALLOWED {
        assert!(
            root().join("src").join(file).exists() && !reason.is_empty(),
            "{file} is allowed and not there"
        );
    }
}

#[test]
fn no_file_is_too_long() {
    let all = ["src", "tests", "crates"].map(|part| {
        files(&root().join(part), &[".rs"])
            .into_iter()
            .map(move |(file, text)| (format!("{part}/{file}"), text))
    });
    none(
        &all.into_iter().flatten().filter_map(|(file, text)| length_fault(&file, &text)).collect::<Vec<_>>(),
    );
}

#[test]
fn nothing_is_left_over() {
    let kinds = [".rs", ".md", ".toml", ".sh", ".html", ".css", ".json", ".yml"];
    let mut all = Vec::new();
    for part in ["src", "crates", "tests", "profiles", "docs", "benches", "examples"] {
        all.extend(files(&root().join(part), &kinds));
    }
    for file in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Cargo.toml", "deny.toml", ".ci/run"] {
        all.push((file.to_owned(), fs::read_to_string(root().join(file)).unwrap_or_default()));
    }
    none(&all.iter().flat_map(|(file, text)| leftover_faults(file, text)).collect::<Vec<_>>());
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let codes: BTreeSet<String> =
        bindscope::code::Code::ALL.iter().map(|(code, _)| code.to_string()).collect();
    let pages: BTreeSet<String> = files(&root().join("src/explain/codes"), &[".md"])
        .into_iter()
        .map(|(file, _)| file.trim_end_matches(".md").to_owned())
        .collect();
    assert_eq!(codes.len(), bindscope::code::Code::ALL.len(), "two codes have one number");
    none(&page_faults(&codes, &pages));
}

#[test]
fn the_documentation_shows_this_table() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let ours: Vec<(String, Vec<String>)> = TABLE
        .iter()
        .map(|(module, imports, _)| {
            let imports = match *imports {
                "" => vec!["nothing".to_owned()],
                _ if *module == "cmd" => vec!["everything".to_owned()],
                list => list.split(' ').map(str::to_owned).collect(),
            };
            ((*module).to_owned(), imports)
        })
        .collect();
    assert_eq!(table_in(&text), ours);
}

#[test]
fn the_table_has_no_circle() {
    // In the order of the table a module may name only what is above it; `render` and `audit` share no edge back.
    for (at, (module, imports, _)) in TABLE.iter().enumerate() {
        for import in imports.split(' ').filter(|import| !import.is_empty()) {
            let other = TABLE.iter().position(|(name, ..)| *name == import).expect(import);
            assert!(other != at, "{module}");
            let back = TABLE[other].1.split(' ').any(|name| name == *module);
            assert!(!back, "{module} and {import} import each other");
        }
    }
}

#[test]
fn files_of_a_directory_do_not_import_each_other_in_a_circle() {
    let found = circles(&siblings(&sources()));
    let faults =
        found.iter().filter(|(place, ..)| CIRCLES_ALLOWED.iter().all(|(allowed, _)| allowed != place));
    none(
        &faults
            .map(|(place, a, b)| format!("src/{place}: {a} and {b} import each other"))
            .collect::<Vec<_>>(),
    );
    for (place, reason) in CIRCLES_ALLOWED {
        let used = found.iter().any(|(other, ..)| other == place);
        assert!(used && !reason.is_empty(), "{place} has no circle any more: remove it from CIRCLES_ALLOWED");
    }
}

// ------------------------------------------------------------------------------------------------ the checker can fail

#[test]
fn a_circle_through_a_third_file_is_found() {
    let files = [
        ("a/mod.rs", "pub mod x;"),
        ("a/x.rs", "use super::{y::Y, other};"),
        ("a/y.rs", "use crate::a::{z::{self, Z}};"),
        ("a/z.rs", "fn f() { super::x::g() }"),
        ("a/w.rs", "use super::x::X;"),
        ("a/w/deep.rs", "use super::super::y::Y; use super::W;"),
    ]
    .map(|(file, text)| (file.to_owned(), text.to_owned()));
    let pairs: Vec<_> = circles(&siblings(&files)).into_iter().map(|(_, a, b)| a + &b).collect();
    assert_eq!(pairs, ["xy", "xz", "yz"]);
}

#[test]
fn forbidden_imports_are_found() {
    let fault = |file: &str, source: &str| import_faults(file, source);
    assert_eq!(fault("model/addr.rs", "\nuse crate::sys::Error;").len(), 1);
    assert!(
        fault("model/addr.rs", "\nuse crate::sys::Error;")[0].starts_with("src/model/addr.rs:2: `model` may")
    );
    assert_eq!(fault("attribute.rs", "fn f() { super::sys::x() }").len(), 1);
    assert_eq!(fault("reply/http.rs", "use super::super::{serve::A, model::B};").len(), 1);
    assert_eq!(fault("sys/linux/a.rs", "use super::super::super::plan::P;").len(), 1);
    assert_eq!(fault("reply/mod.rs", "use crate::{model::{A, escape}, cmd, sys::{self, B}};").len(), 2);
    assert_eq!(fault("plan/a.rs", "pub(in crate::cmd) fn f() {}").len(), 1);
    assert_eq!(fault("serve/bind.rs", "use crate::*;").len(), 1);
    assert_eq!(fault("fresh.rs", "").len(), 1);
    assert_eq!(fault("main.rs", "use bindscope::sys;").len(), 1);
    assert_eq!(
        fault("escape.rs", "const Q: char = '\"'; use crate::model::A; const R: char = '\"';").len(),
        1
    );
    assert_eq!(
        fault("escape.rs", "#[cfg(test)]\nmod tests { use crate::cmd; }\nuse crate::model::A;").len(),
        1
    );
    assert_eq!(fault("escape.rs", "const A: &str = r#\"\"\"#; use crate::model::A;").len(), 1);
}

#[test]
fn allowed_imports_are_left_alone() {
    let clean = |file: &str, source: &str| none(&import_faults(file, source));
    clean("serve/bind.rs", "use crate::{model::A, sys};");
    clean("sys/linux/a.rs", "use super::super::Error; use super::plan::P;");
    clean("escape.rs", "// crate::cmd\n/* crate::cmd /* */ crate::sys */ /// [`crate::cmd`]\n");
    clean(
        "escape.rs",
        "const A: &str = \"crate::cmd \\\" crate::sys\"; const B: &str = r#\"crate::\"cmd\"#;",
    );
    clean("escape.rs", "#[cfg(test)]\nmod tests { use crate::cmd; fn f() { if x { } } }\n");
    clean("escape.rs", "fn f<'a>(a: &'a str) -> &'a str { a } // '\n");
    clean("main.rs", "fn main() { bindscope::cmd::main(); }");
}

#[test]
fn stray_choices_by_system_are_found() {
    for bad in [
        "fn f() { unsafe { g() } }",
        "#[cfg(target_os = \"linux\")] fn f() {}",
        "#[cfg(all(test, unix))] fn f() {}",
        "#[cfg_attr(windows, allow(x))] fn f() {}",
        "fn f() { if cfg!(not(bindscope_portable)) {} }",
    ] {
        assert_eq!(system_faults("plan/a.rs", bad).len(), 1, "{bad}");
        none(&system_faults("sys/a.rs", bad));
    }
    for good in [
        "#![deny(unsafe_code)]",
        "// unsafe\n",
        "const A: &str = \"unsafe cfg(unix)\";",
        "#[cfg(test)] mod a {}",
    ] {
        none(&system_faults("plan/a.rs", good));
    }
}

#[test]
fn long_files_leftovers_and_missing_pages_are_found() {
    assert!(length_fault("a.rs", &"\n".repeat(LONGEST + 1)).is_some());
    assert!(length_fault("a.rs", &"\n".repeat(LONGEST)).is_none());
    assert_eq!(
        leftover_faults("a", concat!("a\n// TO", "DO: b\n")),
        [concat!("a:2: `TO", "DO` must not stay")]
    );
    assert_eq!(leftover_faults("a", concat!("see /ho", "me/someone/x and to", "do!()")).len(), 2);
    none(&leftover_faults("a", "mktemp /tmp/aXXXXXX"));
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(page_faults(&set(&["BS0001", "BS0002"]), &set(&["BS0002", "BS0003"])).len(), 2);
    assert_eq!(
        table_in("x\n| Module | May import |\n|---|---|\n| `a` | `b`, `c` |\n\n| `d` | e |"),
        [("a".to_owned(), vec!["b".to_owned(), "c".to_owned()])]
    );
}
