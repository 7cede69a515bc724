//! The promises of SECURITY.md, one test each, on real sandboxes: as the user who runs the tests and, when that is
//! root, as user id 1000 as well.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "this is a test runner")]

mod files;
mod harness;
mod lifecycle;
mod limits;
mod network;
mod privileges;
mod processes;
mod room;

use std::process::ExitCode;

use harness::{Case, cases};

fn main() -> ExitCode {
    if let Some(code) = lifecycle::play_role() {
        return code;
    }
    harness::main(all())
}

fn all() -> Vec<Case> {
    cases![
        files::the_host_outside_the_list_cannot_be_seen,
        files::system_directories_cannot_be_written,
        files::the_workspace_of_another_session_cannot_be_reached,
        files::the_workspace_is_shared_with_the_host_and_owned_by_the_session,
        files::an_interpreter_outside_the_system_directories_runs,
        files::a_tree_that_holds_the_workspace_is_refused,
        files::the_host_tells_neither_its_name_nor_its_users,
        files::devices_cannot_be_made_and_only_harmless_ones_are_there,
        lifecycle::destroying_a_sandbox_leaves_no_process_and_no_control_group,
        lifecycle::dropping_a_sandbox_ends_it,
        lifecycle::ending_the_launcher_ends_every_sandbox,
        lifecycle::control_groups_of_a_dead_launcher_are_removed_at_the_next_start,
        lifecycle::ending_the_worker_ends_launcher_and_sandboxes,
        lifecycle::a_refused_sandbox_is_an_error_and_never_a_weaker_one,
        lifecycle::opening_and_starting_are_quick,
        limits::memory_is_bounded_and_its_limit_is_told,
        limits::memory_under_the_limit_is_left_alone,
        limits::a_single_large_allocation_is_bounded,
        limits::memory_that_no_process_maps_any_more_is_bounded,
        limits::a_fork_bomb_is_bounded_and_cleaned_up,
        limits::scratch_space_is_bounded,
        limits::open_files_and_core_dumps_are_bounded,
        limits::every_layer_is_reported,
        network::nothing_but_loopback_is_there,
        network::a_server_on_loopback_can_be_tested,
        network::socket_families_other_than_unix_and_inet_are_denied,
        network::abstract_sockets_of_the_host_cannot_be_reached,
        privileges::there_are_no_capabilities_and_none_can_be_gained,
        privileges::set_user_id_programs_give_nothing,
        privileges::dangerous_system_calls_are_denied,
        privileges::calls_of_foreign_architectures_end_the_process,
        privileges::ordinary_programs_work_under_the_filters,
        processes::host_processes_cannot_be_seen,
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
