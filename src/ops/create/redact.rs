//! `create --redact`: the values of attributes are replaced in a copy of the graph, and only that copy is stored.
//!
//! Holds: the deployment is dumped once, as always, and changed in nothing. What it dumps goes through memory into what
//! redacts it, never into the repository and never into a file of this machine. The services wait for that dump alone: it is
//! redacted and read when they run again.

use std::collections::BTreeMap;

use super::Run;
use super::dumper::Held;
use crate::component::{Component, DumpStream, ExitOk, FilterStream};
use crate::deployment::{ComponentInfo, ComponentKind, Inspection};
use crate::error::{Error, ErrorKind};
use crate::format::manifest::{ComponentRecord, Consistency, REDACTED_TAG, Window};
use crate::ops::evidence::StepFacts;
use crate::ops::{Context, Progress};
use crate::state::JournalEntry;

/// Marks the snapshot.
pub(super) fn mark(tags: &mut BTreeMap<String, String>) -> Result<(), Error> {
    match tags.insert(REDACTED_TAG.to_owned(), "true".to_owned()) {
        Some(other) if other != "true" => {
            let text = format!("`--redact` sets the tag `{REDACTED_TAG}=true`, and `{other}` is given for it");
            Err(Error::new(ErrorKind::Usage, text))
        }
        Some(_) | None => Ok(()),
    }
}

/// Where nothing can be redacted.
pub(super) fn no_deployment() -> Error {
    let text = "`--redact` needs a deployment on Docker: what lies in files is stored as it is";
    Error::new(ErrorKind::Usage, text)
}

/// Refuses what cannot be redacted, before anything is stopped.
pub(super) fn check(streams: &[Box<dyn Component>]) -> Result<(), Error> {
    let mut graphs = streams.iter().filter(|component| component.info().kind == ComponentKind::Neo4j).peekable();
    if graphs.peek().is_none() {
        return Err(Error::new(ErrorKind::Usage, "`--redact` replaces values in the graph, and that is left out"));
    }
    for component in graphs {
        if let Err(reason) = component.redaction() {
            let text = format!("`{}` cannot be redacted: {reason}; nothing was touched", component.info().name);
            return Err(Error::new(ErrorKind::Incompatible, text));
        }
    }
    Ok(())
}

/// What will be done, for people.
pub(super) fn lines(components: &[ComponentInfo]) -> Vec<String> {
    let graphs = components.iter().filter(|info| info.kind == ComponentKind::Neo4j);
    let mut lines: Vec<String> = graphs
        .map(|info| {
            format!(
                "redact `{}`: load its dump into a scratch server without network, replace the values of attributes \
                 there, store what that one dumps; the database itself stays as it is",
                info.name
            )
        })
        .collect();
    lines.extend(components.iter().filter_map(|info| as_it_is(&info.name, info.kind.as_str())));
    lines
}

/// What is said of a component that may tell what was redacted in another.
fn as_it_is(name: &str, kind: &str) -> Option<String> {
    let what = match kind {
        "postgres" => "parameters and logs of its runs may hold values",
        "artifacts" => "its files may hold values",
        "opaque" => "what it holds is not known",
        _ => return None,
    };
    Some(format!("`{name}` is NOT redacted: {what}; to leave it out: --exclude {name}"))
}

/// Says of each component that is stored as it is that it is.
pub(super) fn warn(records: &mut [ComponentRecord]) {
    for record in records {
        let warning = as_it_is(&record.name, &record.kind);
        record.warnings.extend(warning);
    }
}

impl Run<'_> {
    /// Dumps a graph into what redacts it. What comes of that is read when the services run again.
    pub(super) async fn hold_redacted<'b>(
        &mut self,
        at: usize,
        component: &'b dyn Component,
        inspection: &'b Inspection,
        consistency: Consistency,
    ) -> Result<Held<'b>, Error> {
        let info = component.info();
        let began = self.context.clock().now();
        let step = self.recorder.begin(self.context, "redact", &info.name);
        self.context.info(format!("dumping `{}` into a scratch server", info.name));
        let dumped = match self.journal.note(JournalEntry::ToCopy { component: info.name.clone() }) {
            Ok(()) => pass_on(self.context, component).await,
            Err(error) => Err(error.into()),
        };
        self.context.events.progress_done("redact", &info.name);
        let (dump, _) = self.recorder.end_with(self.context, step, dumped, |(_, exit)| StepFacts::from(exit))?;
        let taken = Some(Window { start: began, end: self.context.clock().now() });
        Ok(Held { at, info, inspection, began, taken, consistency, dump: Ok(dump) })
    }
}

/// Dumps `component` into its redaction, and gives the dump that comes of it, and how the first one ended.
async fn pass_on(context: &Context, component: &dyn Component) -> Result<(Box<dyn DumpStream>, ExitOk), Error> {
    let redaction = component.redaction().map_err(|reason| Error::new(ErrorKind::Incompatible, reason))?;
    // The scratch server first: what cannot be made costs no dump.
    let mut filter = context.cancel.or(redaction.start()).await??;
    let mut dump = match context.cancel.or(component.dump()).await {
        Ok(Ok(dump)) => dump,
        Ok(Err(error)) => return Err(given_up(filter, error.into()).await),
        Err(cancelled) => return Err(given_up(filter, cancelled).await),
    };
    if let Err(error) = pump(context, &component.info().name, &mut *dump, &mut *filter).await {
        dump.abort().await;
        return Err(given_up(filter, error).await);
    }
    match dump.finish().await {
        Ok(exit) => Ok((filter.end_input().await, exit)),
        // What it got may look whole: it must not become a dump.
        Err(error) => Err(given_up(filter, error.into()).await),
    }
}

async fn given_up(filter: Box<dyn FilterStream>, error: Error) -> Error {
    filter.abort().await;
    error
}

async fn pump(
    context: &Context,
    name: &str,
    dump: &mut dyn DumpStream,
    filter: &mut dyn FilterStream,
) -> Result<(), Error> {
    let mut done_bytes = 0;
    while let Some(piece) = context.cancel.or(dump.next()).await?? {
        done_bytes += piece.len() as u64;
        context.cancel.or(filter.write(piece)).await??;
        let target = name.to_owned();
        context.events.progress(&Progress { action: "redact", target, done_bytes, total_bytes: None });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_says_otherwise_is_refused() {
        let tags = |value: &str| BTreeMap::from([("redacted".to_owned(), value.to_owned())]);
        let mut given = tags("true");
        mark(&mut given).unwrap();
        assert_eq!(given, tags("true"));
        assert_eq!(mark(&mut tags("false")).unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn what_is_stored_as_it_is_is_named_with_how_to_leave_it_out() {
        let info = |name: &str, kind| ComponentInfo {
            name: name.to_owned(),
            kind,
            service: None,
            stopped_for_dump: vec![],
            stopped_for_load: vec![],
            folder: None,
        };
        let infos = [
            info("graph", ComponentKind::Neo4j),
            info("runs", ComponentKind::Postgres),
            info("files", ComponentKind::Artifacts),
        ];
        let lines = lines(&infos);
        assert!(lines[0].starts_with("redact `graph`") && lines[0].ends_with("the database itself stays as it is"));
        assert!(lines[1].contains("`runs` is NOT redacted") && lines[1].ends_with("--exclude runs"));
        assert!(lines[2].contains("`files` is NOT redacted") && lines[2].ends_with("--exclude files"));
    }
}
