//! `create`: one snapshot of a deployment.
//!
//! Order: finish what a killed run left; wait for tasks; ask the components while they run; stop what must be stopped; dump;
//! start again as soon as the last dump that needs it has ended well, and read meanwhile what has only begun; copy folders; ask
//! again; make packs, index and manifest durable, in that order. A component that fails fails the run, and no snapshot is made
//! (`allow_partial` keeps the others).

mod asking;
mod dumper;
mod known;
mod redact;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::dumper::Dumper;
use self::known::Known;
use super::census::{self, StorageCheck};
use super::evidence::{Recorder, StepFacts};
pub use super::files::{BroughtSource, FilesSource};
pub use super::import::ArchiveSource;
use super::pause::{Paused, first_error, left_open, without_panic};
use super::streams::Stored;
use super::{Context, TOOL, resume, tasks};
use crate::component::Component;
use crate::component::files::FileDump;
pub use crate::component::neo4j::Metadata;
use crate::deployment::{ComponentInfo, ComponentKind, Deployment, Inspection};
use crate::error::{Error, ErrorKind};
use crate::format::manifest::{ComponentRecord, ComponentStatus, Consistency, Manifest, REDACTED_TAG, Window};
use crate::format::report::Outcome;
use crate::id::{ObjectId, SnapshotId};
use crate::provider::bucket::BucketAccess;
use crate::provider::{Provider, Reach};
use crate::repository::Repository;
use crate::repository::budget::{BUDGET_BYTES_DEFAULT, Budget};
use crate::repository::confirm;
use crate::repository::lease::RunLease;
use crate::repository::pack_writer::Stage;
use crate::repository::session::{SessionOptions, WriteSession};
use crate::state::{DeploymentLock, Journal, JournalEntry};

/// What to back up.
#[derive(Clone)]
pub enum Source {
    /// A deployment that this configuration file describes.
    Bespoke(PathBuf),
    /// A deployment that is reached already.
    Reached(Reach),
    /// Files and standard input.
    Files(FilesSource),
    /// Components that the caller brings.
    Brought(BroughtSource),
    /// An archive of the predecessor.
    Archive(ArchiveSource),
}

/// How to back up.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// Only these components; empty: all.
    pub components: Vec<String>,
    /// Not these.
    pub exclude: Vec<String>,
    /// Marks of the user's.
    pub tags: BTreeMap<String, String>,
    /// Make a snapshot of what works when a component does not.
    pub allow_partial: bool,
    /// The same for these components only.
    pub may_fail: Vec<String>,
    /// Store a dump that is not in the format of its kind as it is.
    pub allow_raw: bool,
    /// Accept a dump of less than half of the last one's size.
    pub allow_shrink: bool,
    /// Rely only on what indexes describe that this key slot wrote.
    pub dedup_own: bool,
    /// Where sealed packs wait when the store is slow.
    pub stage: Option<Stage>,
    /// How long to wait for another operation on the same deployment.
    pub wait: Option<Duration>,
    /// Replace the values of attributes in the graph that is stored, not in the one that runs.
    pub redact: bool,
    /// How long to wait for tasks that stopping services would interrupt, or that a backup would show half done; `None`: not.
    pub wait_for_tasks: Option<Duration>,
    /// Which users and roles a backup of Neo4j Enterprise takes along; `None`: all, and nobody asked for it.
    pub neo4j_metadata: Option<Metadata>,
}

/// What will be backed up.
pub struct CreatePlan {
    /// The deployment, with the components that were chosen.
    pub deployment: Deployment,
    origin: Origin,
    options: CreateOptions,
}

enum Origin {
    Reached(Reach),
    Files(FilesSource),
    Brought(BroughtSource),
    Archive(ArchiveSource),
}

/// A snapshot that was made.
#[derive(Debug)]
pub struct Created {
    /// Its name.
    pub id: SnapshotId,
    /// What it holds.
    pub manifest: Manifest,
    /// Bytes that the repository grew by, metadata included, without report.
    pub stored_bytes: u64,
    /// The evidence.
    pub report: Option<ObjectId>,
    /// What should be looked at.
    pub warnings: Vec<String>,
    /// What the graph names in the artifact store beside what is there, where both were read.
    pub storage_ids: Option<StorageCheck>,
}

/// Chooses what is backed up. Reads the configuration, reaches nothing.
pub async fn plan(_context: &Context, source: Source, mut options: CreateOptions) -> Result<CreatePlan, Error> {
    let (mut deployment, origin) = match source {
        Source::Files(files) => (files.deployment()?, Origin::Files(files)),
        Source::Brought(brought) => (brought.deployment(), Origin::Brought(brought)),
        Source::Archive(archive) => {
            for (tag, value) in archive.tags() {
                options.tags.entry(tag).or_insert(value);
            }
            (archive.deployment(), Origin::Archive(archive))
        }
        Source::Bespoke(path) => reached(resume::reach_by_config(&path)?),
        Source::Reached(reach) => reached(reach),
    };
    if options.redact {
        if !matches!(origin, Origin::Reached(_)) {
            return Err(redact::no_deployment());
        }
        redact::mark(&mut options.tags)?;
    }
    choose(&mut deployment, &options.components, &options.exclude)?;
    Ok(CreatePlan { deployment, origin, options })
}

fn reached(reach: Reach) -> (Deployment, Origin) {
    (reach.deployment().clone(), Origin::Reached(reach))
}

/// Leaves the wanted components; refuses names that are none.
pub(super) fn choose(deployment: &mut Deployment, only: &[String], exclude: &[String]) -> Result<(), Error> {
    let known: Vec<String> = deployment.components.iter().map(|component| component.name.clone()).collect();
    if let Some(unknown) = only.iter().chain(exclude).find(|name| !known.contains(name)) {
        let text = format!("`{}` has no component `{unknown}`, only {}", deployment.name, known.join(", "));
        return Err(Error::new(ErrorKind::Usage, text));
    }
    let wanted = |name: &String| (only.is_empty() || only.contains(name)) && !exclude.contains(name);
    deployment.components.retain(|component| wanted(&component.name));
    if deployment.components.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "no component is left"));
    }
    Ok(())
}

impl CreatePlan {
    /// What will be done, for people and for the report.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("deployment `{}` ({})", self.deployment.name, self.deployment.evidence)];
        let stops = self.stops(&self.deployment.components);
        if let Some(limit) = self.waits_for_tasks(&self.deployment.components) {
            lines.push(format!("wait until no task runs, for at most {} s", limit.as_secs()));
        }
        if !stops.is_empty() {
            lines.push(format!("stop {} while the databases are dumped, if running", stops.join(", ")));
        }
        for component in &self.deployment.components {
            let folder = component.folder.as_ref().map(|path| format!(" from {}", path.display()));
            let bucket = self.bucket().filter(|_| component.kind == ComponentKind::Artifacts);
            let from = folder.or_else(|| Some(format!(" from {}", bucket?))).unwrap_or_default();
            lines.push(format!("back up `{}` ({}){from}", component.name, component.kind.as_str()));
        }
        if !stops.is_empty() {
            lines.push("start again what ran before, as soon as the dumps that need it stopped have ended".to_owned());
        }
        if self.options.redact {
            lines.extend(redact::lines(&self.deployment.components));
        }
        lines
    }

    /// How long tasks are waited for, where they can be known: if services are stopped, or the graph is backed up, in which a
    /// task that is half done would be half done for good.
    fn waits_for_tasks(&self, components: &[ComponentInfo]) -> Option<Duration> {
        let graph = components.iter().any(|component| component.kind == ComponentKind::Neo4j);
        match &self.origin {
            Origin::Reached(Reach::Docker(_)) => {
                self.options.wait_for_tasks.filter(|_| graph || !self.stops(components).is_empty())
            }
            Origin::Reached(Reach::Bespoke(..)) | Origin::Files(_) | Origin::Brought(_) | Origin::Archive(_) => None,
        }
    }

    /// The bucket of the artifact store, if that is in one.
    fn bucket(&self) -> Option<&BucketAccess> {
        let Origin::Reached(reach) = &self.origin else { return None };
        reach.bucket()
    }

    fn stops(&self, components: &[ComponentInfo]) -> Vec<String> {
        let wanted =
            |service: &&String| components.iter().any(|component| component.stopped_for_dump.contains(service));
        self.deployment.services.iter().filter(wanted).cloned().collect()
    }

    /// What evidence and journal call it.
    fn operation(&self) -> &'static str {
        match self.origin {
            Origin::Archive(_) => "import",
            Origin::Reached(_) | Origin::Files(_) | Origin::Brought(_) => "create",
        }
    }

    /// What is locked. An import touches nothing of the deployment, and must be possible while that is half restored.
    fn locks(&self) -> String {
        match self.origin {
            Origin::Archive(_) => format!("{} (import)", self.deployment.name),
            Origin::Reached(_) | Origin::Files(_) | Origin::Brought(_) => self.deployment.name.clone(),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.deployment.components.iter().any(|component| component.name == name)
    }
}

/// Makes the snapshot.
pub async fn execute(context: &Context, repository: &Arc<Repository>, plan: CreatePlan) -> Result<Created, Error> {
    let lock = resume::lock(context, &plan.locks(), plan.options.wait).await?;
    resume::finish_open(context, &lock, resume::HalfReplaced::Refuse).await?;
    if let Origin::Reached(reach) = &plan.origin {
        resume::tidy(context, &*reach.provider()).await?;
    }
    execute_locked(context, repository, plan, &lock).await
}

/// Makes the snapshot of a deployment that the caller holds and that has no open journal.
pub(super) async fn execute_locked(
    context: &Context,
    repository: &Arc<Repository>,
    plan: CreatePlan,
    lock: &DeploymentLock,
) -> Result<Created, Error> {
    repository.keys().check_writes().map_err(|source| Error::from(repository.unsupported(source)))?;
    let recorder = Recorder::new(context, plan.operation(), Some(&plan.deployment.name), plan.lines());
    let way = match &plan.origin {
        Origin::Reached(reach) => Some(reach.way()),
        Origin::Files(_) | Origin::Brought(_) | Origin::Archive(_) => None,
    };
    let mut journal = Journal::begin(lock, plan.operation(), recorder.run(), way)?;
    let (lease, storage_ids) = (None, None);
    let mut run =
        Run { context, repository, plan: &plan, recorder: &recorder, journal: &mut journal, lease, storage_ids };
    let (made, all_runs) = run.all().await;
    let storage_ids = run.storage_ids.take();
    if let Some(lease) = run.lease.take() {
        // It claims nothing any more; how it ended matters to nobody.
        lease.end().await;
    }
    let closed = if all_runs { journal.close() } else { Ok(()) };
    let (outcome, error) = match &made {
        Ok((.., Some(not_running))) => (Outcome::Incomplete, Some(not_running)),
        Ok((_, manifest, _, None)) if manifest.is_complete() => (Outcome::Done, None),
        Ok(_) => (Outcome::Incomplete, None),
        Err(error) => (Outcome::Failed, Some(error)),
    };
    let report = recorder.finish(context, repository, outcome, error).await;
    let (id, manifest, stored_bytes, not_running) = match made {
        Ok(made) => made,
        Err(error) => return first_error(context, Err(error), closed.map_err(Error::from)),
    };
    if let Some(trouble) = repository.cache_trouble() {
        context.warn(format!("the local cache costs speed, nothing else: {trouble}"));
    }
    // The snapshot is there: what this machine cannot remember of it does not make it a failure.
    let (identity, location) = (repository.config().repository, repository.store().location());
    let mut kept = vec![closed];
    if repository.store().capabilities().durable {
        kept.push(context.state.set_last_head(identity, &location, id));
        kept.push(context.state.set_repository_at(&location, identity));
    }
    for error in kept.into_iter().filter_map(Result::err) {
        context.warn(Error::from(error).chain().join(": "));
    }
    if let Some(error) = not_running {
        return Err(error.context(format!("snapshot {id} was made, but the deployment does not run as before")));
    }
    let warnings = manifest.components.iter().flat_map(|component| component.warnings.clone()).collect();
    Ok(Created { id, manifest, stored_bytes, report, warnings, storage_ids })
}

type Made = (SnapshotId, Manifest, u64, Option<Error>);

struct Run<'a> {
    context: &'a Context,
    repository: &'a Arc<Repository>,
    plan: &'a CreatePlan,
    recorder: &'a Recorder,
    journal: &'a mut Journal,
    lease: Option<RunLease>,
    storage_ids: Option<StorageCheck>,
}

/// Where the streams of this run come from.
struct Opened {
    streams: Vec<Box<dyn Component>>,
    folders: Vec<ComponentInfo>,
}

impl<'a> Run<'a> {
    fn phase(&mut self, name: &str) -> Result<(), Error> {
        self.context.events.message(super::Level::Debug, &format!("phase: {name}"));
        Ok(self.journal.note(JournalEntry::Phase { name: name.to_owned() })?)
    }

    /// Everything. The second value says whether all that ran before runs again.
    async fn all(&mut self) -> (Result<Made, Error>, bool) {
        match &self.plan.origin {
            Origin::Files(files) => {
                let made = self.given(files).await;
                (made, true)
            }
            Origin::Brought(brought) => {
                let made = without_panic(self.brought(brought)).await;
                (made, true)
            }
            Origin::Archive(archive) => {
                let made = without_panic(self.archived(archive)).await;
                (made, true)
            }
            Origin::Reached(reach) => {
                let reach = reach.clone();
                let mut paused = Paused::nothing(reach.provider());
                let made = without_panic(Box::pin(self.reached(&reach, &mut paused))).await;
                // On every way out, what was stopped runs again; where that was tried and failed, nothing is left here.
                let started = paused.start(self.context, self.recorder, self.journal).await;
                let not_running = !paused.all_run();
                let made = match first_error(self.context, made, started) {
                    Err(error) if not_running => Err(left_open(&self.plan.deployment.name, error)),
                    made => made,
                };
                (made, !not_running)
            }
        }
    }

    async fn given(&mut self, files: &FilesSource) -> Result<Made, Error> {
        let (session, known) = self.begin().await?;
        let mut records = Vec::new();
        self.phase("dump")?;
        for info in &self.plan.deployment.components {
            let inspection = match info.kind {
                ComponentKind::Neo4j => Inspection { edition: files.neo4j_edition.clone(), ..Inspection::default() },
                ComponentKind::Postgres | ComponentKind::Artifacts | ComponentKind::Opaque => Inspection::default(),
            };
            let record = if info.folder.is_some() {
                self.dumper().folder(&session, info, Consistency::Given, None).await
            } else {
                let path = files.path(&info.name).expect("a stream component of files has a path");
                match FileDump::open(&info.name, path).await {
                    Ok(dump) => {
                        self.dumper()
                            .stream(&session, info, &inspection, Box::new(dump), Consistency::Given, &known)
                            .await
                    }
                    Err(error) => Err(error.into()),
                }
            };
            records.push(self.dumper().or_failed(info, Consistency::Given, record)?);
        }
        self.commit(session, records, files.infrahub_version.clone(), &known, None).await
    }

    /// Components of the caller's, with nothing to stop.
    async fn brought(&mut self, brought: &BroughtSource) -> Result<Made, Error> {
        let (session, known) = self.begin().await?;
        let mut records = Vec::new();
        self.phase("dump")?;
        for component in brought.components.iter().filter(|component| self.plan.wants(&component.info().name)) {
            let info = component.info();
            let record = match (component.inspect().await, component.dump().await) {
                (Ok(inspection), Ok(dump)) => {
                    self.dumper().stream(&session, info, &inspection, dump, Consistency::Given, &known).await
                }
                (Err(error), _) | (_, Err(error)) => Err(error.into()),
            };
            records.push(self.dumper().or_failed(info, Consistency::Given, record)?);
        }
        self.commit(session, records, None, &known, None).await
    }

    /// The dumps of an archive. All of it is read before any of it counts.
    async fn archived(&mut self, archive: &ArchiveSource) -> Result<Made, Error> {
        let (session, known) = self.begin().await?;
        self.phase("dump")?;
        let records = self.members(archive, &session, &known).await.map_err(|error| archive.refused(error))?;
        let version = archive.information.infrahub_version().map(str::to_owned);
        self.commit(session, records, version, &known, None).await
    }

    /// Stores the dumps of an archive, in the order in which they come.
    async fn members(
        &self,
        archive: &ArchiveSource,
        session: &WriteSession,
        known: &Known,
    ) -> Result<Vec<ComponentRecord>, Error> {
        let (mut records, mut passed_over) = (Vec::new(), Vec::new());
        while let Some(member) = archive.next(&self.context.cancel).await? {
            let component = archive.component_of(&member);
            let info = self.plan.deployment.components.iter().find(|info| Some(info.name.as_str()) == component);
            let Some(info) = info else {
                if component.is_none() {
                    passed_over.push(format!("`{}` of the archive is in no component", member.name.escape_debug()));
                }
                archive.skip(&self.context.cancel).await?;
                continue;
            };
            let edition = (info.kind == ComponentKind::Neo4j).then(|| archive.information.edition().to_owned());
            let inspection = Inspection { edition, size_bytes: Some(member.size), ..Inspection::default() };
            let dump = archive.dump(member, &info.name).await;
            let stored = self.dumper().stream(session, info, &inspection, dump, Consistency::Given, known);
            records.push(stored.await?);
        }
        archive.finish().await?;
        if let Some(first) = records.first_mut() {
            first.warnings.append(&mut passed_over);
        }
        Ok(records)
    }

    async fn reached(&mut self, reach: &Reach, paused: &mut Paused) -> Result<Made, Error> {
        let (session, known) = self.begin().await?;
        let opened = self.open(reach).await?;
        self.dumper().check_buckets(&opened.folders).await?;
        let infos: Vec<ComponentInfo> =
            opened.streams.iter().map(|component| component.info().clone()).chain(opened.folders.clone()).collect();
        let stops = self.plan.stops(&infos);
        let version = self.version(&*reach.provider()).await?;
        if let Some(limit) = self.plan.waits_for_tasks(&infos) {
            self.phase("wait")?;
            tasks::wait(self.context, self.recorder, &*reach.provider(), limit).await?;
        }
        // Behind the wait: what tasks still wrote belongs to what is counted.
        let provider = reach.provider();
        let (inspections, census) = tokio::join!(
            self.inspect(&*provider, &opened.streams),
            census::read(self.context, &*provider, &opened.streams, !opened.folders.is_empty())
        );
        let inspections = inspections?;
        if !stops.is_empty() {
            self.phase("stop")?;
            paused.stop(self.context, self.recorder, self.journal, &stops).await?;
        }
        self.phase("dump")?;
        let dumper = self.dumper();
        // Where nothing is stopped, nothing is gained by having two dumps open at a time.
        let mut held = match stops.is_empty() {
            true => vec![],
            false => dumper.hold(&opened.streams, &inspections).await?,
        };
        let mut records = Vec::new();
        for (at, (component, inspection)) in opened.streams.iter().zip(&inspections).enumerate() {
            if held.iter().any(|held| held.at == at) {
                continue;
            }
            let info = component.info();
            let consistency =
                if info.stopped_for_dump.is_empty() { Consistency::Online } else { Consistency::Quiesced };
            if self.plan.options.redact && info.kind == ComponentKind::Neo4j {
                match self.hold_redacted(at, &**component, inspection, consistency).await {
                    Ok(copy) => held.push(copy),
                    Err(error) => records.push(dumper.or_failed(info, consistency, Err(error))?),
                }
                continue;
            }
            if let Some(service) = component.dumps_inside() {
                self.journal.note(JournalEntry::Inside { service: service.to_owned() })?;
            }
            let record = match component.dump().await {
                Ok(dump) => dumper.stream(&session, info, inspection, dump, consistency, &known).await,
                Err(error) => Err(error.into()),
            };
            records.push(dumper.or_failed(info, consistency, record)?);
        }
        let (inside, outside): (Vec<_>, Vec<_>) =
            opened.folders.iter().partition(|info| !info.stopped_for_dump.is_empty());
        for info in inside {
            let record = dumper.folder(&session, info, Consistency::Quiesced, census.as_ref()).await;
            records.push(dumper.or_failed(info, Consistency::Quiesced, record)?);
        }
        if !paused.services().is_empty() {
            self.phase("start")?;
        }
        // A service that does not start again does not undo the dump: the snapshot is made, and the error told.
        let starting = paused.start(self.context, self.recorder, self.journal);
        // A panic beside it must not drop it half way. On the heap: both in place need more than a small stack has.
        let taking = Box::pin(without_panic(dumper.take(&session, held, &known)));
        let (started, taken) = tokio::join!(Box::pin(starting), taking);
        let not_running = started.err();
        for (at, record) in taken? {
            records.insert(at.min(records.len()), record);
        }
        for info in outside {
            let record = dumper.folder(&session, info, Consistency::Online, census.as_ref()).await;
            records.push(dumper.or_failed(info, Consistency::Online, record)?);
        }
        if self.plan.options.redact {
            redact::warn(&mut records);
        }
        self.storage_ids = census.and_then(|census| census::tell(self.context, self.recorder, &census, &mut records));
        if !stops.is_empty() {
            self.keep_unchanged(&*reach.provider(), &opened.streams, &mut records).await;
        }
        self.commit(session, records, version, &known, not_running).await
    }

    /// Counts again, and keeps the counts that are as before: between the first count and the stop others may have written, and
    /// a restore that gives back what was dumped must not look as if it did not.
    async fn keep_unchanged(
        &self,
        provider: &dyn Provider,
        streams: &[Box<dyn Component>],
        records: &mut [ComponentRecord],
    ) {
        let again = match self.inspect(provider, streams).await {
            Ok(again) => again,
            Err(error) => {
                // The dumps are there; nothing is worth less for it but what can be compared.
                self.context.warn(format!("no counts are kept: {}", error.chain().join(": ")));
                vec![Inspection::default(); streams.len()]
            }
        };
        for (component, again) in streams.iter().zip(&again) {
            let name = &component.info().name;
            let Some(record) = records.iter_mut().find(|record| record.name == *name) else { continue };
            let before = record.counts.len();
            record.counts.retain(|what, count| again.counts.get(what) == Some(count));
            if record.counts.len() < before {
                let changed = before - record.counts.len();
                self.context.info(format!("`{name}`: {changed} of {before} counts changed meanwhile and are not kept"));
            }
        }
    }

    fn dumper(&self) -> Dumper<'a> {
        let Self { context, repository, plan, recorder, .. } = self;
        Dumper { context, repository, plan, recorder }
    }

    async fn begin(&mut self) -> Result<(WriteSession, Known), Error> {
        let claimant = self.recorder.claimant(self.context, self.plan.operation());
        self.lease = Some(RunLease::begin(self.repository, claimant).await?);
        let (snapshots, damages) = self.repository.snapshots().await?;
        damages.iter().for_each(|damage| self.context.warn(damage.to_string()));
        let options = SessionOptions {
            budget: Budget::new(BUDGET_BYTES_DEFAULT).expect("the default is above the least"),
            executor: Arc::clone(&self.context.executor),
            stage: self.plan.options.stage.clone(),
        };
        let session = self.repository.write_relying(options, self.plan.options.dedup_own).await?;
        let redacted = self.plan.options.tags.get(REDACTED_TAG).is_some_and(|value| value == "true");
        Ok((session, Known::new(snapshots, &self.plan.deployment.name, redacted)))
    }

    async fn commit(
        &mut self,
        session: WriteSession,
        components: Vec<ComponentRecord>,
        infrahub_version: Option<String>,
        known: &Known,
        not_running: Option<Error>,
    ) -> Result<Made, Error> {
        if components.iter().all(|component| component.status == ComponentStatus::Failed) {
            return Err(Error::new(ErrorKind::Source, "every component failed"));
        }
        let step = self.recorder.begin(self.context, "commit", "repository");
        let committed = self.commit_steps(session, components, infrahub_version, known).await;
        let facts = |made: &(SnapshotId, Manifest, u64)| StepFacts {
            numbers: BTreeMap::from([("stored_bytes".to_owned(), made.2)]),
            note: Some(format!("snapshot {}", made.0)),
            ..StepFacts::default()
        };
        let (id, manifest, stored) = self.recorder.end_with(self.context, step, committed, facts)?;
        self.recorder.snapshot(id);
        Ok((id, manifest, stored, not_running))
    }

    async fn commit_steps(
        &mut self,
        session: WriteSession,
        components: Vec<ComponentRecord>,
        infrahub_version: Option<String>,
        known: &Known,
    ) -> Result<(SnapshotId, Manifest, u64), Error> {
        self.context.cancel.check()?;
        self.phase("pack")?;
        let packs = session.flush().await?;
        self.phase("index")?;
        let index = session.write_index(packs).await?;
        self.context.cancel.check()?;
        self.phase("manifest")?;
        let finished_at = self.context.clock().now();
        let lease = self.lease.take().expect("the run began with a lease and commits once");
        let manifest = Manifest {
            format: crate::format::FORMAT_VERSION,
            deployment: self.plan.deployment.name.clone(),
            created_at: match &self.plan.origin {
                Origin::Archive(archive) => archive.created_at(self.recorder.start()),
                Origin::Reached(_) | Origin::Files(_) | Origin::Brought(_) => self.recorder.start(),
            },
            finished_at,
            run: self.recorder.run(),
            lease_deadline: lease.deadline(),
            previous: known.head,
            host: self.context.host.clone(),
            tool: TOOL.to_owned(),
            infrahub_version,
            indexes: index.indexes().to_vec(),
            components,
            tags: self.plan.options.tags.clone(),
        };
        let stored = session.stored_bytes().await;
        let id = session.commit(&manifest, &index).await?;
        // From here on the snapshot may be there; whether it counts is settled before success is told.
        confirm::settle(self.repository, &self.context.executor, lease, &id, &manifest).await?;
        Ok((id, manifest, stored))
    }
}

fn record(
    info: &ComponentInfo,
    stored: Stored,
    status: ComponentStatus,
    consistency: Consistency,
    window: Window,
    inspection: &Inspection,
) -> ComponentRecord {
    ComponentRecord {
        name: info.name.clone(),
        kind: info.kind.as_str().to_owned(),
        status,
        failure: None,
        consistency,
        window,
        layout: stored.layout,
        streams: stored.streams,
        sizes: stored.sizes,
        version: inspection.version.clone(),
        edition: inspection.edition.clone(),
        counts: inspection.counts.clone(),
        warnings: stored.warnings,
    }
}
