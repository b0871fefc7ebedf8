//! Taking up what components hold, one by one, while services are stopped or not.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::known::Known;
use super::{CreatePlan, record};
use crate::component::{Component, DumpStream};
use crate::deployment::{ComponentInfo, ComponentKind, Inspection};
use crate::error::{Error, ErrorKind};
use crate::format::manifest::{ComponentRecord, ComponentStatus, Consistency, Layout, Sizes, Window};
use crate::ops::Context;
use crate::ops::artifacts::{self, Storing};
use crate::ops::census::Census;
use crate::ops::evidence::{Recorder, StepFacts};
use crate::ops::held::HeldDump;
use crate::ops::streams::{self, Stored};
use crate::provider::bucket::BucketAccess;
use crate::repository::Repository;
use crate::repository::session::WriteSession;

/// What every component needs.
#[derive(Clone, Copy)]
pub(super) struct Dumper<'a> {
    pub context: &'a Context,
    pub repository: &'a Arc<Repository>,
    pub plan: &'a CreatePlan,
    pub recorder: &'a Recorder,
}

/// A dump that has begun while services were stopped, and is read when they run again.
pub(super) struct Held<'a> {
    /// Its place among the components.
    pub at: usize,
    pub info: &'a ComponentInfo,
    pub inspection: &'a Inspection,
    /// When it began: what it shows is not older.
    pub began: Timestamp,
    /// When it was taken, where that is over although it was not read yet.
    pub taken: Option<Window>,
    pub consistency: Consistency,
    /// Why it did not begin, where it did not: that is told where the others that fail are.
    pub dump: Result<Box<dyn DumpStream>, Error>,
}

impl<'a> Dumper<'a> {
    /// Begins the dumps that show what is there when they begin: those of databases that are dumped while they run.
    pub async fn hold(
        self,
        streams: &'a [Box<dyn Component>],
        inspections: &'a [Inspection],
    ) -> Result<Vec<Held<'a>>, Error> {
        let mut held = Vec::new();
        for (at, (component, inspection)) in streams.iter().zip(inspections).enumerate() {
            let info = component.info();
            if info.kind != ComponentKind::Postgres || !info.stopped_for_dump.is_empty() {
                continue;
            }
            let began = self.context.clock().now();
            let begin = async {
                let dump: Box<dyn DumpStream> = Box::new(HeldDump::begin(component.dump().await?).await);
                Ok(dump)
            };
            let dump = self.context.cancel.or(begin).await?;
            held.push(Held { at, info, inspection, began, taken: None, consistency: Consistency::Online, dump });
        }
        Ok(held)
    }

    /// Reads dumps that have begun. Gives each record with its place among the components.
    pub async fn take(
        self,
        session: &WriteSession,
        held: Vec<Held<'_>>,
        known: &Known,
    ) -> Result<Vec<(usize, ComponentRecord)>, Error> {
        let mut records = Vec::new();
        for Held { at, info, inspection, began, taken, consistency, dump } in held {
            let record = match dump {
                Ok(dump) => self.stream(session, info, inspection, dump, consistency, known).await,
                Err(error) => Err(error),
            };
            let mut record = self.or_failed(info, consistency, record)?;
            record.window.start = record.window.start.min(began);
            record.window = taken.unwrap_or(record.window);
            records.push((at, record));
        }
        records.sort_by_key(|(at, _)| *at);
        Ok(records)
    }

    /// Stores a component's stream.
    pub async fn stream(
        self,
        session: &WriteSession,
        info: &ComponentInfo,
        inspection: &Inspection,
        dump: Box<dyn DumpStream>,
        consistency: Consistency,
        known: &Known,
    ) -> Result<ComponentRecord, Error> {
        let options = &self.plan.options;
        let start = self.context.clock().now();
        let step = self.recorder.begin(self.context, "dump", &info.name);
        self.context.info(format!("backing up `{}`", info.name));
        let earlier = known.records(info);
        let redacted = options.redact && info.kind == ComponentKind::Neo4j;
        // A redacted dump is another one than what was asked for its size.
        let total_bytes = inspection.size_bytes.filter(|_| !redacted);
        let expected = streams::Expected { total_bytes, redacted, earlier: &earlier };
        let stored =
            streams::store(self.context, session, &info.name, info.kind, options.allow_raw, expected, dump).await;
        let (stored, _) = self.recorder.end_with(self.context, step, stored, |(_, exit)| StepFacts::from(exit))?;
        if let Some(before) = known.logical_bytes(info)
            && !options.allow_shrink
            && stored.sizes.logical_bytes < before / 2
        {
            let text = format!(
                "the dump of component `{}` has {} bytes, less than half of the {before} of the last snapshot",
                info.name, stored.sizes.logical_bytes
            );
            return Err(Error::new(ErrorKind::Source, text));
        }
        let window = Window { start, end: self.context.clock().now() };
        Ok(record(info, stored, ComponentStatus::Complete, consistency, window, inspection))
    }

    /// Whether buckets among these answer: better told before anything is stopped.
    pub async fn check_buckets(self, folders: &[ComponentInfo]) -> Result<(), Error> {
        for info in folders.iter().filter(|info| info.folder.is_none() && !self.may_fail(info)) {
            artifacts::bucket::check(self.context, &info.name, self.bucket()).await?;
        }
        Ok(())
    }

    fn bucket(&self) -> &'a BucketAccess {
        self.plan.bucket().expect("a component in no folder is in the deployment's bucket")
    }

    /// Stores a component's files.
    pub async fn folder(
        self,
        session: &WriteSession,
        info: &ComponentInfo,
        consistency: Consistency,
        census: Option<&Census>,
    ) -> Result<ComponentRecord, Error> {
        let (start, run) = (self.context.clock().now(), self.recorder.run());
        let step = self.recorder.begin(self.context, "copy", &info.name);
        let Self { context, repository, .. } = self;
        let (deployment, component) = (self.plan.deployment.name.as_str(), info.name.as_str());
        let storing = Storing { context, repository, session, deployment, component, run, census };
        let stored = match &info.folder {
            Some(path) => {
                context.info(format!("backing up `{component}` from {}", path.display()));
                artifacts::store(storing, path).await
            }
            None => {
                context.info(format!("backing up `{component}` from {}", self.bucket()));
                artifacts::bucket::store(storing, self.bucket()).await
            }
        };
        let facts = |stored: &artifacts::FolderStored| {
            let sizes = &stored.stored.sizes;
            let numbers = [("files", sizes.files), ("files_unchanged", sizes.files_unchanged)];
            let mut numbers: BTreeMap<String, u64> =
                numbers.iter().filter_map(|(name, value)| Some(((*name).to_owned(), (*value)?))).collect();
            numbers.insert("bytes".to_owned(), sizes.logical_bytes);
            numbers.extend(stored.requests.iter().map(|(name, number)| ((*name).to_owned(), *number)));
            StepFacts { numbers, log: stored.problems.clone(), ..StepFacts::default() }
        };
        let mut found = self.recorder.end_with(self.context, step, stored, facts)?;
        let status = if found.problems.is_empty() { ComponentStatus::Complete } else { ComponentStatus::Partial };
        if status == ComponentStatus::Partial && !self.plan.options.allow_partial {
            let text = format!("component `{}` cannot be read whole", info.name);
            return Err(Error::with_source(ErrorKind::Source, text, found.problems.join("; ")));
        }
        found.stored.warnings.append(&mut found.problems);
        let window = Window { start, end: self.context.clock().now() };
        Ok(record(info, found.stored, status, consistency, window, &Inspection::default()))
    }

    fn may_fail(&self, info: &ComponentInfo) -> bool {
        let options = &self.plan.options;
        options.allow_partial || options.may_fail.contains(&info.name)
    }

    /// A component that failed fails the run, unless the snapshot may be partial.
    pub fn or_failed(
        self,
        info: &ComponentInfo,
        consistency: Consistency,
        result: Result<ComponentRecord, Error>,
    ) -> Result<ComponentRecord, Error> {
        let error = match result {
            Err(error) if self.may_fail(info) && error.kind() == ErrorKind::Source => error,
            other => return other,
        };
        let failure = error.chain().join(": ");
        self.context.warn(format!("`{}` failed and is not in this snapshot: {failure}", info.name));
        let now = self.context.clock().now();
        let stored =
            Stored { streams: vec![], layout: Layout::Plain, sizes: Sizes::default(), warnings: vec![failure.clone()] };
        let window = Window { start: now, end: now };
        let mut failed = record(info, stored, ComponentStatus::Failed, consistency, window, &Inspection::default());
        failed.failure = Some(failure);
        Ok(failed)
    }
}
