//! The `bindscope` program, a call into the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    bindscope::cmd::main(std::env::args_os())
}
