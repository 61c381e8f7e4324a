//! The tutorial: three claims about bind, what was tried for each, and the verdict, in English and in Spanish.

use std::fmt::Write as _;

use super::style::{Paint, Tone};
use super::table::wrap;
use crate::model::{Outcome, Source};
use crate::report::matrix::CellReport;

/// The languages of the tutorial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// Spanish.
    Spanish,
}

/// The address of the host on the link of `lan`, and on that of `wan` (topology `two-sided`).
const HOST: [&str; 2] = ["192.0.2.1", "198.51.100.1"];

/// Words that differ between the languages.
struct Words {
    title: &'static str,
    intro: &'static str,
    claims: [&'static str; 3],
    verdicts: [&'static str; 2],
    accepted: &'static str,
    outcomes: [&'static str; 4],
    from: &'static str,
    this_host: &'static str,
    why: &'static str,
    device: &'static str,
    packets: &'static str,
    next: &'static str,
    surprise: &'static str,
}

const ENGLISH: Words = Words {
    title: "Three claims about bind, tried with real packets in a network of three hosts",
    intro: "(The network is built from namespaces; your own network is not touched.)",
    claims: [
        "\"0.0.0.0 accepts connections on all interfaces.\"",
        "\"127.0.0.1 accepts connections from this host only.\"",
        "\"A specific address accepts connections on its interface only.\"",
    ],
    verdicts: ["TRUE", "FALSE"],
    accepted: "accepted on",
    outcomes: ["refused", "no answer", "unreachable", "error"],
    from: "from",
    this_host: "this host",
    why: "Linux accepts a packet to any of its addresses on every interface (weak host model). To limit a listener to an \
          interface, bind it to the device as well:",
    device: "device",
    packets: "arrivals confirmed by captured packets.",
    next: "Next: bindscope explain weak-host; bindscope lab run tutorial -v; bindscope listen tutorial",
    surprise: "This kernel does not behave as described above. Please report it with the output of `bindscope lab run tutorial --json`.",
};

const SPANISH: Words = Words {
    title: "Tres afirmaciones sobre bind, puestas a prueba con paquetes reales en una red de tres equipos",
    intro: "(La red se crea con espacios de nombres; la red de tu equipo no se toca.)",
    claims: [
        "«0.0.0.0 acepta conexiones en todas las interfaces.»",
        "«127.0.0.1 solo acepta conexiones del propio equipo.»",
        "«Una dirección IP concreta solo acepta conexiones en su interfaz.»",
    ],
    verdicts: ["VERDADERO", "FALSO"],
    accepted: "aceptada en",
    outcomes: ["rechazada", "sin respuesta", "inalcanzable", "error"],
    from: "desde",
    this_host: "este equipo",
    why: "Linux acepta en cualquier interfaz los paquetes dirigidos a cualquiera de sus direcciones (modelo de host débil). \
          Para limitar la escucha a una interfaz, enlaza también el dispositivo:",
    device: "dispositivo",
    packets: "llegadas confirmadas con paquetes capturados.",
    next: "Siguiente paso: bindscope explain weak-host; bindscope lab run tutorial -v; bindscope listen tutorial",
    surprise: "Este núcleo no se comporta como se describe arriba. Avísanos con la salida de `bindscope lab run tutorial --json`.",
};

/// What a client met.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Met {
    outcome: Outcome,
    ingress: Option<String>,
}

/// The observed result of a source at a destination and port.
fn met(cells: &[CellReport], source: &Source, destination: &str, port: u16) -> Option<Met> {
    let cell = cells
        .iter()
        .find(|cell| cell.source == *source && &*cell.destination == destination && cell.port == port)?;
    let seen = cell.observed.as_ref()?;
    Some(Met { outcome: seen.outcome, ingress: seen.ingress.as_ref().map(ToString::to_string) })
}

/// The page, and whether the kernel behaves as the text says.
#[must_use]
pub fn page(cells: &[CellReport], language: Language, color: bool, width: usize) -> (String, bool) {
    let paint = Paint::new(color);
    let words = match language {
        Language::English => &ENGLISH,
        Language::Spanish => &SPANISH,
    };
    let node = |name: &str| Source::Node(name.to_owned());
    let (host, lan, wan) = (Source::Host, node("lan"), node("wan"));
    let on = |source: &Source, destination: &str, port: u16, interface: &str| {
        met(cells, source, destination, port)
            .is_some_and(|met| met.outcome == Outcome::Accepted && met.ingress.as_deref() == Some(interface))
    };
    let kept_out = |source: &Source, destination: &str, port: u16| {
        met(cells, source, destination, port).is_some_and(|met| met.outcome != Outcome::Accepted)
    };
    let all = on(&host, "127.0.0.1", 8181, "lo")
        && on(&lan, HOST[0], 8181, "eth0")
        && on(&wan, HOST[1], 8181, "eth1");
    let loopback =
        on(&host, "127.0.0.1", 8182, "lo") && kept_out(&lan, HOST[0], 8182) && kept_out(&wan, HOST[1], 8182);
    let weak = on(&lan, HOST[0], 8183, "eth0") && on(&wan, HOST[0], 8183, "eth1");
    let device = on(&lan, HOST[0], 8184, "eth0") && kept_out(&wan, HOST[0], 8184);

    let mut out = String::new();
    let _ = writeln!(out, "{}", paint.tone(Tone::Strong, &wrap(words.title, width, "")));
    let _ = writeln!(out, "{}\n", wrap(words.intro, width, ""));
    out.push_str("      lan ---- eth0 [ host ] eth1 ---- wan\n");
    out.push_str("192.0.2.10  192.0.2.1  198.51.100.1  198.51.100.10\n\n");
    let tried = |out: &mut String, bound: &str, device: &str, port: u16, asked: &[(&Source, &str)]| {
        let _ = writeln!(out, "   {bound}:{port}{device}");
        for (source, destination) in asked {
            let from = match source {
                Source::Node(name) => name.clone(),
                _ => words.this_host.to_owned(),
            };
            let result = match met(cells, source, destination, port) {
                None => "?".to_owned(),
                Some(Met { outcome: Outcome::Accepted, ingress }) => {
                    format!("{} {}", words.accepted, ingress.as_deref().unwrap_or("?"))
                }
                Some(Met { outcome, .. }) => match outcome {
                    Outcome::Refused => words.outcomes[0],
                    Outcome::Timeout => words.outcomes[1],
                    Outcome::Unreachable => words.outcomes[2],
                    _ => words.outcomes[3],
                }
                .to_owned(),
            };
            let _ = writeln!(
                out,
                "     {} {from:<11} -> {:<17}  {result}",
                words.from,
                format!("{destination}:{port}")
            );
        }
    };
    let claim = |out: &mut String, number: usize, holds: bool| {
        let verdict = words.verdicts[usize::from(!holds)];
        let text = words.claims.get(number).copied().unwrap_or_default();
        let tone = if holds { Tone::Good } else { Tone::Bad };
        let _ = writeln!(out, "{}  {text}  {}", number + 1, paint.tone(tone, verdict));
    };
    let here = [(&host, "127.0.0.1"), (&lan, HOST[0]), (&wan, HOST[1])];
    claim(&mut out, 0, all);
    tried(&mut out, "0.0.0.0", "", 8181, &here);
    out.push('\n');
    claim(&mut out, 1, loopback);
    tried(&mut out, "127.0.0.1", "", 8182, &here);
    out.push('\n');
    claim(&mut out, 2, !weak);
    tried(&mut out, HOST[0], "", 8183, &[(&lan, HOST[0]), (&wan, HOST[0])]);
    let why = wrap(words.why, width.saturating_sub(3), "").replace('\n', "\n   ");
    let _ = writeln!(out, "   {why}");
    tried(
        &mut out,
        "0.0.0.0",
        &format!(", {} eth0", words.device),
        8184,
        &[(&lan, HOST[0]), (&wan, HOST[0])],
    );
    out.push('\n');
    let accepted: Vec<&CellReport> = cells
        .iter()
        .filter(|cell| cell.observed.as_ref().is_some_and(|seen| seen.outcome == Outcome::Accepted))
        .collect();
    let confirmed = accepted
        .iter()
        .filter(|cell| {
            let packets = cell.observed.as_ref().and_then(|seen| seen.packets.as_ref());
            packets.is_some_and(|packets| packets.confirms == Some(true))
        })
        .count();
    let _ = writeln!(out, "{confirmed}/{} {}", accepted.len(), words.packets);
    let as_described = all && loopback && weak && device;
    if !as_described {
        let _ = writeln!(out, "{}", paint.tone(Tone::Bad, &wrap(words.surprise, width, "")));
    }
    let _ = writeln!(out, "{}", wrap(words.next, width, ""));
    (out, as_described)
}
