//! Pages in headless Chromium: nothing runs, loads or is clipped, in light, dark, print, narrow and wide.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::support::tool;
use super::*;

/// Versions of the checkers that the slow lane takes from the npm registry.
const AXE: &str = "axe-core@4.14.1";
const VALIDATE: &str = "html-validate@9.7.1";

/// What Chromium finds in pages; `None` where it is not installed. `mode` is `all` or `load`, `axe` the source of axe-core.
fn look(
    directory: &Path,
    mode: &str,
    axe: Option<&Path>,
    pages: &[(impl AsRef<str>, &str)],
) -> Option<Value> {
    if !tool("chromium") || !tool("node") {
        return None;
    }
    let mut command = Command::new("node");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/html/browser.mjs"));
    command.arg(directory).arg(mode);
    command.arg(axe.unwrap_or(Path::new("-")));
    for (name, page) in pages {
        let path = directory.join(format!("{}.html", name.as_ref()));
        std::fs::write(&path, page).unwrap();
        command.arg(path);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{:?}", text(&output));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// Where pictures are kept for a look: `BINDSCOPE_PICTURES`, or a directory that is removed.
fn directory() -> (tempfile::TempDir, std::path::PathBuf) {
    let own = tempfile::tempdir().unwrap();
    let path = match std::env::var_os("BINDSCOPE_PICTURES") {
        Some(path) => path.into(),
        None => own.path().to_owned(),
    };
    std::fs::create_dir_all(&path).unwrap();
    (own, path)
}

fn assert_sound(name: &str, found: &Value) {
    let empty = |key: &str| assert_eq!(found[key], serde_json::json!([]), "{name} {key}");
    empty("console");
    empty("requests");
    assert_eq!((&found["scripts"], &found["handlers"]), (&0.into(), &0.into()), "{name}");
    // The style sheet is in effect: the policy allows it.
    assert_ne!(found["styled"], "none", "{name}");
    assert!(found["pages"].as_u64().unwrap() >= 1, "{name}");
    for (view, seen) in found["views"].as_object().unwrap() {
        assert_eq!(seen["clipped"], 0, "{name} {view} is wider than the window");
        assert_eq!(seen["outside"], serde_json::json!([]), "{name} {view}");
        assert_ne!(seen["background"], seen["foreground"], "{name} {view}");
        let picture = std::fs::read(seen["picture"].as_str().unwrap()).unwrap();
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 5_000, "{name} {view} is blank");
    }
    let background = |view: &str| found["views"][view]["background"].as_str().unwrap().to_owned();
    assert_ne!(background("light"), background("dark"), "{name}");
    assert_eq!(background("print"), "rgb(255, 255, 255)", "{name}");
}

/// The page of each document, and the page of the same document with hostile names.
fn of_both_kinds<'a>(documents: &'a [(&str, String, String)]) -> Vec<(String, &'a str)> {
    documents
        .iter()
        .flat_map(|(name, good, bad)| {
            [((*name).to_owned(), good.as_str()), (format!("{name}-hostile"), bad.as_str())]
        })
        .collect()
}

#[test]
fn a_browser_shows_every_page_and_runs_nothing() {
    let (_own, directory) = directory();
    let documents = hostile::pages();
    let pages = of_both_kinds(&documents);
    let Some(found) = look(&directory, "all", None, &pages) else { return };
    for (name, _) in &pages {
        assert_sound(name, &found[format!("{name}.html")]);
    }
    for (name, ..) in &documents {
        let (good, bad) = (&found[format!("{name}.html")], &found[format!("{name}-hostile.html")]);
        assert_eq!((&good["rows"], &good["elements"]), (&bad["rows"], &bad["elements"]), "{name}");
    }
    let lab = found["lab.html"]["text"].as_str().unwrap();
    for listener in
        ["claim1-all-interfaces", "claim2-loopback", "claim3-address-of-eth0", "claim3-device-eth0"]
    {
        assert!(lab.contains(listener), "{listener}");
    }
}

#[test]
fn a_large_page_loads_in_two_seconds_of_the_main_thread() {
    let (_own, directory) = directory();
    let page = html::page(&[Part::Reach(&large_report::report(100, 60, 20_000))]);
    let Some(found) = look(&directory, "load", None, &[("large", &page)]) else { return };
    let found = &found["large.html"];
    assert!(found["rows"].as_u64().unwrap() > 20_000);
    assert_eq!((&found["console"], &found["requests"]), (&serde_json::json!([]), &serde_json::json!([])));
    let seconds = found["main_thread_seconds"].as_f64().unwrap();
    println!("large page: {} bytes, {seconds:.2} s of the main thread", page.len());
    assert!(seconds < 2.0, "{seconds} s");
}

#[test]
fn a_page_reads_without_its_style_sheet() {
    let (_own, directory) = directory();
    let page = page_of(&tutorial());
    let (before, rest) = page.split_once("<style>").unwrap();
    let bare = before.to_owned() + rest.split_once("</style>").unwrap().1;
    let Some(found) = look(&directory, "all", None, &[("bare", &bare)]) else { return };
    let found = &found["bare.html"];
    assert_eq!(found["styled"], "none");
    assert_eq!(found["views"]["light"]["outside"], serde_json::json!([]));
    // Words that follow each other in the source do not run together.
    let text = found["text"].as_str().unwrap();
    for words in ["OPEN, NOT EXPECTED IPv4 1 of 2", "FAILS 1 of 4", "PASS reachable_from"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

/// axe-core and html-validate, from npm: `BINDSCOPE_LONG=pages`.
#[test]
fn checkers_of_accessibility_and_of_html_find_nothing() {
    let long = std::env::var("BINDSCOPE_LONG").unwrap_or_default();
    if !matches!(long.as_str(), "1" | "pages") || !tool("npm") {
        eprintln!("not tested: BINDSCOPE_LONG=pages takes {AXE} and {VALIDATE} from npm");
        return;
    }
    let (own, directory) = directory();
    let install = ["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", AXE, VALIDATE];
    let output = Command::new("npm").args(install).current_dir(own.path()).output().unwrap();
    assert!(output.status.success(), "{:?}", text(&output));
    let documents = hostile::pages();
    let pages = of_both_kinds(&documents);
    let axe = own.path().join("node_modules/axe-core/axe.min.js");
    let found = look(&directory, "all", Some(&axe), &pages).unwrap();
    for (name, _) in &pages {
        for view in ["light", "dark"] {
            let violations = &found[format!("{name}.html")]["views"][view]["axe"];
            assert_eq!(violations, &serde_json::json!([]), "{name} {view}");
        }
    }
    let mut validate = Command::new(own.path().join("node_modules/.bin/html-validate"));
    validate.args(["--preset", "standard"]).current_dir(own.path());
    for (name, _) in &pages {
        validate.arg(directory.join(format!("{name}.html")));
    }
    let output = validate.output().unwrap();
    assert!(output.status.success(), "{:?}", text(&output));
}
