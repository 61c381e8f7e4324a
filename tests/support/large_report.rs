//! A large report: 100 listeners, 60 interfaces and 20,000 results.

use std::sync::Arc;

use bindscope::code::Code;
use bindscope::model::{
    AddrClass, Document, FamilyExposure, Host, HostReport, IfName, Outcome, Protocol, Schema, SocketSpec,
    Source,
};
use bindscope::plan::predict::BindOutcome;
use bindscope::report::matrix::{
    self, BindReport, CellReport, PredictedBind, PredictedCell, Questions, Reachability, Report, SocketReport,
};
use bindscope::report::results::{AddressReport, InterfaceReport, SourceReport};

/// A report with so many listeners, interfaces besides `lo`, and results.
#[must_use]
pub fn report(listeners: u16, interfaces: u8, results: usize) -> Report {
    let names: Vec<IfName> =
        (0..interfaces).map(|number| IfName::from(format!("eth{number}").as_str())).collect();
    let address = |number: usize, last: usize| format!("10.{}.{}.{last}", number / 250, number % 250);
    let mut sources = vec![Source::Host];
    sources.extend(names.iter().cloned().map(Source::Link));
    let sockets: Vec<SocketReport> = (0..listeners)
        .map(|number| SocketReport {
            socket: SocketSpec {
                listener: format!("listener-{number}"),
                ..SocketSpec::plain(Protocol::Tcp, "0.0.0.0".parse().unwrap(), 8000 + number)
            }
            .view(FamilyExposure::default()),
            bind: BindReport {
                predicted: PredictedBind {
                    outcome: BindOutcome::Ok,
                    phase: None,
                    errno: None,
                    conflicts_with: Vec::new(),
                    code: None,
                    message: None,
                    hint: None,
                },
                observed: None,
            },
            exposure_because: vec!["IPv4: a wildcard covers every address".to_owned()],
        })
        .collect();
    let pairs = sources.len() * usize::from(listeners);
    let mut cells = Vec::with_capacity(results);
    for (source, from) in sources.iter().enumerate() {
        for number in 0..listeners {
            let accepted = (source + usize::from(number)) % 3 != 0;
            let predicted = Arc::new(PredictedCell {
                outcome: Some(if accepted { Outcome::Accepted } else { Outcome::Refused }),
                listener: accepted.then(|| format!("listener-{number}")),
                candidates: Vec::new(),
                ingress: accepted.then(|| names.get(source.saturating_sub(1)).cloned()).flatten(),
                peer_is_local: accepted.then_some(source == 0),
                why: if accepted { Code::WILDCARD } else { Code::NO_LISTENER },
                return_path: None,
                filter: None,
                translated: None,
                answer: None,
                unknown_because: None,
            });
            let place = source * usize::from(listeners) + usize::from(number);
            let mine = results / pairs + usize::from(place < results % pairs);
            for to in 0..mine {
                cells.push(CellReport {
                    source: from.clone(),
                    source_address: None,
                    protocol: Protocol::Tcp,
                    destination: address((source + to) % usize::from(interfaces), 1).into(),
                    address_owner: names.get((source + to) % usize::from(interfaces)).cloned(),
                    port: 8000 + number,
                    predicted: Arc::clone(&predicted),
                    observed: None,
                    agrees: None,
                });
            }
        }
    }
    let interface = |number: usize, name: &IfName| InterfaceReport {
        index: u32::try_from(number).unwrap() + 2,
        name: name.clone(),
        up: true,
        loopback: false,
        kind: None,
        master: None,
        addresses: vec![AddressReport {
            address: address(number, 1).parse().unwrap(),
            prefix: 24,
            class: AddrClass::Private,
        }],
    };
    let body = Reachability {
        time: None,
        profile: "large".to_owned(),
        interfaces: names.iter().enumerate().map(|(number, name)| interface(number, name)).collect(),
        sources: sources
            .iter()
            .map(|source| SourceReport {
                source: source.clone(),
                description: "a source of the large report".to_owned(),
                interfaces: match source {
                    Source::Link(name) => vec![name.clone()],
                    _ => Vec::new(),
                },
            })
            .collect(),
        requested: Questions::default(),
        sockets,
        summary: matrix::summary(&cells),
        cells,
        expectations: Vec::new(),
        events: Vec::new(),
        notes: Vec::new(),
    };
    let host = Host { name: Some("host".to_owned()), system: "linux".to_owned(), ..Host::default() };
    Document::new(Schema::Plan, HostReport::new(host, Vec::new(), body))
}
