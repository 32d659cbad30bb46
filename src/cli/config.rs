//! `chronik-server config`: the reference of all options, and a check of what is set.

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::options;
use super::output::print;
use crate::config::{listing, reference};
use crate::failure::Failure;

pub fn command() -> Command {
    let check = Command::new("check")
        .about("Check the file, the environment and the flags as `standalone` would read them")
        .long_about(
            "Check the file, the environment and the flags as `standalone` would read them, and \
             print every option that somebody set, with where it was set. Nothing is started.",
        )
        .arg(
            Arg::new("all")
                .long("all")
                .action(ArgAction::SetTrue)
                .help("Print the options at their defaults too"),
        );
    Command::new("config")
        .about("Show and check the configuration")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("reference").about("Print every option as a TOML file, with its default"),
        )
        .subcommand(options::with_options(check))
}

pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("reference", _)) => {
            print(&reference());
            Ok(())
        }
        Some(("check", matches)) => check(matches),
        other => unreachable!("clap knows no such subcommand: {other:?}"),
    }
}

fn check(matches: &ArgMatches) -> Result<(), Failure> {
    let resolved = options::resolve(&options::sources(matches))?;
    for warning in &resolved.warnings {
        eprintln!("warning: {warning}");
    }
    let file = resolved.file.as_ref().map(|path| format!("file {}, ", path.display()));
    println!("# valid: {}environment and flags", file.unwrap_or_default());
    print(&listing(&resolved, matches.get_flag("all")));
    Ok(())
}
