//! Filters of system calls (seccomp(2)) for the programs that a thread starts.

/// A system call that a filter denies.
#[derive(Clone, Copy)]
pub enum Denied {
    /// `socket(AF_NETLINK, ...)` for sock_diag alone.
    SockDiag,
    /// `socket(AF_NETLINK, ...)` of any kind.
    Netlink,
    /// `socket(AF_INET6, ...)`.
    Ipv6,
    /// `pidfd_getfd`.
    Borrowing,
}

/// Denies it to this thread and to the programs that it starts.
#[expect(unsafe_code, reason = "prctl(2) with a filter program has no safe wrapper here")]
pub fn filter(denied: Denied) {
    // Offsets of `struct seccomp_data`: nr, and the low halves of args[0] and args[2].
    const NUMBER: u32 = 0;
    const FIRST: u32 = 16;
    const THIRD: u32 = 32;
    let step = |code: u32, k: u32| libc::sock_filter { code: u16::try_from(code).unwrap(), jt: 0, jf: 0, k };
    let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let ends = |value| step(libc::BPF_RET | libc::BPF_K, value);
    let (tests, errno): (Vec<(u32, u32)>, i32) = match denied {
        Denied::SockDiag => (vec![(NUMBER, nr(libc::SYS_socket)), (FIRST, 16), (THIRD, 4)], libc::EPERM),
        Denied::Netlink => (vec![(NUMBER, nr(libc::SYS_socket)), (FIRST, 16)], libc::EAFNOSUPPORT),
        Denied::Ipv6 => (vec![(NUMBER, nr(libc::SYS_socket)), (FIRST, 10)], libc::EAFNOSUPPORT),
        Denied::Borrowing => (vec![(NUMBER, nr(libc::SYS_pidfd_getfd))], libc::EPERM),
    };
    let mut program = Vec::new();
    for (position, (offset, wanted)) in tests.iter().enumerate() {
        // A value that differs leads over the steps that are left to the one that allows.
        let over = u8::try_from(2 * (tests.len() - position) - 1).unwrap();
        program.push(load(*offset));
        let jump = step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *wanted);
        program.push(libc::sock_filter { jf: over, ..jump });
    }
    program.push(ends(libc::SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap()));
    program.push(ends(libc::SECCOMP_RET_ALLOW));
    let filter =
        libc::sock_fprog { len: u16::try_from(program.len()).unwrap(), filter: program.as_mut_ptr() };
    // SAFETY: prctl(2) reads the filter, which outlives the call, and changes this thread alone.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let answer = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter);
        assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    }
}

fn nr(number: libc::c_long) -> u32 {
    u32::try_from(number).unwrap()
}
