//! Pages of any document: whatever its texts are, the elements are those of the templates.

use bindscope::render::html::{self, Part};
use bindscope::report::document::{self, Shown};

use super::assert_plain;

/// The elements that a page has.
const ELEMENTS: &[&str] = &[
    "a", "article", "b", "body", "caption", "code", "dd", "del", "desc", "details", "div", "dl", "dt",
    "fieldset", "footer", "g", "h1", "h2", "h3", "head", "header", "html", "input", "ins", "label", "legend",
    "li", "main", "meta", "nav", "ol", "p", "path", "pre", "rect", "section", "small", "span", "strong",
    "style", "summary", "svg", "table", "tbody", "td", "text", "th", "thead", "title", "tr", "ul",
];

/// Elements without an end.
const VOID: &[&str] = &["input", "meta"];

/// A document, as `bindscope report` reads it.
pub fn pages(data: &[u8]) {
    let shown = match document::read_shown(data) {
        Ok(shown) => shown,
        Err(error) => return assert_plain(&error.to_string()),
    };
    let part = match &shown {
        Shown::Reach(report) => {
            let picture = html::svg(report);
            let tree =
                roxmltree::Document::parse(&picture).unwrap_or_else(|error| panic!("{error}: {picture}"));
            assert!(
                tree.root_element().has_tag_name("svg") || tree.root_element().tag_name().name() == "svg"
            );
            let flowchart = html::mermaid(report);
            assert_plain(&flowchart);
            assert!(flowchart.lines().all(|line| line.matches('"').count() <= 2), "{flowchart}");
            Part::Reach(report)
        }
        Shown::Audit(sheet) => Part::Audit(sheet),
        Shown::Diff(comparison) => Part::Diff(comparison),
        Shown::Listen(history) => Part::Listen(history),
        Shown::Experiment(experiment) => Part::Experiment(experiment),
    };
    for parts in [&[part][..], &[part, part]] {
        let page = html::page(parts);
        assert_plain(&page);
        assert_whole(&page);
    }
}

/// Every element is a known one, is closed where it was opened, and has no attribute that runs or loads something.
fn assert_whole(page: &str) {
    let page = page.strip_prefix("<!DOCTYPE html>").expect("it begins with its type");
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        assert!(
            !rest[..at].contains('>') || open.last() == Some(&"style"),
            "a text has a >: {}",
            &rest[..at]
        );
        let end = rest[at..].find('>').map(|end| at + end).expect("an element ends");
        let element = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = element.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "an element is closed elsewhere");
            continue;
        }
        let name = element.split([' ', '\n']).next().unwrap_or_default();
        assert!(ELEMENTS.contains(&name), "an element <{element}>");
        // Attributes: name="value"; a value holds no quotation mark.
        for (number, piece) in element.split('"').enumerate().filter(|(number, _)| number % 2 == 0) {
            let attribute = piece.trim_end_matches('=').rsplit(' ').next().unwrap_or_default();
            let forbidden = attribute.starts_with("on") || attribute == "style" || attribute == "src";
            assert!(number == 0 && piece == element || !forbidden, "an attribute {attribute} of <{element}>");
        }
        if name == "style" {
            let end = rest.find("</style>").expect("the style sheet ends");
            rest = &rest[end..];
        }
        if !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "open at the end: {open:?}");
}
