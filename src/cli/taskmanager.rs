//! `taskmanager`: its arguments, and the command line of the program when it is called `infrahub-taskmanager`, as the
//! predecessor's second program was.

use std::ffi::OsString;
use std::path::Path;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::args::{Cli, Command, Environment, Global};
use super::variables;

/// The name that makes it this program.
const NAME: &str = "infrahub-taskmanager";

/// `taskmanager`
#[derive(Debug, Args)]
pub struct Taskmanager {
    /// What to do.
    #[command(subcommand)]
    pub command: TaskmanagerCommand,
}

/// `taskmanager …`
#[derive(Debug, Subcommand)]
#[command(arg_required_else_help = true)]
pub enum TaskmanagerCommand {
    /// Clear it of old flow runs
    Flush(Flush),
}

/// `taskmanager flush`
#[derive(Debug, Args)]
pub struct Flush {
    /// Which ones.
    #[command(subcommand)]
    pub what: FlushWhat,
}

/// `taskmanager flush …`
#[derive(Debug, Subcommand)]
#[command(arg_required_else_help = true)]
pub enum FlushWhat {
    /// Delete flow runs that are completed, failed or cancelled and started long ago, 30 days if not said otherwise
    FlowRuns(FlushFlags),
    /// Set flow runs to crashed that still run although they started long ago, 2 days if not said otherwise
    StaleRuns(FlushFlags),
}

/// Flags of both.
#[derive(Debug, Args)]
pub struct FlushFlags {
    /// Leave alone what started within so many days; 0: whatever started before now
    #[arg(value_name = "DAYS_TO_KEEP", value_parser = clap::value_parser!(i64).range(..=DAYS_MAX))]
    pub days_to_keep: Option<i64>,
    /// How many runs to list at a time, at most as many as the task manager allows [default: 200]
    #[arg(value_name = "BATCH_SIZE")]
    pub batch_size: Option<i64>,
    /// Only tell how many there are
    #[arg(long)]
    pub dry_run: bool,
}

/// More days than any deployment has: a hundred years.
const DAYS_MAX: i64 = 36_500;

/// The command line of the second program.
#[derive(Debug, Parser)]
#[command(
    name = NAME,
    version,
    about = "Clear the task manager of an Infrahub deployment of old runs",
    after_help = "Same as: infrahub-backup taskmanager",
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 110
)]
struct Second {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: SecondCommand,
}

#[derive(Debug, Subcommand)]
enum SecondCommand {
    /// Clear it of old flow runs
    Flush(Flush),
    /// Tell which deployment is meant
    Environment(Environment),
    /// Tell the version
    Version,
}

/// Whether the program is called by the name of the second one.
pub fn is_called(arguments: &[OsString]) -> bool {
    arguments.first().and_then(|name| Path::new(name).file_name()).is_some_and(|name| name == NAME)
}

/// What the arguments of the second program mean here.
pub fn parse(arguments: &[OsString]) -> Result<(Cli, ArgMatches), clap::Error> {
    let matches = variables::with_variables(Second::command(), &variables::is_set).try_get_matches_from(arguments)?;
    let Second { global, command } = Second::from_arg_matches(&matches)?;
    let command = match command {
        SecondCommand::Flush(flush) => Command::Taskmanager(Taskmanager { command: TaskmanagerCommand::Flush(flush) }),
        SecondCommand::Environment(environment) => Command::Environment(environment),
        SecondCommand::Version => Command::Version,
    };
    Ok((Cli { global, command }, matches))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn only_its_whole_name_makes_it_the_second_program() {
        for line in ["infrahub-taskmanager flush", "/usr/local/bin/infrahub-taskmanager"] {
            assert!(is_called(&words(line)), "{line}");
        }
        for line in
            ["infrahub-backup infrahub-taskmanager", "infrahub-taskmanager2", "/infrahub-taskmanager/infrahub-backup"]
        {
            assert!(!is_called(&words(line)), "{line}");
        }
        assert!(!is_called(&[]));
    }

    #[test]
    fn its_command_line_is_consistent_and_means_the_same() {
        variables::with_variables(Second::command(), &|_| true).debug_assert();
        let (cli, _) = parse(&words("infrahub-taskmanager flush stale-runs 3 --dry-run")).unwrap();
        let Command::Taskmanager(Taskmanager { command: TaskmanagerCommand::Flush(flush) }) = cli.command else {
            panic!("another command")
        };
        let FlushWhat::StaleRuns(flags) = flush.what else { panic!("other runs") };
        assert_eq!((flags.days_to_keep, flags.batch_size, flags.dry_run), (Some(3), None, true));
        for wrong in ["create", "flush flow-runs 1 2 3", "flush flow-runs ten", "flush flow-runs 40000"] {
            parse(&words(&format!("infrahub-taskmanager {wrong}"))).unwrap_err();
        }
    }
}
