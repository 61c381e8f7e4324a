//! Predicts the binds of a profile on this machine, and who reaches each listener. Opens no socket.
//!
//! `cargo run --example predict -- FILE.toml`; without a file, two listeners on port 8080.
#![allow(clippy::print_stdout, reason = "an example")]

use std::error::Error;

const TWO_LISTENERS: &str = r#"
schema = 1
name = "example"

[[listener]]
name = "public"
bind = "::"
v6only = false
port = 8080

[[listener]]
name = "private"
bind = "127.0.0.1"
port = 8080
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let (origin, text) = match std::env::args().nth(1) {
        Some(path) => (path.clone(), std::fs::read_to_string(path)?),
        None => ("the example".to_owned(), TWO_LISTENERS.to_owned()),
    };
    let profile = bindscope::parse_profile(&origin, &text)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let report = bindscope::predict(&profile, bindscope::this_host()?);
    for socket in &report.sockets {
        let bind = &socket.bind.predicted;
        let message = bind.message.as_deref().unwrap_or("can be bound");
        println!("{}: {message}; exposure {}", socket.socket, socket.socket.exposure.widest());
    }
    for cell in &report.cells {
        let listener = cell.predicted.listener.as_deref().unwrap_or("-");
        let outcome =
            cell.predicted.outcome.map_or_else(|| "unknown".to_owned(), |outcome| outcome.to_string());
        println!(
            "{} -> {} port {}: {outcome}, listener {listener} ({})",
            cell.source, cell.destination, cell.port, cell.predicted.why
        );
    }
    Ok(())
}
