//! Every code the program can print. Each has a page in `src/explain/codes/`, shown by `bindscope explain`.
//!
//! `BS0xxx` profile, `BS1xxx` policy, `BS2xxx` bind, `BS3xxx` reach, `BS4xxx` evidence and environment, `BS9xxx` internal.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A code of the table below.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u16);

macro_rules! codes {
    ($($name:ident = $number:literal: $title:literal,)*) => {
        impl Code {
            $(#[doc = $title] pub const $name: Code = Code($number);)*

            /// Every code with its title, in order.
            pub const ALL: &'static [(Code, &'static str)] = &[$((Code::$name, $title),)*];
        }
    };
}

codes! {
    // Profile
    SYNTAX = 1: "the file is not TOML",
    UNKNOWN_KEY = 2: "unknown key",
    // Bind
    ADDRESS_IN_USE = 2001: "another socket has the address and port",
    // Reach
    // Evidence and environment
    OUTPUT_FAILED = 4005: "output could not be written",
    LABEL_MASKS_INTERFACE = 4001: "an address label names another interface",
    // Internal
    INTERNAL = 9001: "an internal error",
}

impl Code {
    /// What the code stands for, in a few words.
    #[must_use]
    pub fn title(self) -> &'static str {
        Code::ALL.iter().find(|(code, _)| *code == self).map_or("", |(_, title)| title)
    }

    /// The code with this text, such as `BS2001`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Code> {
        let digits = text.strip_prefix("BS").or_else(|| text.strip_prefix("bs"))?;
        let number: u16 = digits.parse().ok().filter(|_| digits.len() == 4)?;
        Code::ALL.iter().map(|(code, _)| *code).find(|code| code.0 == number)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BS{:04}", self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Code, D::Error> {
        let text = String::deserialize(deserializer)?;
        Code::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format_args!("{text:?} is no code of this version")))
    }
}
