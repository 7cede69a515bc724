//! The promises of SECURITY.md, one test each, on real sandboxes: at level full as the user who runs the tests and, when
//! that is root, as an ordinary user as well; at the levels below with what an engine's default container leaves them. Which
//! is promised at which is said here: what is in one of the lists for some levels is not promised at the others.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "this is a test runner")]

mod below;
mod confine;
mod files;
mod harness;
mod lifecycle;
mod limits;
mod network;
mod privileges;
mod processes;
mod room;
mod survivors;

use std::process::ExitCode;

use harness::{BELOW_FULL, Case, EVERY, FULL, PORTABLE, cases};

fn main() -> ExitCode {
    if let Some(code) = lifecycle::play_role() {
        return code;
    }
    harness::main(all())
}

fn all() -> Vec<Case> {
    [promised_everywhere(), promised_at_full(), promised_below_full(), promised_of_user_ids()]
        .into_iter()
        .flatten()
        .collect()
}

fn promised_everywhere() -> Vec<Case> {
    cases![EVERY;
        files::system_directories_cannot_be_written,
        files::an_interpreter_outside_the_system_directories_runs,
        files::a_tree_that_holds_the_workspace_is_refused,
        lifecycle::destroying_a_sandbox_leaves_no_process_and_no_control_group,
        lifecycle::dropping_a_sandbox_ends_it,
        lifecycle::ending_the_launcher_ends_every_sandbox,
        lifecycle::ending_the_worker_ends_launcher_and_sandboxes,
        lifecycle::a_refused_sandbox_is_an_error_and_never_a_weaker_one,
        limits::memory_is_bounded_and_its_limit_is_told,
        limits::memory_under_the_limit_is_left_alone,
        limits::a_single_large_allocation_is_bounded,
        limits::memory_that_no_process_maps_any_more_is_bounded,
        limits::a_fork_bomb_is_bounded_and_cleaned_up,
        limits::processor_use_is_bounded_where_that_is_said,
        limits::open_files_and_core_dumps_are_bounded,
        limits::every_layer_is_reported,
        privileges::calls_of_foreign_architectures_end_the_process,
        privileges::every_denied_system_call_is_stopped_as_the_policy_says,
        processes::the_init_cannot_be_read_traced_or_signalled,
        processes::only_the_given_descriptors_are_open,
        processes::the_environment_is_exactly_what_was_given,
        processes::a_program_that_cannot_start_is_an_error,
        processes::an_interrupt_reaches_the_program_alone,
        processes::killing_a_task_ends_daemons_too,
        processes::a_task_ends_only_when_its_daemons_are_gone,
        processes::a_program_that_ends_by_itself_reports_code_and_use,
        processes::losing_the_supervisor_is_noticed,
        processes::letting_go_of_a_task_kills_it,
        processes::long_arguments_arrive,
        processes::a_bare_program_gets_its_extra_socket_and_its_end_is_seen,
    ]
}

/// What needs namespaces, or a root of the sandbox's own.
fn promised_at_full() -> Vec<Case> {
    cases![FULL;
        files::the_host_outside_the_list_cannot_be_seen,
        files::the_workspace_of_another_session_cannot_be_reached,
        files::the_workspace_is_shared_with_the_host_and_owned_by_the_session,
        files::the_host_tells_neither_its_name_nor_its_users,
        files::devices_cannot_be_made_and_only_harmless_ones_are_there,
        lifecycle::control_groups_of_a_dead_launcher_are_removed_at_the_next_start,
        lifecycle::opening_and_starting_are_quick,
        limits::scratch_space_is_bounded,
        network::nothing_but_loopback_is_there,
        network::a_server_on_loopback_can_be_tested,
        network::socket_families_other_than_unix_and_inet_are_denied,
        network::abstract_sockets_of_the_host_cannot_be_reached,
        privileges::there_are_no_capabilities_and_none_can_be_gained,
        privileges::set_user_id_programs_give_nothing,
        privileges::ordinary_programs_work_under_the_filters,
        processes::host_processes_cannot_be_seen,
    ]
}

/// What takes its place where there are none.
fn promised_below_full() -> Vec<Case> {
    cases![BELOW_FULL;
        below::the_host_outside_the_list_cannot_be_read,
        below::the_workspace_of_another_session_cannot_be_read_or_changed,
        below::what_a_session_writes_is_its_own_user_s,
        below::devices_are_out_of_reach,
        below::no_socket_can_be_made,
        below::no_datagram_of_a_pair_reaches_a_socket_of_the_host,
        below::no_directory_can_be_watched,
        below::no_process_outside_can_be_signalled_read_or_traced,
        below::there_are_no_capabilities_and_no_way_to_another_user,
        below::set_user_id_programs_give_nothing,
        below::ordinary_programs_work,
        below::temporary_files_go_with_the_sandbox,
        below::what_outlives_a_killed_init_is_ended,
        lifecycle::no_chain_of_forks_outlives_launcher_or_worker,
        lifecycle::what_a_dead_init_left_does_not_outlive_a_launcher_that_is_killed_before_it_sees_to_it,
        survivors::no_end_is_told_while_a_chain_of_forks_lives,
    ]
}

/// What a session's own user id is for.
fn promised_of_user_ids() -> Vec<Case> {
    cases![PORTABLE;
        survivors::whoever_stops_all_processes_of_a_user_id_holds_up_nobody,
        survivors::what_does_not_die_holds_up_nobody_and_keeps_its_user_id,
    ]
}
