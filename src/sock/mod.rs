//! `loop.sock_*` and sendfile: system calls on sockets, awaited.
//!
//! | file | what |
//! | --- | --- |
//! | [`methods`] | the loop's methods: what is done here, and what CPython's own coroutines do |
//! | [`operation`] | what they return: awaited like a coroutine, and waiting in the poller if it must |
//! | [`work`] | one attempt at each of the system calls |
//! | [`sendfile`] | `sendfile(2)`, on sockets and on transports |
//!
//! Rules:
//!
//! 1. Nothing happens before the first step, as in a coroutine; the first step makes the system call.
//! 2. Who waited makes the call when it is awake again: what is cancelled before has taken nothing from the socket.
//! 3. What is not plain (a class of its own, debug mode, odd arguments, a family that is not known here) is done by
//!    CPython's own coroutine, which is a whole implementation over `add_reader()` and `add_writer()`.

mod methods;
pub(crate) mod operation;
pub(crate) mod sendfile;
mod work;

pub(crate) use methods::define_methods;
