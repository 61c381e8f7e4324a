//! The program under faults that are injected for real: too few descriptors, failing system calls, full disks, readers that
//! stand still, signals at bad moments. What is counted must stay right, and the program must end as documented.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

#[path = "../support/mod.rs"]
mod support;

mod accept;
mod borrowed;
mod budget;
mod cost;
mod ends;
mod files;
mod gathering;
mod names;
mod network;
mod peers;
mod rights;
mod signals;
mod streams;
mod terminal;
mod threads;
mod torture;

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::netns::{harness, trial};

fn main() -> ExitCode {
    harness(vec![
        trial("too_few_descriptors_lose_no_client", accept::too_few_descriptors_lose_no_client),
        trial("descriptors_that_never_come_are_undecided", accept::descriptors_that_never_come_are_undecided),
        trial("errors_of_the_system_are_waited_out", accept::errors_of_the_system_are_waited_out),
        trial("errors_of_one_connection_are_passed_over", accept::errors_of_one_connection_are_passed_over),
        trial("interrupted_calls_lose_nothing", accept::interrupted_calls_lose_nothing),
        trial("a_signal_in_a_burst_counts_all_that_were_accepted", accept::a_signal_in_a_burst),
        trial("a_full_batch_hides_no_change", gathering::a_full_batch_hides_no_change_of_the_network),
        trial("a_full_batch_hides_no_client", gathering::a_full_batch_hides_no_client_that_waits_at_the_end),
        trial("lines_are_not_held_back_at_the_end", gathering::lines_are_not_held_back_at_the_end),
        trial("peers_that_are_slow_for_a_minute_are_closed", peers::that_are_slow_for_a_minute),
        trial("peers_that_never_read_delay_no_other_peer", peers::that_never_read),
        trial("closed_streams_are_not_taken_by_sockets", streams::closed_streams_are_not_taken_by_sockets),
        trial("readers_that_go_away_are_no_failure", streams::readers_that_go_away_are_no_failure),
        trial("a_reader_that_leaves_listen", streams::a_reader_that_leaves_listen_is_told_what_it_missed),
        trial("full_devices_are_exit_5", streams::full_devices_are_exit_5),
        trial("a_stopped_pager_stops_nothing", streams::a_stopped_pager_stops_nothing),
        trial("a_full_disk_leaves_whole_lines", files::a_full_disk_leaves_whole_lines),
        trial("a_killed_writer_leaves_whole_lines", files::a_killed_writer_leaves_whole_lines),
        trial("two_writers_do_not_mix_their_lines", files::two_writers_do_not_mix_their_lines),
        trial("a_report_is_the_old_one_or_the_new_one", files::a_report_is_the_old_one_or_the_new_one),
        trial(
            "a_connection_costs_three_calls_and_an_answer_two_more",
            cost::a_connection_costs_three_calls_and_an_answer_two_more,
        ),
        trial(
            "a_number_used_again_names_the_new_interface",
            network::a_number_that_is_used_again_names_the_new_interface,
        ),
        trial("an_interface_that_moves_away_is_gone", network::an_interface_that_moves_away_is_gone),
        trial(
            "a_socket_without_its_address_stays_open",
            network::a_socket_without_its_address_stays_open_and_is_told,
        ),
        trial(
            "labels_and_hostile_names_attribute_nothing_wrong",
            network::labels_and_hostile_names_attribute_nothing_wrong,
        ),
        trial(
            "a_storm_of_changes_loses_nothing",
            network::a_storm_of_changes_loses_no_client_and_no_final_state,
        ),
        trial(
            "changing_lists_are_whole_or_say_so",
            network::lists_that_change_while_they_are_read_are_whole_or_say_so,
        ),
        trial(
            "unread_changes_are_made_up_for",
            network::a_change_without_a_descriptor_to_read_it_is_made_up_for,
        ),
        trial("hangup_opens_the_log_again", signals::hangup_opens_the_log_again),
        trial(
            "hangup_without_a_way_to_the_log_loses_nothing",
            signals::hangup_without_a_way_to_the_log_loses_nothing,
        ),
        trial("other_signals_end_nothing", signals::other_signals_end_nothing),
        trial("a_limit_of_file_sizes_is_a_full_disk", signals::a_limit_of_file_sizes_is_a_full_disk),
        trial("quiet_hides_no_warning", signals::quiet_hides_no_warning),
        trial("options_are_restored_on_a_signal", borrowed::options_are_restored_on_a_signal),
        trial("no_touch_sets_nothing", borrowed::no_touch_sets_nothing),
        trial("what_waited_has_the_name_of_its_time", names::what_waited_has_the_name_of_its_time),
        trial("a_rename_under_load_is_known", names::a_rename_under_load_is_known),
        trial("no_client_is_lost_at_the_end", ends::no_client_is_lost_at_the_end),
        trial(
            "a_reader_that_stands_still_holds_up_no_watch",
            ends::a_reader_that_stands_still_holds_up_no_watch,
        ),
        trial("any_terminal_will_do", terminal::any_terminal_will_do),
        trial("keys_of_a_terminal_stop_go_on_and_end", terminal::keys_of_a_terminal_stop_go_on_and_end),
        trial("a_closed_terminal_ends_it", terminal::a_closed_terminal_ends_it),
        trial("a_clock_that_jumps_changes_no_duration", terminal::a_clock_that_jumps_changes_no_duration),
        trial("what_cannot_be_closed_is_no_panic", files::what_cannot_be_closed_is_no_panic),
        trial("addresses_are_read_in_bulk", budget::addresses_are_read_in_bulk),
        trial(
            "sockets_are_read_in_bulk_and_owners_one_by_one",
            budget::sockets_are_read_in_bulk_and_owners_one_by_one,
        ),
        trial("many_sockets_and_processes_fit", budget::many_sockets_and_processes_fit),
        trial("rights_are_given_up_by_every_thread", rights::are_given_up_by_every_thread),
        trial("rights_are_kept_when_asked_for", rights::are_kept_when_asked_for),
        trial("rights_that_cannot_be_given_up_are_told", rights::that_cannot_be_given_up_are_told),
        trial("rights_that_are_needed_later_are_kept", rights::that_are_needed_later_are_kept),
        trial("rights_of_a_service_are_given_up_too", rights::of_a_service_are_given_up_too),
        trial("rights_are_what_doctor_says", rights::are_what_doctor_says),
        trial("threads_count_every_client", threads::count_every_client),
        trial("threads_stop_at_the_count", threads::stop_at_the_count),
        trial("threads_share_the_limit", threads::share_the_limit),
        trial("listen_survives_every_failing_call", torture::listen),
        trial("probe_survives_every_failing_call", torture::probe),
        trial("interfaces_survives_every_failing_call", torture::interfaces),
    ])
}

/// The program behind another one that becomes it, such as `prlimit` or `strace -D`: the process id is the program's own.
fn behind(wrapper: &[&str], arguments: &[&str]) -> Command {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(env!("CARGO_BIN_EXE_bindscope")).args(arguments);
    command.stdin(Stdio::null());
    for name in ["NO_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "COLUMNS", "LISTEN_FDS", "LISTEN_PID"] {
        command.env_remove(name);
    }
    command
}

/// The program with faults injected into its system calls, each as strace's `inject=` has it.
fn injected(faults: &[&str], arguments: &[&str]) -> Command {
    let mut wrapper = vec!["strace", "-D", "-f", "-qq", "-o", "/dev/null"];
    for fault in faults {
        wrapper.extend(["-e", fault]);
    }
    behind(&wrapper, arguments)
}

/// Where the number-th socket listens.
fn address(beginning: &[Value], number: usize) -> SocketAddr {
    let bound = beginning.iter().filter(|event| event["event"] == "bound").nth(number).unwrap();
    let socket = &bound["socket"];
    format!("{}:{}", socket["address"].as_str().unwrap(), socket["port"]).parse().unwrap()
}

/// A connection; a time limit instead of a hang.
fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(20)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// A profile with these listeners in a file of its own.
fn profile(listeners: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.toml");
    std::fs::write(&path, format!("schema = 1\nname = 'faults'\n{listeners}")).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}
