//! CSV rows (RFC 4180), written without a string for each field because there may be a hundred thousand rows.

use std::io;
use std::net::IpAddr;

use crate::model::{Family, addr};

/// A row in progress; its memory is reused for the next one.
#[derive(Debug, Default)]
pub struct Row(Vec<u8>);

impl Row {
    /// A field that needs neither quotes nor escapes.
    pub fn field(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.0.is_empty() {
            self.0.push(b',');
        }
        write(&mut self.0);
    }

    pub fn text(&mut self, text: &str) {
        self.field(|out| out.extend_from_slice(text.as_bytes()));
    }

    pub fn number(&mut self, number: Option<impl itoa::Integer>) {
        self.field(|out| {
            if let Some(number) = number {
                out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            }
        });
    }

    pub fn family(&mut self, family: Family) {
        self.text(if family == Family::Ipv4 { "ipv4" } else { "ipv6" });
    }

    pub fn truth(&mut self, truth: Option<bool>) {
        self.text(truth.map_or("", |truth| if truth { "true" } else { "false" }));
    }

    pub fn address(&mut self, address: Option<IpAddr>) {
        self.field(|out| {
            if let Some(address) = address {
                addr::push(out, address);
            }
        });
    }

    /// The fields of another row.
    pub fn fields(&mut self, other: &Row) {
        self.field(|out| out.extend_from_slice(&other.0));
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn end(&mut self, mut out: impl io::Write) -> io::Result<()> {
        self.0.extend_from_slice(b"\r\n");
        out.write_all(&self.0)?;
        self.0.clear();
        Ok(())
    }
}
