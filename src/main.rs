//! Parses the arguments, runs the command and chooses the exit code: 0 done, 1 failed, 2 bad usage or
//! configuration, 3 an audit that could not compare everything.

use std::process::ExitCode;

use clap::Parser as _;
use tidemark::cli::{self, Cli, Command, allocator};

fn main() -> ExitCode {
    // Before anything speaks TLS: reqwest and tungstenite bring no provider of their own.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("error: a TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    if matches!(cli.command, Command::Run) {
        allocator::return_large_buffers();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli::execute(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(cli::exit_code(&error))
        }
    }
}
