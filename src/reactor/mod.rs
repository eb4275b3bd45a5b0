//! The reactor: the parts of an event loop that know nothing of Python, each tested without an interpreter.
//!
//! | part | what it owns |
//! | --- | --- |
//! | [`poller`] | the kernel's event queue: registrations, waiting, waking |
//! | [`readiness`] | what is known of one descriptor |
//! | [`timers`] | deadlines, in order |
//! | [`inbox`] | what other threads posted, and whether the loop must be woken for it |
//! | [`outbox`] | bytes that wait to be written |
//! | [`parcels`] | datagrams that wait to be sent |
//! | [`appetite`] | how many datagrams a read asks for |
//! | [`flow`] | the water marks of one transport |
//! | [`records`] | where the records of a TLS stream end |

pub(crate) mod appetite;
pub(crate) mod flow;
pub(crate) mod inbox;
pub(crate) mod outbox;
pub(crate) mod parcels;
pub(crate) mod poller;
pub(crate) mod readiness;
pub(crate) mod records;
pub(crate) mod timers;
