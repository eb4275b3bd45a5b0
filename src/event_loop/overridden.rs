//! Methods of the loop in whose place a subclass or a program has put its own: `time()`, as fake clocks in tests do, and
//! `call_at()`. asyncio's timers ask both.
//!
//! Owns what is known of that. The class is looked at when a run begins and before the first timer; the loop's own
//! attributes when they are set or deleted.

use super::Loop;
use super::schedule::deadline;
use crate::py::object;
use crate::sys::clock;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::sync::atomic::{AtomicU8, Ordering};

const TIME: u8 = 1;
const CALL_AT: u8 = 2;
/// Nobody has looked at the class.
const UNSEEN: u8 = 4;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Overridden {
    class: AtomicU8,
    instance: AtomicU8,
}

impl Default for Overridden {
    fn default() -> Self {
        Self { class: AtomicU8::new(UNSEEN), instance: AtomicU8::new(0) }
    }
}

impl Overridden {
    #[inline]
    fn known(&self) -> u8 {
        self.class.load(Ordering::Relaxed) | self.instance.load(Ordering::Relaxed)
    }

    /// Whether `time()` is the program's, in a run.
    #[inline]
    pub(super) fn has_time(&self) -> bool {
        self.known() & TIME != 0
    }

    fn note(&self, name: &Bound<'_, PyAny>, is_set: bool) {
        let Ok(name) = name.cast::<PyString>() else { return };
        let bit = match name.to_str() {
            Ok("time") => TIME,
            Ok("call_at") => CALL_AT,
            // Names that are no text have lone surrogates.
            _ => return,
        };
        let others = self.instance.load(Ordering::Relaxed) & !bit;
        self.instance.store(if is_set { others | bit } else { others }, Ordering::Relaxed);
    }
}

impl Loop {
    /// Looks at the class: it may be a subclass, or patched.
    pub(super) fn look_at_class(slf: &Bound<'_, Self>) {
        let (py, ours) = (slf.py(), slf.py().get_type::<Self>());
        let own = |name, bit| if object::has_same_in_class(slf, name, &ours) { 0 } else { bit };
        let found = own(intern!(py, "time"), TIME) | own(intern!(py, "call_at"), CALL_AT);
        slf.get().overridden.class.store(found, Ordering::Relaxed);
    }

    #[inline]
    fn overridden(slf: &Bound<'_, Self>) -> u8 {
        let known = slf.get().overridden.known();
        if known & UNSEEN == 0 {
            return known;
        }
        Self::look_at_class(slf);
        slf.get().overridden.known()
    }

    /// What `time()` gives, if it is the program's.
    #[inline]
    pub(super) fn program_time<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if Self::overridden(slf) & TIME == 0 {
            return Ok(None);
        }
        slf.call_method0(intern!(slf.py(), "time")).map(Some)
    }

    /// Whether `call_at()` is the program's.
    #[inline]
    pub(super) fn has_program_call_at(slf: &Bound<'_, Self>) -> bool {
        Self::overridden(slf) & CALL_AT != 0
    }

    /// The time that timers go by (nanoseconds).
    #[inline]
    pub(super) fn timers_now(slf: &Bound<'_, Self>) -> PyResult<u64> {
        match Self::program_time(slf)? {
            Some(time) => Ok(deadline(time.extract()?)),
            None => Ok(clock::monotonic()),
        }
    }

    /// Sets an attribute, or deletes it, as any object does.
    pub(super) fn store_attribute(
        slf: &Bound<'_, Self>,
        name: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        object::store_attribute(slf, name, value)?;
        slf.get().overridden.note(name, value.is_some());
        Ok(())
    }
}
