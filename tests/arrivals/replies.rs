//! Replies that could do harm: datagrams whose source is forged, and browsers that another site steers.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::netns::{Netns, two_hosts};
use crate::support::program::{Listening, bindscope, finish, text};
use crate::support::tool;

/// `listen` with these listeners in a namespace.
fn listening(ns: &Netns, listeners: &str) -> Listening {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.toml");
    std::fs::write(&path, format!("schema = 1\nname = 'replies'\n{listeners}")).unwrap();
    ns.run(|| Listening::start(&mut bindscope(&["listen", "--format", "ndjson", path.to_str().unwrap()])))
}

fn udp(name: &str, bind: &str, port: u16, reply: &str) -> String {
    format!(
        "[[listener]]\nname = '{name}'\nprotocol = 'udp'\nbind = '{bind}'\nport = {port}\nreply = '{reply}'\n"
    )
}

/// A datagram over IPv4 with a source of one's choice.
fn forged(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(28 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.0.octets());
    packet.extend(to.0.octets());
    packet.extend([from.1.to_be_bytes(), to.1.to_be_bytes(), (length - 20).to_be_bytes(), [0, 0]].concat());
    packet.extend(payload);
    packet
}

fn send_forged(ns: &Netns, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) {
    let packet = forged(from, to, payload);
    ns.run(|| {
        let raw =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::from(3), Some(255.into())).unwrap();
        raw.send_to(&packet, &SocketAddr::from((to.0, 0)).into()).unwrap();
    });
}

/// Every pair of repliers, on two hosts and on one: a few datagrams after a forged one, and then silence.
pub fn two_repliers_do_not_answer_each_other() {
    let (here, there) = two_hosts();
    let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    for (left, right) in
        [("describe", "describe"), ("echo", "echo"), ("echo", "describe"), ("describe", "echo")]
    {
        for same_host in [false, true] {
            let (there, b, port) = if same_host { (&here, a, 7002) } else { (&there, b, 7001) };
            let one = listening(&here, &udp("one", "192.0.2.1", 7001, left));
            let two = listening(there, &udp("two", &b.to_string(), port, right));
            for payload in [&b"x"[..], b"hello", &[7; 300]] {
                send_forged(there, (b, port), (a, 7001), payload);
            }
            std::thread::sleep(Duration::from_millis(300));
            let datagrams = |listening: Listening| {
                let (events, status, stderr) = listening.end();
                assert_eq!(status.code(), Some(0), "{stderr}");
                events.last().unwrap()["datagrams"].as_u64().unwrap()
            };
            let (one, two) = (datagrams(one), datagrams(two));
            assert!((3..=20).contains(&one) && two <= 20, "{left} and {right}, {same_host}: {one} and {two}");
        }
    }
}

/// No reply is longer than what it answers, none goes to the port of a service, and a flood gets few.
pub fn replies_to_datagrams_amplify_nothing() {
    let (here, there) = two_hosts();
    let mut listening = listening(
        &here,
        &[udp("describe", "0.0.0.0", 7001, "describe"), udp("echo", "::", 7002, "echo")].concat(),
    );
    let client = |to: SocketAddr| {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = there.run(|| UdpSocket::bind(any)).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket
    };
    let (describe, echo) = ("192.0.2.1:7001".parse().unwrap(), "[2001:db8::1]:7002".parse().unwrap());
    let mut buffer = [0; 2048];
    for to in [describe, echo] {
        let socket = client(to);
        for length in [1, 17, 100, 127, 400] {
            socket.send(&vec![b'q'; length]).unwrap();
            listening.next_arrival();
            let replied = socket.recv(&mut buffer).unwrap();
            assert!(replied <= length && replied > 0, "{to}: {replied} for {length}");
        }
        socket.send(b"").unwrap();
        listening.next_arrival();
        assert!(socket.recv(&mut buffer).is_err());
    }
    // A burst beyond what one sender gets; the flood itself is counted whole.
    let socket = client(describe);
    for number in 0..200u16 {
        socket.send(&number.to_be_bytes()).unwrap();
        listening.next_arrival();
    }
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let replies = std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count();
    assert!(replies < 150, "{replies}");
    send_forged(&there, (Ipv4Addr::new(192, 0, 2, 2), 19), (Ipv4Addr::new(192, 0, 2, 1), 7001), &[b'c'; 200]);
    listening.next_arrival();
    let (events, _, stderr) = listening.end();
    let errors = &events.last().unwrap()["errors"];
    assert!(errors["datagrams not answered: too many from one sender"].as_u64() > Some(40), "{errors}");
    assert_eq!(errors["datagrams not answered: the source port is that of a service"], 1, "{stderr}");
}

fn request(ns: &Netns, to: IpAddr, text: &str) -> String {
    let mut stream = ns.run(|| TcpStream::connect((to, 8081))).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// A browser that was told that a foreign name is this host gets no fact, by whatever spelling; it is counted all the same.
pub fn a_foreign_host_name_gets_no_fact() {
    let (here, there) = two_hosts();
    let mut listening =
        listening(&here, "[[listener]]\nname = 'web'\nbind = '::'\nv6only = false\nport = 8081\n");
    let own = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let addresses: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    for to in addresses {
        for (host, status) in [
            ("192.0.2.1:8081", 200),
            ("[2001:db8::1]:8081", 200),
            ("localhost:8081", 200),
            (own.as_str(), 200),
            ("evil.example:8081", 403),
            ("192.0.2.1.evil.example", 403),
            ("localhost.evil.example", 403),
            ("", 403),
        ] {
            let response = request(&there, to, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {response}");
            assert!(
                status == 200 || !response.contains("192.0.2") && !response.contains("eth0"),
                "{response}"
            );
            assert_eq!(listening.next_arrival()["event"], "accepted");
        }
    }
}

/// A site with a page that reads, by its own name and then across origins, what `listen` replies.
fn serve_evil_page(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let page = "<!doctype html><body><script>\
                const read = async url => { try { return await (await fetch(url)).text() } catch { return 'blocked' } };\
                (async () => { document.body.textContent = 'address: ' + await read('http://127.0.0.1:8081/')\
                + ' rebound: ' + await read('http://rebound.example:8081/') + ' end' })()</script>";
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{page}",
                page.len()
            );
        }
    });
}

fn chromium(ns: &Netns, rules: &str, url: &str) -> String {
    // On a busy machine the browser's own patience may end before the page is there.
    for _ in 0..3 {
        let page = dumped(ns, rules, url);
        if page.contains("<body") && !page.contains("<body></body>") {
            return page;
        }
    }
    panic!("the browser shows nothing of {url}")
}

fn dumped(ns: &Netns, rules: &str, url: &str) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new("chromium");
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
    ]);
    command.args(["--timeout=20000", "--virtual-time-budget=5000", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", home.path().display()));
    command.arg(format!("--host-resolver-rules={rules}")).arg(url);
    let output = finish(ns.run(|| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()).unwrap());
    text(&output).0
}

/// DNS rebinding in a real browser: the name of another site leads here. And a page of another site that asks by our address.
pub fn a_rebound_name_is_refused_in_a_browser() {
    if !tool("chromium") {
        return;
    }
    let host = Netns::new();
    let listening = listening(&host, "[[listener]]\nname = 'web'\nbind = '127.0.0.1'\nport = 8081\n");
    serve_evil_page(host.run(|| TcpListener::bind("127.0.0.1:8082")).unwrap());
    let rules = "MAP rebound.example 127.0.0.1, MAP evil.example 127.0.0.1";
    // After the rebinding, the site's own origin is this listener.
    let page = chromium(&host, rules, "http://rebound.example:8081/");
    assert!(page.contains("is not a name of this host") && !page.contains("arrived on"), "{page}");
    let page = chromium(&host, rules, "http://localhost:8081/");
    assert!(page.contains("arrived on"), "{page}");
    let page = chromium(&host, rules, "http://evil.example:8082/");
    assert!(page.contains("address: blocked rebound: blocked end"), "{page}");
    let (events, ..) = listening.end();
    assert!(events.last().unwrap()["accepted"].as_u64() >= Some(2));
}
