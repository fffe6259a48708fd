//! The `gehen` binary.

fn main() -> std::process::ExitCode {
    gehen::run(std::env::args_os().skip(1))
}
