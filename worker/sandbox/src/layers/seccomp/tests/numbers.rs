//! Names and numbers of the policies against what the kernel's headers and libc say.

use std::collections::BTreeMap;

use super::{AARCH64, OLD_CALLS, POLICY, X86_64, policy};
use crate::layers::seccomp::policy::Rule;

const GENERIC: &str = include_str!("../policy/generic.txt");

/// Calls that libc has no number for yet; those are the same on every architecture.
const TOO_NEW_FOR_LIBC: [&str; 3] = ["statmount", "listmount", "open_tree_attr"];

macro_rules! of_libc {
    ($($name:ident)*) => { [$((stringify!($name), i64::from(libc::$name))),*] };
}

fn all_rules(text: &str) -> Vec<Rule> {
    let policy = policy(text);
    [policy.always, policy.sampled, policy.below_full].concat()
}

#[test]
fn the_numbers_of_this_architecture_are_libc_s() {
    let mut numbers = BTreeMap::from(of_libc![
        SYS_unshare SYS_setns SYS_clone SYS_clone3 SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_open_tree
        SYS_move_mount SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick SYS_mount_setattr SYS_open_by_handle_at
        SYS_name_to_handle_at SYS_quotactl SYS_quotactl_fd SYS_fanotify_init SYS_fanotify_mark SYS_ptrace
        SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_pidfd_getfd SYS_kcmp SYS_move_pages
        SYS_migrate_pages SYS_prlimit64 SYS_setpriority SYS_ioprio_set SYS_personality SYS_socket SYS_socketpair
        SYS_keyctl SYS_add_key SYS_request_key SYS_bpf SYS_userfaultfd SYS_perf_event_open SYS_io_uring_setup
        SYS_io_uring_enter SYS_io_uring_register SYS_lookup_dcookie SYS_vhangup SYS_syslog SYS_acct SYS_ioctl
        SYS_kexec_load SYS_kexec_file_load SYS_init_module SYS_finit_module SYS_delete_module SYS_reboot SYS_swapon
        SYS_swapoff SYS_settimeofday SYS_clock_settime SYS_clock_adjtime SYS_adjtimex SYS_sethostname
        SYS_setdomainname SYS_memfd_create SYS_memfd_secret SYS_shmget SYS_shmat SYS_shmctl SYS_msgget SYS_msgsnd
        SYS_msgrcv SYS_msgctl SYS_semget SYS_semop SYS_semtimedop SYS_semctl SYS_mq_open SYS_mq_unlink SYS_mmap
        SYS_sched_setaffinity SYS_sched_setscheduler SYS_sched_setparam SYS_sched_setattr
        SYS_inotify_init1 SYS_inotify_add_watch
    ]);
    #[cfg(target_arch = "x86_64")]
    numbers.extend(of_libc![SYS_iopl SYS_ioperm SYS_modify_ldt SYS_uselib SYS_ustat SYS_sysfs SYS_inotify_init]);
    for rule in all_rules(POLICY).iter().filter(|rule| !TOO_NEW_FOR_LIBC.contains(&&*rule.call)) {
        assert_eq!(numbers.get(&*format!("SYS_{}", rule.call)), Some(&rule.number), "{}", rule.call);
    }
}

#[test]
fn the_numbers_of_aarch64_are_those_of_the_kernel_s_generic_table() {
    let entries = GENERIC.lines().filter(|line| !line.starts_with('#')).flat_map(|line| line.split("; "));
    let numbers: BTreeMap<&str, i64> = entries
        .map(|entry| entry.split_once(' ').unwrap())
        .map(|(number, name)| (name, number.parse().unwrap()))
        .collect();
    assert!(numbers.len() > 300);
    for rule in all_rules(AARCH64) {
        assert_eq!(numbers.get(&*rule.call), Some(&rule.number), "{}", rule.call);
    }
    // From here on all architectures count alike.
    const ALIKE_FROM: i64 = 424;
    let newest = i64::from(policy(AARCH64).newest);
    assert_eq!(numbers.values().max(), Some(&newest), "the table is as new as the rules");
    for rule in all_rules(X86_64).iter().filter(|rule| !OLD_CALLS.contains(&&*rule.call)) {
        let generic = numbers[&*rule.call];
        assert_eq!(rule.number >= ALIKE_FROM, generic >= ALIKE_FROM, "{}", rule.call);
        assert!(rule.number < ALIKE_FROM || rule.number == generic, "{}", rule.call);
    }
}

#[test]
fn the_values_of_conditions_are_libc_s() {
    let known = BTreeMap::from(of_libc![
        AF_UNIX AF_INET AF_INET6 SOCK_DGRAM SOCK_RAW SOCK_SEQPACKET SOCK_DCCP IPPROTO_ICMP IPPROTO_TCP IPPROTO_UDP IPPROTO_ICMPV6
        IPPROTO_MPTCP CLONE_NEWNS CLONE_NEWCGROUP CLONE_NEWUTS CLONE_NEWIPC CLONE_NEWUSER CLONE_NEWPID CLONE_NEWNET
    ]);
    // What libc has under another type, under no name, or as a sum.
    let others = BTreeMap::from([
        ("SOCK_TYPE", 0xf),
        ("SOCK_PACKET", 10),
        ("TIOCSTI", libc::TIOCSTI as i64),
        ("TIOCLINUX", 0x541c),
        ("TIOCSETD", 0x5423),
        ("MAP_SHARED_ANONYMOUS", i64::from(libc::MAP_SHARED | libc::MAP_ANONYMOUS)),
        ("PRIO_PROCESS", i64::from(libc::PRIO_PROCESS)),
        ("IOPRIO_WHO_PROCESS", 1),
        ("NO_CHANGE", i64::from(u32::MAX)),
    ]);
    for text in [X86_64, AARCH64] {
        let file: toml::Table = text.parse().unwrap();
        for (name, value) in file["values"].as_table().unwrap() {
            let known = known.get(&**name).or_else(|| others.get(&**name));
            assert_eq!(known.copied(), value.as_integer(), "{name}");
        }
    }
}
