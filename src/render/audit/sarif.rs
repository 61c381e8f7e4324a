//! SARIF 2.1.0 (OASIS), for code-scanning services.

use serde_json::{Value, json};

use super::{address, level, subject};
use crate::audit::identity::Identity;
use crate::audit::{Finding, Report};
use crate::code::Code;
use crate::escape::{escape, printable};

/// The report as a SARIF log with one run and a final newline.
///
/// # Errors
/// None that can occur: every key is a string.
pub fn sarif(report: &Report) -> serde_json::Result<Vec<u8>> {
    let mut codes: Vec<Code> = report.findings.iter().map(|finding| finding.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let rules: Vec<Value> = codes
        .iter()
        .map(|code| {
            json!({
                "id": code.to_string(),
                "shortDescription": {"text": code.title()},
                "help": {"text": format!("bindscope explain {code}")},
            })
        })
        .collect();
    let results: Vec<Value> = report.findings.iter().map(|finding| result(report, finding, &codes)).collect();
    let notifications: Vec<Value> = report
        .incomplete_because
        .iter()
        .map(|because| json!({"level": "warning", "message": {"text": printable(because)}}))
        .collect();
    let log = json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "bindscope", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "invocations": [{
                "executionSuccessful": true,
                "endTimeUtc": report.time,
                "toolExecutionNotifications": notifications,
            }],
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    let mut out = serde_json::to_vec_pretty(&log)?;
    out.push(b'\n');
    Ok(out)
}

fn result(report: &Report, finding: &Finding, codes: &[Code]) -> Value {
    let subject = subject(report, finding);
    let message = printable(&finding.message);
    let text = if subject.is_empty() { message } else { format!("{subject}: {message}") };
    let mut result = json!({
        "ruleId": finding.code.to_string(),
        "ruleIndex": codes.iter().position(|code| *code == finding.code),
        "message": {"text": text},
        "partialFingerprints": {"bindscope/v1": fingerprint(report, finding)},
    });
    // SARIF 3.27.9 and 3.27.10: only a failure has a level.
    if finding.undecided {
        result["kind"] = json!("open");
        result["level"] = json!("none");
    } else {
        result["kind"] = json!("fail");
        result["level"] = json!(level(finding.severity));
    }
    let mut location = json!({ "physicalLocation": physical(report, finding) });
    if let Some(socket) = finding.socket.and_then(|place| report.sockets.get(place)) {
        let name = format!("{} {}", socket.view.protocol, address(socket));
        location["logicalLocations"] = json!([{"fullyQualifiedName": name, "kind": "resource"}]);
    }
    result["locations"] = json!([location]);
    if let Some(reason) = &finding.waived {
        result["suppressions"] = json!([{"kind": "external", "justification": escape(reason)}]);
    }
    if finding.known {
        result["baselineState"] = json!("unchanged");
    }
    result
}

/// Location of a finding: the line of the policy, otherwise the unit of the process, otherwise the report. Code
/// scanning refuses a whole log if one result has no location.
fn physical(report: &Report, finding: &Finding) -> Value {
    if let Some(place) = &finding.location {
        let (line, column) = place.line_column();
        return json!({
            "artifactLocation": {"uri": uri(&place.file)},
            "region": {"startLine": line, "startColumn": column},
        });
    }
    let socket = finding.socket.and_then(|place| report.sockets.get(place));
    let unit = socket.and_then(|socket| {
        let activated = socket.activation.as_ref().map(|activation| activation.socket_unit.as_str());
        activated.or_else(|| socket.known_owners().iter().find_map(|owner| owner.unit.as_deref()))
    });
    let file = match unit.filter(|unit| unit.ends_with(".service") || unit.ends_with(".socket")) {
        Some(unit) => format!("etc/systemd/system/{unit}"),
        None => report.policy_file.clone().unwrap_or_else(|| "bindscope-audit".to_owned()),
    };
    json!({ "artifactLocation": {"uri": uri(&file)}, "region": {"startLine": 1, "startColumn": 1} })
}

/// The stable part of a finding: code, rule and the identity of the listener.
#[must_use]
fn fingerprint(report: &Report, finding: &Finding) -> String {
    let mut parts = vec![finding.code.to_string()];
    parts.extend(finding.rule.as_deref().map(escape));
    match finding.socket.and_then(|place| report.sockets.get(place)) {
        Some(socket) => parts.push(Identity::of(socket).to_string()),
        None => parts.push(printable(&finding.message)),
    }
    parts.join("|")
}

/// A file name as a URI reference (RFC 3986): relative names stay relative.
fn uri(file: &str) -> String {
    let mut out = String::new();
    if file.starts_with('/') {
        out.push_str("file://");
    }
    for byte in file.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte))
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
