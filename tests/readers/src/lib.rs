//! Reports of `bindscope audit` as other programs read them: SARIF against the schema of OASIS, JUnit with the reader of
//! cargo-nextest. The program is the one that `BINDSCOPE` names.
#![cfg(test)]

use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus};
use serde_json::{Value, json};
use tempfile::TempDir;

fn bindscope(arguments: &[&str]) -> String {
    let program = std::env::var_os("BINDSCOPE").expect("BINDSCOPE names the program to be tried");
    let output = Command::new(program).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.is_empty(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The schema, from the package of a crate that is made from it. Cargo has checked that package against `Cargo.lock`.
fn schema() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "serde-sarif").unwrap();
    let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
    let schema = std::fs::read_to_string(manifest.with_file_name("src").join("schema.json")).unwrap();
    // One bracket more than Rust's expressions allow: what it means in ECMAScript, written so that both read it.
    let schema = schema.replace("{2}]?$", r"{2}\\]?$");
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let id = schema["$id"].as_str().unwrap();
    assert!(id.contains("oasis-tcs/sarif-spec") && id.ends_with("sarif-schema-2.1.0.json"), "{id}");
    schema
}

/// Sockets on loopback, one of them held by a program with a name that means something to every format.
struct Host {
    plain: TcpListener,
    _datagrams: UdpSocket,
    holder: Child,
    directory: TempDir,
    /// Arguments of `audit` for reports of every kind.
    kinds: Vec<(&'static str, Vec<String>)>,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Host {
    fn new() -> Host {
        let directory = tempfile::tempdir().unwrap();
        // Below the range of kernel-chosen ports, so that reports name the port.
        let plain = (20_000..30_000).find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).unwrap();
        let datagrams = UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0")).unwrap();
        let baseline = directory.path().join("baseline.json");
        std::fs::write(&baseline, bindscope(&["audit", "--format", "json"])).unwrap();
        let program = directory.path().join("::error::%0A\u{1b}[31m<b>]]>\u{ffff}|`x`\n=1+1");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let hostile = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = hostile.local_addr().unwrap().port();
        let holder =
            Command::new(&program).arg("600").stdin(Stdio::from(OwnedFd::from(hostile))).spawn().unwrap();
        let mut host = Host { plain, _datagrams: datagrams, holder, directory, kinds: Vec::new() };
        let own = host.port();
        let policy = host.file(
            "policy ü&<.toml",
            &format!(
                "schema = 1\nkind = \"policy\"\nname = \"<p> & \\u0007\"\n[policy]\ndefault = \"deny\"\nfail_on = \"note\"\n\
                 [[allow]]\nid = \"web\"\nport = {own}\nexposure = \"loopback\"\nprocess = {{ exe = \"/x\" }}\n\
                 [[allow]]\nid = \"there <&>\"\nport = 1\nexposure = \"loopback\"\nrequire = true\n\
                 [[allow]]\nid = \"unused\"\nport = 2\nexposure = \"loopback\"\n\
                 [[waive]]\ncode = \"BS1001\"\nmatch = {{ port = {port} }}\nreason = \"it is \\u0007 known\"\n\
                 [[waive]]\ncode = \"BS1001\"\nmatch = {{ port = 3 }}\nreason = \"late\"\nexpires = 2020-01-01\n\
                 [[waive]]\ncode = \"BS1001\"\nmatch = {{ port = 4 }}\nreason = \"nothing\"\n"
            ),
        );
        let baseline = baseline.to_str().unwrap();
        for (name, arguments) in [
            ("plain", vec![]),
            ("baseline", vec!["--baseline", baseline]),
            ("without sock_diag", vec!["--proc-net"]),
            ("without owners", vec!["--no-owners"]),
            ("every namespace", vec!["--all-namespaces"]),
            ("policy", vec!["--policy", &policy]),
            ("policy and baseline", vec!["--policy", &policy, "--baseline", baseline]),
            ("policy without sock_diag", vec!["--policy", &policy, "--proc-net"]),
        ] {
            host.kinds.push((name, arguments.into_iter().map(str::to_owned).collect()));
        }
        host
    }

    fn port(&self) -> u16 {
        self.plain.local_addr().unwrap().port()
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn audit(&self, format: &str, more: &[String]) -> String {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        bindscope(&[&["audit", "--format", format], more.as_slice()].concat())
    }
}

#[test]
fn sarif_is_what_the_standard_says() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for wrong in [json!({"version": "2.1.0", "runs": [{"tool": {}}]}), json!({"version": "2.1.0"})] {
        assert!(!validator.is_valid(&wrong), "the schema lets {wrong} through");
    }
    let host = Host::new();
    let mut codes = std::collections::BTreeSet::new();
    for (kind, arguments) in &host.kinds {
        let log: Value = serde_json::from_str(&host.audit("sarif", arguments)).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&log)
            .map(|error| format!("{error} at {}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{kind}: {errors:#?}");
        let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
        for result in log["runs"][0]["results"].as_array().unwrap() {
            let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
            assert_eq!(rule["id"], result["ruleId"], "{kind}");
            let location = &result["locations"][0]["physicalLocation"];
            let of_policy = result["ruleId"].as_str().unwrap() <= "BS1009";
            assert!(location["region"]["startLine"].is_u64(), "{kind}: {result:#}");
            let of_file = location["artifactLocation"]["uri"].as_str().unwrap().ends_with(".toml");
            assert!(of_file || !of_policy, "{kind}: {result:#}");
            codes.insert(result["ruleId"].as_str().unwrap().to_owned());
            if result["suppressions"].is_array() {
                codes.insert("waived".to_owned());
            }
            if result["kind"] == "open" {
                codes.insert("open".to_owned());
            }
            if result["baselineState"] == "unchanged" {
                codes.insert("unchanged".to_owned());
            }
        }
    }
    for code in ["BS1004", "BS1005", "BS1007", "BS1008", "BS1009", "BS1011", "BS1021", "waived", "unchanged"]
    {
        assert!(codes.contains(code), "{code} was in no report: {codes:?}");
    }
}

#[test]
fn junit_is_read_as_it_was_meant() {
    let host = Host::new();
    for (kind, arguments) in &host.kinds {
        let text = host.audit("junit", arguments);
        let report = quick_junit::Report::deserialize_from_str(&text)
            .unwrap_or_else(|error| panic!("{kind}: {error}: {text}"));
        let [suite] = report.test_suites.as_slice() else { panic!("{kind}: {text}") };
        let count = |wanted: NonSuccessKind| {
            let fits = |case: &&TestCase| matches!(&case.status, TestCaseStatus::NonSuccess { kind, .. } if *kind == wanted);
            suite.test_cases.iter().filter(fits).count()
        };
        let counted = (suite.test_cases.len(), count(NonSuccessKind::Failure), count(NonSuccessKind::Error));
        assert_eq!((suite.tests, suite.failures, suite.errors), counted, "{kind}: {text}");
        assert_eq!((report.tests, report.failures, report.errors), counted, "{kind}: {text}");
        let ours = format!("tcp port {} at 127.0.0.1", host.port());
        let case = suite.test_cases.iter().find(|case| case.name.as_str().contains(&ours));
        let case = case.unwrap_or_else(|| panic!("{kind}: {text}"));
        let passes = matches!(case.status, TestCaseStatus::Success { .. });
        // The socket was there when the baseline was made, but no rule of the policy names its program.
        assert_eq!(passes, !kind.starts_with("policy"), "{kind}: {text}");
    }
}
