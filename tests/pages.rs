//! `explain`, `completions` and `man`, as a user calls them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

#[path = "support/mod.rs"]
mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};

use support::program::{finish, run, text};

/// The names of all commands, from the program's own help.
fn commands() -> Vec<String> {
    let (help, _) = text(&run(&["--help"]));
    let list = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
    let names: Vec<String> = list
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    assert!(names.len() >= 6 && names.iter().any(|name| name == "explain"), "{names:?}");
    names
}

/// Runs a tool on `input`; `None`, with the reason, when it is not installed and it is not required.
fn tool(program: &str, arguments: &[&str], input: &[u8]) -> Option<std::process::Output> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            eprintln!("not checked with {program}: {error}");
            assert!(std::env::var_os("BINDSCOPE_REQUIRE_TOOLS").is_none(), "{program}: {error}");
            return None;
        }
    };
    child.stdin.take().unwrap().write_all(input).unwrap();
    Some(finish(child))
}

#[test]
fn a_page_is_shown_plain_to_a_pipe_and_styled_on_request() {
    let plain = run(&["explain", "weak-host"]);
    let (page, stderr) = text(&plain);
    assert!(plain.status.success() && stderr.is_empty(), "{stderr}");
    assert_eq!(page, include_str!("../src/explain/topics/weak-host.md"));
    let (styled, _) = text(&run(&["explain", "--color", "always", "weak-host"]));
    assert!(styled.starts_with("\u{1b}[1m") && !styled.contains("# The weak"), "{styled}");
    let (two, _) = text(&run(&["explain", "bs2001", "Exit_Codes"]));
    assert!(two.starts_with("# Another socket") && two.contains("\n# Exit codes\n"));
}

#[test]
fn the_list_has_every_code_and_topic() {
    let (list, _) = text(&run(&["explain", "--list"]));
    for (code, _) in bindscope::code::Code::ALL {
        assert!(list.lines().any(|line| line.starts_with(&format!("{code} "))), "{code}");
    }
    for topic in
        ["v6only", "v4-mapped", "wildcard", "weak-host", "arrival", "device", "scope-id", "dad", "reuse"]
    {
        assert!(list.contains(&format!("\n{topic} ")), "{topic}");
    }
    for topic in
        ["privileged-ports", "localhost", "docker", "defaults", "exit-codes", "lab", "exposure", "evidence"]
    {
        assert!(list.contains(&format!("\n{topic} ")), "{topic}");
    }
}

#[test]
fn an_unknown_name_is_bad_usage_with_a_suggestion() {
    let output = run(&["explain", "weekhost", "BS2001", "\u{1b}[2J"]);
    let (stdout, stderr) = text(&output);
    assert_eq!((output.status.code(), stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("BS0090") && stderr.contains("did you mean weak-host"), "{stderr}");
    assert!(stderr.contains("\\x1b[2J") && !stderr.contains('\u{1b}'), "both names, and escaped: {stderr}");
    let (topics, _) = text(&run(&["explain"]));
    assert!(topics.contains("\nweak-host ") && topics.contains("--search"), "{topics}");
    let (found, _) = text(&run(&["explain", "--search", "weak", "host"]));
    assert!(found.starts_with("weak-host "), "{found}");
    let nothing = run(&["explain", "--search", "no-page-has-this-word"]);
    assert_eq!(nothing.status.code(), Some(2), "{:?}", text(&nothing));
}

#[test]
fn a_page_that_cannot_be_written_is_told() {
    if !std::path::Path::new("/dev/full").exists() {
        return;
    }
    let output = run(&["explain", "--list", "-o", "/dev/full"]);
    assert_eq!(output.status.code(), Some(5), "{:?}", text(&output));
}

#[test]
fn the_exit_codes_of_the_page_are_those_of_the_program() {
    let page = include_str!("../src/explain/topics/exit-codes.md");
    use bindscope::cmd::Exit;
    for exit in [
        Exit::Success,
        Exit::Finding,
        Exit::Usage,
        Exit::Undecided,
        Exit::Environment,
        Exit::Output,
        Exit::Internal,
    ] {
        assert!(page.contains(&format!("\n| {} | ", exit.number())), "{exit:?}");
    }
    assert!(page.contains(&format!("\n| {}, {} | ", Exit::Interrupted.number(), Exit::Terminated.number())));
}

#[test]
fn completions_are_scripts_that_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell, "--static"]);
        let (script, stderr) = text(&output);
        assert!(output.status.success() && stderr.is_empty(), "{shell}: {stderr}");
        for name in commands() {
            assert!(script.contains(&name), "{shell}: {name}");
        }
    }
    let script = run(&["completions", "bash", "--static"]).stdout;
    if let Some(output) = tool("bash", &["-n"], &script) {
        assert!(output.status.success(), "{:?}", text(&output));
    }
    // That it is asked and answers, too.
    let mut session = script;
    session.extend_from_slice(b"\nCOMP_WORDS=(bindscope expl); COMP_CWORD=1\n_bindscope bindscope expl bindscope\necho \"<${COMPREPLY[*]}>\"\n");
    if let Some(output) = tool("bash", &["--norc"], &session) {
        assert!(text(&output).0.contains("<explain>"), "{:?}", text(&output));
    }
    assert_eq!(run(&["completions", "no-such-shell"]).status.code(), Some(2));
}

/// The script of a shell asks the program, which knows profiles, interfaces, topics and networks.
#[test]
fn completions_offer_what_exists_here() {
    let ask = |words: &[&str]| {
        let index = (words.len() - 1).to_string();
        let mut command = support::program::bindscope(&[&["--"], words].concat());
        command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n");
        command.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "true");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}: {:?}", text(&output));
        text(&output).0
    };
    for (words, wanted) in [
        (&["bindscope", "lis"][..], "listen"),
        (&["bindscope", "listen", "lo"], "lo:8080"),
        (&["bindscope", "plan", "tut"], "tutorial"),
        (&["bindscope", "explain", "weak"], "weak-host"),
        (&["bindscope", "explain", "BS200"], "BS2001"),
        (&["bindscope", "lab", "run", "--topology", "rou"], "router"),
        (&["bindscope", "plan", "--req"], "--require-all"),
    ] {
        let found = ask(words);
        assert!(found.lines().any(|line| line == wanted), "{words:?}: {found}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success() && text(&output).0.contains("bindscope"), "{shell}");
        let same = run(&["completions", shell, "--static"]);
        assert_ne!(output.stdout, same.stdout, "{shell}");
    }
}

/// Every command has examples, and those without files work.
#[test]
fn every_help_has_headings_and_examples() {
    for name in commands().iter().filter(|name| *name != "help") {
        let (help, _) = text(&run(&["help", name]));
        assert!(help.contains("Examples:"), "{name}: {help}");
        assert!(help.contains("\nGlobal options:"), "{name}: {help}");
        let (short, _) = text(&run(&[name, "-h"]));
        assert!(short.lines().count() <= 70, "{name}: {}", short.lines().count());
    }
}

#[test]
fn the_manual_is_roff_and_names_every_command() {
    let output = run(&["man"]);
    let (page, _) = text(&output);
    assert!(output.status.success() && page.contains(".TH bindscope 1"), "{page}");
    for section in [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "OPTIONS",
        "SUBCOMMANDS",
        "EXIT STATUS",
        "FILES",
        "EXAMPLES",
        "SEE ALSO",
    ] {
        assert!(
            page.contains(&format!("\n.SH {section}")) || page.contains(&format!("\n.SH \"{section}\"")),
            "{section}"
        );
    }
    for name in commands() {
        assert!(page.contains(&format!("bindscope\\-{name}(1)")), "{name}");
        let own = text(&run(&["man", &name])).0;
        assert!(own.contains(&format!(".TH bindscope-{name} 1")), "{name}: {own}");
    }
    if let Some(formatted) = tool("man", &["--warnings", "-l", "-"], page.as_bytes()) {
        let (shown, warnings) = text(&formatted);
        assert!(formatted.status.success() && warnings.is_empty(), "{warnings}");
        assert!(shown.contains("bindscope"), "{shown}");
    }
    for words in [&["man", "lab", "run"][..], &["man", "lab-run"]] {
        assert!(text(&run(words)).0.contains(".TH bindscope-lab-run 1"), "{words:?}");
    }
    for (words, said) in [
        (&["man", "nothing"][..], "explain"),
        (&["man", "lab", "nothing"], "run"),
        (&["man", "audit", "nothing"], "`bindscope man`"),
    ] {
        let unknown = run(words);
        assert_eq!(unknown.status.code(), Some(2), "{words:?}");
        assert!(text(&unknown).1.contains(said), "{:?}", text(&unknown));
    }
}

/// The names in the SUBCOMMANDS section of a page are pages, and no page is missing or has a warning.
#[test]
fn all_pages_of_the_manual_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(&["man", "--directory", directory.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{:?}", text(&output));
    let mut pages = Vec::new();
    for section in ["man1", "man5"] {
        for entry in std::fs::read_dir(directory.path().join(section)).unwrap() {
            pages.push(entry.unwrap().path());
        }
    }
    let named = |name: &str| pages.iter().any(|page| page.file_name().unwrap() == name);
    let mut expected: Vec<String> =
        ["profile", "policy", "lab"].map(|kind| format!("bindscope-{kind}.5")).to_vec();
    expected
        .extend(commands().iter().filter(|name| *name != "help").map(|name| format!("bindscope-{name}.1")));
    expected.extend(["bindscope.1", "bindscope-lab-run.1", "bindscope-lab-plan.1"].map(str::to_owned));
    for name in expected {
        assert!(named(&name), "{name}: {pages:?}");
    }
    let policy = std::fs::read_to_string(directory.path().join("man5/bindscope-policy.5")).unwrap();
    assert!(policy.contains(".TH bindscope-policy 5") && policy.contains("unknown_owner"), "{policy}");
    for page in &pages {
        let text = std::fs::read_to_string(page).unwrap();
        assert!(text.contains("SEE ALSO"), "{page:?}");
        // The line after the name of an option, an argument or a command describes it.
        let lines: Vec<&str> = text.lines().collect();
        for entry in lines.windows(3).filter(|entry| entry[0] == ".TP") {
            assert!(!entry[2].is_empty(), "{page:?}: {} has no description", entry[1]);
        }
        if let Some(formatted) = tool("man", &["--warnings", "-l", "-"], text.as_bytes()) {
            assert!(formatted.stderr.is_empty(), "{page:?}: {}", String::from_utf8_lossy(&formatted.stderr));
        }
    }
    let again = run(&["man", "--directory", directory.path().to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(0), "{:?}", text(&again));
}
