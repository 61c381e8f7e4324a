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
mod imports;
#[cfg(all(target_os = "linux", not(bindscope_portable)))]
mod screens;
#[cfg(all(target_os = "linux", not(bindscope_portable)))]
mod situations;
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
        trial("no_line_is_wider_than_the_terminal", screens::no_line_is_wider_than_the_terminal),
        trial("exposure_and_arrival_have_one_vocabulary", screens::exposure_and_arrival_have_one_vocabulary),
        trial("import nginx_files_are_read", imports::nginx_files_are_read),
        trial("import socket_units_are_read", imports::socket_units_are_read),
        trial("import compose_files_are_read", imports::compose_files_are_read),
        trial("import sshd_files_are_read", imports::sshd_files_are_read),
        trial("import nginx_opens_what_is_predicted", imports::nginx_opens_what_is_predicted),
        trial("import sshd_opens_what_is_predicted", imports::sshd_opens_what_is_predicted),
        trial("import a_stand_in_for_systemd", imports::a_stand_in_for_systemd_opens_what_is_predicted),
        trial("links_in_documents_lead_somewhere", documents::links_lead_somewhere),
    ];
    trials.extend(documents::trials());
    trials.extend(guesses::trials());
    trials.extend(causes::trials());
    support::netns::harness(trials)
}

#[cfg(not(all(target_os = "linux", not(bindscope_portable))))]
fn main() {}
