//! The bridge to Python: what the layers above need of the C API, each piece behind a safe interface.
//!
//! Together with `sys/`, the only place with `unsafe`. Every operation here takes the [`pyo3::Python`] token as proof
//! that the thread is attached to the interpreter.

#![allow(unsafe_code, reason = "the bridge is where the C API is called; every block says why it is sound")]

pub(crate) mod address;
pub(crate) mod buffer;
pub(crate) mod call;
pub(crate) mod cell;
pub(crate) mod context;
pub(crate) mod coroutine;
pub(crate) mod finalize;
pub(crate) mod method;
pub(crate) mod names;
pub(crate) mod object;
pub(crate) mod recycle;
pub(crate) mod traverse;
pub(crate) mod vectorcall;
