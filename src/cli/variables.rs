//! Flags given as variables: `--backup-dir` as `INFRAHUB_BACKUP_DIR`.
//!
//! Holds: a flag beats its variable; a variable that is set but empty counts as not set; a truth value that is none is an
//! error and never false.

use std::ffi::OsString;

use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, Command};

/// Commands whose `--force` must be typed. A cluster that sets INFRAHUB_FORCE for its backups must not thereby force a
/// restore, or its rehearsal.
const FORCE_MUST_BE_TYPED: [&str; 2] = ["restore", "drill"];

/// The variable of a flag; `None` where there is none.
pub fn variable_of(command: &str, long: &str) -> Option<String> {
    match long {
        "help" | "version" => None,
        "force" if FORCE_MUST_BE_TYPED.contains(&command) => None,
        // Infrahub's server takes INFRAHUB_CONFIG for its own file, and often runs in the same environment.
        "config" => Some("INFRAHUB_BACKUP_CONFIG".to_owned()),
        // The name that the other engines' users know.
        "password-file" => Some("INFRAHUB_REPO_PASSWORD_FILE".to_owned()),
        _ => Some(format!("INFRAHUB_{}", long.to_ascii_uppercase().replace('-', "_"))),
    }
}

/// `command` and all below it, with every flag readable from its variable.
pub fn with_variables(command: Command, is_set: &dyn Fn(&str) -> bool) -> Command {
    let name = command.get_name().to_owned();
    let below: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let mut command = command.mut_args(|arg| with_variable(&name, arg, is_set));
    for name in below {
        command = command.mut_subcommand(name, |below| with_variables(below, is_set));
    }
    command
}

fn with_variable(command: &str, arg: Arg, is_set: &dyn Fn(&str) -> bool) -> Arg {
    let variable = arg.get_long().and_then(|long| variable_of(command, long)).filter(|variable| is_set(variable));
    let Some(variable) = variable else { return arg };
    // clap reads the variable here, and would take an empty one as an empty value. It keeps names for good; so few, and
    // only once in a run, may be leaked.
    let arg = arg.env(&*variable.leak()).hide_env(true);
    if matches!(arg.get_action(), ArgAction::SetTrue) { arg.value_parser(BoolishValueParser::new()) } else { arg }
}

/// Whether a variable is set to something.
pub fn is_set(name: &str) -> bool {
    get(name).is_some()
}

/// The value of a variable, if it is set to something.
pub fn get(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// All variables that are set to a text and begin with one of `prefixes`.
pub fn below(prefixes: &[&str]) -> impl Iterator<Item = (String, String)> {
    let set =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    set.filter(move |(name, value)| !value.is_empty() && prefixes.iter().any(|prefix| name.starts_with(prefix)))
}

/// The variables that may be meant when clap refuses a value of `--flag`, for the message.
pub fn blamed(message: &str, arguments: &[OsString]) -> Option<String> {
    let flag = message.split('\'').find_map(|part| part.strip_prefix("--"))?.split([' ', '=']).next()?;
    let typed = arguments.iter().any(|argument| {
        let text = argument.to_string_lossy();
        text.strip_prefix("--").is_some_and(|text| text.split('=').next() == Some(flag))
    });
    let variable = variable_of("", flag)?;
    (!typed && is_set(&variable)).then_some(variable)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::cli::args::Cli;

    #[test]
    fn the_command_line_is_consistent_with_and_without_variables() {
        // The test's own environment holds none of them: `env` then reads nothing, but every flag is visited.
        with_variables(Cli::command(), &|_| true).debug_assert();
    }

    #[test]
    fn a_global_flag_may_stand_after_the_command() {
        let matches =
            Cli::command().try_get_matches_from(["x", "create", "from-files", "--repo", "/r", "--json", "--init"]);
        let cli = Cli::from_arg_matches(&matches.unwrap()).unwrap();
        assert_eq!(cli.global.repo.as_deref(), Some("/r"));
        assert!(cli.global.json);
    }

    #[test]
    fn force_of_restore_has_no_variable() {
        assert_eq!(variable_of("restore", "force"), None);
        assert_eq!(variable_of("drill", "force"), None);
        assert_eq!(variable_of("create", "force").as_deref(), Some("INFRAHUB_FORCE"));
    }
}
