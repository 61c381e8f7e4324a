//! Real connections and datagrams in namespaces: every arrival must be reported as it really came.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

#[path = "../support/mod.rs"]
mod support;

mod binds;
mod burst;
mod changes;
mod clients;
mod matrix;
mod overload;
mod peers;
mod replies;
mod shipped;
mod storm;
mod wires;

use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

use support::netns::{Netns, harness, trial};

fn main() -> ExitCode {
    harness(vec![
        trial("a_wire_carries_connections", a_wire_carries_connections),
        trial("every_tcp_combination_arrives_as_it_must", matrix::tcp),
        trial("every_udp_combination_arrives_as_it_must", matrix::udp),
        trial("changes_of_the_network_are_told", changes::are_told_with_the_listeners_they_concern),
        trial("a_waited_for_address_is_told_as_open", changes::an_address_that_is_waited_for_is_told_as_open),
        trial("listeners_wait_for_themselves_alone", changes::listeners_wait_for_themselves_alone),
        trial("the_time_runs_from_the_first_open_socket", changes::the_time_runs_from_the_first_open_socket),
        trial("more_exposure_is_told", changes::more_exposure_is_told),
        trial(
            "a_device_that_is_made_again_gets_new_sockets",
            changes::a_device_that_is_made_again_gets_new_sockets,
        ),
        trial("follow_keeps_to_the_limit_and_says_so", changes::follow_keeps_to_the_limit_and_says_so),
        trial("silent_peers_are_closed", peers::that_are_silent_are_closed),
        trial("peers_that_stop_in_a_request_are_closed", peers::that_begin_a_request_and_stop_are_closed),
        trial("peers_that_send_without_end_are_cut_off", peers::that_send_without_end_are_cut_off),
        trial("control_bytes_of_peers_steer_nothing", peers::that_send_control_bytes_steer_nothing),
        trial("peers_above_the_limit_are_counted", peers::that_are_too_many_are_counted),
        trial(
            "the_smallest_and_the_largest_datagram",
            peers::that_send_the_smallest_and_the_largest_datagram,
        ),
        trial("peers_that_are_gone_already_are_counted", peers::that_are_gone_already_are_counted),
        trial("a_burst_does_not_starve_another_listener", overload::a_burst_does_not_starve_another_listener),
        trial("a_full_queue_is_told", overload::a_full_queue_is_told),
        trial("slow_clients_cost_little", overload::slow_clients_cost_little),
        trial("a_flood_of_datagrams_is_bounded_and_counted", overload::a_flood_is_bounded_and_counted),
        trial("listeners_and_connections_are_small", overload::listeners_and_connections_are_small),
        trial("storms_lose_no_count", storm::storms_lose_no_count),
        trial("shipped_profiles_bind_and_work", shipped::profiles_bind_and_every_socket_is_used),
        trial("changes_are_followed_when_asked_for", changes::are_followed_when_asked_for),
        trial("failed_binds_explain_themselves", binds::explain_why_an_address_cannot_be_bound),
        trial(
            "duplicate_address_detection_is_waited_for",
            binds::wait_for_duplicate_address_detection_when_asked,
        ),
        trial("what_took_effect_is_told", binds::tell_what_took_effect),
        trial("limits_hold", binds::are_as_many_as_the_limits_say),
        trial("curl_is_told_how_it_arrived", clients::curl),
        trial("ncat_is_told_in_one_line", clients::ncat),
        trial("datagrams_of_socat_are_answered_only_when_asked_for", clients::socat),
        trial("two_repliers_do_not_answer_each_other", replies::two_repliers_do_not_answer_each_other),
        trial("replies_to_datagrams_amplify_nothing", replies::replies_to_datagrams_amplify_nothing),
        trial("a_foreign_host_name_gets_no_fact", replies::a_foreign_host_name_gets_no_fact),
        trial("a_rebound_name_is_refused_in_a_browser", replies::a_rebound_name_is_refused_in_a_browser),
        trial("a_browser_shows_the_page", clients::browser),
        trial("several_wires_are_told_as_noted", wires::are_told_as_the_kernel_notes_them),
        trial("several_wires_are_noted_and_seen", wires::are_noted_by_the_kernel_and_seen_by_a_capture),
        trial("a_capture_counts_what_it_misses", wires::are_missed_by_a_capture_only_with_a_count),
        trial(
            "a_hundred_thousand_connections_are_all_counted",
            burst::a_hundred_thousand_connections_are_all_counted,
        ),
    ])
}

/// Without this the other tests would prove nothing.
fn a_wire_carries_connections() {
    let (here, there) = (Netns::new(), Netns::new());
    here.wire("eth0", &there, "far");
    here.address("eth0", "192.0.2.1/24");
    there.address("far", "192.0.2.2/24");
    let listener = here.run(|| TcpListener::bind("192.0.2.1:80")).unwrap();
    let client = there.run(|| TcpStream::connect("192.0.2.1:80")).unwrap();
    assert_eq!(client.local_addr().unwrap(), listener.accept().unwrap().1);
    assert!(Netns::new().run(|| TcpStream::connect("192.0.2.1:80")).is_err());
}
