//! `restore`: check everything, show the plan, then break and mend.
//!
//! `neo4j-admin database load` destroys the old store before it looks at what it gets. So nothing reaches a load command
//! before every byte that it will get was read, opened and hashed once (`fast`: before every chunk was found listed).
//!
//! Order: lock, finish what a killed run left, check, plan | safety snapshot, journal, stop, folders, databases, start, wait,
//! compare counts, report. Whatever fails, what ran before is started again.

mod compare;
mod deployment_id;
mod fit;
mod migrate;
mod online;
mod to_folder;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use self::deployment_id::only_graph;
pub use self::deployment_id::{ResetId, told};
use self::to_folder::{file_name, free_folder};
use super::artifacts::put_back;
use super::census::{self, StorageCheck};
use super::clear::clear;
use super::create::choose;
use super::evidence::{Recorder, StepFacts};
use super::pause::{Paused, first_error, left_open, without_panic};
use super::safety::Safety;
use super::source_check::check_record;
use super::streams::Output;
use super::trees::restore_tree;
use super::{Context, Progress, dump, resume};
use crate::component::artifact_store::restore::Overwrite;
use crate::component::neo4j::Metadata;
use crate::component::{self, Component, OnlineRestore};
use crate::deployment::{ComponentInfo, ComponentKind};
use crate::error::{Error, ErrorKind};
use crate::format::manifest::{ComponentRecord, ComponentStatus};
use crate::format::report::Outcome;
use crate::id::{ObjectId, SnapshotId};
use crate::provider::{Provider, Reach};
use crate::repository::Repository;
use crate::repository::chunks::ChunkReader;
use crate::repository::snapshots::Snapshot;
use crate::state::{DeploymentLock, Journal, JournalEntry};

/// Flags, for errors.
const RESET: &str = "--reset-deployment-id";
const MIGRATE: &str = "--migrate-format";

/// What is told of a redacted snapshot before anybody agrees.
const REDACTED: &str = "the graph in it is REDACTED: the values of attributes are random texts there, and what they were is lost to whoever has this snapshot alone";

/// Where to restore to.
#[derive(Clone)]
pub enum Target {
    /// A deployment.
    Deployment(Reach),
    /// A folder that gets one file or folder for each component.
    Folder(PathBuf),
}

/// How to restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Only these components; empty: all.
    pub components: Vec<String>,
    /// Not these.
    pub exclude: Vec<String>,
    /// Only see that everything is listed; do not read it all first.
    pub fast: bool,
    /// Do not back up the running target first.
    pub no_safety_snapshot: bool,
    /// Go on although version or edition do not fit.
    pub force: bool,
    /// Give the deployment a new id: that of the snapshot may still be in use elsewhere.
    pub reset_deployment_id: bool,
    /// Bring the store of the graph into the block format of Neo4j Enterprise.
    pub migrate_format: bool,
    /// How long to wait for another operation on the same deployment.
    pub wait: Option<Duration>,
}

/// What will be restored; everything was checked.
pub struct RestorePlan {
    snapshot: Snapshot,
    records: Vec<ComponentRecord>,
    into: Into,
    lines: Vec<String>,
    options: RestoreOptions,
}

enum Into {
    Deployment(Box<IntoDeployment>),
    Folder(PathBuf),
}

struct IntoDeployment {
    reach: Reach,
    provider: Arc<dyn Provider>,
    streams: Vec<Box<dyn Component>>,
    folders: Vec<ComponentInfo>,
    stops: Vec<String>,
    safety: Safety,
    /// The component that holds the deployment's id, where that will be reset, and how the plan tells it.
    reset_id: Option<(String, String)>,
    /// The same where its store will be migrated.
    migrate: Option<(String, String)>,
    lock: DeploymentLock,
}

/// What was restored of one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredComponent {
    /// Its name.
    pub name: String,
    /// Bytes that were written.
    pub bytes: u64,
    /// Files, where it is a folder.
    pub files: Option<u64>,
    /// Whether what is counted now is what was counted then; `None` if nothing was counted.
    pub counts_match: Option<bool>,
    /// What should be looked at.
    pub notes: Vec<String>,
    /// What of it was not restored, although the rest was and runs.
    pub problems: Vec<String>,
}

impl RestoredComponent {
    /// Whether it is not, or may not be, what was backed up.
    pub fn is_incomplete(&self) -> bool {
        self.counts_match == Some(false) || !self.problems.is_empty()
    }
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// The evidence, where the repository could keep it.
    pub report: Option<ObjectId>,
    /// Each component.
    pub components: Vec<RestoredComponent>,
    /// The id that the deployment had and has, where it was given a new one.
    pub deployment_id: Option<ResetId>,
    /// The snapshot that was made of the target before.
    pub safety_snapshot: Option<SnapshotId>,
    /// What the graph names in the artifact store beside what is there, where both could be asked.
    pub storage_ids: Option<StorageCheck>,
}

impl RestorePlan {
    /// What will be done, for people and for the report.
    pub fn lines(&self) -> Vec<String> {
        self.lines.clone()
    }

    /// The files that will be written, each with the component that will be in it.
    pub(super) fn files(&self) -> Vec<(ComponentRecord, PathBuf)> {
        let Into::Folder(folder) = &self.into else { return vec![] };
        self.records.iter().map(|record| (record.clone(), folder.join(file_name(record)))).collect()
    }

    /// Whether anything that is there now will be gone.
    pub fn destroys(&self) -> bool {
        matches!(self.into, Into::Deployment(_))
    }
}

/// Chooses and checks everything. Touches nothing, except that it finishes what a killed run left stopped.
pub async fn plan(
    context: &Context,
    repository: &Arc<Repository>,
    snapshot: Snapshot,
    target: Target,
    options: RestoreOptions,
) -> Result<RestorePlan, Error> {
    plan_within(context, repository, snapshot, target, options, None).await
}

/// The same; the check of each component is a step of `within`, where another operation restores.
pub(super) async fn plan_within(
    context: &Context,
    repository: &Arc<Repository>,
    snapshot: Snapshot,
    target: Target,
    options: RestoreOptions,
    within: Option<&Recorder>,
) -> Result<RestorePlan, Error> {
    repository.keys().check_reads_content().map_err(|source| Error::from(repository.unsupported(source)))?;
    let records = chosen(&snapshot, &options)?;
    for (_, flag) in
        [(options.reset_deployment_id, RESET), (options.migrate_format, MIGRATE)].iter().filter(|(on, _)| *on)
    {
        only_graph(&records, flag)?;
        if matches!(target, Target::Folder(_)) {
            let text = format!("`{flag}` changes a deployment, and files are written");
            return Err(Error::new(ErrorKind::Usage, text));
        }
    }
    let mut into = match target {
        Target::Folder(folder) => Into::Folder(free_folder(&folder, &records)?),
        Target::Deployment(reach) => {
            Into::Deployment(Box::new(IntoDeployment::open(context, reach, &records, &options).await?))
        }
    };
    let mut lines = vec![format!(
        "restore snapshot {} of `{}`, made {}",
        snapshot.id.short(),
        snapshot.manifest.deployment,
        snapshot.manifest.created_at
    )];
    if snapshot.manifest.is_redacted() && records.iter().any(|record| record.kind == ComponentKind::Neo4j.as_str()) {
        lines.push(REDACTED.to_owned());
    }
    if let Into::Deployment(into) = &mut into {
        into.check_versions(context, &records, &options, &mut lines).await?;
    }
    let reader = Arc::new(ChunkReader::new(Arc::clone(repository), Arc::clone(&context.executor)));
    for record in &records {
        let step = within.map(|recorder| (recorder, recorder.begin(context, "check", &record.name)));
        let checked = check_record(context, repository, &reader, record, options.fast).await;
        match step {
            Some((recorder, step)) => recorder.end(context, step, checked)?,
            None => checked?,
        }
        let how = if options.fast { "is listed" } else { "was read and hashed" };
        lines.push(format!("`{}`: {} bytes, all of it {how}", record.name, record.sizes.logical_bytes));
    }
    match &into {
        Into::Folder(folder) => lines.push(format!("write into {}, which holds none of it yet", folder.display())),
        Into::Deployment(into) => {
            for target in into.buckets(context, &reader, &records) {
                target.check(repository).await?;
            }
            lines.extend(into.lines(&records, &options));
        }
    }
    Ok(RestorePlan { snapshot, records, into, lines, options })
}

fn chosen(snapshot: &Snapshot, options: &RestoreOptions) -> Result<Vec<ComponentRecord>, Error> {
    let all = &snapshot.manifest.components;
    for name in options.components.iter().chain(&options.exclude) {
        dump::find(snapshot, name)?;
    }
    let wanted = |name: &String| {
        (options.components.is_empty() || options.components.contains(name)) && !options.exclude.contains(name)
    };
    let names: Vec<&String> = all.iter().map(|component| &component.name).filter(|name| wanted(name)).collect();
    if names.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "no component is left"));
    }
    names.into_iter().map(|name| dump::find(snapshot, name).cloned()).collect()
}

impl IntoDeployment {
    async fn open(
        context: &Context,
        reach: Reach,
        records: &[ComponentRecord],
        options: &RestoreOptions,
    ) -> Result<Self, Error> {
        let provider = reach.provider();
        let lock = resume::lock(context, &provider.deployment().name, options.wait).await?;
        resume::finish_open(context, &lock, resume::HalfReplaced::Accept).await?;
        resume::tidy(context, &*provider).await?;
        let mut deployment = provider.deployment().clone();
        let names: Vec<String> = records.iter().map(|record| record.name.clone()).collect();
        choose(&mut deployment, &names, &[])?;
        for record in records {
            let component = deployment.components.iter().find(|component| component.name == record.name);
            let kind = component.expect("chosen above").kind.as_str();
            if kind != record.kind {
                let text = format!("`{}` is `{}` in the snapshot and `{kind}` in the target", record.name, record.kind);
                return Err(Error::new(ErrorKind::Incompatible, text));
            }
        }
        let wanted = |name: &str| names.iter().any(|wanted| wanted == name);
        let opening = component::open(&reach, &context.outside.entropy, &wanted, Metadata::default());
        let opened = context.cancel.or(opening).await??;
        let infos: Vec<ComponentInfo> =
            opened.streams.iter().map(|component| component.info().clone()).chain(opened.folders.clone()).collect();
        let (streams, folders, safety) = (opened.streams, opened.folders, Safety::default());
        let stops = vec![];
        let mut into = Self { reach, provider, streams, folders, stops, safety, reset_id: None, migrate: None, lock };
        // Behind the components: one may know better than its image whether its server runs on.
        let stopped = |service: &&String| infos.iter().any(|info| into.stopped_for(info, records).contains(service));
        into.stops = deployment.services.iter().filter(stopped).cloned().collect();
        into.check_loads(context, records, options).await?;
        if options.reset_deployment_id {
            let graph = only_graph(records, RESET)?;
            let line = deployment_id::check(&*into.provider, into.stream(graph)).await?;
            into.reset_id = Some((graph.to_owned(), line));
        }
        if options.migrate_format {
            let graph = only_graph(records, MIGRATE)?;
            into.migrate = Some((graph.to_owned(), migrate::check(into.stream(graph))?));
        }
        Ok(into)
    }

    /// An opened component whose content is a stream.
    fn stream(&self, name: &str) -> &dyn Component {
        let found = self.streams.iter().find(|component| component.info().name == name);
        &**found.expect("opened for a record")
    }

    fn lines(&self, records: &[ComponentRecord], options: &RestoreOptions) -> Vec<String> {
        let mut lines =
            vec![format!("into deployment `{}` ({})", self.reach.deployment().name, self.reach.deployment().evidence)];
        if options.no_safety_snapshot {
            lines.push("do NOT back up what is there now first".to_owned());
        } else {
            lines.extend(self.safety.lines());
        }
        if !self.stops.is_empty() {
            lines.push(format!("stop {}", self.stops.join(", ")));
        }
        for record in records {
            lines.push(format!("DESTROY what is in `{}` now and put the snapshot's in its place", record.name));
        }
        lines.extend(self.online_lines(records));
        lines.extend(self.migrate.iter().chain(&self.reset_id).map(|(_, line)| line.clone()));
        if !self.stops.is_empty() {
            lines.push("start again what ran before, wait until it serves, compare counts".to_owned());
        }
        lines
    }

    /// The components whose files go into the deployment's bucket.
    fn buckets<'a>(
        &'a self,
        context: &'a Context,
        reader: &'a Arc<ChunkReader>,
        records: &'a [ComponentRecord],
    ) -> impl Iterator<Item = put_back::Target<'a>> {
        let is_in_bucket = |record: &&ComponentRecord| {
            self.folders.iter().any(|info| info.name == record.name && info.folder.is_none())
        };
        let records = records.iter().filter(is_in_bucket);
        records.filter_map(|record| Some(put_back::Target { context, reader, record, access: self.reach.bucket()? }))
    }
}

/// Restores.
pub async fn execute(context: &Context, repository: &Arc<Repository>, plan: RestorePlan) -> Result<Restored, Error> {
    let RestorePlan { snapshot, records, into, lines, options } = plan;
    let deployment = match &into {
        Into::Deployment(into) => into.provider.deployment().name.clone(),
        Into::Folder(_) => snapshot.manifest.deployment.clone(),
    };
    let safety_snapshot = match &into {
        Into::Deployment(into) if !options.no_safety_snapshot => {
            into.safety.make(context, repository, into.reach.clone(), &into.lock, &snapshot.id).await?
        }
        Into::Deployment(_) | Into::Folder(_) => None,
    };
    let recorder = Recorder::new(context, "restore", Some(&deployment), lines);
    recorder.snapshot(snapshot.id);
    let result = Run::new(context, repository, &recorder, "restore").all(into, &records).await;
    let outcome = match &result {
        Ok(done) if done.components.iter().any(RestoredComponent::is_incomplete) => Outcome::Incomplete,
        Ok(_) => Outcome::Done,
        Err(_) => Outcome::Failed,
    };
    // A read-only repository is restored from all the same.
    let report = recorder.finish(context, repository, outcome, result.as_ref().err()).await;
    let InDeployment { components, deployment_id, storage_ids } = result?;
    Ok(Restored { report, components, deployment_id, safety_snapshot, storage_ids })
}

/// Restores as steps of another operation, which `operation` names. Backs up nothing of what is there.
pub(super) async fn execute_within(
    context: &Context,
    repository: &Arc<Repository>,
    plan: RestorePlan,
    recorder: &Recorder,
    operation: &'static str,
) -> Result<Vec<RestoredComponent>, Error> {
    let RestorePlan { records, into, .. } = plan;
    Ok(Run::new(context, repository, recorder, operation).all(into, &records).await?.components)
}

/// Writes all components of a snapshot that were backed up into files below `folder`, as steps of another operation. Gives
/// what was written, and where.
pub(super) async fn into_folder(
    context: &Context,
    repository: &Arc<Repository>,
    recorder: &Recorder,
    snapshot: &Snapshot,
    folder: &Path,
) -> Result<Vec<(ComponentRecord, PathBuf, RestoredComponent)>, Error> {
    let there = |record: &&ComponentRecord| record.status != ComponentStatus::Failed;
    let records: Vec<ComponentRecord> = snapshot.manifest.components.iter().filter(there).cloned().collect();
    let folder = free_folder(folder, &records)?;
    let restored = Run::new(context, repository, recorder, "restore").to_folder(&folder, &records).await?;
    let paths = records.iter().map(|record| folder.join(file_name(record))).collect::<Vec<_>>();
    Ok(records.into_iter().zip(paths).zip(restored).map(|((record, path), done)| (record, path, done)).collect())
}

/// What became of a restore.
#[derive(Default)]
struct InDeployment {
    components: Vec<RestoredComponent>,
    deployment_id: Option<ResetId>,
    storage_ids: Option<StorageCheck>,
}

struct Run<'a> {
    context: &'a Context,
    repository: &'a Repository,
    reader: Arc<ChunkReader>,
    recorder: &'a Recorder,
    /// What the journal calls it.
    operation: &'static str,
    replacing: std::sync::atomic::AtomicBool,
}

impl<'a> Run<'a> {
    fn new(
        context: &'a Context,
        repository: &'a Arc<Repository>,
        recorder: &'a Recorder,
        operation: &'static str,
    ) -> Self {
        let reader = Arc::new(ChunkReader::new(Arc::clone(repository), Arc::clone(&context.executor)));
        Self { context, repository, reader, recorder, operation, replacing: false.into() }
    }

    async fn all(&self, into: Into, records: &[ComponentRecord]) -> Result<InDeployment, Error> {
        match into {
            Into::Folder(folder) => {
                let components = self.to_folder(&folder, records).await?;
                Ok(InDeployment { components, ..InDeployment::default() })
            }
            Into::Deployment(into) => self.to_deployment(*into, records).await,
        }
    }
}

impl Run<'_> {
    fn progress(&self, record: &ComponentRecord, done_bytes: u64) {
        let (target, total_bytes) = (record.name.clone(), Some(record.sizes.logical_bytes));
        self.context.events.progress(&Progress { action: "restore", target, done_bytes, total_bytes });
    }

    async fn tree(
        &self,
        record: &ComponentRecord,
        path: &Path,
        overwrite: Overwrite,
    ) -> Result<RestoredComponent, Error> {
        let summary = restore_tree(self.context, &self.reader, record, path, overwrite).await?;
        let mut notes = Vec::new();
        if summary.owners_not_set > 0 {
            notes.push(format!("{} entries belong to another owner than before", summary.owners_not_set));
        }
        if summary.special_bits_not_set > 0 {
            notes.push(format!("{} entries lack their set-id bits", summary.special_bits_not_set));
        }
        if let Some(old) = &summary.old_kept {
            notes.push(format!("what was there before is left in {}", old.display()));
        }
        let (name, files, problems) = (record.name.clone(), Some(summary.files), vec![]);
        Ok(RestoredComponent { name, bytes: summary.bytes, files, counts_match: None, notes, problems })
    }

    async fn to_deployment(&self, into: IntoDeployment, records: &[ComponentRecord]) -> Result<InDeployment, Error> {
        let deployment = into.provider.deployment().name.clone();
        let mut journal = Journal::begin(&into.lock, self.operation, self.recorder.run(), Some(into.reach.way()))?;
        let mut paused = Paused::for_load(Arc::clone(&into.provider));
        let mut done = Vec::new();
        let loaded = without_panic(self.load_all(&into, records, &mut paused, &mut journal, &mut done)).await;
        let reset = without_panic(self.reset_id(&into, &mut paused, &mut journal, &done)).await;
        let started = paused.start(self.context, self.recorder, &mut journal).await;
        let not_running = !paused.all_run();
        let result = first_error(self.context, loaded, started);
        let (result, reset_id) = match (result, reset) {
            (result, Ok(reset_id)) => (result, reset_id),
            (result, Err(error)) => (first_error(self.context, result, Err(error)), None),
        };
        if let Err(error) = result {
            if not_running {
                return Err(left_open(&deployment, error));
            }
            // With a component half replaced, the journal stays: no `create` may take that for the deployment.
            if !self.half_replaced() {
                let closed = journal.close().map_err(Error::from);
                closed.unwrap_or_else(|error| self.context.warn(error.chain().join(": ")));
            }
            let names: Vec<&str> = done.iter().map(|component: &RestoredComponent| component.name.as_str()).collect();
            let told = match names[..] {
                [] => "no component was replaced as a whole".to_owned(),
                _ if names.len() == records.len() => format!("replaced: {}, which is all", names.join(", ")),
                _ => format!("replaced: {}; the others were not, or only in part", names.join(", ")),
            };
            return Err(error.context(format!("the restore into `{deployment}` did not end well; {told}")));
        }
        journal.close()?;
        self.compare(&into, records, &mut done).await?;
        let restored = !into.folders.is_empty();
        let storage_ids =
            census::after_restore(self.context, self.recorder, &into.reach, &into.streams, restored).await;
        Ok(InDeployment { components: done, deployment_id: reset_id, storage_ids })
    }

    /// Gives the deployment a new id if that was asked for and its graph was replaced, whatever became of other components.
    async fn reset_id(
        &self,
        into: &IntoDeployment,
        paused: &mut Paused,
        journal: &mut Journal,
        done: &[RestoredComponent],
    ) -> Result<Option<ResetId>, Error> {
        let Some((graph, _)) = &into.reset_id else { return Ok(None) };
        if !done.iter().any(|restored| restored.name == *graph) {
            return Ok(None);
        }
        deployment_id::reset(self.context, self.recorder, journal, paused, into.stream(graph)).await.map(Some)
    }

    async fn load_all(
        &self,
        into: &IntoDeployment,
        records: &[ComponentRecord],
        paused: &mut Paused,
        journal: &mut Journal,
        done: &mut Vec<RestoredComponent>,
    ) -> Result<(), Error> {
        journal.note(JournalEntry::Phase { name: "stop".to_owned() })?;
        paused.stop(self.context, self.recorder, journal, &into.stops).await?;
        journal.note(JournalEntry::Phase { name: "load".to_owned() })?;
        let record = |name: &str| records.iter().find(|record| record.name == name).expect("opened for a record");
        // What databases refer to is there before they are.
        for (info, path) in into.folders.iter().filter_map(|info| Some((info, info.folder.as_ref()?))) {
            self.context.info(format!("restoring `{}`", info.name));
            let step = self.recorder.begin(self.context, "copy", &info.name);
            let result = self.tree(record(&info.name), path, Overwrite::Replace).await;
            done.push(self.recorder.end_with(self.context, step, result, facts)?);
        }
        for target in into.buckets(self.context, &self.reader, records) {
            let name = &target.record.name;
            self.context.info(format!("restoring `{name}` into {}", target.access));
            let step = self.recorder.begin(self.context, "copy", name);
            let result = target.put_back(self.repository).await;
            done.push(self.recorder.end_with(self.context, step, result, facts)?);
        }
        if into.streams.is_empty() {
            return Ok(());
        }
        if let Some((component, _)) = &into.reset_id {
            journal.note(JournalEntry::ToResetId { component: component.clone() })?;
        }
        journal.note(JournalEntry::ToClear { services: into.stops.clone() })?;
        let before = done.len();
        let loaded = self.load_streams(into, records, journal, done).await;
        if done.len() == before {
            return loaded;
        }
        let cleared = clear(self.context, self.recorder, journal, &*into.provider, &into.stops).await;
        first_error(self.context, loaded, cleared)
    }

    async fn load_streams(
        &self,
        into: &IntoDeployment,
        records: &[ComponentRecord],
        journal: &mut Journal,
        done: &mut Vec<RestoredComponent>,
    ) -> Result<(), Error> {
        let record = |name: &str| records.iter().find(|record| record.name == name).expect("opened for a record");
        for component in &into.streams {
            let name = &component.info().name;
            self.context.info(format!("restoring `{name}`"));
            let step = self.recorder.begin(self.context, "load", name);
            let online = online::of(&**component, record(name));
            // A load command may destroy first and look then; PostgreSQL is loaded beside what is there.
            if online.is_none() && component.info().kind != ComponentKind::Postgres {
                self.note_replacing(name, journal)?;
            }
            let mut result = self.load(&**component, online, record(name), journal).await;
            if let (Ok(_), Some(_)) = (&result, into.migrate.as_ref().filter(|(graph, _)| graph == name)) {
                let migrated = migrate::migrate(self.context, self.recorder, &**component).await;
                result = result.and_then(|done| migrated.map(|()| done));
            }
            if let (Ok((restored, _)), Some(online)) = (&mut result, online) {
                match online::serve(self.context, self.recorder, name, online).await {
                    Ok(problems) => restored.problems.extend(problems),
                    Err(error) => result = Err(error),
                }
            }
            if result.is_ok() {
                self.replacing.store(false, Ordering::Relaxed);
                journal.note(JournalEntry::Replaced { component: name.clone() })?;
            }
            let (restored, _) =
                self.recorder.end_with(self.context, step, result, |(_, exit)| StepFacts::from(exit))?;
            done.push(restored);
        }
        Ok(())
    }

    /// From here on what is there of a component may be half of something.
    fn note_replacing(&self, name: &str, journal: &mut Journal) -> Result<(), Error> {
        journal.note(JournalEntry::Replacing { component: name.to_owned() })?;
        self.replacing.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a component was being replaced when the load ended.
    fn half_replaced(&self) -> bool {
        self.replacing.load(Ordering::Relaxed)
    }

    async fn load(
        &self,
        component: &dyn Component,
        online: Option<&dyn OnlineRestore>,
        record: &ComponentRecord,
        journal: &mut Journal,
    ) -> Result<(RestoredComponent, crate::component::ExitOk), Error> {
        let mut output = Output::open_for_load(&self.reader, record)?;
        let mut load = match online {
            None => component.load().await?,
            Some(online) => {
                journal.note(JournalEntry::Inside { service: online.service().to_owned() })?;
                online.load().await?
            }
        };
        let fed = async {
            let mut bytes = 0;
            while let Some(piece) = self.context.cancel.or(output.next()).await?? {
                bytes += piece.len() as u64;
                self.context.cancel.or(load.write(piece)).await??;
                self.progress(record, bytes);
            }
            Ok::<u64, Error>(bytes)
        };
        let fed = fed.await;
        self.context.events.progress_done("restore", &record.name);
        // What a running server takes is touched behind the last byte only.
        let noted =
            fed.and_then(|bytes| online.map_or(Ok(()), |_| self.note_replacing(&record.name, journal)).map(|()| bytes));
        match noted {
            Ok(bytes) => {
                let exit = load.finish().await?;
                let (name, notes, problems) = (record.name.clone(), vec![], vec![]);
                Ok((RestoredComponent { name, bytes, files: None, counts_match: None, notes, problems }, exit))
            }
            Err(error) => {
                load.abort().await;
                Err(error)
            }
        }
    }
}

fn facts(restored: &RestoredComponent) -> StepFacts {
    let mut numbers = BTreeMap::from([("bytes".to_owned(), restored.bytes)]);
    numbers.extend(restored.files.map(|files| ("files".to_owned(), files)));
    StepFacts { numbers, log: restored.notes.clone(), ..StepFacts::default() }
}
