//! Bytes on their way in and out: chunks to be written, and buffers that the kernel writes into.

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyMemoryView};
use std::io;
use std::mem::MaybeUninit;

/// Bytes that were given to `write()`.
///
/// An exact `bytes` object never changes: it is kept by reference. Everything else may change after the call, and is
/// copied.
#[derive(Debug)]
pub(crate) enum Chunk {
    Shared(Py<PyBytes>),
    Copied(Vec<u8>),
}

impl Chunk {
    /// Takes `data`; a TypeError if it has no contiguous bytes.
    #[inline]
    pub(crate) fn new(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        match data.cast_exact::<PyBytes>() {
            Ok(bytes) => Ok(Self::Shared(bytes.clone().unbind())),
            Err(_) => View::new(data, ffi::PyBUF_SIMPLE).map(|view| Self::Copied(view.as_slice().to_vec())),
        }
    }
}

/// The bytes of a list of `bytes` in one piece, if there are at most `limit` of them.
pub(crate) fn join(list: &Bound<'_, PyAny>, limit: usize) -> Option<Vec<u8>> {
    let list = list.cast_exact::<PyList>().ok()?;
    let mut joined = Vec::with_capacity(limit);
    for item in list.iter() {
        let bytes = item.cast_exact::<PyBytes>().ok()?.as_bytes();
        if joined.len() + bytes.len() > limit {
            return None;
        }
        joined.extend_from_slice(bytes);
    }
    Some(joined)
}

impl AsRef<[u8]> for Chunk {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => {
                // SAFETY: the object is a bytes object: its data are where the macro says.
                let start = unsafe { ffi::PyBytes_AS_STRING(bytes.as_ptr()) };
                // SAFETY: as above, for its length.
                let length = unsafe { ffi::PyBytes_Size(bytes.as_ptr()) };
                // SAFETY: bytes never change, and live as long as the reference in `self`.
                unsafe { std::slice::from_raw_parts(start.cast(), length.unsigned_abs()) }
            }
            Self::Copied(bytes) => bytes,
        }
    }
}

/// A view of an object's buffer, given back when it is dropped.
struct View<'py> {
    view: ffi::Py_buffer,
    _py: Python<'py>,
}

impl<'py> View<'py> {
    fn new(object: &Bound<'py, PyAny>, flags: std::ffi::c_int) -> PyResult<Self> {
        let mut view = Self { view: ffi::Py_buffer::new(), _py: object.py() };
        // SAFETY: `view` is valid for writes, and does not move while it is held: nothing points into it.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut view.view, flags) } != 0 {
            view.view = ffi::Py_buffer::new();
            return Err(PyErr::fetch(object.py()));
        }
        Ok(view)
    }

    fn as_slice(&self) -> &[u8] {
        if self.view.len == 0 {
            return &[];
        }
        // SAFETY: a PyBUF_SIMPLE view has `len` contiguous bytes, and the exporter keeps them in place.
        unsafe { std::slice::from_raw_parts(self.view.buf.cast(), self.view.len.unsigned_abs()) }
    }

    fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        if self.view.len == 0 {
            return &mut [];
        }
        // SAFETY: as in `as_slice`; the view is writable, and the kernel is the only one that writes meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.view.buf.cast(), self.view.len.unsigned_abs()) }
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        // SAFETY: a view that was filled by PyObject_GetBuffer, or an empty one, for which this does nothing.
        unsafe { ffi::PyBuffer_Release(&raw mut self.view) };
    }
}

/// Room that bytes objects of unknown length are received into: small ones are copied out of it, which costs less than
/// to make a large object and to cut it down.
#[derive(Debug, Default)]
pub(crate) struct Room {
    bytes: Vec<u8>,
    /// The last ones were large: the next are received where they stay.
    is_bulk: bool,
}

impl Room {
    const SIZE: usize = 64 * 1024;

    /// A new bytes object of what `read` puts into at most `size` bytes, and what it says beside.
    #[inline]
    pub(crate) fn receive<'py, T>(
        &mut self,
        py: Python<'py>,
        size: usize,
        read: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<(usize, T)>,
    ) -> PyResult<io::Result<(Bound<'py, PyBytes>, T)>> {
        if self.is_bulk || size > Self::SIZE {
            return self.receive_bulk(py, size, read);
        }
        if self.bytes.is_empty() {
            self.bytes.resize(Self::SIZE, 0);
        }
        let room: *mut [u8] = &raw mut self.bytes[..size];
        // SAFETY: a slice of u8 may be seen as one of MaybeUninit<u8>; `read` only writes bytes into it.
        let answer = read(unsafe { &mut *(room as *mut [MaybeUninit<u8>]) });
        Ok(answer.map(|(count, beside)| {
            self.is_bulk = count >= Self::SIZE / 2;
            (PyBytes::new(py, &self.bytes[..count]), beside)
        }))
    }

    #[cold]
    fn receive_bulk<'py, T>(
        &mut self,
        py: Python<'py>,
        size: usize,
        read: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<(usize, T)>,
    ) -> PyResult<io::Result<(Bound<'py, PyBytes>, T)>> {
        let mut beside = None;
        let answer = read_into_bytes(py, size, |room| {
            let (count, what) = read(room)?;
            self.is_bulk = count >= Self::SIZE / 2;
            beside = Some(what);
            Ok(count)
        })?;
        Ok(answer.and_then(|bytes| beside.map(|what| (bytes, what)).ok_or_else(|| io::ErrorKind::WouldBlock.into())))
    }
}

/// Lets `use_bytes` look at the bytes of an object; a TypeError if it has no contiguous ones.
#[inline]
pub(crate) fn look<T>(object: &Bound<'_, PyAny>, use_bytes: impl FnOnce(&[u8]) -> T) -> PyResult<T> {
    match object.cast_exact::<PyBytes>() {
        Ok(bytes) => Ok(use_bytes(bytes.as_bytes())),
        Err(_) => View::new(object, ffi::PyBUF_SIMPLE).map(|view| use_bytes(view.as_slice())),
    }
}

/// Lets `read` write into the buffer of `object`, which `get_buffer()` gave; a TypeError if it has none.
pub(crate) fn fill<T>(
    object: &Bound<'_, PyAny>,
    read: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<T>,
) -> PyResult<io::Result<T>> {
    let mut view = View::new(object, ffi::PyBUF_WRITABLE).map_err(|_| {
        // The words of `socket.recv_into()`.
        let kind = object.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!("recv_into() argument 1 must be read-write bytes-like object, not {kind}"))
    })?;
    Ok(read(view.as_uninit()))
}

/// Lets `read` put at most `size` bytes behind those of `bytes`, without copying.
///
/// None: it cannot grow now, since somebody has a view of it, or there is no memory; nothing was read.
#[inline]
pub(crate) fn read_behind(
    bytes: &Bound<'_, PyByteArray>,
    size: usize,
    read: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<usize>,
) -> Option<io::Result<usize>> {
    let length = bytes.len();
    if bytes.resize(length.checked_add(size)?).is_err() {
        return None;
    }
    // SAFETY: the object is a bytearray of `length + size` bytes, which nobody else sees before `read` is done: it is
    // no Python code.
    let room = unsafe { std::slice::from_raw_parts_mut(bytes.data().add(length).cast(), size) };
    let answer = read(room);
    let count = answer.as_ref().map_or(0, |count| *count);
    // Shrinking allocates nothing that was not there; a view cannot have been taken meanwhile.
    if count < size && bytes.resize(length + count).is_err() {
        return Some(Err(io::ErrorKind::OutOfMemory.into()));
    }
    Some(answer)
}

/// Copies `data` behind the bytes of `bytes`; false if it cannot grow now.
#[inline]
pub(crate) fn append(bytes: &Bound<'_, PyByteArray>, data: &[u8]) -> bool {
    let copy = |room: &mut [MaybeUninit<u8>]| {
        debug_assert_eq!(room.len(), data.len());
        // SAFETY: `room` has as many bytes as `data`, at the end of an object that `data` is no part of.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), room.as_mut_ptr().cast(), data.len()) };
        Ok(data.len())
    };
    read_behind(bytes, data.len(), copy).is_some()
}

unsafe extern "C" {
    /// In the stable ABI; the bindings keep it to themselves.
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: ffi::Py_ssize_t) -> std::ffi::c_int;
}

/// A new bytes object of what `read` puts into at most `size` bytes of it, without copying.
pub(crate) fn read_into_bytes(
    py: Python<'_>,
    size: usize,
    read: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<usize>,
) -> PyResult<io::Result<Bound<'_, PyBytes>>> {
    let length = ffi::Py_ssize_t::try_from(size).unwrap_or(ffi::Py_ssize_t::MAX);
    // SAFETY: attached; gives a new bytes object with uninitialised content, or NULL with an exception set.
    let object = unsafe { ffi::PyBytes_FromStringAndSize(std::ptr::null(), length) };
    // SAFETY: as said.
    let bytes = unsafe { Bound::from_owned_ptr_or_err(py, object)? };
    // SAFETY: the object was just made: nobody else reads it; its data are `size` bytes long.
    let room = unsafe { std::slice::from_raw_parts_mut(ffi::PyBytes_AsString(bytes.as_ptr()).cast(), size) };
    let count = match read(room) {
        Ok(count) => count,
        Err(error) => return Ok(Err(error)),
    };
    let mut object = bytes.into_ptr();
    if count < size {
        // SAFETY: the only reference to the object is ours; on failure it is gone and `object` is NULL.
        let answer = unsafe { _PyBytes_Resize(&raw mut object, count.cast_signed()) };
        if answer != 0 {
            return Err(PyErr::fetch(py));
        }
    }
    // SAFETY: `object` is the new, only reference to a bytes object.
    Ok(Ok(unsafe { Bound::from_owned_ptr(py, object).cast_into_unchecked() }))
}

/// The parts in one piece.
pub(crate) fn concatenate<'py>(py: Python<'py>, parts: &[Bound<'py, PyBytes>]) -> PyResult<Bound<'py, PyBytes>> {
    let size = parts.iter().map(|part| part.as_bytes().len()).sum();
    PyBytes::new_with(py, size, |mut room| {
        for part in parts {
            let (place, rest) = room.split_at_mut(part.as_bytes().len());
            place.copy_from_slice(part.as_bytes());
            room = rest;
        }
        Ok(())
    })
}

/// What follows the first `offset` items of a buffer: a view, not a copy.
pub(crate) fn rest_of<'py>(object: &Bound<'py, PyAny>, offset: usize) -> PyResult<Bound<'py, PyAny>> {
    let start = offset.into_pyobject(object.py())?;
    // PyO3's `PySlice::new` keeps its three numbers for ever.
    // SAFETY: a live number; NULL stands for None. A new reference, or NULL with an exception set.
    let slice = unsafe {
        let slice = ffi::PySlice_New(start.as_ptr(), std::ptr::null_mut(), std::ptr::null_mut());
        Bound::from_owned_ptr_or_err(object.py(), slice)?
    };
    PyMemoryView::from(object)?.get_item(slice)
}

/// `bio.write(data)` without making an object of a copy; `bio` must be exactly an `ssl.MemoryBIO`.
pub(crate) fn write_to_bio(bio: &Bound<'_, PyAny>, data: &[u8]) -> PyResult<()> {
    let py = bio.py();
    debug_assert!(bio.get_type().name().is_ok_and(|name| name == "MemoryBIO"));
    let length = data.len().cast_signed();
    // SAFETY: the memory is as long as said, is only read, and outlives the view: `MemoryBIO.write` is a function in C
    // that copies the bytes, keeps no reference to its argument, runs no Python code and does not let go of the GIL.
    let view = unsafe { ffi::PyMemoryView_FromMemory(data.as_ptr().cast_mut().cast(), length, ffi::PyBUF_READ) };
    // SAFETY: a new reference, or NULL with an exception set.
    let view = unsafe { Bound::from_owned_ptr_or_err(py, view)? };
    bio.call_method1(pyo3::intern!(py, "write"), (&view,)).map(drop)
}

/// A new bytes object of what `fill` puts into at most `size` bytes of it, piece by piece.
///
/// `fill` gets the room that is left as a memoryview, and answers how many bytes it has written there and whether it
/// wants to go on. An error drops what was written.
pub(crate) fn fill_new_bytes<'py>(
    py: Python<'py>,
    size: usize,
    mut fill: impl FnMut(&Bound<'py, PyAny>) -> PyResult<(usize, bool)>,
) -> PyResult<Bound<'py, PyBytes>> {
    // SAFETY: attached; gives a new bytes object with uninitialised content, or NULL with an exception set.
    let object = unsafe { ffi::PyBytes_FromStringAndSize(std::ptr::null(), size.cast_signed()) };
    // SAFETY: as said.
    let bytes = unsafe { Bound::from_owned_ptr_or_err(py, object)? };
    let mut count = 0;
    while count < size {
        // SAFETY: `bytes` was just made and is known here only; it has `size` bytes, more than `count`.
        let place = unsafe { ffi::PyBytes_AsString(bytes.as_ptr()).add(count) };
        let length = (size - count).cast_signed();
        // SAFETY: the memory is as long as said. It lives as long as `bytes`, which outlives the view: see below.
        let view = unsafe { ffi::PyMemoryView_FromMemory(place, length, ffi::PyBUF_WRITE) };
        // SAFETY: a new reference, or NULL with an exception set.
        let view = unsafe { Bound::from_owned_ptr_or_err(py, view)? };
        let filled = fill(&view);
        // SAFETY: the object is live.
        if unsafe { ffi::Py_REFCNT(view.as_ptr()) } != 1 {
            // Somebody has kept the view: its memory must stay, and what was read must not change.
            // SAFETY: a live bytes object.
            let start: *const u8 = unsafe { ffi::PyBytes_AsString(bytes.as_ptr()).cast() };
            std::mem::forget(bytes);
            let (more, _) = filled?;
            // SAFETY: so many bytes were written, and the object that has them is never freed.
            return Ok(PyBytes::new(py, unsafe { std::slice::from_raw_parts(start, size.min(count + more)) }));
        }
        drop(view);
        let (more, goes_on) = filled?;
        count = size.min(count + more);
        if !goes_on {
            break;
        }
    }
    let mut object = bytes.into_ptr();
    if count < size {
        // SAFETY: the only reference to the object is ours; on failure it is gone and `object` is NULL.
        if unsafe { _PyBytes_Resize(&raw mut object, count.cast_signed()) } != 0 {
            return Err(PyErr::fetch(py));
        }
    }
    // SAFETY: `object` is the new, only reference to a bytes object.
    Ok(unsafe { Bound::from_owned_ptr(py, object).cast_into_unchecked() })
}
