//! `forebay`: the one binary. Arguments, then one function per command; exit codes are design §7's:
//! 0 done, 1 failed or mismatch, 2 usage or configuration.

use clap::Parser as _;
use cli::arguments::{Arguments, Command};
use cli::commands;

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let code = match arguments.command {
        Command::Demo(options) => commands::demo::run(&options),
        Command::Run(options) => commands::run::run(&options),
        Command::Check(options) => commands::check::run(&options),
        Command::Probe(options) => commands::probe::run(&options),
        Command::Browse(options) => commands::browse::run(&options),
        Command::Points(options) => commands::points::run(&options),
        Command::Reconcile(options) => commands::reconcile::run(&options),
        Command::Command(options) => commands::command::run(&options),
        Command::File(options) => commands::file::run(&options),
        Command::Quarantine(options) => commands::quarantine::run(&options),
        Command::Table(options) => commands::table::run(&options),
        Command::User(options) => commands::user::run(&options),
        Command::Log(options) => commands::log::run(&options),
        Command::Init(options) => commands::init::run(&options),
        Command::Service(options) => commands::service::run(&options),
        Command::Cert(options) => commands::cert::run(&options),
        Command::Agent(options) => commands::agent::run(&options),
        Command::Join(options) => commands::join::run(&options),
        Command::Bench(options) => commands::bench::run(&options),
        Command::Sim(options) => commands::sim::run(&options),
    };
    std::process::ExitCode::from(code)
}
