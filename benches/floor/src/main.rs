//! The smallest epoll echo server: the floor under what an event loop can cost.
//!
//! Owns one thread, one epoll instance and one buffer. There is no Python, no protocol object, no
//! timer and no error handling beyond closing the connection: what is left is the price of the
//! system calls.
//!
//! It speaks the protocol of the benchmark's child processes. One line of JSON on standard output
//! tells the addresses of the server and of its control connection; a message on the control
//! connection is answered with the CPU time and the memory used so far; the end of standard input
//! ends the process.
//!
//!     echo_floor echo               send back what comes, over TCP
//!     echo_floor unix               the same over a Unix socket
//!     echo_floor reply SIZE REPLY   answer every SIZE bytes with REPLY bytes, in one write

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::process::{self, ExitCode};

const BUFFER: usize = 256 * 1024;
const EVENTS: usize = 1024;
const BACKLOG: libc::c_int = 2048;

/// What the server does with the bytes of a connection.
#[derive(Clone, Copy)]
enum Service {
    Echo,
    Reply { size: usize, reply: usize },
    Control,
}

/// One accepted connection. It is registered for reading, or for writing while it owes bytes.
struct Connection {
    socket: OwnedFd,
    service: Service,
    /// Bytes of an incomplete request.
    partial: usize,
    /// What the kernel would not take yet. While this is not empty nothing is read.
    owed: Vec<u8>,
}

/// What a descriptor stands for.
enum Source {
    Input,
    Listener(OwnedFd, Service),
    Connection(Connection),
}

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (listener, address, service) = match words[..] {
        ["echo"] => {
            let (listener, address) = listen_tcp()?;
            (listener, address, Service::Echo)
        }
        ["unix"] => {
            let (listener, address) = listen_unix()?;
            (listener, address, Service::Echo)
        }
        ["reply", size, reply] => {
            let (listener, address) = listen_tcp()?;
            let service = Service::Reply {
                size: number(size)?,
                reply: number(reply)?,
            };
            (listener, address, service)
        }
        _ => {
            return Err(io::Error::other(
                "usage: echo_floor echo | unix | reply SIZE REPLY",
            ));
        }
    };
    let (control, control_address) = listen_tcp()?;

    let mut server = Server::new()?;
    server.watch(0, libc::EPOLLIN, Source::Input)?;
    server.watch(
        listener.as_raw_fd(),
        libc::EPOLLIN,
        Source::Listener(listener, service),
    )?;
    server.watch(
        control.as_raw_fd(),
        libc::EPOLLIN,
        Source::Listener(control, Service::Control),
    )?;
    println!("{{\"address\": {address}, \"control\": {control_address}}}");
    io::stdout().flush()?;
    server.run()
}

fn number(text: &str) -> io::Result<usize> {
    text.parse()
        .map_err(|_| io::Error::other(format!("not a number: {text}")))
}

/// The sources by descriptor, and the epoll instance that watches them.
struct Server {
    epoll: OwnedFd,
    sources: Vec<Option<Source>>,
    buffer: Vec<u8>,
}

impl Server {
    fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Self {
            epoll,
            sources: Vec::new(),
            buffer: vec![0; BUFFER],
        })
    }

    /// Serve until standard input ends.
    fn run(&mut self) -> io::Result<()> {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        loop {
            let room = libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX);
            // SAFETY: `events` is writable for as many entries as `room` says.
            let ready =
                unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), room, -1) };
            let ready = match check(ready as isize) {
                Ok(ready) => ready,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for event in &events[..ready] {
                let fd = RawFd::try_from(event.u64).map_err(io::Error::other)?;
                if self.on_ready(fd)? {
                    return Ok(());
                }
            }
        }
    }

    /// Serve one ready descriptor. Returns true when standard input has ended.
    fn on_ready(&mut self, fd: RawFd) -> io::Result<bool> {
        let slot = slot_of(fd);
        match self.sources.get_mut(slot).and_then(Option::as_mut) {
            Some(Source::Input) => {
                let mut byte = [0; 64];
                return Ok(read(0, &mut byte)? == 0);
            }
            Some(Source::Listener(listener, service)) => {
                let (listener, service) = (listener.as_raw_fd(), *service);
                self.accept_all(listener, service)?;
            }
            Some(Source::Connection(connection)) => {
                let owed_before = !connection.owed.is_empty();
                let alive = connection.serve(&mut self.buffer).unwrap_or(false);
                let owes = !connection.owed.is_empty();
                if !alive {
                    // Closing a descriptor takes it out of epoll.
                    self.sources[slot] = None;
                } else if owes != owed_before {
                    let interest = if owes { libc::EPOLLOUT } else { libc::EPOLLIN };
                    self.control(libc::EPOLL_CTL_MOD, fd, interest)?;
                }
            }
            // Closed earlier in this batch of events.
            None => {}
        }
        Ok(false)
    }

    fn accept_all(&mut self, listener: RawFd, service: Service) -> io::Result<()> {
        loop {
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            let (address, length) = (std::ptr::null_mut(), std::ptr::null_mut());
            // SAFETY: null pointers ask for no address.
            let accepted = unsafe { libc::accept4(listener, address, length, flags) };
            let socket = match owned(accepted) {
                Ok(socket) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let fd = socket.as_raw_fd();
            let connection = Connection {
                socket,
                service,
                partial: 0,
                owed: Vec::new(),
            };
            self.watch(fd, libc::EPOLLIN, Source::Connection(connection))?;
        }
    }

    fn watch(&mut self, fd: RawFd, interest: libc::c_int, source: Source) -> io::Result<()> {
        let slot = slot_of(fd);
        if self.sources.len() <= slot {
            self.sources.resize_with(slot + 1, || None);
        }
        self.sources[slot] = Some(source);
        self.control(libc::EPOLL_CTL_ADD, fd, interest)
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, interest: libc::c_int) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest.cast_unsigned(),
            u64: slot_of(fd) as u64,
        };
        // SAFETY: `event` is a valid epoll_event for the length of the call.
        let status =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) };
        check(status as isize).map(drop)
    }
}

impl Connection {
    /// Write what is owed, or read once and answer. Returns false at the end of the connection.
    fn serve(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let fd = self.socket.as_raw_fd();
        if !self.owed.is_empty() {
            let sent = send(fd, &self.owed)?;
            self.owed.drain(..sent);
            return Ok(true);
        }
        let received = match receive(fd, buffer) {
            Ok(0) => return Ok(false),
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        match self.service {
            Service::Echo => self.answer(&buffer[..received])?,
            Service::Reply { size, reply } => {
                let bytes = self.partial + received;
                self.partial = bytes % size;
                self.answer(&vec![b'y'; bytes / size * reply])?;
            }
            Service::Control => {
                let usage = format!(
                    "{{\"cpu\": {}, \"resident\": {}}}\n",
                    cpu_seconds()?,
                    resident_bytes()?
                );
                self.answer(usage.as_bytes())?;
            }
        }
        Ok(true)
    }

    fn answer(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = send(self.socket.as_raw_fd(), bytes)?;
        self.owed.extend_from_slice(&bytes[sent..]);
        Ok(())
    }
}

fn listen_tcp() -> io::Result<(OwnedFd, String)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let listener = OwnedFd::from(listener);
    // Accepted sockets inherit it.
    let on: libc::c_int = 1;
    set_option(
        &listener,
        libc::TCP_NODELAY,
        (&raw const on).cast(),
        size_of_val(&on),
    )?;
    // As the Python servers do: BBR would spread packets over time. Not every system has cubic.
    let name = "cubic";
    let _ = set_option(
        &listener,
        libc::TCP_CONGESTION,
        name.as_ptr().cast(),
        name.len(),
    );
    // Listening again sets the backlog.
    listen(&listener)?;
    Ok((listener, format!("[\"127.0.0.1\", {port}]")))
}

fn listen_unix() -> io::Result<(OwnedFd, String)> {
    // The benchmark gives its children a directory of its own and removes it.
    let path = env::temp_dir().join(format!("floor{}", process::id()));
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    let listener = OwnedFd::from(listener);
    listen(&listener)?;
    Ok((listener, format!("{:?}", path.to_string_lossy())))
}

fn listen(listener: &OwnedFd) -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) } as isize).map(drop)
}

fn set_option(
    socket: &OwnedFd,
    option: libc::c_int,
    value: *const libc::c_void,
    length: usize,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(length).map_err(io::Error::other)?;
    let fd = socket.as_raw_fd();
    // SAFETY: both callers pass a pointer to a live value of `length` bytes.
    let status = unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, option, value, length) };
    check(status as isize).map(drop)
}

fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is writable for its length.
    check(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) })
}

fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is writable for its length.
    check(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// Send what the kernel takes now: nothing, when it takes none.
fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    // SAFETY: the bytes are readable for their length.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    match check(sent) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

fn cpu_seconds() -> io::Result<f64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    check(status as isize)?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds of CPU time, far below 2^52"
    )]
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

fn resident_bytes() -> io::Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse::<u64>().ok());
    // SAFETY: takes no pointer.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Ok(pages.unwrap_or(0) * u64::try_from(page).map_err(io::Error::other)?)
}

fn slot_of(fd: RawFd) -> usize {
    usize::try_from(fd).expect("a descriptor is not negative")
}

fn check(status: isize) -> io::Result<usize> {
    usize::try_from(status).map_err(|_| io::Error::last_os_error())
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    check(fd as isize)?;
    // SAFETY: the call that made it has just succeeded, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
