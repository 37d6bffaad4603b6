//! The `dozo` binary.

fn main() -> std::process::ExitCode {
    dozo::cli::run()
}
