//! `contextvars`: copying contexts, running callbacks in them, and one copy for many callbacks.
//!
//! asyncio copies the current context for every `call_soon()` and `call_later()`. Most of these copies hold the same and
//! are never changed; a hundred thousand waiting callbacks are as many objects for the garbage collector to count and to
//! look into, and for the caches to miss. Here such callbacks share one copy until they are run ([`Snapshot`]), and run
//! in one copy of that, one after the other, as long as none of them leaves a trace in it ([`Entered`]).
//!
//! Whether two contexts hold the same is told by [`Contents`], without a look into them.

use super::call::CallParts;
use pyo3::prelude::*;
use pyo3::{PyErr, ffi};
use std::ffi::{c_int, c_void};
use std::num::NonZeroUsize;

/// A new copy of the current context (`contextvars.copy_context()`).
#[inline]
pub(crate) fn copy_current(py: Python<'_>) -> PyResult<Py<PyAny>> {
    // SAFETY: attached; the call gives a new reference, or NULL with an exception set.
    let copy = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) };
    copy.map(Bound::unbind)
}

/// A new copy of `context`.
pub(crate) fn copy(py: Python<'_>, context: &Py<PyAny>) -> PyResult<Py<PyAny>> {
    // SAFETY: attached; the call checks the type itself and gives a new reference, or NULL with an exception set.
    let copy = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_Copy(context.as_ptr())) };
    copy.map(Bound::unbind)
}

/// What a context holds, by identity: the address of the one object that it shows the garbage collector, other than the
/// context around it.
///
/// That object is CPython's immutable map; a context whose variable is set gets another one. Nothing here counts on
/// that: an object that a copy shares with its original cannot be one that changes, or it would be no copy. So contexts
/// that show the same object hold the same. An address of an object that is gone may come back: it tells something only
/// as long as a context that shows it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Contents(NonZeroUsize);

/// What was shown: the last object, and how many there were.
struct Shown {
    object: usize,
    count: usize,
}

impl Contents {
    /// None: it cannot be told.
    #[inline]
    fn of(_py: Python<'_>, context: &Py<PyAny>) -> Option<Self> {
        if cfg!(Py_GIL_DISABLED) {
            // Another thread could change the context meanwhile.
            return None;
        }
        // SAFETY: the object is live, and so is its type.
        let traverse = unsafe { (*ffi::Py_TYPE(context.as_ptr())).tp_traverse }?;
        let mut shown = Shown { object: 0, count: 0 };
        // SAFETY: attached; as `gc.get_referents` does it, with a visitor that only takes notes.
        unsafe { traverse(context.as_ptr(), note, (&raw mut shown).cast()) };
        if shown.count == 1 { NonZeroUsize::new(shown.object).map(Self) } else { None }
    }
}

/// The visitor of [`Contents::of`].
unsafe extern "C" fn note(object: *mut ffi::PyObject, shown: *mut c_void) -> c_int {
    // SAFETY: a traversal shows live objects.
    let is_context = unsafe { ffi::PyContext_CheckExact(object) } != 0;
    // SAFETY: as above.
    if !is_context && unsafe { ffi::PyType_Check(object) } == 0 {
        // SAFETY: what `Contents::of` gave to the traversal.
        let shown = unsafe { &mut *shown.cast::<Shown>() };
        shown.object = object.addr();
        shown.count += 1;
    }
    0
}

/// A copy of the current context that waiting callbacks share. Nobody else sees it, and it is never entered.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    context: Option<Py<PyAny>>,
    /// Of `context`, if there is one; else of the last copy that was offered.
    contents: Option<Contents>,
}

impl Snapshot {
    /// Puts the snapshot into the place of a call's new copy of the current context, if both hold the same; the caller
    /// drops what is left over. A copy that holds the same as the one before becomes the snapshot.
    #[inline]
    pub(crate) fn share(&mut self, py: Python<'_>, call: &mut CallParts<'_, '_>) -> Option<Py<PyAny>> {
        let contents = Contents::of(py, &call.context);
        if contents.is_none() || contents != self.contents {
            self.contents = contents;
            return self.context.take();
        }
        call.is_shared = true;
        let Some(context) = &self.context else {
            self.context = Some(call.context.clone_ref(py));
            return None;
        };
        Some(std::mem::replace(&mut call.context, context.clone_ref(py)))
    }

    /// Whether there is nothing to forget.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.context.is_none() && self.contents.is_none()
    }

    /// Forgets the snapshot, so that the values in it may die; the caller drops it.
    pub(crate) fn take(&mut self) -> Option<Py<PyAny>> {
        self.contents = None;
        self.context.take()
    }

    pub(crate) fn context(&self) -> Option<&Py<PyAny>> {
        self.context.as_ref()
    }
}

/// The context that the thread is in on behalf of the running loop.
///
/// Entering and leaving costs as much as a small callback. Callbacks of one context often follow each other (the steps
/// of one task, the reads of one connection), so a context is left only when another one is needed.
#[derive(Debug, Default)]
pub(crate) struct Entered {
    current: Option<Py<PyAny>>,
    stand_in: Option<StandIn>,
}

/// The copy of a snapshot that callbacks run in.
#[derive(Debug)]
struct StandIn {
    context: Py<PyAny>,
    snapshot: Py<PyAny>,
    /// Of both, unless a callback has set a variable.
    contents: Contents,
    /// How many references there are to the copy while it is entered. A variable's token is one more.
    references: isize,
}

impl Entered {
    /// Makes `context` the current one; on an error (it is entered elsewhere) no context of ours is entered.
    #[inline]
    pub(crate) fn switch(&mut self, py: Python<'_>, context: &Py<PyAny>) -> PyResult<()> {
        if self.current.as_ref().is_some_and(|current| current.is(context)) {
            return Ok(());
        }
        self.leave(py)?;
        // SAFETY: attached; PyContext_Enter checks the type itself.
        if unsafe { ffi::PyContext_Enter(context.as_ptr()) } != 0 {
            return Err(PyErr::fetch(py));
        }
        self.current = Some(context.clone_ref(py));
        Ok(())
    }

    /// Makes a copy of a snapshot the current one. A copy that was used before serves again if it is as it was, and if
    /// nobody has a reference to it: it cannot be told from a new one.
    #[inline]
    pub(crate) fn switch_to_copy(&mut self, py: Python<'_>, snapshot: &Py<PyAny>) -> PyResult<()> {
        if let Some(stand_in) = &self.stand_in {
            let is_entered = self.is_entered(stand_in);
            if stand_in.stands_for(py, snapshot, if is_entered { stand_in.references } else { 1 }) {
                if is_entered {
                    return Ok(());
                }
                let context = stand_in.context.clone_ref(py);
                let outcome = self.switch(py, &context);
                context.drop_ref(py);
                return outcome;
            }
        }
        self.switch_to_new_copy(py, snapshot)
    }

    #[cold]
    fn switch_to_new_copy(&mut self, py: Python<'_>, snapshot: &Py<PyAny>) -> PyResult<()> {
        self.forget(py)?;
        let context = copy(py, snapshot)?;
        self.switch(py, &context)?;
        self.stand_in = Contents::of(py, snapshot).map(|contents| {
            let references = references(&context);
            StandIn { context, snapshot: snapshot.clone_ref(py), contents, references }
        });
        Ok(())
    }

    /// The context that is entered.
    #[inline]
    pub(crate) fn current(&self) -> Option<&Py<PyAny>> {
        self.current.as_ref()
    }

    /// Whether the copy of the snapshot is entered, and as it was but for one reference: the caller's.
    #[inline]
    pub(crate) fn is_copy_untouched(&self, py: Python<'_>, snapshot: &Py<PyAny>) -> bool {
        let stand_in = self.stand_in.as_ref().filter(|stand_in| self.is_entered(stand_in));
        stand_in.is_some_and(|stand_in| stand_in.stands_for(py, snapshot, stand_in.references + 1))
    }

    #[inline]
    fn is_entered(&self, stand_in: &StandIn) -> bool {
        self.current.as_ref().is_some_and(|current| current.is(&stand_in.context))
    }

    /// Leaves the context that was entered, if any.
    #[inline]
    pub(crate) fn leave(&mut self, py: Python<'_>) -> PyResult<()> {
        let Some(context) = self.current.take() else {
            return Ok(());
        };
        // SAFETY: attached; this context was entered by `switch` on this thread.
        let answer = unsafe { ffi::PyContext_Exit(context.as_ptr()) };
        context.drop_ref(py);
        if answer == 0 { Ok(()) } else { Err(PyErr::fetch(py)) }
    }

    /// Leaves, and keeps nothing for the next callbacks: the values of variables may die.
    #[inline]
    pub(crate) fn forget(&mut self, py: Python<'_>) -> PyResult<()> {
        let left = self.leave(py);
        if let Some(stand_in) = self.stand_in.take() {
            stand_in.context.drop_ref(py);
            stand_in.snapshot.drop_ref(py);
        }
        left
    }
}

impl StandIn {
    /// Whether it cannot be told from a new copy of `snapshot`.
    #[inline]
    fn stands_for(&self, py: Python<'_>, snapshot: &Py<PyAny>, expected: isize) -> bool {
        let contents = Some(self.contents);
        references(&self.context) == expected
            && Contents::of(py, &self.context) == contents
            && (self.snapshot.is(snapshot) || Contents::of(py, snapshot) == contents)
    }
}

#[inline]
fn references(object: &Py<PyAny>) -> isize {
    // SAFETY: the object is live.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}
