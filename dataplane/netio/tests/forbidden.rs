//! A host that forbids io_uring, as containers do: by a seccomp filter on one thread of this test.
#![expect(unsafe_code, reason = "installs a seccomp filter")]

use netio::{DriverConfig, Kind, Wanted, choose};

/// Lets io_uring_setup fail with EPERM for this thread and those it starts, and nothing else.
fn forbid_io_uring() {
    let jump = |k, jt, jf| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt,
        jf,
        k,
    };
    let answer = |k| libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k };
    let load_number =
        libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: 0 };
    let mut filter = [
        load_number,
        jump(libc::SYS_io_uring_setup as u32, 0, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its instructions live across the calls, which copy them.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

#[test]
fn where_io_uring_is_forbidden_mio_is_taken_and_the_reason_said() {
    std::thread::spawn(|| {
        forbid_io_uring();
        let error = Kind::Uring.make(&DriverConfig::default()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        for wanted in [Wanted::Auto, Wanted::Uring] {
            let choice = choose(wanted);
            assert_eq!(choice.kind, Kind::Mio);
            assert!(choice.reason.contains("not to be had on this host"), "{choice}");
        }
        Kind::Mio.make(&DriverConfig::default()).unwrap();
    })
    .join()
    .unwrap();
}
