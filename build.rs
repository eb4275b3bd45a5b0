//! Tells the crate which Python it is built for (`Py_3_14`, `Py_GIL_DISABLED`, ...), and keeps facts for bug reports.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned());
    println!("cargo::rustc-env=MIOLOOP_RUSTC={version}");
    for (name, variable) in [("MIOLOOP_TARGET", "TARGET"), ("MIOLOOP_PROFILE", "PROFILE")] {
        let value = env::var(variable).unwrap_or_else(|_| "unknown".to_owned());
        println!("cargo::rustc-env={name}={value}");
    }
    for name in ["pyo3", "mio"] {
        println!("cargo::rustc-env=MIOLOOP_{}={}", name.to_uppercase(), locked_version(name));
    }
    link_examples();
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.lock");
}

/// Has the examples and the tests of the Rust API find the libpython that they were linked to.
fn link_examples() {
    // Archives of the source have neither, and cargo refuses arguments for what is not there.
    let kinds = [("examples", "examples/embed.rs"), ("tests", "tests/embedding/main.rs")];
    if let Some(folder) = pyo3_build_config::get().lib_dir() {
        for (kind, _) in kinds.iter().filter(|(_, file)| Path::new(file).exists()) {
            println!("cargo::rustc-link-arg-{kind}=-Wl,-rpath,{folder}");
        }
    }
}

/// The version of a dependency, as the lock file has it.
fn locked_version(name: &str) -> String {
    let lock = std::fs::read_to_string("Cargo.lock").unwrap_or_default();
    let mut lines = lock.lines().skip_while(|line| *line != format!("name = \"{name}\""));
    let version = lines.nth(1).and_then(|line| line.strip_prefix("version = \""));
    version.map_or_else(|| "unknown".to_owned(), |version| version.trim_end_matches('"').to_owned())
}
