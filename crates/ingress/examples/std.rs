//! A TCP server that tells every client on which interface it arrived.
//!
//! `cargo run --example std -- '[::]:8080'`, then `nc localhost 8080`.
#![allow(clippy::print_stdout, reason = "an example")]

use std::io::{self, Write as _};
use std::net::TcpListener;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address)?;
    match ingress_interface::record(&listener) {
        // Other systems and MPTCP: `of` gives weaker evidence.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => println!("{error}"),
        result => result?,
    }
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (mut stream, peer) = listener.accept()?;
        let line = match ingress_interface::of(&stream) {
            Ok(Some(ingress)) => format!("{peer} arrived on {ingress}"),
            Ok(None) => format!("{peer} arrived on an unknown interface"),
            Err(error) => format!("{peer}: {error}"),
        };
        println!("{line}");
        // A client that is gone already is not an error of the server.
        let _ = writeln!(stream, "{line}");
    }
}
