//! The `bindscope` program: everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    bindscope::cmd::main(std::env::args_os())
}
