//! Tries a listener in a temporary network: a host with three links, and a client on each. Root is not needed.
//!
//! `cargo run --example lab`
#![allow(clippy::print_stdout, reason = "an example")]

use std::error::Error;

/// Bound to the address of one interface, and reached over the others as well.
const PROFILE: &str = r#"
schema = 1
name = "example"

[[listener]]
name = "internal"
bind = { interface = "eth0" }
port = 8080
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let profile = bindscope::parse_profile("the example", PROFILE)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    for result in bindscope::run_lab(&profile, "three-links")? {
        let Some(observed) = &result.observed else { continue };
        if let Some(ingress) = &observed.ingress {
            println!(
                "{} connected to {}, an address of {}, and arrived on {ingress}",
                result.source,
                result.destination,
                result.address_owner.as_ref().map_or_else(|| "no interface".to_owned(), ToString::to_string),
            );
        }
        assert_ne!(result.agrees, Some(false), "the prediction was wrong: {result:?}");
    }
    Ok(())
}
