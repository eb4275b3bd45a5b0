//! Transports and listeners: sockets and pipes that are read and written in Rust.
//!
//! | file | what |
//! | --- | --- |
//! | [`stream`] | the transport of a TCP or Unix connection: its state and its Python methods |
//! | [`state`] | what the transport knows |
//! | [`reading`] | from the socket to the protocol |
//! | [`direct`] | the short way into asyncio's own `StreamReader` |
//! | [`writing`] | from `write()` to the socket, and the water marks |
//! | [`closing`] | errors, `close()`, `abort()`, `connection_lost` |
//! | [`endpoint`] | a socket: its descriptor, its one owner, its addresses |
//! | [`connect`] | clients: a socket on its way to its address |
//! | [`listener`] | accepting connections |
//! | [`datagram`] | the transport of datagrams, of all kinds of sockets |
//! | [`pipe`] | what both pipe transports are made of |
//! | [`pipe_read`], [`pipe_write`] | the transport that reads a pipe, a terminal, ..., and the one that writes it |
//! | [`tls`] | the transport of a TLS connection, over any other one |
//!
//! The rules are those of asyncio's selector transports; where a method matches one of theirs, it says which.

mod closing;
pub(crate) mod connect;
pub(crate) mod datagram;
mod direct;
mod endpoint;
pub(crate) mod listener;
mod pipe;
pub(crate) mod pipe_read;
pub(crate) mod pipe_write;
mod reading;
mod state;
pub(crate) mod stream;
pub(crate) mod tls;
mod writing;
