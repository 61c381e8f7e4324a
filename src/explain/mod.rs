//! The pages of `bindscope explain`: one for each code and one for each topic, compiled in.
//!
//! The text uses a subset of Markdown: headings, paragraphs, lists, tables, fenced blocks. [`find`] looks up a page by name;
//! the module `render` formats pages for a terminal.

mod aliases;

use crate::code::Code;

/// A page: its name and its Markdown. The first line is `# Title`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// `BS2001`, or the name of a topic such as `weak-host`.
    pub name: &'static str,
    /// The whole page.
    pub markdown: &'static str,
}

impl Page {
    /// The text of the first heading.
    #[must_use]
    pub fn title(&self) -> &'static str {
        self.markdown.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or(self.name)
    }
}

macro_rules! pages {
    ($directory:literal: $($name:literal,)*) => {
        &[$(Page { name: $name, markdown: include_str!(concat!($directory, "/", $name, ".md")) },)*]
    };
}

/// The page of every code, in order. A test compares the list with [`Code::ALL`].
pub const CODES: &[Page] = pages! { "codes":
    "BS0001",
    "BS0002",
    "BS0003",
    "BS0004",
    "BS0005",
    "BS0006",
    "BS0007",
    "BS0008",
    "BS0009",
    "BS0010",
    "BS0011",
    "BS0012",
    "BS0013",
    "BS0014",
    "BS0015",
    "BS0016",
    "BS0017",
    "BS0018",
    "BS0019",
    "BS0020",
    "BS0021",
    "BS0022",
    "BS0023",
    "BS0024",
    "BS0025",
    "BS0026",
    "BS0027",
    "BS0028",
    "BS0029",
    "BS0030",
    "BS0080",
    "BS0081",
    "BS0090",
    "BS0091",
    "BS0092",
    "BS0093",
    "BS0095",
    "BS0096",
    "BS0097",
    "BS1001",
    "BS1002",
    "BS1003",
    "BS1004",
    "BS1005",
    "BS1006",
    "BS1007",
    "BS1008",
    "BS1009",
    "BS1010",
    "BS1011",
    "BS1012",
    "BS1020",
    "BS1021",
    "BS1022",
    "BS1023",
    "BS1024",
    "BS1025",
    "BS1026",
    "BS1027",
    "BS1028",
    "BS1029",
    "BS1030",
    "BS1031",
    "BS1032",
    "BS1040",
    "BS1041",
    "BS1042",
    "BS1043",
    "BS1044",
    "BS1046",
    "BS1050",
    "BS1051",
    "BS1052",
    "BS2001",
    "BS2002",
    "BS2003",
    "BS2004",
    "BS2005",
    "BS2006",
    "BS2007",
    "BS2008",
    "BS2009",
    "BS2010",
    "BS2011",
    "BS2012",
    "BS2013",
    "BS2014",
    "BS2015",
    "BS2020",
    "BS2021",
    "BS2022",
    "BS2023",
    "BS2024",
    "BS2025",
    "BS2026",
    "BS3001",
    "BS3002",
    "BS3003",
    "BS3004",
    "BS3005",
    "BS3006",
    "BS3007",
    "BS3008",
    "BS3009",
    "BS3010",
    "BS3011",
    "BS3012",
    "BS3013",
    "BS3014",
    "BS3015",
    "BS3016",
    "BS3017",
    "BS3018",
    "BS3019",
    "BS3020",
    "BS3021",
    "BS3022",
    "BS3023",
    "BS3024",
    "BS3030",
    "BS3031",
    "BS3032",
    "BS3040",
    "BS3041",
    "BS3042",
    "BS3043",
    "BS3044",
    "BS3050",
    "BS3051",
    "BS3052",
    "BS3053",
    "BS3054",
    "BS3055",
    "BS3056",
    "BS3057",
    "BS3058",
    "BS3060",
    "BS3061",
    "BS3062",
    "BS3063",
    "BS3064",
    "BS3065",
    "BS3066",
    "BS3068",
    "BS3069",
    "BS3070",
    "BS3072",
    "BS3073",
    "BS3075",
    "BS3076",
    "BS3078",
    "BS4001",
    "BS4002",
    "BS4003",
    "BS4004",
    "BS4005",
    "BS4006",
    "BS4007",
    "BS4008",
    "BS4020",
    "BS4021",
    "BS4022",
    "BS4024",
    "BS4042",
    "BS4070",
    "BS4071",
    "BS9001",
};

/// The pages that are not about one code, in order.
pub const TOPICS: &[Page] = pages! { "topics":
    "arrival",
    "dad",
    "defaults",
    "device",
    "docker",
    "evidence",
    "exit-codes",
    "experiments",
    "exposure",
    "fail2ban",
    "filters",
    "firewalld",
    "glossary",
    "kubernetes-nodeport",
    "lab",
    "localhost",
    "log-rotation",
    "policy",
    "privileged-ports",
    "report",
    "reuse",
    "scope-id",
    "twin",
    "ufw",
    "v4-mapped",
    "v6only",
    "weak-host",
    "wildcard",
};

/// The page of a code.
#[must_use]
pub fn page(code: Code) -> Option<&'static Page> {
    let name = code.to_string();
    CODES.iter().find(|page| page.name == name)
}

/// The page with this name; upper and lower case are equal, and `_` is equal to `-`.
///
/// # Errors
/// The most similar names, best first, if no page has this name; possibly none.
pub fn find(wanted: &str) -> Result<&'static Page, Vec<&'static str>> {
    let wanted = wanted.trim().to_lowercase().replace(['_', ' '], "-");
    let all = || CODES.iter().chain(TOPICS);
    if let Some(page) = all().find(|page| page.name.to_lowercase() == wanted) {
        return Ok(page);
    }
    let alias = aliases::ALIASES.iter().find(|(_, words)| words.contains(&wanted.as_str()));
    if let Some(page) = alias.and_then(|(name, _)| all().find(|page| page.name == *name)) {
        return Ok(page);
    }
    let mut near: Vec<(f64, &'static str)> = all()
        .map(|page| (strsim::jaro_winkler(&page.name.to_lowercase(), &wanted), page.name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.truncate(3);
    Err(near.into_iter().map(|(_, name)| name).collect())
}

/// A page that contains all words of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// The page.
    pub page: &'static Page,
    /// The first line with one of the words.
    pub line: &'static str,
}

/// Pages that contain every word of `query`, those with the words in title or aliases first.
#[must_use]
pub fn search(query: &str) -> Vec<Hit> {
    let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
    if words.is_empty() {
        return Vec::new();
    }
    let mut hits: Vec<(usize, Hit)> = CODES
        .iter()
        .chain(TOPICS)
        .filter_map(|page| {
            let text = page.markdown.to_lowercase();
            let title = page.title().to_lowercase();
            let alias = |word: &String| {
                let known = aliases::ALIASES.iter().filter(|(name, _)| *name == page.name);
                known.flat_map(|(_, words)| *words).any(|alias| alias.contains(word.as_str()))
            };
            if !words.iter().all(|word| text.contains(word) || alias(word)) {
                return None;
            }
            let rank: usize = words
                .iter()
                .map(|word| {
                    text.matches(word.as_str()).count().min(5)
                        + 20 * usize::from(title.contains(word) || page.name.contains(word.as_str()))
                        + 10 * usize::from(alias(word))
                })
                .sum();
            let has_word = |line: &&str| {
                let lower = line.to_lowercase();
                words.iter().any(|word| lower.contains(word))
            };
            let body = page.markdown.lines().skip(1).filter(|line| !line.starts_with('#'));
            let line = body.clone().find(has_word).or_else(|| page.markdown.lines().find(has_word));
            Some((rank, Hit { page, line: line.unwrap_or_default() }))
        })
        .collect();
    hits.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.page.name.cmp(b.1.page.name)));
    hits.into_iter().map(|(_, hit)| hit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_pages_are_the_same_set() {
        let codes: Vec<String> = Code::ALL.iter().map(|(code, _)| code.to_string()).collect();
        for code in &codes {
            assert!(CODES.iter().any(|page| page.name == code), "{code} has no page");
        }
        for page in CODES {
            assert!(codes.iter().any(|code| code == page.name), "{} is not the page of a code", page.name);
            assert!(super::page(Code::parse(page.name).unwrap()).is_some());
        }
        assert_eq!(codes.len(), CODES.len());
    }

    #[test]
    fn names_are_sorted_and_differ() {
        for pages in [CODES, TOPICS] {
            assert!(pages.windows(2).all(|two| two[0].name < two[1].name));
        }
    }

    #[test]
    fn every_page_has_its_parts() {
        for page in CODES.iter().chain(TOPICS) {
            let name = page.name;
            assert!(page.markdown.starts_with("# ") && page.title().len() > 4, "{name}: no title");
            let lines = page.markdown.lines().count();
            assert!((10..=95).contains(&lines), "{name}: {lines} lines");
            assert_eq!(page.markdown.matches("```").count() % 2, 0, "{name}: a block is open");
            let limit = |line: &str| if line.starts_with('|') { 130 } else { 105 };
            let wide = page.markdown.lines().find(|line| line.chars().count() > limit(line));
            assert_eq!(wide, None, "{name}: too wide");
            let plain = page.markdown.chars().all(|c| c == '\n' || !c.is_control());
            assert!(plain, "{name}: control characters");
        }
        for page in CODES {
            for part in
                ["What it means", "Why it matters", "How to see it", "How to fix it", "When to live with it"]
            {
                assert!(page.markdown.contains(&format!("\n## {part}\n")), "{}: no {part}", page.name);
            }
        }
    }

    #[test]
    fn the_glossary_in_docs_is_the_topic() {
        assert_eq!(find("glossary").unwrap().markdown, include_str!("../../docs/glossary.md"));
    }

    #[test]
    fn references_between_pages_exist() {
        for page in CODES.iter().chain(TOPICS) {
            for (at, start) in page.markdown.match_indices("`bindscope explain ") {
                let rest = &page.markdown[at + start.len()..];
                let name = rest.split('`').next().unwrap();
                assert!(name.starts_with('-') || find(name).is_ok(), "{} points to {name}", page.name);
            }
        }
    }

    #[test]
    fn every_alias_leads_to_one_page() {
        let mut seen = std::collections::HashSet::new();
        for (name, words) in aliases::ALIASES {
            assert!(CODES.iter().chain(TOPICS).any(|page| page.name == *name), "{name}");
            for word in *words {
                assert!(seen.insert(word), "{word} is there twice");
                assert_eq!(find(word).unwrap().name, *name, "{word}");
            }
        }
        for typed in
            ["Address already in use", "EADDRINUSE", "IPV6_V6ONLY", "0.0.0.0", "dual-stack", "TIME_WAIT"]
        {
            assert!(find(typed).is_ok(), "{typed}");
        }
    }

    #[test]
    fn a_search_finds_words_in_titles_first() {
        assert_eq!(search("weak host")[0].page.name, "weak-host");
        assert!(search("SO_REUSEPORT").iter().any(|hit| hit.page.name == "reuse"));
        assert!(search("no-such-word-anywhere").is_empty() && search(" ").is_empty());
    }

    #[test]
    fn find_returns_the_page_or_similar_names() {
        assert_eq!(find("bs2001").unwrap().name, "BS2001");
        assert_eq!(find("Weak_Host").unwrap().name, "weak-host");
        assert_eq!(find("wildcrad"), Err(vec!["wildcard"]));
        assert_eq!(find("BS2O01").unwrap_err().first(), Some(&"BS2001"));
        assert_eq!(find("\u{1b}[31m"), Err(Vec::new()));
        assert_eq!(find(""), Err(Vec::new()));
    }
}
