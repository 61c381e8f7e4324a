//! What a person meets first: the command lines of the documentation, natural first guesses, and diagnoses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test"
)]

#[path = "../support/mod.rs"]
mod support;

#[cfg(all(target_os = "linux", not(bindscope_portable)))]
mod causes;
#[cfg(all(target_os = "linux", not(bindscope_portable)))]
mod documents;
#[cfg(all(target_os = "linux", not(bindscope_portable)))]
mod guesses;
#[cfg(all(target_os = "linux", not(bindscope_portable)))]
mod stage;

#[cfg(all(target_os = "linux", not(bindscope_portable)))]
fn main() -> std::process::ExitCode {
    use support::netns::trial;
    let mut trials = vec![
        trial(
            "every_block_of_commands_is_run_or_says_why_not",
            documents::every_block_is_run_or_says_why_not,
        ),
        trial("references_are_those_of_the_parser", documents::references_are_those_of_the_parser),
        trial("picture_is_of_a_real_run", documents::picture_is_of_a_real_run),
        trial("links_in_documents_lead_somewhere", documents::links_lead_somewhere),
    ];
    trials.extend(documents::trials());
    trials.extend(guesses::trials());
    trials.extend(causes::trials());
    support::netns::harness(trials)
}

#[cfg(not(all(target_os = "linux", not(bindscope_portable))))]
fn main() {}
