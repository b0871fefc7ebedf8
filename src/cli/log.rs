//! What goes to standard error: messages, progress, errors.
//!
//! Text for people, or one JSON object a line with `level`, `msg` and `time`. Progress bars only on a terminal; as JSON, at
//! most one event a second for each target. A standard error that is closed is no reason to fail.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::args::LogFormat;
use super::failure::Failure;
use crate::env::{Clock, SystemClock};
use crate::ops::{Events, Level, Progress};

/// Least time between two progress events of one target in JSON.
const EVENT_PERIOD: Duration = Duration::from_secs(1);

/// Redraws of the bars a second.
const REDRAWS: u8 = 8;

/// What is told, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Text or JSON.
    pub format: LogFormat,
    /// Least important level that is told.
    pub level: Level,
    /// Whether progress is told.
    pub progress: bool,
}

/// Writes to standard error.
pub struct Log {
    options: LogOptions,
    /// Text lines begin with the time where nobody is watching.
    dated: bool,
    bars: MultiProgress,
    shown: Mutex<HashMap<(&'static str, String), Shown>>,
}

struct Shown {
    bar: Option<ProgressBar>,
    told: Instant,
}

impl Log {
    /// A log with these options.
    pub fn new(options: LogOptions) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let draw = terminal && options.progress && options.format == LogFormat::Text;
        let target = if draw { ProgressDrawTarget::stderr_with_hz(REDRAWS) } else { ProgressDrawTarget::hidden() };
        Self { options, dated: !terminal, bars: MultiProgress::with_draw_target(target), shown: Mutex::default() }
    }

    /// Tells an error: what failed, its causes, what to type next.
    pub fn failure(&self, failure: &Failure) {
        let chain = failure.error.chain();
        let hint = failure.hint_text();
        match self.options.format {
            LogFormat::Text => {
                let mut lines = vec![format!("error: {}", chain[0])];
                lines.extend(chain[1..].iter().map(|cause| format!("caused by: {cause}")));
                lines.extend(hint.map(|hint| format!("hint: {hint}")));
                self.lines(&lines.join("\n"));
            }
            LogFormat::Json => self.event(json!({
                "level": "error",
                "msg": chain[0],
                "kind": format!("{:?}", failure.error.kind()).to_ascii_lowercase(),
                "caused_by": chain[1..],
                "hint": hint,
            })),
        }
    }

    /// Writes a line as it is, at any level: a plan, a question.
    pub fn plain(&self, text: &str) {
        match self.options.format {
            LogFormat::Text => self.lines(text),
            LogFormat::Json => self.event(json!({ "level": "info", "msg": text })),
        }
    }

    fn event(&self, mut event: Value) {
        event["time"] = json!(format!("{:.0}", SystemClock.now()));
        self.lines(&event.to_string());
    }

    fn lines(&self, text: &str) {
        self.bars.suspend(|| {
            // Nobody is left to be told that standard error is closed.
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        });
    }

    fn draw(&self, progress: &Progress) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::new(progress.total_bytes.unwrap_or(0)));
        let counted = "{prefix:<28} {decimal_bytes:>10} {decimal_bytes_per_sec:>12} {elapsed:>5}";
        let template = if progress.total_bytes.is_some() {
            format!("{counted} {{wide_bar}} {{percent:>3}}%")
        } else {
            counted.to_owned()
        };
        bar.set_style(ProgressStyle::with_template(&template).expect("the template is valid"));
        bar.set_prefix(format!("{} {}", progress.action, progress.target));
        bar
    }
}

impl Events for Log {
    fn message(&self, level: Level, text: &str) {
        if level < self.options.level {
            return;
        }
        match (self.options.format, level) {
            (LogFormat::Json, level) => {
                let name = match level {
                    Level::Debug => "debug",
                    Level::Info => "info",
                    Level::Warning => "warning",
                };
                self.event(json!({ "level": name, "msg": text }));
            }
            (LogFormat::Text, Level::Debug | Level::Info) => {
                let time = if self.dated { format!("{:.0} ", SystemClock.now()) } else { String::new() };
                self.lines(&format!("{time}{text}"));
            }
            (LogFormat::Text, Level::Warning) => {
                let time = if self.dated { format!("{:.0} ", SystemClock.now()) } else { String::new() };
                self.lines(&format!("{time}warning: {text}"));
            }
        }
    }

    fn progress(&self, progress: &Progress) {
        if !self.options.progress {
            return;
        }
        let key = (progress.action, progress.target.clone());
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match self.options.format {
            LogFormat::Text => {
                let shown =
                    shown.entry(key).or_insert_with(|| Shown { bar: Some(self.draw(progress)), told: Instant::now() });
                if let Some(bar) = &shown.bar {
                    bar.set_position(progress.done_bytes);
                }
            }
            LogFormat::Json => {
                let now = Instant::now();
                if shown.get(&key).is_some_and(|shown| now.duration_since(shown.told) < EVENT_PERIOD) {
                    return;
                }
                shown.insert(key, Shown { bar: None, told: now });
                self.event(json!({
                    "level": "info",
                    "msg": format!("{} {}", progress.action, progress.target),
                    "event": "progress",
                    "action": progress.action,
                    "target": progress.target,
                    "done_bytes": progress.done_bytes,
                    "total_bytes": progress.total_bytes,
                }));
            }
        }
    }

    fn progress_done(&self, action: &'static str, target: &str) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Shown { bar: Some(bar), .. }) = shown.remove(&(action, target.to_owned())) {
            bar.finish_and_clear();
        }
    }
}
