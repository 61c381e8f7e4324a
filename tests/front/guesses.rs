//! Command lines as a first-time user types them: with the habits of `ss`, `nc`, `nmap`, `netstat` and `lsof`, with typing
//! mistakes, and with options in other places. Each works, or its error names the correct spelling within three lines.

use libtest_mimic::Trial;

use super::stage;
use crate::support::program::{finish, text};

/// The line works: it is not wrong usage.
const WORKS: &str = "";

/// A command line without the name of the program, and the text that its error contains.
const LINES: &[(&str, &str)] = &[
    ("listen 8080", WORKS),
    ("listen *:8080", WORKS),
    ("listen 0.0.0.0:8080", WORKS),
    ("listen localhost:8080", WORKS),
    ("listen 127.0.0.1:8080", WORKS),
    ("listen [::]:8080", WORKS),
    ("listen [::1]:8080", WORKS),
    ("listen [fe80::1%eth0]:8080", WORKS),
    ("listen eth0:8080", WORKS),
    ("listen udp:0.0.0.0:5353", WORKS),
    ("listen udp:5353", WORKS),
    ("listen tcp:0.0.0.0:8080", WORKS),
    ("listen 8000-8009", WORKS),
    ("listen 0.0.0.0:8000-8009", WORKS),
    ("listen 0.0.0.0:8080 [::]:8080", WORKS),
    ("listen -v 8080", WORKS),
    ("listen -q 8080", WORKS),
    ("listen --bind=0.0.0.0:8080", WORKS),
    ("listen -b 0.0.0.0:8080", WORKS),
    ("listen --bind 8080", WORKS),
    ("listen --json 8080", WORKS),
    ("listen 8080 --json", WORKS),
    ("listen -f json 8080", WORKS),
    ("listen --format=json 8080", WORKS),
    ("listen --count=1 8080", WORKS),
    ("listen [::]:8080,v6only=false", WORKS),
    ("listen default", WORKS),
    ("listen tutorial 9000", WORKS),
    ("listen --color=never 8080", WORKS),
    ("listen :8080", "0.0.0.0:8080"),
    ("listen 0.0.0.0 9000", "0.0.0.0:9000"),
    ("listen 0.0.0.0", "0.0.0.0:8080"),
    ("listen localhost", "localhost:8080"),
    ("listen localhost 9000", "localhost:9000"),
    ("listen ::1:8080", "[::1]:8080"),
    ("listen :::8080", "[::]:8080"),
    ("listen ::", "[::]:8080"),
    ("listen ::1 9000", "[::1]:9000"),
    ("listen 2001:db8:1::10:8080", "[2001:db8:1::10]:8080"),
    ("listen fe80::1%eth0:8080", "[fe80::1%eth0]:8080"),
    ("listen [fe80::1]:8080", "[fe80::1%eth0]:8080"),
    ("listen [::]8080", "[::]:8080"),
    ("listen [::1]", "[::1]:8080"),
    ("listen eth0", "eth0:8080"),
    ("listen eth0 9000", "eth0:9000"),
    ("listen 0.0.0.0:5353/udp", "udp:0.0.0.0:5353"),
    ("listen 5353/udp", "udp:5353"),
    ("listen udp/5353", "udp:5353"),
    ("listen tcp://0.0.0.0:8080", "0.0.0.0:8080"),
    ("listen udp://0.0.0.0:5353", "udp:0.0.0.0:5353"),
    ("listen http://localhost:8080/", "localhost:8080"),
    ("listen https://0.0.0.0", "0.0.0.0:443"),
    ("listen 8000..8009", "8000-8009"),
    ("listen 8000:8009", "8000-8009"),
    ("listen 8080,8081", "8080 8081"),
    ("listen 0.0.0.0:8080,0.0.0.0:8081", "0.0.0.0:8080 0.0.0.0:8081"),
    ("listen 192.168.1.10/24:8080", "192.168.1.10:8080"),
    ("listen 0.0.0.0:http", "0.0.0.0:80"),
    ("listen 0.0.0.0:99999", "65535"),
    ("listen any:8080", "*:8080"),
    ("listen all:8080", "*:8080"),
    ("listen --port 9000", "bindscope listen 0.0.0.0:9000"),
    ("listen --port=9000", "bindscope listen 0.0.0.0:9000"),
    ("listen -p 9000", "bindscope listen 0.0.0.0:9000"),
    ("listen -p9000", "bindscope listen 0.0.0.0:9000"),
    ("listen -p 8081,8443", "bindscope listen 0.0.0.0:8081 0.0.0.0:8443"),
    ("listen --ports 9000", "bindscope listen 0.0.0.0:9000"),
    ("listen --host 0.0.0.0 --port 9000", "bindscope listen 0.0.0.0:9000"),
    ("listen --host=::1 --port=9000", "bindscope listen '[::1]:9000'"),
    ("listen --host 0.0.0.0:9000", "bindscope listen 0.0.0.0:9000"),
    ("listen -a 127.0.0.1 -p 9000", "bindscope listen 127.0.0.1:9000"),
    ("listen --ip 127.0.0.1 9000", "bindscope listen 127.0.0.1:9000"),
    ("listen -i eth0", "bindscope listen eth0:8080"),
    ("listen --interface eth0 --port 9000", "bindscope listen eth0:9000"),
    ("listen --iface=eth0 9000", "bindscope listen eth0:9000"),
    ("listen --device eth0 9000", "0.0.0.0:9000,device=eth0"),
    ("listen -l 9000", "bindscope listen 0.0.0.0:9000"),
    ("listen -lvp 9000", "bindscope listen 0.0.0.0:9000"),
    ("listen -l -p 9000", "bindscope listen 0.0.0.0:9000"),
    ("listen -u 5353", "bindscope listen udp:0.0.0.0:5353"),
    ("listen --udp 127.0.0.1:5353", "bindscope listen udp:127.0.0.1:5353"),
    ("listen --tcp 9000", "bindscope listen 0.0.0.0:9000"),
    ("listen -4 9000", "bindscope listen 0.0.0.0:9000"),
    ("listen -6 9000", "bindscope listen '[::]:9000'"),
    ("listen --dual-stack 9000", "bindscope listen '*:9000'"),
    ("listen --timeout 5 9000", "bindscope listen 0.0.0.0:9000 --for 5s"),
    ("listen --once 9000", "bindscope listen 0.0.0.0:9000 --count 1"),
    ("listen --address 127.0.0.1:9000", "bindscope listen 127.0.0.1:9000"),
    ("listen --profile default", "bindscope listen default"),
    ("listen --config default", "bindscope listen default"),
    ("listen -j 8080", "bindscope listen --json"),
    ("listen --output-format json 8080", "bindscope listen --format json"),
    ("listen --format table 8080", "human"),
    ("listen --no-color 8080", "bindscope listen --color never"),
    ("listen --dry-run 8080", "bindscope plan"),
    ("listen help", "bindscope help"),
    ("listen default loopback", "once for each"),
    ("listen defualt", "default"),
    ("listen web.toml", "bindscope init web.toml"),
    ("listen 8080x", "8080"),
    ("listen --for 5 8080", "5s"),
    ("listen --background 9000", "bindscope listen 0.0.0.0:9000 &"),
    ("listen --version", "bindscope --version"),
    ("help", WORKS),
    ("help listen", WORKS),
    ("help why", WORKS),
    ("help help", WORKS),
    ("--help", WORKS),
    ("-h", WORKS),
    ("--help listen", WORKS),
    ("listen --help", WORKS),
    ("listen -h", WORKS),
    ("-V", WORKS),
    ("--version", WORKS),
    ("-v", WORKS),
    ("why --help", WORKS),
    ("lab run --help", WORKS),
    ("version", "bindscope --version"),
    ("-version", "bindscope --version"),
    ("help nothing", "bindscope help"),
    ("help lisen", "bindscope help listen"),
    ("lisen 8080", "bindscope listen 8080"),
    ("listn 8080", "bindscope listen 8080"),
    ("LISTEN 8080", "bindscope listen 8080"),
    ("audti", "bindscope audit"),
    ("paln 8080", "bindscope plan 8080"),
    ("interface", "bindscope interfaces"),
    ("ifaces", "bindscope interfaces"),
    ("connection", "bindscope connections"),
    ("doctr", "bindscope doctor"),
    ("explian weak-host", "bindscope explain weak-host"),
    ("tutoral", "bindscope tutorial"),
    ("wy 3000", "bindscope why 3000"),
    ("chek bindscope.toml", "bindscope check bindscope.toml"),
    ("schmea profile", "bindscope schema profile"),
    ("completion zsh", "bindscope completions zsh"),
    ("complete", "bindscope completions bash"),
    ("serve 9000", "bindscope listen 0.0.0.0:9000"),
    ("serve 127.0.0.1:9000", "bindscope listen 127.0.0.1:9000"),
    ("serve --port 9000", "bindscope listen 0.0.0.0:9000"),
    ("server", "bindscope listen 0.0.0.0:8080"),
    ("run default", "bindscope listen default"),
    ("bind 0.0.0.0 9000", "bindscope listen 0.0.0.0:9000"),
    ("monitor", "bindscope audit --watch"),
    ("top", "bindscope audit --watch"),
    ("scan", "bindscope probe --ports 1-65535"),
    ("scan 1-100", "bindscope probe --ports 1-100"),
    ("nmap -p 80 localhost", "bindscope probe --ports 80"),
    ("ports", "bindscope probe --ports 1-65535"),
    ("ss", "bindscope audit"),
    ("ss -tlnp", "bindscope audit --protocol tcp"),
    ("netstat -an", "bindscope audit"),
    ("netstat -tulpn", "bindscope audit"),
    ("lsof -i :8080", "bindscope audit --port 8080"),
    ("nc -l 9000", "bindscope listen 0.0.0.0:9000"),
    ("nc -lvp 9000", "bindscope listen 0.0.0.0:9000"),
    ("nc localhost 3000", "bindscope why localhost:3000"),
    ("telnet localhost 3000", "bindscope why localhost:3000"),
    ("curl http://localhost:3000", "bindscope why localhost:3000"),
    ("ping localhost", "bindscope why localhost:"),
    ("ip addr", "bindscope interfaces"),
    ("ifconfig", "bindscope interfaces"),
    ("test", "bindscope lab run"),
    ("validate bindscope.toml", "bindscope check bindscope.toml"),
    ("status", "bindscope audit"),
    ("list", "bindscope audit"),
    ("connect localhost:3000", "bindscope why localhost:3000"),
    ("who 3000", "bindscope why localhost:3000"),
    ("port 3000", "bindscope why localhost:3000"),
    ("check localhost:3000", "bindscope why localhost:3000"),
    ("check 3000", "bindscope why 3000"),
    ("check", "bindscope check FILE"),
    ("check nothing.toml", "bindscope init nothing.toml"),
    ("init policy", "bindscope init --kind policy"),
    ("init --kind policy", WORKS),
    ("init", WORKS),
    ("init --kind lab -", WORKS),
    ("init --policy", "bindscope init --kind policy"),
    ("new", "bindscope init"),
    ("lab tutorial", "bindscope lab run tutorial"),
    ("lab 9000", "bindscope lab run"),
    ("lab start", "bindscope lab run tutorial"),
    ("lab topologies", "bindscope lab list"),
    ("lab rnu tutorial", "bindscope lab run tutorial"),
    ("lab --twin", "bindscope lab run --twin"),
    ("twin", "bindscope lab run --twin"),
    ("lab list", WORKS),
    ("lab run tutorial", WORKS),
    ("explain", WORKS),
    ("explain 0.0.0.0", WORKS),
    ("explain EADDRINUSE", WORKS),
    ("explain bs2001", WORKS),
    ("explain nginx", WORKS),
    ("explain dual-stack", WORKS),
    ("explain Address already in use", WORKS),
    ("explain profiles", WORKS),
    ("explain --search bind", WORKS),
    ("explain localhost:3000", "bindscope why localhost:3000"),
    ("explain weakhost", "weak-host"),
    ("explain everything", "bindscope explain --list"),
    ("BS2001", "bindscope explain BS2001"),
    ("weak-host", "bindscope explain weak-host"),
    ("audit 3000", "bindscope audit --port 3000"),
    ("audit :3000", "bindscope audit --port 3000"),
    ("audit localhost:3000", "bindscope audit --port 3000"),
    ("audit --port 3000", WORKS),
    ("audit --process nginx", WORKS),
    ("audit -4", WORKS),
    ("audit -6", WORKS),
    ("audit --json", WORKS),
    ("audit --exposure anywhere", WORKS),
    ("audit --exposure private", WORKS),
    ("audit --fail-on error", WORKS),
    ("audit -p 3000", "bindscope audit --port 3000"),
    ("audit nginx", "bindscope audit --process nginx"),
    ("audit --tcp", "bindscope audit --protocol tcp"),
    ("audit -u", "bindscope audit --protocol udp"),
    ("audit -tlnp", "bindscope audit --protocol tcp"),
    ("audit -tulpn", "bindscope audit"),
    ("audit --pid 1", "bindscope audit --process"),
    ("audit json", "bindscope audit --format json"),
    ("audit --listening", "bindscope audit"),
    ("audit policy.toml", "bindscope audit --policy policy.toml"),
    ("audit --exposure public", "global"),
    ("audit --strict", "bindscope audit --fail-on warning"),
    ("why localhost:3000", WORKS),
    ("why 3000", WORKS),
    ("why :3000", WORKS),
    ("why http://localhost:3000/path", WORKS),
    ("why [::1]:3000", WORKS),
    ("why 0.0.0.0:3000", WORKS),
    ("why *:3000", WORKS),
    ("why eth0:3000", WORKS),
    ("why 192.168.1.10:3000", WORKS),
    ("why tcp://localhost:3000", WORKS),
    ("why udp:5353", WORKS),
    ("why 5353/udp", WORKS),
    ("why ::1:3000", WORKS),
    ("why localhost:http", WORKS),
    ("why localhost:3000 --json", WORKS),
    ("why localhost", "bindscope why localhost:3000"),
    ("why localhost 3000", "bindscope why localhost:3000"),
    ("why ::1", "bindscope why '[::1]:3000'"),
    ("why --port 3000", "bindscope why localhost:3000"),
    ("why -p 3000", "bindscope why localhost:3000"),
    ("why --host 127.0.0.1 --port 3000", "bindscope why 127.0.0.1:3000"),
    ("why nginx", "bindscope why nginx:3000"),
    ("why 99999", "localhost:3000"),
    ("why", "bindscope why localhost:3000"),
    ("why -u 5353", "bindscope why udp:localhost:5353"),
    ("why tcp 3000", "bindscope why localhost:3000"),
    ("plan 80", WORKS),
    ("plan 0.0.0.0:80 [::]:80", WORKS),
    ("plan --json 80", WORKS),
    ("plan default", WORKS),
    ("plan", WORKS),
    ("plan --port 80", "bindscope plan 0.0.0.0:80"),
    ("plan eth0", "eth0:8080"),
    ("plan nginx.conf", "bindscope plan --from nginx.conf"),
    ("plan docker-compose.yml", "bindscope plan --from docker-compose.yml"),
    ("plan http://0.0.0.0:80", "0.0.0.0:80"),
    ("plan /etc/ssh/sshd_config_missing", "there is no file"),
    ("probe 3000", WORKS),
    ("probe localhost:3000", WORKS),
    ("probe --ports 3000", WORKS),
    ("probe -p 1-100", "bindscope probe --ports 1-100"),
    ("probe --port 3000", "bindscope probe --ports 3000"),
    ("probe --ports all", "bindscope probe --ports 1-65535"),
    ("probe 1-1000", "bindscope probe --ports 1-1000"),
    ("probe 192.168.1.10", "192.168.1.10:8080"),
    ("connections --port 9150", WORKS),
    ("connections", WORKS),
    ("interfaces", WORKS),
    ("interfaces --json", WORKS),
    ("doctor", WORKS),
    ("man", WORKS),
    ("man listen", WORKS),
    ("completions bash", WORKS),
    ("schema profile", WORKS),
    ("schema policy -f markdown", WORKS),
    ("tutorial --lang=es", WORKS),
    ("connections 80", "bindscope connections --port 80"),
    ("connections -p 80", "bindscope connections --port 80"),
    ("interfaces eth0", "bindscope interfaces"),
    ("interfaces -4", "bindscope interfaces"),
    ("diff", "bindscope diff A.json B.json"),
    ("doctor --fix", "bindscope doctor"),
    ("completions", "bindscope completions bash"),
    ("completions sh", "bindscope completions bash"),
    ("man lab run", WORKS),
    ("schema", "bindscope schema profile"),
    ("schema policies", "policy"),
    ("tutorial es", "bindscope tutorial --lang es"),
    ("tutorial --lang spanish", "bindscope tutorial --lang es"),
    ("tutorial --spanish", "bindscope tutorial --lang es"),
    ("tutorial --language es", "bindscope tutorial --lang es"),
    ("8080", "bindscope why localhost:8080"),
    (":8080", "bindscope listen '*:8080'"),
    ("0.0.0.0:8080", "bindscope listen 0.0.0.0:8080"),
    ("localhost:3000", "bindscope why localhost:3000"),
    ("eth0", "bindscope listen eth0:8080"),
    ("http://localhost:3000", "bindscope why localhost:3000"),
    ("default", "bindscope plan default"),
    ("bindscope.toml", "bindscope plan bindscope.toml"),
    ("-l 9000", "bindscope listen 0.0.0.0:9000"),
    ("--listen 9000", "bindscope listen 0.0.0.0:9000"),
    ("-p 9000", "bindscope listen 0.0.0.0:9000"),
    ("--json", "bindscope audit --json"),
    ("--format json", "bindscope audit --json"),
    ("--audit", "bindscope audit"),
    ("--list", "bindscope audit"),
];

/// Trials of some lines each, which run at the same time.
pub fn trials() -> Vec<Trial> {
    assert!(LINES.len() >= 150);
    LINES
        .chunks(40)
        .enumerate()
        .map(|(part, lines)| {
            Trial::test(format!("natural_command_lines_work_or_are_corrected {part}"), move || {
                try_all(lines);
                Ok(())
            })
        })
        .collect()
}

fn try_all(lines: &[(&str, &str)]) {
    let (host, _peers) = stage::host();
    let _local = stage::tcp(&host, "127.0.0.1:3000");
    let mut wrong = Vec::new();
    for (line, expected) in lines {
        let (code, stdout, stderr) = run(&host, line);
        let shown = format!("bindscope {line}: exit {code:?}\n{stdout}{stderr}");
        if expected.is_empty() {
            if !matches!(code, Some(0 | 1 | 3 | 4)) {
                wrong.push(shown);
            }
            continue;
        }
        let said = format!("{stderr}{stdout}").lines().take(3).collect::<Vec<_>>().join("\n");
        if code != Some(2) || !said.contains(expected) {
            wrong.push(format!("expected {expected}\n{shown}"));
            continue;
        }
        for correct in corrections(&said) {
            // All ports take a minute on a busy machine; some show that the line is correct.
            let correct = correct.replace("1-65535", "1-99");
            let (code, stdout, stderr) = run(&host, &correct);
            if !matches!(code, Some(0 | 1 | 3 | 4)) {
                wrong.push(format!("bindscope {line} suggests {correct}: exit {code:?}\n{stdout}{stderr}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} lines:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
}

/// The command lines that a message proposes, without those that name a file or program of the user.
fn corrections(said: &str) -> Vec<String> {
    let line = |rest: &str| {
        let end = [", or ", ", if", "; ", " (", " &", "\n", ", which"]
            .iter()
            .filter_map(|end| rest.find(end))
            .min();
        rest[..end.unwrap_or(rest.len())].trim().to_owned()
    };
    let parts = said.split("bindscope ").skip(1).filter(|_| said.contains("write: bindscope"));
    let open = ["FILE", ".json", "NAME", "lists every", ".toml", ".conf", ".yml", "COMMAND"];
    parts.map(line).filter(|line| !line.is_empty() && !open.iter().any(|word| line.contains(word))).collect()
}

/// Runs a line in an empty directory. `listen` and `--watch` get an end.
fn run(host: &crate::support::netns::Netns, line: &str) -> (Option<i32>, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let plain = ["help", "--help", "-h", "man", "--version"].iter().any(|word| words.contains(word));
    let endless = (words.contains(&"listen") && !words.contains(&"--for")) || words.contains(&"--watch");
    let end = if endless && !plain { " --for 100ms" } else { "" };
    let script = format!("set -f; exec bindscope {line}{end}");
    let mut command = stage::shell(directory.path(), stage::HOSTS, &script);
    let output = finish(host.run(|| command.spawn()).unwrap());
    let (stdout, stderr) = text(&output);
    (output.status.code(), stdout, stderr)
}
