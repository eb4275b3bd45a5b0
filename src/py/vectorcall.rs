//! CPython's vectorcall, from which a thread may not come back.
//!
//! Before Python 3.14 a daemon thread that wants the GIL while the interpreter goes down is ended by `pthread_exit(3)`,
//! which unwinds its stack. Rust's functions cannot be unwound by strangers: the process would abort. The calls here, in
//! which a loop's thread is when it runs Python code, stop the thread instead, as later Pythons do (and as PyO3 does
//! where it attaches).
//!
//! The bindings declare these functions as ones that never unwind, and the compiler believes the first declaration of a
//! name: so they are called by addresses that it cannot see through. That is what a call into a library is anyway.

use pyo3::ffi;

#[cfg(Py_3_14)]
pub(super) use ffi::{PyObject_Vectorcall as call, PyObject_VectorcallMethod as call_method};
#[cfg(not(Py_3_14))]
pub(super) use stopping::{call, call_method};

/// Once, before the first call.
pub(crate) fn prepare() {
    #[cfg(not(Py_3_14))]
    stopping::hide_addresses();
}

#[cfg(not(Py_3_14))]
mod stopping {
    use super::ffi;
    use std::hint::black_box;
    use std::sync::atomic::{AtomicPtr, Ordering};

    type Object = *mut ffi::PyObject;
    type Function = unsafe extern "C-unwind" fn(Object, *const Object, usize, Object) -> Object;

    static CALL: AtomicPtr<()> = AtomicPtr::new(ffi::PyObject_Vectorcall as *mut ());
    static CALL_METHOD: AtomicPtr<()> = AtomicPtr::new(ffi::PyObject_VectorcallMethod as *mut ());

    pub(super) fn hide_addresses() {
        for place in [&CALL, &CALL_METHOD] {
            place.store(black_box(place.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
    }

    /// Stops the thread for good where its stack is unwound.
    struct StopsUnwinding;

    impl Drop for StopsUnwinding {
        #[cold]
        fn drop(&mut self) {
            loop {
                std::thread::park();
            }
        }
    }

    #[inline]
    unsafe fn make(place: &AtomicPtr<()>, target: Object, args: *const Object, flags: usize, names: Object) -> Object {
        // SAFETY: the places hold the addresses of functions of this signature.
        let function = unsafe { std::mem::transmute::<*mut (), Function>(place.load(Ordering::Relaxed)) };
        let guard = StopsUnwinding;
        // SAFETY: the caller keeps the rules of vectorcall.
        let answer = unsafe { function(target, args, flags, names) };
        std::mem::forget(guard);
        answer
    }

    /// `PyObject_Vectorcall`
    ///
    /// # Safety
    ///
    /// As in CPython: live references, as many as `flags` and `names` say, with a scratch place before them if `flags`
    /// says so.
    #[inline]
    pub(in crate::py) unsafe fn call(callable: Object, args: *const Object, flags: usize, names: Object) -> Object {
        // SAFETY: the caller keeps the rules.
        unsafe { make(&CALL, callable, args, flags, names) }
    }

    /// `PyObject_VectorcallMethod`
    ///
    /// # Safety
    ///
    /// As [`call`]; the first of `args` is the object whose method it is.
    #[inline]
    pub(in crate::py) unsafe fn call_method(name: Object, args: *const Object, flags: usize, names: Object) -> Object {
        // SAFETY: the caller keeps the rules.
        unsafe { make(&CALL_METHOD, name, args, flags, names) }
    }
}
