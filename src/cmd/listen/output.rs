//! Where the lines of `listen` go.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::code::Code;
use crate::diag::Problem;
use crate::model::Errno;
use crate::record::sink::Sink;
use crate::sys;

use crate::cmd::{Exit, Failure};

/// How arrivals are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned lines for people, and a matrix at the end
    Human,
    /// One JSON object a line
    Ndjson,
}

/// Opens the sink: the file, or standard output.
pub(super) fn open(path: Option<&Path>) -> Result<Sink, Failure> {
    let (name, opened) = match path {
        Some(path) => (path.display().to_string(), sys::open_for_append(path).and_then(of_file)),
        None => {
            let opened = match sys::standard_output() {
                Some(file) => of_file(file),
                None => Sink::stream(io::stdout()),
            };
            ("standard output".to_owned(), opened)
        }
    };
    opened.map_err(|error| {
        let problem = Problem::error(Code::OUTPUT_FAILED, format!("cannot write to {name}: {error}"));
        let help = match sys::errno_of(&error) {
            Errno::ENXIO => "it is a FIFO that nobody reads: start the reader first",
            _ => "choose another file with -o FILE",
        };
        Failure::new(Exit::Output, problem.help(help))
    })
}

fn of_file(file: File) -> io::Result<Sink> {
    if file.metadata()?.is_file() { Ok(Sink::file(file)) } else { Sink::stream(file) }
}
