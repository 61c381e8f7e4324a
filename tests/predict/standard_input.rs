//! `diff` with one side from standard input.

use crate::support::netns::Netns;
use crate::support::program::{bindscope, text};
use crate::{exits, file, run, run_command};

pub fn one_side_is_read_from_standard_input() {
    let ns = Netns::new();
    let profile = "schema = 1\n[[listener]]\nname = 'one'\nbind = '127.0.0.1'\nport = 8081\n";
    let (_a, profile_path) = file("one.toml", profile);
    let report = text(&run(&ns, &["plan", &profile_path, "--format", "json"])).0;
    let (_b, report_path) = file("plan.json", &report);
    let diff = |words: [&str; 2], input: &str| {
        let (_c, input) = file("input", input);
        let mut command = bindscope(&["diff", words[0], words[1]]);
        run_command(&ns, command.stdin(std::fs::File::open(input).unwrap()))
    };
    for input in [profile, &report, &format!("\n {report}"), &format!("\u{feff}{report}")] {
        exits(&diff(["-", &report_path], input), 0);
        exits(&diff([&profile_path, "-"], input), 0);
        exits(&diff(["-", "loopback"], input), 1);
    }
    for (words, input, said) in [
        (["-", "-"], profile, "only once"),
        (["-", "loopback"], "{\"schema\":\"bindscope.plan/7\"}", "newer than this version"),
        (["loopback", "-"], "{", "not JSON"),
        (["loopback", "-"], "[[listner]]", "<stdin>"),
        (["loopback", "-"], &"#".repeat((1 << 20) + 1), "longer than 1 MiB"),
    ] {
        let output = diff(words, input);
        exits(&output, 2);
        assert!(text(&output).1.contains(said), "{:?}", text(&output));
    }
    let (_d, broken) = file("broken", "");
    std::fs::write(&broken, b"schema = 1\nname = '\xff'\n").unwrap();
    let mut command = bindscope(&["diff", "-", "loopback"]);
    let output = run_command(&ns, command.stdin(std::fs::File::open(broken).unwrap()));
    exits(&output, 2);
    assert!(text(&output).1.contains("it is not UTF-8 (line 2"), "{:?}", text(&output));
}
