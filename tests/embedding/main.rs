//! Tests of the Rust API, with a harness of their own: Python wants the main thread, and there is one Python only.
//!
//! `cargo test --features async-runtimes --test embedding [-- PART_OF_A_NAME]`. Each test is a function that gives an error or
//! panics if it fails; a test that hangs is ended after a minute, with its name.

#![expect(
    clippy::disallowed_methods,
    clippy::manual_assert,
    clippy::print_stderr,
    clippy::unnecessary_wraps,
    clippy::unwrap_used,
    reason = "who uses the crate attaches; a test panics, on purpose too, and has an outcome; the harness prints"
)]

mod awaiting;
mod crossing;
mod examples;
mod fairness;
mod generic;
mod harness;
mod lifetimes;
mod program;
mod services;
mod spawning;

fn main() -> std::process::ExitCode {
    let tests = [
        awaiting::TESTS,
        crossing::TESTS,
        lifetimes::TESTS,
        services::TESTS,
        spawning::TESTS,
        fairness::TESTS,
        generic::TESTS,
        examples::TESTS,
        program::TESTS,
    ];
    if let Err(error) = mioloop::embed::start() {
        eprintln!("Python does not start: {error}");
        return std::process::ExitCode::FAILURE;
    }
    harness::run(&tests.concat())
}
