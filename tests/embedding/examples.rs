//! The programs in `examples/`: each runs, and says what its text promises. `cargo build --examples` has built
//! them, with the same features.

use crate::harness::{Outcome, tests};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

tests![rust_and_python_await_each_other, a_service_serves_and_ticks];

fn example(name: &str) -> std::io::Result<Command> {
    let folder: PathBuf = std::env::current_exe()?.ancestors().skip(2).take(1).collect();
    Ok(Command::new(folder.join("examples").join(name)))
}

fn rust_and_python_await_each_other() -> Outcome {
    let done = example("rust_future")?.output()?;
    assert_eq!(String::from_utf8(done.stderr)?, "");
    let expected = "Rust: hello Rust\nRust: Python says 42\nRust: TimeoutError: \nPython: cancelled by Rust\n";
    assert_eq!(String::from_utf8(done.stdout)?, expected);
    assert!(done.status.success());
    Ok(())
}

fn a_service_serves_and_ticks() -> Outcome {
    let mut service = example("embed")?.args(["0", "2"]).stdout(Stdio::piped()).spawn()?;
    let mut first = String::new();
    BufReader::new(service.stdout.take().expect("a pipe")).read_line(&mut first)?;
    let port: u16 = first.trim_end().rsplit(' ').next().expect("a port").parse()?;
    let ask = |path: &str| -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            reader.read_line(&mut head)?;
        }
        let length = head.rsplit(' ').next().and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    };
    assert!(ask("/first")?.starts_with("/first at tick "));
    assert!(ask("/second")?.starts_with("/second at tick "));
    assert!(service.wait()?.success());
    Ok(())
}
