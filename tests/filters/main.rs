//! Packet filters: rules that real programs made are read, carried in a snapshot, replayed in a copy and traced there.
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

mod corpus;
mod grammar;
mod network;
mod oracle;
mod planned;
mod roundtrip;
mod steps;
mod twin;

use std::process::ExitCode;

use support::netns::trial;

fn main() -> ExitCode {
    let trials = vec![
        trial("rules_of_real_programs_are_the_same_in_a_copy", roundtrip::of_real_programs),
        trial("the_examples_of_nftables_are_the_same_in_a_copy", roundtrip::of_the_examples_of_nftables),
        trial("legacy_tables_and_sets_are_the_same_in_a_copy", roundtrip::of_legacy_tables_and_sets),
        trial("many_rules_are_split_into_transactions", roundtrip::of_many_rules),
        trial("reading_changes_nothing", roundtrip::reading_changes_nothing),
        trial("what_is_not_known_is_left_out_and_named", roundtrip::what_is_not_known_is_left_out_and_named),
        trial(
            "hostile_snapshots_are_refused_or_bounded",
            roundtrip::hostile_snapshots_are_refused_or_bounded,
        ),
        trial("damaged_messages_are_left_out", roundtrip::damaged_messages_are_left_out),
        trial("a_rate_limit_is_taken_out", roundtrip::a_rate_limit_is_taken_out),
        trial("a_twin_answers_as_its_host_and_names_the_rule", twin::answers_as_its_host_and_names_the_rule),
        trial("a_twin_of_ufw_names_its_rules", twin::of_ufw_names_its_rules),
        trial("a_published_port_is_answered_by_a_stand_in", twin::a_published_port_is_answered_by_a_stand_in),
        trial("published_ports_are_listed", twin::published_ports_are_listed),
        trial("a_trace_leaves_nothing_behind", roundtrip::a_trace_leaves_nothing_behind),
        trial("a_rule_about_users_leaves_the_result_open", twin::a_rule_about_users_leaves_the_result_open),
        trial("a_plan_names_the_rule_that_a_trace_names", planned::a_plan_names_the_rule_that_a_trace_names),
        trial(
            "a_published_port_passes_by_the_rules_of_input",
            planned::a_published_port_passes_by_the_rules_of_input,
        ),
        trial(
            "what_a_rule_about_users_decides_is_not_known",
            planned::what_a_rule_about_users_decides_is_not_known,
        ),
        trial("clients_that_rules_tell_apart_are_named", planned::clients_that_rules_tell_apart_are_named),
        trial("a_path_is_followed_step_by_step", steps::a_path_is_followed_step_by_step),
        trial("why_follows_the_path", steps::why_follows_the_path_of_a_client_on_this_host),
        trial("rules_of_a_file", steps::rules_of_a_file_are_read_back_and_compared),
        trial("without_rules_nothing_changes", planned::without_rules_nothing_changes),
        trial("rules_of_programs_decide_as_predicted", oracle::rules_of_programs_decide_as_predicted),
        trial("damaged_rules_are_refused_or_bounded", oracle::damaged_rules_are_refused_or_bounded),
        trial("random_legacy_rules", oracle::random_legacy_rules_decide_as_predicted),
        trial("random_rules_decide_as_predicted", oracle::random_rules_decide_as_predicted),
    ];
    support::netns::harness(trials)
}
