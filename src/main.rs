//! The program: its arguments to [`infrahub_backup::cli::run`], its answer to the system.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    infrahub_backup::cli::run(std::env::args_os())
}
