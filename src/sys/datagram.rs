//! Datagrams: receiving and sending them one by one, and several with one call.
//!
//! Owns the room that a batch is received into ([`Slots`]). Where the system has no `recvmmsg(2)` and `sendmmsg(2)`,
//! loops of single calls stand in for them: they end in the same places, at a cost of a call per datagram.

use super::socket::{Address, AddressRoom, SEND_FLAGS};
use super::syscall;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;

/// At most so many datagrams are handed to the kernel with one call.
pub(crate) const BATCH: usize = 32;

/// Slots of one size would begin at the same place of the processor's caches, and push each other out of them.
const STAGGER: usize = 33 * 64;

/// Room for the datagrams of one call. The kernel is lent the memory: what was never used is never touched.
#[derive(Debug)]
pub(crate) struct Slots {
    bytes: Box<[MaybeUninit<u8>]>,
    /// How large a datagram may be (bytes); what is longer is cut off.
    size: usize,
    rooms: [AddressRoom; BATCH],
    /// The lengths of what was received last.
    lengths: [usize; BATCH],
}

impl Slots {
    /// Room for `count` datagrams, [`BATCH`] at most, of `size` bytes.
    pub(crate) fn new(count: usize, size: usize) -> Self {
        let count = count.min(BATCH);
        Self {
            bytes: Box::new_uninit_slice(count * (size + STAGGER)),
            size,
            rooms: std::array::from_fn(|_| AddressRoom::new()),
            lengths: [0; BATCH],
        }
    }

    fn count(&self) -> usize {
        self.bytes.len() / (self.size + STAGGER)
    }

    fn start(&self, index: usize) -> usize {
        index * (self.size + STAGGER)
    }

    /// Receives one datagram, into the first slot (`recvfrom(2)`).
    pub(crate) fn receive_one(&mut self, fd: RawFd) -> io::Result<()> {
        self.receive_at(fd, 0)
    }

    fn receive_at(&mut self, fd: RawFd, index: usize) -> io::Result<()> {
        let start = self.start(index);
        let room = &mut self.bytes[start..start + self.size];
        let (address, length) = self.rooms[index].renewed();
        // SAFETY: `room` is valid for writes of its length, `address` for those of `length`, and `length` itself is valid.
        let answer =
            unsafe { libc::recvfrom(fd, room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT, address, length) };
        self.lengths[index] = syscall!(answer).map(isize::unsigned_abs)?;
        Ok(())
    }

    /// Receives at most `limit` datagrams; fewer mean that there are no more for now (`recvmmsg(2)`).
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn receive(&mut self, fd: RawFd, limit: usize) -> io::Result<usize> {
        let limit = limit.min(self.count());
        let mut parts = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH];
        let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
        for index in 0..limit {
            let start = self.start(index);
            let room = &mut self.bytes[start..start + self.size];
            let part = parts[index].write(libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() });
            let (address, _) = self.rooms[index].renewed();
            let (_, length) = self.rooms[index].parts();
            // SAFETY: an mmsghdr of zeros is a valid, empty one.
            let header = headers[index].write(unsafe { std::mem::zeroed() });
            header.msg_hdr.msg_name = address.cast();
            header.msg_hdr.msg_namelen = length;
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
        }
        let (start, count) = (headers.as_mut_ptr().cast(), libc::c_uint::try_from(limit).unwrap_or(0));
        // SAFETY: the first `count` headers were written above; what they point to is valid for writes and lives.
        let answer = unsafe { libc::recvmmsg(fd, start, count, libc::MSG_DONTWAIT as _, ptr::null_mut()) };
        let count = syscall!(answer).map(|count| usize::try_from(count).unwrap_or(0))?;
        for (index, header) in headers.iter().enumerate().take(count) {
            // SAFETY: the first `limit` headers were written, and `count` is not above it.
            let header = unsafe { header.assume_init_ref() };
            self.lengths[index] = header.msg_len as usize;
            self.rooms[index].set_length(header.msg_hdr.msg_namelen);
        }
        Ok(count)
    }

    /// Receives at most `limit` datagrams; fewer mean that there are no more for now.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) fn receive(&mut self, fd: RawFd, limit: usize) -> io::Result<usize> {
        for index in 0..limit.min(self.count()) {
            match self.receive_at(fd, index) {
                Ok(()) => {}
                // What is wrong is told by the next call, as recvmmsg does it.
                Err(_) if index > 0 => return Ok(index),
                Err(error) => return Err(error),
            }
        }
        Ok(limit.min(self.count()))
    }

    /// The datagram in a slot that was received into last.
    pub(crate) fn datagram(&self, index: usize) -> &[u8] {
        let start = self.start(index);
        let room = &self.bytes[start..start + self.lengths[index].min(self.size)];
        // SAFETY: the kernel has written so many bytes into the slot.
        unsafe { &*(ptr::from_ref(room) as *const [u8]) }
    }

    /// Its sender; None if the kernel gave none.
    pub(crate) fn sender(&self, index: usize) -> Option<Address> {
        self.rooms[index].given()
    }
}

/// Sends one datagram to an address (`sendto(2)`).
pub(crate) fn send_to(fd: RawFd, data: &[u8], to: &Address) -> io::Result<()> {
    let room = AddressRoom::of(to);
    let (address, length) = room.parts();
    // SAFETY: `data` is valid for reads of its length, `address` for those of `length`.
    let answer = unsafe { libc::sendto(fd, data.as_ptr().cast(), data.len(), SEND_FLAGS, address, length) };
    syscall!(answer).map(drop)
}

/// A datagram and where it goes; None: to the peer of a connected socket.
pub(crate) type Outgoing<'a> = (&'a [u8], Option<&'a Address>);

/// Sends the first [`BATCH`] of several datagrams; answers how many the kernel took (`sendmmsg(2)`). An error is that of the first.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn send_many<'a>(fd: RawFd, datagrams: impl Iterator<Item = Outgoing<'a>>) -> io::Result<usize> {
    let mut parts = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH];
    let mut rooms = [const { MaybeUninit::<AddressRoom>::uninit() }; BATCH];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
    let mut count = 0;
    for (index, (data, to)) in datagrams.take(BATCH).enumerate() {
        let part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        // SAFETY: an mmsghdr of zeros is a valid, empty one.
        let header = headers[index].write(unsafe { std::mem::zeroed() });
        header.msg_hdr.msg_iov = parts[index].write(part);
        header.msg_hdr.msg_iovlen = 1;
        if let Some(to) = to {
            let (address, length) = rooms[index].write(AddressRoom::of(to)).parts();
            header.msg_hdr.msg_name = address.cast_mut().cast();
            header.msg_hdr.msg_namelen = length;
        }
        count = index + 1;
    }
    let (start, count) = (headers.as_mut_ptr().cast(), libc::c_uint::try_from(count).unwrap_or(0));
    // SAFETY: the first `count` headers were written above; what they point to is valid for reads and lives.
    let answer = unsafe { libc::sendmmsg(fd, start, count, SEND_FLAGS as _) };
    syscall!(answer).map(|count| usize::try_from(count).unwrap_or(0))
}

/// Sends the first [`BATCH`] of several datagrams; answers how many the kernel took. An error is that of the first.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn send_many<'a>(fd: RawFd, datagrams: impl Iterator<Item = Outgoing<'a>>) -> io::Result<usize> {
    let mut count = 0;
    for (data, to) in datagrams.take(BATCH) {
        match to.map_or_else(|| super::socket::send(fd, data).map(drop), |to| send_to(fd, data, to)) {
            Ok(()) => count += 1,
            // What is wrong is told by the next call, as sendmmsg does it.
            Err(_) if count > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::{BATCH, Slots, send_many, send_to};
    use crate::sys::socket::{Address, local_address};
    use std::io;
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    fn bound(host: &str) -> (UdpSocket, Address) {
        let socket = UdpSocket::bind((host, 0)).unwrap();
        let address = local_address(socket.as_raw_fd()).unwrap();
        (socket, address)
    }

    #[test]
    fn batches_keep_order_limits_and_senders() {
        for host in ["127.0.0.1", "::1"] {
            let Ok(receiver) = UdpSocket::bind((host, 0)) else { continue };
            let to = local_address(receiver.as_raw_fd()).unwrap();
            let (sender, from) = bound(host);
            let sent: Vec<Vec<u8>> = (0..40_u8).map(|number| vec![number; usize::from(number)]).collect();
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let datagrams = rest.iter().map(|data| (&data[..], Some(&to)));
                let count = send_many(sender.as_raw_fd(), datagrams).unwrap();
                assert!((1..=BATCH).contains(&count));
                rest = &rest[count..];
            }
            let mut slots = Slots::new(BATCH, 65536);
            let mut received = Vec::new();
            for (limit, expected) in [(3, 3), (100, BATCH), (BATCH, 5)] {
                let count = slots.receive(receiver.as_raw_fd(), limit).unwrap();
                assert_eq!(count, expected);
                received.extend((0..count).map(|index| slots.datagram(index).to_vec()));
                assert!((0..count).all(|index| slots.sender(index).as_ref() == Some(&from)));
            }
            assert_eq!(received, sent);
            let error = slots.receive(receiver.as_raw_fd(), 8).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(slots.receive_one(receiver.as_raw_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn an_error_in_a_batch_ends_it_and_is_told_by_the_next_call() {
        let (receiver, to) = bound("127.0.0.1");
        let (sender, _) = bound("127.0.0.1");
        let large = vec![0; 70_000];
        let datagrams = [&b"first"[..], &large, b"last"];
        let send = |from: usize| send_many(sender.as_raw_fd(), datagrams[from..].iter().map(|data| (*data, Some(&to))));
        assert_eq!(send(0).unwrap(), 1);
        assert_eq!(send(1).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        assert_eq!(send(2).unwrap(), 1);
        let mut slots = Slots::new(BATCH, 65536);
        assert_eq!(slots.receive(receiver.as_raw_fd(), BATCH).unwrap(), 2);
        assert_eq!((slots.datagram(0), slots.datagram(1)), (&b"first"[..], &b"last"[..]));
    }

    #[test]
    fn what_is_longer_than_a_slot_is_cut_off() {
        let (receiver, to) = bound("127.0.0.1");
        let (sender, _) = bound("127.0.0.1");
        send_to(sender.as_raw_fd(), b"longer", &to).unwrap();
        send_to(sender.as_raw_fd(), b"", &to).unwrap();
        let mut slots = Slots::new(2, 4);
        assert_eq!(slots.receive(receiver.as_raw_fd(), 8).unwrap(), 2);
        assert_eq!((slots.datagram(0), slots.datagram(1)), (&b"long"[..], &b""[..]));
    }

    #[test]
    fn unnamed_senders_have_no_address() {
        let (one, other) = UnixDatagram::pair().unwrap();
        assert_eq!(send_many(one.as_raw_fd(), [(&b"a"[..], None), (&b"b"[..], None)].into_iter()).unwrap(), 2);
        let mut slots = Slots::new(8, 1024);
        slots.receive_one(other.as_raw_fd()).unwrap();
        assert_eq!((slots.datagram(0), slots.sender(0)), (&b"a"[..], None));
        assert_eq!(slots.receive(other.as_raw_fd(), 8).unwrap(), 1);
        assert_eq!((slots.datagram(0), slots.sender(0)), (&b"b"[..], None));
    }

    #[test]
    fn addresses_survive_the_way_to_the_kernel_and_back() {
        let directory = std::env::temp_dir().join(format!("mioloop-datagram-{}", std::process::id()));
        let receiver = UnixDatagram::bind(&directory).unwrap();
        let path = std::os::unix::ffi::OsStrExt::as_bytes(directory.as_os_str());
        let to = Address::Unix(path.into());
        assert_eq!(local_address(receiver.as_raw_fd()).unwrap(), to);
        send_to(receiver.as_raw_fd(), b"to myself", &to).unwrap();
        let mut slots = Slots::new(8, 1024);
        assert_eq!(slots.receive(receiver.as_raw_fd(), 8).unwrap(), 1);
        assert_eq!((slots.datagram(0), slots.sender(0)), (&b"to myself"[..], Some(to)));
        std::fs::remove_file(directory).unwrap();
    }
}
