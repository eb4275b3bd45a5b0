//! What mio's epoll does not offer: waiting with nanoseconds, and level-triggered registrations.
//!
//! mio creates the epoll descriptor and owns it. Two facts made these calls necessary:
//!
//! * `mio::Poll::poll` rounds a time-out up to whole milliseconds; `epoll_pwait2(2)` (Linux 5.11) takes a timespec.
//!   On an older kernel it answers ENOSYS once, and `epoll_wait(2)` is used from then on.
//! * mio registers edge-triggered only. `add_reader()` promises level-triggered calls, and re-arming an edge after
//!   every callback would cost a system call each.

use super::clock::{ExactWait, Limit};
use super::syscall;
use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Space for the events of one wait.
#[derive(Debug)]
pub(crate) struct Events {
    list: Vec<libc::epoll_event>,
}

/// One event: the token that was registered with the descriptor, and epoll's bits.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    pub(crate) token: u64,
    pub(crate) bits: u32,
}

static HAS_PWAIT2: AtomicBool = AtomicBool::new(true);

impl Events {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { list: Vec::with_capacity(capacity) }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        // The struct is packed on x86-64: its fields are copied out, not borrowed.
        self.list.iter().map(|event| Event { token: event.u64, bits: event.events })
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Waits for events (`epoll_pwait2(2)`).
pub(crate) fn wait(epoll: RawFd, events: &mut Events, limit: Limit) -> io::Result<()> {
    events.list.clear();
    let _exact = if let Limit::Exactly(_) = limit { ExactWait::begin() } else { None };
    let timeout = limit.nanoseconds();
    let count = if HAS_PWAIT2.load(Ordering::Relaxed) {
        match wait_nanoseconds(epoll, &mut events.list, timeout) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                HAS_PWAIT2.store(false, Ordering::Relaxed);
                wait_milliseconds(epoll, &mut events.list, timeout)?
            }
            answer => answer?,
        }
    } else {
        wait_milliseconds(epoll, &mut events.list, timeout)?
    };
    // SAFETY: the kernel has written the first `count` entries, and count is at most the capacity given to it.
    unsafe { events.list.set_len(count) };
    Ok(())
}

fn wait_nanoseconds(epoll: RawFd, list: &mut Vec<libc::epoll_event>, timeout: Option<u64>) -> io::Result<usize> {
    let limit = timeout.map(|nanoseconds| libc::timespec {
        tv_sec: libc::time_t::try_from(nanoseconds / 1_000_000_000).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::try_from(nanoseconds % 1_000_000_000).unwrap_or(0),
    });
    let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    let capacity = libc::c_int::try_from(list.capacity()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `list` has room for `capacity` events, `limit` is null or valid, and a null signal mask is allowed.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll,
            list.as_mut_ptr(),
            capacity,
            limit,
            ptr::null::<libc::sigset_t>(),
            0_usize,
        )
    };
    syscall!(answer).map(|count| usize::try_from(count).unwrap_or(0))
}

fn wait_milliseconds(epoll: RawFd, list: &mut Vec<libc::epoll_event>, timeout: Option<u64>) -> io::Result<usize> {
    // Rounded up: a wait that ends early would spin until the deadline.
    let limit = timeout
        .map_or(-1, |nanoseconds| libc::c_int::try_from(nanoseconds.div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX));
    let capacity = libc::c_int::try_from(list.capacity()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `list` has room for `capacity` events.
    let answer = unsafe { libc::epoll_wait(epoll, list.as_mut_ptr(), capacity, limit) };
    syscall!(answer).map(|count| usize::try_from(count).unwrap_or(0))
}

/// Registers `fd` level-triggered, or changes what it is registered for (`epoll_ctl(2)`).
pub(crate) fn control_level(epoll: RawFd, fd: RawFd, token: u64, bits: u32, add: bool) -> io::Result<()> {
    let mut event = libc::epoll_event { events: bits, u64: token };
    let operation = if add { libc::EPOLL_CTL_ADD } else { libc::EPOLL_CTL_MOD };
    // SAFETY: `event` is a valid event for the length of the call.
    syscall!(unsafe { libc::epoll_ctl(epoll, operation, fd, &raw mut event) }).map(drop)
}
