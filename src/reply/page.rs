//! The three forms of the description: a page for a browser, JSON for a program, text for curl.

use std::fmt::Write as _;

use super::{ingress, meaning};
use crate::model::Arrival;
use crate::model::addr::text_with_port;
use crate::text::{escape, html_entities};

/// The facts as (name, value) rows, the same in text and HTML. Values are escaped for a person, not yet for HTML.
fn rows(arrival: &Arrival) -> Vec<(&'static str, String)> {
    let endpoint = |end: &crate::model::Endpoint| {
        text_with_port(end.address, super::zone(arrival, end.scope_id).as_ref(), end.port)
    };
    vec![
        ("arrived on", ingress(arrival)),
        ("listener", escape(&arrival.listener)),
        ("local address", endpoint(&arrival.local)),
        (
            "address owner",
            arrival
                .address_owner
                .as_ref()
                .map_or_else(|| "no interface has it".to_owned(), ToString::to_string),
        ),
        ("peer", endpoint(&arrival.peer)),
        (
            "family",
            if arrival.v4_mapped { "IPv4 (v4-mapped)".to_owned() } else { arrival.family.to_string() },
        ),
    ]
}

/// As text, one fact a line.
pub(super) fn text(arrival: &Arrival) -> String {
    let mut out = String::new();
    for (name, value) in rows(arrival) {
        let _ = writeln!(out, "{name:<14} {value}");
    }
    for sentence in meaning(arrival) {
        let _ = writeln!(out, "{sentence}");
    }
    out
}

/// As JSON: the arrival as the event stream has it.
pub(super) fn json(arrival: &Arrival) -> String {
    // An arrival holds strings, numbers and booleans only, so it always has a JSON form.
    serde_json::to_string(arrival).unwrap_or_default() + "\n"
}

/// As a page: one file, no script, nothing loaded.
pub(super) fn html(arrival: &Arrival) -> String {
    let name = arrival.ingress.name.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>bindscope: arrived on {0}</title>\n\
         <style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem;color:#222;background:#fff}}\
         h1{{font-size:1.6rem}}strong{{color:#06c}}th{{text-align:left;font-weight:normal;color:#666;padding-right:1.5rem;white-space:nowrap}}\
         td{{font-family:ui-monospace,monospace}}\
         @media(prefers-color-scheme:dark){{body{{color:#ddd;background:#111}}strong{{color:#6bf}}th{{color:#999}}}}</style>\n\
         <h1>Your connection arrived on <strong>{0}</strong></h1>\n<table>\n",
        html_entities(&name)
    );
    for (name, value) in rows(arrival) {
        let _ = writeln!(out, "<tr><th scope=\"row\">{name}<td>{}", html_entities(&value));
    }
    out.push_str("</table>\n");
    for sentence in meaning(arrival) {
        let _ = writeln!(out, "<p>{}", html_entities(&sentence));
    }
    let _ = writeln!(out, "<p><small>bindscope {}</small>", env!("CARGO_PKG_VERSION"));
    out
}
