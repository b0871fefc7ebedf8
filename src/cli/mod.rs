//! The command line: arguments, settings, rendering, hints, exit codes. The only part that prints, and the only one that
//! looks at the environment and the home folder.
//!
//! Results go to standard output, everything else to standard error. [`run`] is the one entrance.

mod archive_args;
mod archives;
mod args;
mod buckets;
mod commands;
mod credential;
mod demo;
pub mod exit;
mod failure;
mod hints;
mod html;
mod keep;
mod key_file;
mod legacy;
mod log;
mod memory;
mod place;
mod prometheus;
mod render;
mod session;
mod settings;
mod signals;
mod target;
mod taskmanager;
mod values;
mod variables;
mod whole_file;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::{ContextKind, ContextValue, ErrorKind as ClapErrorKind};
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use self::args::{Cli, Command, Global, LogFormat};
use self::exit::Exit;
use self::failure::Failure;
use self::log::{Log, LogOptions};
use self::render::Out;
use self::session::Session;
use self::settings::Settings;
use crate::error::ErrorKind;
use crate::ops::{Cancel, Events, Level};

/// Threads that wait for stores, processes and databases. The work that burns CPU runs elsewhere; two keep one free while
/// the other is in a long system call.
const WAITING_THREADS: usize = 2;

/// Runs the program with these arguments, the first of which is its own name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    set_panic_hook();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // A panic has been told by the hook when it arrives here.
    catch_unwind(AssertUnwindSafe(|| parse_and_run(&arguments))).unwrap_or(Exit::Failed).into()
}

/// The command line as clap knows it, variables included.
fn command() -> clap::Command {
    variables::with_variables(Cli::command(), &variables::is_set)
}

fn parse_and_run(arguments: &[OsString]) -> Exit {
    if taskmanager::is_called(arguments) {
        return match taskmanager::parse(arguments) {
            Ok((cli, matches)) => execute(cli, typed(&matches)),
            Err(error) => tell_clap(&error, arguments),
        };
    }
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return tell_clap(&error, arguments),
    };
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => execute(cli, typed(&matches)),
        Err(error) => tell_clap(&error, arguments),
    }
}

/// Flags that name secrets and stand on the command line itself, where they beat all variables.
fn typed(matches: &ArgMatches) -> Vec<&'static str> {
    let is_typed = |id: &&str| matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
    credential::FLAGS.into_iter().filter(is_typed).collect()
}

/// Tells what clap says: help and version are results, everything else is an error of usage.
fn tell_clap(error: &clap::Error, arguments: &[OsString]) -> Exit {
    match error.kind() {
        ClapErrorKind::DisplayHelp
        | ClapErrorKind::DisplayVersion
        | ClapErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Nobody is left to be told that standard output is closed.
            let _ = render::write(&error.render().to_string());
            Exit::Done
        }
        _ => {
            eprint!("{}", error.render());
            if let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg)
                && let Some(variable) = variables::blamed(&format!("'{argument}'"), arguments)
            {
                eprintln!("hint: the value comes from the variable {variable}");
            }
            Exit::Usage
        }
    }
}

fn new_log(global: &Global) -> Log {
    let level = match (global.quiet, global.verbose) {
        (true, _) => Level::Warning,
        (false, 0) => Level::Info,
        (false, _) => Level::Debug,
    };
    Log::new(LogOptions { format: global.log_format, level, progress: !global.quiet })
}

fn execute(cli: Cli, typed: Vec<&'static str>) -> Exit {
    let log = Arc::new(new_log(&cli.global));
    if let Err(source) = memory::keep_to_ourselves() {
        log.message(Level::Warning, &format!("a core image of this process could hold keys: {source}"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WAITING_THREADS).enable_all().build();
    let done = match runtime {
        Ok(runtime) => {
            let (send, cancel) = Cancel::new();
            let done = runtime.block_on(async {
                signals::watch(send, Arc::clone(&log))?;
                dispatch(cli, typed, Arc::clone(&log), cancel).await
            });
            // A prompt that nobody answers would keep its thread, and with it the process.
            runtime.shutdown_background();
            done
        }
        Err(source) => Err(Failure::io("no thread can be started", source)),
    };
    done.unwrap_or_else(|failure| {
        log.failure(&failure);
        Exit::of(failure.error.kind())
    })
}

async fn dispatch(cli: Cli, typed: Vec<&'static str>, log: Arc<Log>, cancel: Cancel) -> Result<Exit, Failure> {
    let Cli { mut global, command } = cli;
    global.legacy.archive_in_store = archives::in_store(&command);
    let out = Out { json: global.json, quiet: global.quiet };
    match &command {
        Command::Version => return commands::version(out),
        Command::Completion(args) => return commands::completion(args.shell),
        Command::Demo(args) => return demo::run(args.keep, &log, cancel).await,
        Command::Init(_)
        | Command::Create(_)
        | Command::Snapshots(_)
        | Command::Restore(_)
        | Command::Dump(_)
        | Command::Verify(_)
        | Command::Drill(_)
        | Command::Forget(_)
        | Command::Prune(_)
        | Command::Replicate(_)
        | Command::Repair(_)
        | Command::Import(_)
        | Command::Export(_)
        | Command::Keygen(_)
        | Command::Key(_)
        | Command::Environment(_)
        | Command::Status(_)
        | Command::Report(_)
        | Command::Taskmanager(_)
        | Command::Resume(_) => {}
    }
    global.legacy.check()?;
    let settings = Settings::new(global, typed);
    // Who has no key may have no place for state either.
    if let Command::Verify(args) = &command
        && args.without_key
    {
        return commands::verify::run_without_key(&settings, args, log, out, cancel).await;
    }
    let session = Session::new(settings, log, out, cancel)?;
    match command {
        Command::Init(args) => commands::init::run(&session, &args).await,
        Command::Create(args) => commands::create::run(&session, *args).await,
        Command::Snapshots(args) => commands::snapshots::run(&session, args.command).await,
        Command::Restore(args) => commands::restore::run(&session, *args).await,
        Command::Dump(args) => commands::dump::run(&session, &args).await,
        Command::Verify(args) => commands::verify::run(&session, &args).await,
        Command::Drill(args) => commands::drill::run(&session, *args).await,
        Command::Forget(args) => commands::forget::run(&session, &args).await,
        Command::Prune(args) => commands::prune::run(&session, &args).await,
        Command::Replicate(args) => commands::replicate::run(&session, &args).await,
        Command::Repair(args) => commands::repair::run(&session, &args).await,
        Command::Import(args) => commands::import::run(&session, args).await,
        Command::Export(args) => commands::export::run(&session, args).await,
        Command::Keygen(args) => commands::keygen::run(&session, &args),
        Command::Key(args) => commands::key::run(&session, args.command).await,
        Command::Environment(args) => commands::environment::run(&session, args.command).await,
        Command::Status(args) => commands::status::run(&session, &args).await,
        Command::Report(args) => commands::report::run(&session, args.command).await,
        Command::Taskmanager(args) => commands::taskmanager::run(&session, args.command).await,
        Command::Resume(args) => commands::resume::run(&session, args.deployment.as_deref()).await,
        Command::Version | Command::Completion(_) | Command::Demo(_) => {
            Err(Failure::new(ErrorKind::Internal, "this command was dispatched twice"))
        }
    }
}

/// A panic is a bug. Its message is told only if it is a text of the program itself: a formatted one may hold anything.
fn set_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        use std::io::Write;
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("no message");
        // A panic that cannot be told must not panic again.
        let _ = writeln!(
            std::io::stderr().lock(),
            "error: this is a bug in infrahub-backup {}\ncaused by: panic at {place}: {text}\n\
             hint: report it with these lines; if a run was at work: {}",
            env!("CARGO_PKG_VERSION"),
            hints::AFTER_KILL,
        );
    }));
}

/// Whether JSON is asked for where the predecessor took the log format for it.
fn wants_predecessor_json(global: &Global) -> bool {
    global.log_format == LogFormat::Json && global.legacy.backend.as_deref() == Some("plakar")
}
