//! Reports and leases: evidence, and the claims of runs. No restore needs them.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt as _, stream};

use super::super::executor::Executor;
use super::super::{Damage, Repository, RepositoryError, decode_damage, missing, seal_damage};
use super::{Checker, REPAIR, ReadBefore};
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::lease::Lease;
use crate::format::report::{Finding, Report};
use crate::id::{ObjectId, ObjectName};
use crate::limits::OBJECT_SIZE_MAX;
use crate::seal::object::unseal_object;

/// What was checked of the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportsChecked {
    /// Reports that were opened.
    pub reports: u64,
    /// The newest of them.
    pub newest: Option<ObjectId>,
    /// Damage, and reports that others or `heads` name and that are gone.
    pub findings: Vec<Finding>,
}

/// Checks that every report can be opened, is signed by a writer that the root certified, and follows one that is there.
/// `heads` are reports that somebody remembers.
///
/// That the newest one was removed, nothing in the repository tells: only who remembers it can.
///
/// # Errors
/// If the store cannot be read.
pub async fn check_reports(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    heads: &BTreeSet<ObjectId>,
) -> Result<ReportsChecked, RepositoryError> {
    let mut checker = Checker::new(repository, executor);
    let newest = checker.reports(heads).await?.newest;
    Ok(ReportsChecked { reports: checker.checked.objects, newest, findings: checker.checked.findings })
}

/// What the reports say.
pub(super) struct ReportsRead {
    /// When packs were read before.
    pub read_before: ReadBefore,
    /// The report that ended last.
    pub newest: Option<ObjectId>,
}

impl ReadBefore {
    /// Takes over what a report says was read. Its beginning counts: later than that every pack in it was read.
    fn add(&mut self, report: &Report, opens_content: bool) {
        let Some(verified) = &report.verified else { return };
        // Who can open content wants it opened.
        let hashed = if opens_content { &[][..] } else { verified.hashed.as_slice() };
        for prefix in verified.opened.as_slice().iter().chain(hashed) {
            let at = self.0.entry(*prefix).or_insert(report.start);
            *at = (*at).max(report.start);
        }
    }
}

impl Checker {
    /// Reports, read anew, and their chain, in which `heads` must be.
    pub(super) async fn reports(&mut self, heads: &BTreeSet<ObjectId>) -> Result<ReportsRead, RepositoryError> {
        let listed = self.repository.list_objects(ObjectType::Report).await?;
        let repository = Arc::clone(&self.repository);
        let reads = stream::iter(listed).map(move |id| {
            let repository = Arc::clone(&repository);
            async move { (id, repository.report(&id).await) }
        });
        let mut reads = reads.buffered(self.at_once()).boxed();
        let (mut read_before, mut named, mut given_up) = (ReadBefore::default(), heads.clone(), BTreeSet::new());
        let mut newest = None;
        let opens_content = self.repository.keys().reads_content();
        while let Some((id, read)) = reads.next().await {
            match read {
                Ok(report) => {
                    self.checked.objects += 1;
                    named.extend(report.previous);
                    newest = newest.max(Some((report.end, id)));
                    // What `repair` found to be lost, its report tells instead.
                    if report.operation == REPAIR {
                        given_up.extend(report.findings.iter().map(|finding| finding.object.clone()));
                    }
                    read_before.add(&report, opens_content);
                }
                Err(RepositoryError::Damaged(damage)) => self.report(damage, vec!["evidence".to_owned()]),
                Err(error) => return Err(error),
            }
        }
        let there: BTreeSet<ObjectId> = self.repository.list_objects(ObjectType::Report).await?;
        for id in named.into_iter().filter(|id| !there.contains(id)) {
            let name = layout::object(ObjectType::Report, &id);
            if !given_up.contains(name.as_str()) {
                self.report(missing(&name), vec!["evidence".to_owned()]);
            }
        }
        Ok(ReportsRead { read_before, newest: newest.map(|(_, id)| id) })
    }

    /// Leases, read anew. They go when nobody needs them any more.
    pub(super) async fn leases(&mut self) -> Result<(), RepositoryError> {
        for info in self.repository.store().list(layout::LEASES).await? {
            let stored = match self.repository.store().get(&info.name, OBJECT_SIZE_MAX).await {
                Ok(stored) => stored,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error.into()),
            };
            match self.lease(&info.name, &stored) {
                Ok(()) => self.checked.objects += 1,
                Err(damage) => {
                    let hurts = vec!["no snapshot; `prune` cannot tell whether this run is alive".to_owned()];
                    self.report(damage, hurts);
                }
            }
        }
        Ok(())
    }

    fn lease(&self, name: &ObjectName, stored: &[u8]) -> Result<(), Damage> {
        let body = unseal_object(self.repository.keys(), ObjectType::Lease, stored)
            .map_err(|error| seal_damage(name, error))?;
        let lease = Lease::decode(&body).map_err(|error| decode_damage(name, &error))?;
        let belongs = layout::lease(&lease.run, lease.number);
        if belongs == *name {
            return Ok(());
        }
        let problem = format!("it belongs at `{belongs}`");
        Err(Damage { object: name.to_string(), layer: "name", problem })
    }
}
