//! Pipes, and everything else that is read and written as a plain file: terminals, devices, sockets.

use super::syscall;
use std::ffi::c_int;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// What a descriptor is, as far as pipe transports ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Pipe,
    Socket,
    Character,
    /// A regular file, a directory, a block device.
    Other,
}

/// Asks what a descriptor is (`fstat(2)`).
pub(crate) fn kind(fd: RawFd) -> io::Result<Kind> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `status` is valid for writes of a stat.
    syscall!(unsafe { libc::fstat(fd, status.as_mut_ptr()) })?;
    // SAFETY: fstat succeeded, so it has written the whole structure.
    let mode = unsafe { status.assume_init() }.st_mode;
    Ok(match mode & libc::S_IFMT {
        libc::S_IFIFO => Kind::Pipe,
        libc::S_IFSOCK => Kind::Socket,
        libc::S_IFCHR => Kind::Character,
        _ => Kind::Other,
    })
}

/// Makes the open file non-blocking, for everybody who shares it (`ioctl(2)`, `FIONBIO`: one call, where `fcntl(2)`
/// takes two).
pub(crate) fn set_non_blocking(fd: RawFd) -> io::Result<()> {
    let yes: c_int = 1;
    // SAFETY: FIONBIO reads one int.
    syscall!(unsafe { libc::ioctl(fd, libc::FIONBIO, &raw const yes) }).map(drop)
}

/// Reads into `buffer`; 0 bytes mean the end (`read(2)`). The first bytes, as many as the answer says, are initialised.
pub(crate) fn read(fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    loop {
        // SAFETY: `buffer` is valid for writes of its length.
        let answer = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        match syscall!(answer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer.map(isize::unsigned_abs),
        }
    }
}

/// As [`read`], into bytes that are initialised already.
pub(crate) fn read_into(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: a slice of u8 may be seen as one of MaybeUninit<u8>; `read` only writes bytes into it.
    read(fd, unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) })
}

/// Writes from the parts as if they were one; answers how many bytes were taken (`write(2)`, `writev(2)`).
pub(crate) fn write(fd: RawFd, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        let answer = if let [part] = parts {
            // SAFETY: the part is valid for reads of its length.
            unsafe { libc::write(fd, part.as_ptr().cast(), part.len()) }
        } else {
            let count = c_int::try_from(parts.len()).unwrap_or(c_int::MAX);
            // SAFETY: IoSlice has the layout of iovec, and the parts are valid for reads of their lengths.
            unsafe { libc::writev(fd, parts.as_ptr().cast(), count) }
        };
        match syscall!(answer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer.map(isize::unsigned_abs),
        }
    }
}

/// The size of a pipe that nobody has changed, and what [`widen`] makes of it (bytes).
#[cfg(any(target_os = "linux", target_os = "android"))]
const SIZES: (c_int, c_int) = (64 * 1024, 256 * 1024);

/// Makes a pipe hold more, unless somebody chose its size (`fcntl(2)`, `F_SETPIPE_SZ`).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn widen(fd: RawFd) -> io::Result<()> {
    // SAFETY: takes no pointer.
    if syscall!(unsafe { libc::fcntl(fd, libc::F_GETPIPE_SZ) })? == SIZES.0 {
        // SAFETY: takes an integer.
        syscall!(unsafe { libc::fcntl(fd, libc::F_SETPIPE_SZ, SIZES.1) })?;
    }
    Ok(())
}

/// Pipes grow by themselves here.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn widen(_fd: RawFd) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Kind, kind, read_into, set_non_blocking, write};
    use std::fs::File;
    use std::io::{self, IoSlice};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_are_told_apart() {
        let (reader, writer) = io::pipe().unwrap();
        let (socket, _) = UnixStream::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        let folder = File::open("/").unwrap();
        let kinds = [reader.as_raw_fd(), writer.as_raw_fd(), socket.as_raw_fd(), null.as_raw_fd(), folder.as_raw_fd()]
            .map(|fd| kind(fd).unwrap());
        assert_eq!(kinds, [Kind::Pipe, Kind::Pipe, Kind::Socket, Kind::Character, Kind::Other]);
        assert_eq!(kind(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn what_is_written_is_read_and_nothing_blocks() {
        let (reader, writer) = io::pipe().unwrap();
        set_non_blocking(reader.as_raw_fd()).unwrap();
        set_non_blocking(writer.as_raw_fd()).unwrap();
        let mut buffer = [0; 16];
        let read = |buffer: &mut [u8]| read_into(reader.as_raw_fd(), buffer).map_err(|error| error.kind());
        assert_eq!(read(&mut buffer), Err(io::ErrorKind::WouldBlock));
        assert_eq!(write(writer.as_raw_fd(), &[IoSlice::new(b"one")]).unwrap(), 3);
        assert_eq!(write(writer.as_raw_fd(), &[IoSlice::new(b" and"), IoSlice::new(b" two")]).unwrap(), 8);
        assert_eq!(read(&mut buffer), Ok(11));
        assert_eq!(&buffer[..11], b"one and two");
        let much = vec![0; 1 << 20];
        assert!(write(writer.as_raw_fd(), &[IoSlice::new(&much)]).unwrap() < much.len());
        drop(writer);
        while read(&mut vec![0; 1 << 16]) != Ok(0) {}
    }
}
