//! Servers of others, which are no listeners of a profile, and what a probe without descriptors can say.

use std::net::TcpListener;
use std::process::Command;

use crate::support::program::text;
use crate::{exits, host, json, run};

pub fn a_socket_that_is_there_already_takes_part() {
    let (ns, _far) = host();
    let _server = ns.run(|| TcpListener::bind("127.0.0.1:8095")).unwrap();
    let words = ["--bind", "0.0.0.0:8095", "--bind", "192.0.2.1:8095", "--format", "json"];
    let plan = json(&run(&ns, &[&["plan"][..], &words].concat()));
    let binds: Vec<_> = plan["sockets"].as_array().unwrap().iter().map(|s| &s["bind"]["predicted"]).collect();
    assert_eq!((&binds[0]["outcome"], &binds[0]["errno"]), (&"error".into(), &"EADDRINUSE".into()));
    assert!(binds[0]["conflicts_with"][0].as_str().unwrap().contains("tcp 127.0.0.1:8095"));
    assert_eq!(binds[1]["outcome"], "ok");
    let stranger =
        plan["cells"].as_array().unwrap().iter().find(|c| c["destination"] == "127.0.0.1").unwrap();
    assert_eq!(stranger["predicted"]["why"], "BS3024");
    assert!(stranger["predicted"]["listener"].is_null());
    let output = run(&ns, &[&["probe", "--connect-timeout", "200ms"][..], &words].concat());
    exits(&output, 0);
    let report = json(&output);
    assert_eq!(report["summary"]["disagree"], 0);
    // The other says nothing: that is waited for, but is not the time it took to connect. Where it saw us arrive is its own.
    let stranger =
        report["cells"].as_array().unwrap().iter().find(|c| c["destination"] == "127.0.0.1").unwrap();
    assert!(stranger["observed"]["connect_us"].as_u64().unwrap() < 200_000, "{stranger:#}");
    let human = text(&run(&ns, &["probe", "-v", "--connect-timeout", "200ms", "--ports", "8095"])).0;
    assert!(human.contains("not observable, predicted lo"), "{human}");
    // Whether a shared port can be joined depends on a flag of the other's socket, which its owner can read.
    let words = ["plan", "--bind", "127.0.0.1:8095,reuse_port=true", "--format", "json"];
    let plan = json(&run(&ns, &words));
    assert_ne!(plan["sockets"][0]["bind"]["predicted"]["outcome"], "ok");
}

pub fn a_server_that_resets_is_no_refusal() {
    let (ns, _far) = host();
    let server = ns.run(|| TcpListener::bind("127.0.0.1:8096")).unwrap();
    // Ends with the test.
    std::thread::spawn(move || {
        for client in server.incoming().flatten() {
            let _ = socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO));
        }
    });
    let words = [
        "probe",
        "--bind",
        "127.0.0.1:8097",
        "--ports",
        "8096",
        "--destinations",
        "127.0.0.1",
        "--format",
        "json",
    ];
    for _ in 0..5 {
        let output = run(&ns, &words);
        exits(&output, 0);
        let report = json(&output);
        let cell = report["cells"].as_array().unwrap().iter().find(|cell| cell["port"] == 8096).unwrap();
        assert_eq!(
            (&cell["observed"]["outcome"], &cell["agrees"]),
            (&"accepted".into(), &true.into()),
            "{cell:#}"
        );
    }
}

pub fn without_descriptors_nothing_is_decided() {
    let (ns, _far) = host();
    for limit in [6, 8] {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={limit}:{limit}")).arg(env!("CARGO_BIN_EXE_bindscope"));
        command.args(["probe", "--bind", "127.0.0.1:8098", "--connect-timeout", "300ms", "--format", "json"]);
        let output = ns.output(&mut command);
        exits(&output, 3);
        let report = json(&output);
        assert_eq!(report["summary"]["disagree"], 0, "{report:#}");
        assert!(report["incomplete_because"].to_string().contains("descriptors"), "{report:#}");
    }
}
