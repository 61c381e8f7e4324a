//! Labs: what is built, what is left of it, and whether plan and lab agree.
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

mod agree;
#[path = "../reach/ask.rs"]
mod ask;
mod build;
mod experiments;
#[path = "../reach/host.rs"]
mod host;
mod hostile;
mod leaves;
mod program;
mod refused;
mod rules;
mod truths;
mod twin;

use std::process::ExitCode;

fn main() -> ExitCode {
    let others: [(&str, fn()); 21] = [
        ("random_rules_are_predicted", rules::random_rules_are_predicted),
        ("the_truth_table_holds_cell_by_cell", truths::the_truth_table_holds_cell_by_cell),
        (
            "which_of_two_interfaces_on_a_wire_is_unknown",
            truths::which_of_two_interfaces_on_a_wire_is_unknown_until_each_answers_for_its_own,
        ),
        ("settings_of_arp_and_of_reverse_paths", truths::settings_of_arp_and_of_reverse_paths_are_predicted),
        ("a_refusal_names_the_switch", refused::a_refusal_names_the_switch),
        ("a_user_without_a_number_is_told_so", refused::a_user_without_a_number_is_told_so),
        ("root_needs_no_user_namespace", refused::root_needs_no_user_namespace),
        ("a_program_that_cannot_be_read_builds_a_lab", refused::a_program_that_cannot_be_read_builds_a_lab),
        ("settings_that_cannot_be_written_are_told", refused::settings_that_cannot_be_written_are_told),
        ("labs_in_a_row_leave_no_namespace", leaves::labs_in_a_row_leave_no_namespace),
        ("labs_killed_at_random_moments_leave_nothing", leaves::labs_killed_at_random_moments_leave_nothing),
        ("labs_beside_each_other_do_not_meet", leaves::labs_beside_each_other_do_not_meet),
        ("hostile_networks_are_refused", hostile::hostile_networks_are_refused_with_their_place),
        ("outputs_that_end_early_are_borne", hostile::outputs_that_end_early_are_borne),
        ("a_command_in_a_node_ends_with_its_own_code", hostile::a_command_in_a_node_ends_with_its_own_code),
        ("a_shell_has_its_terminal_and_its_node", hostile::a_shell_has_its_terminal_and_its_node),
        ("a_program_does_not_outlive_the_lab", hostile::a_program_in_a_node_does_not_outlive_the_lab),
        ("the_ways_into_a_lab_lead_there", hostile::the_ways_into_a_lab_that_stands_lead_there),
        ("a_lab_without_room_or_time", hostile::a_lab_without_room_or_time_claims_nothing_false),
        ("what_cannot_be_run_in_a_node_is_named", hostile::what_cannot_be_run_in_a_node_is_named),
        ("a_lab_that_stands_ends_at_a_signal", hostile::a_lab_that_stands_ends_at_a_signal),
    ];
    let others = others.into_iter().map(|(name, body)| support::netns::trial(name, body));
    let trials = build::trials()
        .into_iter()
        .chain(agree::trials())
        .chain(program::trials())
        .chain(twin::trials())
        .chain(experiments::trials());
    support::netns::harness(trials.chain(others).collect())
}
