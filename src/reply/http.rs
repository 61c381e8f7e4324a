//! A minimal HTTP/1 server for browsers, curl and scripts: one GET or HEAD request, one response, then close.

use std::io::Write as _;
use std::mem::MaybeUninit;

use super::{Answer, OwnNames, READ_LIMIT, page};
use crate::model::Arrival;

/// Maximum number of headers; normal clients send fewer.
const MAX_HEADERS: usize = 64;

/// The format for clients without an Accept header.
const TEXT: &str = "text/plain; charset=utf-8";

/// Methods that identify a malformed request as HTTP.
const METHODS: [&str; 9] =
    ["GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "TRACE ", "CONNECT "];

/// The format that a client requests with its Accept header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Html,
    Json,
    Text,
}

const FORMS: [(&str, Form); 4] = [
    ("text/html", Form::Html),
    ("application/xhtml+xml", Form::Html),
    ("application/json", Form::Json),
    ("text/plain", Form::Text),
];

/// The status of a response to a method that is not answered.
const NOT_ALLOWED: &str = "405 Method Not Allowed";

/// The response to a client that uses HTTP; `None` for other clients.
pub(super) fn answer(input: &[u8], arrival: &Arrival, names: &OwnNames) -> Option<Answer> {
    if input.is_empty() {
        return Some(Answer::Wait);
    }
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let response = match request.parse_with_uninit_headers(input, &mut headers) {
        Ok(httparse::Status::Partial) if input.len() < READ_LIMIT => return Some(Answer::Wait),
        Ok(httparse::Status::Partial) if request.version.is_none() && !looks_like_http(input) => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            plain("431 Request Header Fields Too Large", "the request head is too long\n", true)
        }
        Err(_) if looks_like_http(input) => plain("400 Bad Request", "not a valid HTTP request\n", true),
        Err(_) => return None,
        Ok(httparse::Status::Complete(_)) => match request.method {
            _ if !is_for_us(&request, names) => plain(
                "403 Forbidden",
                "the name in the request is not a name of this host: use its IP address or localhost\n",
                request.method != Some("HEAD"),
            ),
            Some("GET") => respond(form(&request), arrival, true),
            Some("HEAD") => respond(form(&request), arrival, false),
            _ => plain(NOT_ALLOWED, "only GET and HEAD are answered\n", true),
        },
    };
    Some(Answer::Http(response))
}

fn looks_like_http(input: &[u8]) -> bool {
    METHODS.iter().any(|method| input.starts_with(method.as_bytes()))
}

/// Whether every name by which the request calls this host is its own: those of all Host headers, and that of a target in absolute
/// form, which goes before them (RFC 9112, 3.2.2). A browser always sends a Host header; a request without any comes from a script.
fn is_for_us(request: &httparse::Request<'_, '_>, names: &OwnNames) -> bool {
    let target = request.path.unwrap_or_default();
    let authority = target.split_once("://").filter(|_| !target.starts_with('/')).map(|(_, rest)| {
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    });
    let hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    hosts.map(|header| header.value).chain(authority.map(str::as_bytes)).all(|host| names.includes(host))
}

/// The first supported format in the Accept header; quality values are ignored.
fn form(request: &httparse::Request<'_, '_>) -> Form {
    let accept = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("accept"));
    let value = accept.and_then(|header| std::str::from_utf8(header.value).ok()).unwrap_or_default();
    for part in value.split(',') {
        let kind = part.split(';').next().unwrap_or_default().trim();
        for (name, form) in FORMS {
            if kind.eq_ignore_ascii_case(name) {
                return form;
            }
        }
    }
    Form::Text
}

fn respond(form: Form, arrival: &Arrival, with_body: bool) -> Vec<u8> {
    let (kind, body) = match form {
        Form::Html => ("text/html; charset=utf-8", page::html(arrival)),
        Form::Json => ("application/json", page::json(arrival)),
        Form::Text => (TEXT, page::text(arrival)),
    };
    response("200 OK", kind, &body, with_body)
}

fn plain(status: &str, body: &str, with_body: bool) -> Vec<u8> {
    response(status, TEXT, body.as_bytes(), with_body)
}

fn response(status: &str, kind: &str, body: &[u8], with_body: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 500);
    for part in ["HTTP/1.1 ", status, "\r\nContent-Type: ", kind, "\r\nContent-Length: "] {
        out.extend_from_slice(part.as_bytes());
    }
    let _ = write!(out, "{}\r\n", body.len());
    if status == NOT_ALLOWED {
        out.extend_from_slice(b"Allow: GET, HEAD\r\n");
    }
    out.extend_from_slice(
        b"Cache-Control: no-store\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n",
    );
    if with_body {
        out.extend_from_slice(body);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::arrival;
    use super::*;

    fn http(request: &str) -> String {
        match answer(request.as_bytes(), &arrival(), &OwnNames::default()) {
            Some(Answer::Http(response)) => String::from_utf8(response).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn body(response: &str) -> &str {
        response.split_once("\r\n\r\n").unwrap().1
    }

    #[test]
    fn each_client_gets_its_form() {
        let html = http(
            "GET / HTTP/1.1\r\nHost: 192.0.2.2\r\nAccept: text/html,application/xhtml+xml,*/*;q=0.8\r\n\r\n",
        );
        assert!(html.contains("Content-Type: text/html") && body(&html).starts_with("<!doctype html>"));
        let json = http("GET /x HTTP/1.1\r\nAccept: application/json\r\n\r\n");
        let value: serde_json::Value = serde_json::from_str(body(&json)).unwrap();
        assert_eq!(value["ingress"]["name"], "eth1");
        assert_eq!(value["address_owner"], "eth0");
        let text = http("GET / HTTP/1.1\r\nHost: 192.0.2.2\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n");
        assert!(
            text.contains("Content-Type: text/plain")
                && body(&text).contains("eth1 (reported by the kernel)")
        );
    }

    #[test]
    fn head_has_the_length_of_the_body_and_no_body() {
        let get = http("GET / HTTP/1.0\r\n\r\n");
        let head = http("HEAD / HTTP/1.0\r\n\r\n");
        assert_eq!(body(&head), "");
        assert_eq!(get.split_once("\r\n\r\n").unwrap().0, head.split_once("\r\n\r\n").unwrap().0);
        assert!(head.contains(&format!("Content-Length: {}\r\n", body(&get).len())));
    }

    #[test]
    fn methods_other_than_get_are_refused() {
        assert!(http("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").starts_with("HTTP/1.1 405 "));
        assert!(http("GET /\r\n\r\n").starts_with("HTTP/1.1 400 "), "HTTP/0.9");
        assert!(http("GET / HTTP/1.1\r\nbad header\r\n\r\n").starts_with("HTTP/1.1 400 "));
        let long = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(READ_LIMIT));
        assert!(http(&long[..READ_LIMIT]).starts_with("HTTP/1.1 431 "));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_HEADERS + 1));
        assert!(http(&many).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn a_foreign_name_gets_one_line_and_no_fact() {
        for request in [
            "GET /<x> HTTP/1.1\r\nHost: evil.example\r\nAccept: text/html\r\n\r\n",
            "HEAD / HTTP/1.1\r\nhost: evil.example:8081\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            "OPTIONS / HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\r\n",
            "GET http://evil.example/ HTTP/1.1\r\nHost: 192.0.2.2\r\n\r\n",
            "GET http://192.0.2.2@evil.example/ HTTP/1.1\r\nHost: 192.0.2.2\r\n\r\n",
            "GET http://evil.example\\@192.0.2.2/ HTTP/1.1\r\nHost: 192.0.2.2\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: 192.0.2.2\r\nHost: evil.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: evil.example\r\n\r\n",
        ] {
            let response = http(request);
            assert!(response.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{request}: {response}");
            assert_eq!(body(&response).lines().count(), usize::from(!request.starts_with("HEAD")));
            assert!(
                !["evil", "<x>", "eth1", "192.0.2"].iter().any(|fact| response.contains(fact)),
                "{response}"
            );
        }
        assert!(http("GET http://192.0.2.2/x?http://evil/ HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
        assert!(http("GET /http://evil/ HTTP/1.1\r\nHost: [::1]:8081\r\n\r\n").starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn no_reply_lets_another_site_read_it() {
        for request in [
            "GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n",
            "OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nAccess-Control-Request-Method: GET\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\r\n",
        ] {
            let response = http(request).to_ascii_lowercase();
            assert!(!response.contains("access-control-"), "{response}");
            assert!(response.contains("cross-origin-resource-policy: same-origin\r\n"));
        }
    }

    #[test]
    fn other_protocols_are_not_http() {
        for other in [
            &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"*1\r\n$4\r\nPING\r\n",
            b"\x00\xff",
        ] {
            assert_eq!(answer(other, &arrival(), &OwnNames::default()), None, "{other:?}");
        }
        assert_eq!(answer(b"GET / HT", &arrival(), &OwnNames::default()), Some(Answer::Wait));
        assert_eq!(answer(b"", &arrival(), &OwnNames::default()), Some(Answer::Wait));
        assert_eq!(
            answer(&[b'a'; READ_LIMIT], &arrival(), &OwnNames::default()),
            None,
            "a long word is not a request"
        );
    }
}
