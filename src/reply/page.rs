//! The three formats of the description: HTML for a browser, JSON for a program, text for curl.

use std::fmt::Write as _;

use super::{meaning, push_endpoint, push_ingress};
use crate::escape::{self, html_entities};
use crate::model::{Arrival, Family};

/// The facts as names and values, the same in text and HTML. Values are escaped for people, but not yet for HTML.
fn rows(arrival: &Arrival, mut row: impl FnMut(&'static str, &[u8])) {
    let mut value = Vec::with_capacity(64);
    let mut add = |name, write: &dyn Fn(&mut Vec<u8>)| {
        value.clear();
        write(&mut value);
        row(name, &value);
    };
    add("arrived on", &|out| push_ingress(out, arrival));
    add("listener", &|out| escape::push(out, &arrival.listener));
    add("local address", &|out| push_endpoint(out, arrival, &arrival.local));
    add("address owner", &|out| match &arrival.address_owner {
        Some(owner) => escape::push_bytes(out, owner.as_bytes()),
        None => out.extend_from_slice(b"no interface has it"),
    });
    add("peer", &|out| push_endpoint(out, arrival, &arrival.peer));
    add("family", &|out| {
        out.extend_from_slice(match (arrival.v4_mapped, arrival.family) {
            (true, _) => b"IPv4 (v4-mapped)".as_slice(),
            (false, Family::Ipv4) => b"IPv4",
            (false, Family::Ipv6) => b"IPv6",
        });
    });
}

/// Text with one fact per line.
pub(super) fn text(arrival: &Arrival) -> Vec<u8> {
    /// Width of the column of names.
    const WIDTH: usize = 15;
    let mut out = Vec::with_capacity(512);
    rows(arrival, |name, value| {
        out.extend_from_slice(name.as_bytes());
        out.resize(out.len() + WIDTH - name.len(), b' ');
        out.extend_from_slice(value);
        out.push(b'\n');
    });
    for sentence in meaning(arrival) {
        out.extend_from_slice(sentence.as_bytes());
        out.push(b'\n');
    }
    out
}

/// JSON with the same fields as the event stream.
pub(super) fn json(arrival: &Arrival) -> Vec<u8> {
    // An arrival contains only strings, numbers and booleans, so it always has a JSON form.
    let mut out = serde_json::to_vec(arrival).unwrap_or_default();
    out.push(b'\n');
    out
}

/// HTML: one file without scripts or external resources.
pub(super) fn html(arrival: &Arrival) -> Vec<u8> {
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
    rows(arrival, |name, value| {
        let value = html_entities(&String::from_utf8_lossy(value));
        let _ = writeln!(out, "<tr><th scope=\"row\">{name}<td>{value}");
    });
    out.push_str("</table>\n");
    for sentence in meaning(arrival) {
        let _ = writeln!(out, "<p>{}", html_entities(&sentence));
    }
    let _ = writeln!(out, "<p><small>bindscope {}</small>", env!("CARGO_PKG_VERSION"));
    out.into_bytes()
}
