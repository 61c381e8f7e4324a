//! Output of `listen`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::code::Code;
use crate::diag::Diagnostic;
use crate::model::Errno;
use crate::model::confinement::{Confinement, Needs};
use crate::record::sink::Sink;
use crate::sys;

use crate::cmd::format_args::Formats;
use crate::cmd::{Exit, Failure};

/// Format of arrivals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned lines for people, and a summary at the end
    Human,
    /// One JSON object per line
    #[value(alias = "json")]
    Ndjson,
    /// At the end, a page with arrivals over time: one file, without scripts
    Html,
}

impl Formats for Format {
    const DEFAULT: Format = Format::Human;
    const JSON: Format = Format::Ndjson;
}

/// The sink, the level of confinement of its writing thread, and the file that gets its name when the page is written.
pub(super) type Opened = (Sink, Option<Confinement>, Option<sys::WholeFile>);

/// Opens the sink of a page. A file appears when it is complete.
pub(super) fn open_page(path: Option<&Path>, keep_rights: bool) -> Result<Opened, Failure> {
    let Some(path) = path else {
        return open(None, keep_rights).map(|(sink, of_sink)| (sink, of_sink, None));
    };
    let opened =
        sys::open_output(path, sys::Existing::Replace, sys::Readers::Owner).and_then(|output| match output {
            sys::Output::Direct(file) => {
                of_file(file, keep_rights).map(|(sink, of_sink)| (sink, of_sink, None))
            }
            sys::Output::Whole(whole) => Ok((Sink::file(whole.writer()?), None, Some(whole))),
        });
    opened.map_err(|error| not_writable(&path.display().to_string(), &error))
}

/// Opens the sink: the file, or standard output. Its writing thread, if any, drops all its privileges unless
/// `keep_rights`. Returns the level that was reached.
pub(super) fn open(path: Option<&Path>, keep_rights: bool) -> Result<(Sink, Option<Confinement>), Failure> {
    let (name, opened) = match path {
        Some(path) => (
            path.display().to_string(),
            sys::open_for_append(path).and_then(|file| of_file(file, keep_rights)),
        ),
        None => {
            let opened = match sys::standard_output() {
                Ok(Some(file)) => of_file(file, keep_rights),
                Ok(None) => stream(io::stdout(), keep_rights),
                Err(error) => Err(error),
            };
            ("standard output".to_owned(), opened)
        }
    };
    opened.map_err(|error| not_writable(&name, &error))
}

/// Exit 5: the output cannot be written.
pub(super) fn not_writable(name: &str, error: &io::Error) -> Failure {
    let problem = Diagnostic::error(Code::OUTPUT_FAILED, format!("cannot write to {name}: {error}"));
    let help = match sys::errno_of(error) {
        Errno::ENXIO => "it is a FIFO without a reader: start the reader first",
        _ => "choose another file with -o FILE",
    };
    Failure::new(Exit::Output, problem.help(help))
}

fn of_file(file: File, keep_rights: bool) -> io::Result<(Sink, Option<Confinement>)> {
    let metadata = file.metadata()?;
    if metadata.is_file() {
        return Ok((Sink::file(file), None));
    }
    let (same, pipe) = (file.try_clone()?, sys::is_pipe(&metadata));
    let (sink, of_sink) = stream(file, keep_rights)?;
    Ok((if pipe { sink.at_once(move |bytes| sys::write_now(&same, bytes)) } else { sink }, of_sink))
}

fn stream(writer: impl Write + Send + 'static, keep_rights: bool) -> io::Result<(Sink, Option<Confinement>)> {
    Sink::stream_prepared(writer, move || (!keep_rights).then(|| sys::confine(&Needs::default())))
}
