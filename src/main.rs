//! The program `tersed`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tersed::cli::main()
}
