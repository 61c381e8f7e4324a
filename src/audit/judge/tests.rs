//! Policies against invented sockets.

use std::sync::Arc;

use super::*;
use crate::audit::tests::{host, owner, report_of, report_with, socket};
use crate::audit::{draft, report};
use crate::model::Owner;
use crate::profile::policy::parse;

const HEAD: &str = "schema = 1\nkind = \"policy\"\nname = \"p\"\n[policy]\ndefault = \"deny\"\n";

fn judged_as(rules: &str, sockets: Vec<ListeningSocket>, all_sockets: bool) -> Report {
    let text = format!("{HEAD}{rules}");
    let policy = parse("p.toml", &text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let host = host();
    let mut report = report_with(sockets, host.clone(), policy.ignore_ephemeral_udp);
    Judge {
        policy: &policy,
        text: text.as_str().into(),
        today: jiff::civil::date(2026, 6, 15),
        hosts: vec![&host],
        all_sockets,
    }
    .judge(&mut report);
    report
}

fn judged(rules: &str, sockets: Vec<ListeningSocket>) -> Report {
    judged_as(rules, sockets, true)
}

/// Verdicts of the checks, and the policy's findings with the text of their lines.
fn said(report: &Report) -> (Vec<Verdict>, Vec<(Code, String)>) {
    let verdicts = report.checks.iter().map(|check| check.verdict).collect();
    let mut findings: Vec<(Code, String)> = report
        .findings
        .iter()
        .filter(|finding| {
            let of_policy =
                finding.code <= Code::NOTHING_JUDGED || finding.code == Code::REQUIRED_UNREACHABLE;
            of_policy && finding.counts()
        })
        .map(|finding| {
            let line = finding.location.as_ref().map_or("", |place| &place.text[place.span.clone()]);
            (finding.code, line.to_owned())
        })
        .collect();
    findings.sort();
    (verdicts, findings)
}

fn one(rules: &str, text: &str) -> (Vec<Verdict>, Vec<(Code, String)>) {
    said(&judged(rules, vec![socket(text)]))
}

const WEB: &str = "[[allow]]\nid = \"web\"\nport = [80, 443]\n";

fn web(keys: &str) -> String {
    format!("{WEB}{keys}\n")
}

#[test]
fn each_way_to_fail_points_to_its_line() {
    let fail = |code, line: &str| (vec![Verdict::Fail], vec![(code, line.to_owned())]);
    let pass = (vec![Verdict::Pass], vec![]);
    let wide = web("exposure = \"global\"\nreason = \"r\"");
    let near = web("exposure = \"loopback\"");
    assert_eq!(one(&wide, "tcp 0.0.0.0:80"), pass);
    assert_eq!(one(&near, "tcp 127.0.0.1:80"), pass);
    assert_eq!(one(&near, "tcp 0.0.0.0:80"), fail(Code::TOO_WIDE, "exposure = \"loopback\""));
    let unused = (Code::ALLOW_UNUSED, "id = \"web\"".to_owned());
    let other = one(&near, "tcp 0.0.0.0:81");
    assert_eq!(
        other,
        (vec![Verdict::Fail], vec![(Code::NOT_ALLOWED, "default = \"deny\"".to_owned()), unused])
    );

    let four = web("exposure = \"global\"\nreason = \"r\"\nfamilies = [\"ipv4\"]");
    assert_eq!(one(&four, "tcp 0.0.0.0:80"), pass);
    assert_eq!(one(&four, "tcp [::]:80 dual"), fail(Code::WRONG_FAMILIES, "families = [\"ipv4\"]"));
    let both = web("exposure = \"global\"\nreason = \"r\"\nfamilies = [\"ipv4\", \"ipv6\"]");
    assert_eq!(one(&both, "tcp [::]:80 dual"), pass, "one dual-stack socket is both");
    assert_eq!(one(&both, "tcp 0.0.0.0:80"), fail(Code::WRONG_FAMILIES, "families = [\"ipv4\", \"ipv6\"]"));
    let two = judged(&both, vec![socket("tcp 0.0.0.0:80"), socket("tcp [::]:80 v6only")]);
    assert_eq!(said(&two), (vec![Verdict::Pass; 2], vec![]), "two sockets together are both");

    let mine = web(
        "exposure = \"global\"\nreason = \"r\"\nprocess = { exe = \"/usr/sbin/server\", user = \"root\" }",
    );
    assert_eq!(one(&mine, "tcp 0.0.0.0:80"), pass);
    let foreign = mine.replace("server", "nginx");
    let line = foreign.lines().last().unwrap();
    assert_eq!(one(&foreign, "tcp 0.0.0.0:80"), fail(Code::WRONG_PROCESS, line));
    let expired = web("exposure = \"global\"\nreason = \"r\"\nexpires = 2026-06-14");
    assert_eq!(one(&expired, "tcp 0.0.0.0:80"), fail(Code::NOT_ALLOWED, "expires = 2026-06-14"));
    assert_eq!(one(&expired.replace("06-14", "06-15"), "tcp 0.0.0.0:80"), pass, "the last day counts");
}

#[test]
fn a_name_proves_nothing_and_a_container_has_other_files() {
    let rule = web(
        "exposure = \"global\"\nreason = \"r\"\nprocess = { exe = \"/usr/sbin/*\", user = [\"root\", \"33\"] }",
    );
    let with = |change: &dyn Fn(&mut Owner)| {
        let mut one = socket("tcp 0.0.0.0:80");
        change(&mut Arc::make_mut(one.owners.as_mut().unwrap())[0]);
        said(&judged(&rule, vec![one])).0
    };
    assert_eq!(with(&|_| {}), [Verdict::Pass]);
    assert_eq!(with(&|owner| owner.exe = Some("/tmp/server".to_owned())), [Verdict::Fail]);
    assert_eq!(with(&|owner| owner.exe_visible = Some(false)), [Verdict::Fail]);
    assert_eq!(with(&|owner| owner.exe_visible = None), [Verdict::Undecided]);
    assert_eq!(with(&|owner| (owner.exe_visible, owner.exe_deleted) = (Some(false), true)), [Verdict::Pass]);
    assert_eq!(with(&|owner| owner.exe = None), [Verdict::Undecided]);
    assert_eq!(
        with(&|owner| (owner.uid, owner.user) = (Some(33), Some("www-data".to_owned()))),
        [Verdict::Pass]
    );
    assert_eq!(with(&|owner| (owner.uid, owner.user) = (Some(34), Some("x".to_owned()))), [Verdict::Fail]);
    assert_eq!(with(&|owner| (owner.uid, owner.user) = (None, None)), [Verdict::Undecided]);
    let several = |owners: Option<Vec<Owner>>| {
        let mut one = socket("tcp 0.0.0.0:80");
        one.owners = owners.map(Into::into);
        said(&judged(&rule, vec![one])).0
    };
    let right = owner(9, "server", "/usr/sbin/server");
    let wrong = owner(10, "server", "/tmp/x");
    let init = owner(1, "systemd", "/usr/lib/systemd/systemd");
    assert_eq!(several(Some(vec![right.clone(), wrong])), [Verdict::Fail], "every owner counts");
    assert_eq!(several(Some(vec![init.clone(), right])), [Verdict::Pass], "socket activation");
    assert_eq!(several(Some(vec![init.clone()])), [Verdict::Pass], "the service is not started yet");
    let wrong = owner(10, "server", "/tmp/x");
    assert_eq!(several(Some(vec![init.clone(), wrong])), [Verdict::Fail]);
    let unit = |exe: Option<&str>| {
        let mut one = socket("tcp 0.0.0.0:80");
        one.owners = Some(vec![init.clone()].into());
        one.activation = Some(crate::model::Activation {
            socket_unit: "web.socket".to_owned(),
            service: "web.service".to_owned(),
            exe: exe.map(str::to_owned),
            user: None,
            started: false,
        });
        said(&judged(&rule, vec![one])).0
    };
    assert_eq!(unit(Some("/usr/sbin/server")), [Verdict::Pass]);
    assert_eq!(unit(Some("/usr/bin/other")), [Verdict::Fail]);
    assert_eq!(unit(None), [Verdict::Undecided]);
    assert_eq!(several(Some(vec![])), [Verdict::Fail]);
    assert_eq!(several(None), [Verdict::Undecided]);
}

#[test]
fn what_cannot_be_known_is_undecided_unless_it_fails_either_way() {
    let mut hidden = socket("tcp 0.0.0.0:80");
    hidden.owners = None;
    let named = web("exposure = \"loopback\"\nprocess = { user = \"root\" }");
    let (verdicts, findings) = said(&judged(&named, vec![hidden.clone()]));
    assert_eq!(
        (verdicts, findings[0].0),
        (vec![Verdict::Fail], Code::TOO_WIDE),
        "it is too wide for any owner"
    );
    let any_owner = web("exposure = \"global\"\nreason = \"r\"");
    assert_eq!(
        said(&judged(&any_owner, vec![hidden.clone()])).0,
        [Verdict::Pass],
        "no rule asks for the owner"
    );
    let strict = format!("unknown_owner = \"fail\"\n{any_owner}process = {{ user = \"root\" }}\n");
    assert_eq!(said(&judged(&strict, vec![hidden])).0, [Verdict::Fail]);

    let only6 = web("exposure = \"global\"\nreason = \"r\"\nfamilies = [\"ipv6\"]");
    assert_eq!(one(&only6, "tcp [::]:80 ?").0, [Verdict::Undecided]);
    assert_eq!(one(&any_owner, "tcp [::]:80 ?").0, [Verdict::Pass], "the rule holds either way");
    let mut blurred = socket("tcp 0.0.0.0:80");
    blurred.device_known = false;
    let near = web("exposure = \"loopback\"");
    assert_eq!(said(&judged(&near, vec![blurred])).0, [Verdict::Undecided], "it may be bound to lo");
}

#[test]
fn without_interfaces_every_rule_is_undecided() {
    let text = format!("{HEAD}{}", web("exposure = \"loopback\""));
    let policy = parse("p.toml", &text).unwrap();
    let namespace = crate::audit::Namespace { inode: Some(1), ..Default::default() };
    let site =
        crate::audit::Site { namespace, sockets: vec![socket("tcp 127.0.0.1:80")], ..Default::default() };
    let mut report = report(&mut [site], Vec::new(), String::new(), false);
    let today = jiff::civil::date(2026, 6, 15);
    Judge { policy: &policy, text: text.as_str().into(), today, hosts: Vec::new(), all_sockets: true }
        .judge(&mut report);
    assert_eq!(said(&report).0, [Verdict::Undecided]);
}

#[test]
fn what_is_required_must_be_there() {
    let rule = web("exposure = \"loopback\"\nrequire = true");
    let absent = said(&judged(&rule, vec![]));
    assert_eq!(absent, (vec![Verdict::Fail], vec![(Code::REQUIRED_ABSENT, "require = true".to_owned())]));
    assert_eq!(said(&judged(&rule, vec![socket("tcp 127.0.0.1:443")])).0, [Verdict::Pass; 2]);
    let blind = judged_as(&rule, vec![], false);
    assert_eq!(said(&blind).0, [Verdict::Undecided], "it may be among the invisible sockets");
    let broad = format!("[[allow]]\nid = \"local\"\nexposure = \"loopback\"\n{rule}");
    for sockets in [&["tcp 127.0.0.1:80"][..], &["tcp 127.0.0.1:80", "tcp [::1]:80"]] {
        let sockets: Vec<_> = sockets.iter().map(|text| socket(text)).collect();
        let (verdicts, findings) = said(&judged(&broad, sockets));
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Pass), "another rule allows it first");
        assert_eq!(findings, []);
    }
    let stale = vec![socket("tcp 10.9.9.9:80")];
    let unreachable = (Code::REQUIRED_UNREACHABLE, "require = true".to_owned());
    assert_eq!(said(&judged(&rule, stale.clone())), (vec![Verdict::Pass, Verdict::Fail], vec![unreachable]));
    let present = rule.replace("require = true", "require = \"present\"");
    assert_eq!(said(&judged(&present, stale)).0, [Verdict::Pass; 2]);
    let client = web("exposure = \"private\"\nrequire = true").replace("[80, 443]", "40000");
    let (verdicts, findings) = said(&judged(&client, vec![socket("udp 0.0.0.0:40000")]));
    assert_eq!((verdicts, findings[0].0), (vec![Verdict::Undecided], Code::POLICY_UNDECIDED));
    let wide = said(&judged(&rule, vec![socket("tcp 0.0.0.0:80")]));
    assert_eq!(wide.0, [Verdict::Fail, Verdict::Pass], "it is there, and too wide");
}

#[test]
fn families_are_asked_of_all_sockets_in_any_order_of_rules() {
    let both = web("exposure = \"loopback\"\nfamilies = [\"ipv4\", \"ipv6\"]");
    let local = "[[allow]]\nid = \"local\"\nexposure = \"loopback\"\n";
    for rules in [format!("{local}{both}"), format!("{both}{local}")] {
        let whole = judged(&rules, vec![socket("tcp 127.0.0.1:80"), socket("tcp [::1]:80")]);
        assert_eq!(said(&whole), (vec![Verdict::Pass; 2], vec![]), "{rules}");
        let half = judged(&rules, vec![socket("tcp 127.0.0.1:80")]);
        assert_eq!(said(&half).1[0].0, Code::WRONG_FAMILIES, "{rules}");
    }
}

#[test]
fn the_rule_for_the_port_explains_a_refusal() {
    let any = "[[allow]]\nid = \"any\"\nnetwork = \"127.0.0.0/8\"\nexposure = \"loopback\"\n";
    let mine = web("exposure = \"loopback\"");
    let expected = (vec![Verdict::Fail], Code::TOO_WIDE);
    for rules in [format!("{any}{mine}"), format!("{mine}{any}")] {
        let report = judged(&rules, vec![socket("tcp 0.0.0.0:80")]);
        let (verdicts, findings) = said(&report);
        assert_eq!((verdicts, findings[0].0), expected, "{rules}");
        assert!(report.checks[0].because.contains("the rule \"web\""), "{}", report.checks[0].because);
    }
}

#[test]
fn rules_name_addresses_networks_interfaces_and_devices() {
    let rule = |keys: &str| web(&format!("exposure = \"private\"\n{keys}"));
    let pass = (vec![Verdict::Pass], vec![]);
    for (keys, inside, outside, code) in [
        ("interface = \"eth0\"", "tcp 10.0.0.5:80", "tcp 0.0.0.0:80", Code::TOO_WIDE),
        ("interface = [\"eth0\", \"eth1\"]", "tcp 0.0.0.0:80", "tcp 127.0.0.1:80", Code::TOO_WIDE),
        ("network = \"10.0.0.0/8\"", "tcp 10.0.0.5:80", "tcp 0.0.0.0:80", Code::TOO_WIDE),
        (
            "network = [\"10.0.0.0/8\", \"192.168.0.0/16\"]",
            "tcp 0.0.0.0:80",
            "tcp 127.0.0.1:80",
            Code::TOO_WIDE,
        ),
        ("address = \"10.0.0.5\"", "tcp 10.0.0.5:80", "tcp 192.168.9.1:80", Code::NOT_ALLOWED),
        ("address = \"0.0.0.0\"", "tcp 0.0.0.0:80", "tcp 10.0.0.5:80", Code::NOT_ALLOWED),
        ("device = \"eth0\"", "tcp 0.0.0.0:80 device 2", "tcp 0.0.0.0:80", Code::NOT_ALLOWED),
        ("device = \"eth0\"", "tcp 10.0.0.5:80 device 2", "tcp 10.0.0.5:80 device 3", Code::NOT_ALLOWED),
        ("interface = \"eth0\"", "tcp 0.0.0.0:80 device 2", "tcp 0.0.0.0:80 device 3", Code::TOO_WIDE),
        ("device = \"enp9s0\"", "tcp 0.0.0.0:80 device 3", "tcp 0.0.0.0:80 device 2", Code::NOT_ALLOWED),
        ("interface = \"enp9s0\"", "tcp 192.168.9.1:80", "tcp 10.0.0.5:80", Code::TOO_WIDE),
    ] {
        assert_eq!(one(&rule(keys), inside), pass, "{keys} {inside}");
        let (verdicts, findings) = one(&rule(keys), outside);
        assert_eq!((verdicts, findings[0].0), (vec![Verdict::Fail], code), "{keys} {outside}: {findings:?}");
        assert_eq!(findings[0].1, keys, "{outside}");
    }
    let open = |rules: &str, text: &str| {
        let text_of = format!("{}{rules}", HEAD.replace("deny", "allow"));
        let policy = parse("p.toml", &text_of).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let host = host();
        let mut report = report_of(vec![socket(text)], host.clone());
        let (today, text) = (jiff::civil::date(2026, 6, 15), text_of.as_str().into());
        Judge { policy: &policy, text, today, hosts: vec![&host], all_sockets: true }.judge(&mut report);
        said(&report).0
    };
    assert_eq!(open(&rule("interface = \"eth0\""), "tcp 0.0.0.0:80"), [Verdict::Fail], "a limit holds");
    assert_eq!(
        open(&rule("address = \"10.0.0.5\""), "tcp 0.0.0.0:80"),
        [Verdict::Pass],
        "a choice is another's"
    );
    let mut blurred = socket("tcp 10.0.0.5:80");
    blurred.device_known = false;
    assert_eq!(said(&judged(&rule("device = \"eth0\""), vec![blurred])).0, [Verdict::Undecided]);
    let waived = "[[waive]]\ncode = \"BS1001\"\nmatch = { interface = \"eth0\" }\nreason = \"r\"\n";
    assert_eq!(one(waived, "tcp 10.0.0.5:80").0, [Verdict::Pass]);
    assert_eq!(one(waived, "tcp 0.0.0.0:80").0, [Verdict::Fail]);
}

#[test]
fn holders_are_users_units_containers_and_the_kernel() {
    let rule = |keys: &str| web(&format!("exposure = \"global\"\nreason = \"r\"\n{keys}"));
    let with = |keys: &str, change: &dyn Fn(&mut ListeningSocket)| {
        let mut one = socket("tcp 0.0.0.0:80");
        change(&mut one);
        said(&judged(&rule(keys), vec![one])).0
    };
    let uid = |uid: u32| {
        move |one: &mut ListeningSocket| {
            let owner = &mut Arc::make_mut(one.owners.as_mut().unwrap())[0];
            (owner.uid, owner.user) = (Some(uid), Some(format!("u{uid}")));
        }
    };
    for keys in ["user = \"1000-1999\"", "process = { user = \"1000-1999\" }"] {
        assert_eq!(with(keys, &uid(1000)), [Verdict::Pass]);
        assert_eq!(with(keys, &uid(1999)), [Verdict::Pass]);
        assert_eq!(with(keys, &uid(2000)), [Verdict::Fail]);
        assert_eq!(with(keys, &uid(100)), [Verdict::Fail]);
    }
    assert_eq!(with("unit = \"server.service\"", &|_| {}), [Verdict::Pass]);
    assert_eq!(with("unit = \"serv\"", &|_| {}), [Verdict::Fail]);
    let container = |one: &mut ListeningSocket| {
        Arc::make_mut(one.owners.as_mut().unwrap())[0].container = Some("docker:0123456789ab".to_owned());
    };
    assert_eq!(with("container = \"docker:*\"", &container), [Verdict::Pass]);
    assert_eq!(with("container = \"podman:*\"", &container), [Verdict::Fail]);
    assert_eq!(with("container = \"docker:*\"", &|_| {}), [Verdict::Fail]);
    let kernel = |one: &mut ListeningSocket| one.owners = Some([].into());
    assert_eq!(with("process = \"kernel\"", &kernel), [Verdict::Pass]);
    assert_eq!(with("process = \"kernel\"", &|_| {}), [Verdict::Fail]);
    assert_eq!(with("process = { user = \"root\" }", &kernel), [Verdict::Fail]);
    assert_eq!(with("process = \"kernel\"", &|one| one.owners = None), [Verdict::Undecided]);
}

#[test]
fn an_empty_check_is_not_a_pass() {
    let report = judged("", vec![]);
    assert_eq!(said(&report).1, [(Code::NOTHING_JUDGED, String::new())]);
    assert!(report.findings[0].undecided);
}

#[test]
fn clients_are_left_out_and_servers_on_high_ports_are_not() {
    let report = judged("", vec![socket("udp 0.0.0.0:40000"), socket("tcp 127.0.0.1:80")]);
    assert_eq!((report.skipped.len(), report.summary.skipped, report.checks.len()), (1, 1, 1));
    let report = judged(
        &web("exposure = \"private\"").replace("[80, 443]", "40000"),
        vec![socket("udp 0.0.0.0:40000")],
    );
    assert_eq!(report.checks.len(), 0, "it is left out whatever a rule says");
    assert_eq!(one("", "udp 0.0.0.0:5353").0, [Verdict::Fail]);
    assert_eq!(one("", "tcp 0.0.0.0:40000").0, [Verdict::Fail]);
    assert_eq!(one("ignore_ephemeral_udp = false\n", "udp 0.0.0.0:40000").0, [Verdict::Fail]);
}

#[test]
fn waivers_have_a_scope_and_an_end() {
    let waive = |keys: &str| {
        format!("[[waive]]\ncode = \"BS1001\"\nmatch = {{ port = 80 }}\nreason = \"ticket 7\"\n{keys}\n")
    };
    let report = judged(&waive(""), vec![socket("tcp 0.0.0.0:80"), socket("tcp 0.0.0.0:81")]);
    assert_eq!(
        said(&report),
        (vec![Verdict::Pass, Verdict::Fail], vec![(Code::NOT_ALLOWED, "default = \"deny\"".to_owned())])
    );
    assert_eq!(report.checks[0].because, "waived: ticket 7");
    assert_eq!((report.summary.waived, report.summary.failed), (1, 1));
    let expired = said(&judged(&waive("expires = 2026-06-14"), vec![socket("tcp 0.0.0.0:80")]));
    assert_eq!(expired.1[1], (Code::WAIVER_EXPIRED, "expires = 2026-06-14".to_owned()));
    assert_eq!(expired.0, [Verdict::Fail]);
    for (keys, severity) in [
        ("", Some(Severity::Warning)),
        ("unmatched = \"error\"", Some(Severity::Error)),
        ("unmatched = \"ignore\"", None),
    ] {
        let report = judged(&waive(keys), vec![socket("tcp 127.0.0.1:81")]);
        let unused = report.findings.iter().find(|finding| finding.code == Code::WAIVER_UNUSED);
        assert_eq!(unused.map(|finding| finding.severity), severity, "{keys}");
    }
    let required =
        format!("{}{}", web("exposure = \"loopback\"\nrequire = true"), waive("").replace("1001", "1004"));
    let report = judged(&required, vec![]);
    assert_eq!(report.checks[0].verdict, Verdict::Pass, "{:?}", report.checks);
}

#[test]
fn what_a_rule_allows_is_a_note() {
    let rule = web("exposure = \"global\"\nreason = \"r\"");
    let report = judged(&rule, vec![socket("tcp [::]:80 dual")]);
    assert!(!report.findings.is_empty());
    assert!(
        report.findings.iter().all(|finding| finding.severity == Severity::Note),
        "{:?}",
        report.findings
    );
}

#[test]
fn a_drafted_policy_holds_for_what_it_was_drafted_from() {
    let mut sockets: Vec<ListeningSocket> = [
        "tcp 0.0.0.0:80",
        "tcp [::]:80 v6only",
        "tcp [::]:443 dual",
        "tcp 127.0.0.1:5432",
        "tcp 10.9.9.9:7",
        "udp 0.0.0.0:53",
        "udp 0.0.0.0:40000",
        "tcp 10.0.0.5:80",
        "tcp [::ffff:0.0.0.0]:8080",
    ]
    .map(socket)
    .into();
    sockets[3].owners = Some(vec![owner(3, "x", "/opt/a \"b\"\\*\u{1b}/x")].into());
    sockets[5].owners = None;
    sockets[7].owners = Some(vec![owner(4, "y", "/opt/y"), owner(5, "z", "/opt/z")].into());
    Arc::make_mut(sockets[8].owners.as_mut().unwrap())[0].exe_visible = Some(false);
    let text = draft::policy(&report_of(sockets.clone(), host()), "a\n\"b", "2026-06-15");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
    let policy = parse("p.toml", &text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"));
    assert_eq!(policy.name, "a\n\"b");
    let mut report = report_with(sockets, host(), true);
    let today = jiff::civil::date(2026, 6, 15);
    let host = host();
    let judge =
        Judge { policy: &policy, text: text.as_str().into(), today, hosts: vec![&host], all_sockets: true };
    judge.judge(&mut report);
    let (verdicts, findings) = said(&report);
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Pass), "{text}\n{:#?}", report.checks);
    assert_eq!(findings, []);
    // The rule does not apply to another program on the port.
    let mut other = socket("tcp 127.0.0.1:5432");
    other.owners = Some(vec![owner(3, "x", "/tmp/x")].into());
    let mut report = report_of(vec![other], host.clone());
    judge.judge(&mut report);
    assert_eq!(report.checks[0].verdict, Verdict::Fail);
}

#[test]
fn the_place_is_found_however_the_policy_is_written() {
    let places = |text: &str| -> Vec<String> {
        let policy = parse("p.toml", text).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let mut report = report_of(vec![socket("tcp 0.0.0.0:80"), socket("tcp 127.0.0.1:81")], host());
        Judge {
            policy: &policy,
            text: text.into(),
            today: jiff::civil::date(2026, 6, 15),
            hosts: vec![&host()],
            all_sockets: true,
        }
        .judge(&mut report);
        let failed = report.checks.iter().filter(|check| check.verdict == Verdict::Fail);
        failed
            .map(|check| {
                check.location.as_ref().map_or("", |place| &place.text[place.span.clone()]).to_owned()
            })
            .collect()
    };
    let head = "schema = 1\nkind = \"policy\"\n";
    for (text, expected) in [
        // Without `[policy]`, the kind of the file implies that it denies.
        (String::new(), ["kind = \"policy\"", "kind = \"policy\""]),
        ("[ policy ] # strict\nfail_on = \"error\"\n".to_owned(), ["[ policy ]", "[ policy ]"]),
        ("policy.default = \"deny\"\n".to_owned(), ["default = \"deny\"", "default = \"deny\""]),
        (
            "allow = [{ id = \"a\", port = 80, exposure = \"loopback\" }]\n\"policy\" = { default = \"deny\" }\n".to_owned(),
            ["exposure = \"loopback\"", "default = \"deny\""],
        ),
        (
            "[[allow]]\nid = \"\"\"\nexposure = \"x\"\n\"\"\"\nport = 80\n\"exposure\" = 'link'\n".to_owned(),
            ["\"exposure\" = 'link'", "kind = \"policy\""],
        ),
    ] {
        assert_eq!(places(&format!("{head}{text}")), expected, "{text}");
    }
}
