//! Exit codes: the one table. `docs/reference/exit-codes.md` is [`document`], and a test compares the two.

use std::fmt::Write;
use std::process::ExitCode;

use crate::error::ErrorKind;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All was done.
    Done,
    /// Nothing was done, or what was begun did not succeed.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
    /// Done in part.
    Incomplete,
    /// Damage was found.
    Damage,
    /// An objective was missed.
    Objective,
    /// There is no repository.
    NoRepository,
    /// Another operation is at work.
    Busy,
    /// The password or key does not open the repository.
    WrongKey,
    /// Interrupted.
    Interrupted,
}

impl Exit {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 10] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Incomplete,
        Self::Damage,
        Self::Objective,
        Self::NoRepository,
        Self::Busy,
        Self::WrongKey,
        Self::Interrupted,
    ];

    /// The number that the system gets.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Incomplete => 3,
            Self::Damage => 4,
            Self::Objective => 5,
            Self::NoRepository => 10,
            Self::Busy => 11,
            Self::WrongKey => 12,
            Self::Interrupted => 130,
        }
    }

    /// What it means, as a sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "Everything that was asked for is done.",
            Self::Failed => "It failed, or is not built yet in this version; the error says which.",
            Self::Usage => {
                "The command line or the configuration is wrong, or a confirmation is missing. Nothing was touched."
            }
            Self::Incomplete => {
                "Done in part, and said which: a snapshot made with `--allow-partial` lacks a component, `replicate` left snapshots out, flow runs could not be flushed, a restored deployment has no new id, or counts differ after a `restore` or `drill`."
            }
            Self::Damage => "Damage was found, by `verify`, by `drill`, or on the way.",
            Self::Objective => "An objective was missed: `status --rpo`, `status --rto`, `drill --rto`.",
            Self::NoRepository => {
                "There is no repository at the place, something else is there, or not the one that was there before."
            }
            Self::Busy => "Another operation works on this deployment, or its tasks still run.",
            Self::WrongKey => "The password or key does not open the repository, or none was given.",
            Self::Interrupted => {
                "Interrupted by SIGINT or SIGTERM. What was stopped has been started again, unless told otherwise."
            }
        }
    }

    /// What an error of this kind ends with.
    pub const fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Usage | ErrorKind::Config => Self::Usage,
            ErrorKind::NoRepository => Self::NoRepository,
            ErrorKind::Busy => Self::Busy,
            ErrorKind::Credentials => Self::WrongKey,
            ErrorKind::Damaged => Self::Damage,
            ErrorKind::Incomplete => Self::Incomplete,
            ErrorKind::Cancelled => Self::Interrupted,
            ErrorKind::NotFound
            | ErrorKind::Unavailable
            | ErrorKind::Source
            | ErrorKind::Incompatible
            | ErrorKind::Internal => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The reference page.
pub fn document() -> String {
    let mut text = String::from(
        "# Exit codes\n\n\
         Every command ends with one of these. Scripts may rely on them.\n\n\
         | Code | Meaning |\n|---|---|\n",
    );
    for exit in Exit::ALL {
        writeln!(text, "| {} | {} |", exit.code(), exit.meaning()).expect("a String takes text");
    }
    text.push_str("\nThis page is generated from the table in `src/cli/exit.rs`; a test compares the two.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_means_one_thing() {
        let mut codes = Exit::ALL.map(Exit::code).to_vec();
        codes.dedup();
        assert!(codes.is_sorted());
        assert_eq!(codes.len(), Exit::ALL.len());
    }
}
