//! Whether a target can take what a snapshot holds.

use std::collections::BTreeSet;

use super::to_folder::check_space;
use super::{IntoDeployment, RestoreOptions};
use crate::component::{Component, ComponentError};
use crate::deployment::{ComponentInfo, ComponentKind, Inspection};
use crate::error::{Error, ErrorKind};
use crate::format::manifest::{ComponentRecord, ComponentStatus, Layout};
use crate::ops::Context;
use crate::ops::safety::Safety;

impl IntoDeployment {
    /// Refuses what no load is built for, and a backup of Enterprise where only Community is.
    pub(super) async fn check_loads(
        &self,
        context: &Context,
        records: &[ComponentRecord],
        options: &RestoreOptions,
    ) -> Result<(), Error> {
        for component in &self.streams {
            let name = &component.info().name;
            let record = records.iter().find(|record| record.name == *name).expect("opened for a record");
            match context.cancel.or(component.check_load(is_backup(&record.layout))).await? {
                Err(ComponentError::Misfit { .. }) if options.force => {}
                checked => checked?,
            }
        }
        Ok(())
    }

    /// Version and edition of the running target must be able to take what the snapshot holds. What does not answer is not backed
    /// up before.
    pub(super) async fn check_versions(
        &mut self,
        context: &Context,
        records: &[ComponentRecord],
        options: &RestoreOptions,
        lines: &mut Vec<String>,
    ) -> Result<(), Error> {
        let mut silent = BTreeSet::new();
        for component in &self.streams {
            let name = &component.info().name;
            let record = records.iter().find(|record| record.name == *name).expect("opened for a record");
            let found = match context.cancel.or(component.inspect()).await? {
                Ok(found) => found,
                // It is loaded by its server: better told before anything is touched than when the other components are replaced.
                Err(error) if component.info().kind == ComponentKind::Postgres => {
                    let text = format!("`{name}` must run and answer to be restored; nothing was touched");
                    return Err(Error::with_source(ErrorKind::Unavailable, text, error));
                }
                Err(error) => {
                    lines.push(format!("`{name}` does not answer, so that its version is not compared"));
                    context.warn(format!("`{name}` does not answer: {error}"));
                    silent.insert(name.clone());
                    continue;
                }
            };
            if let Some(problem) = misfit(record, &found, &**component) {
                let text = format!("component `{name}` does not fit the target: {problem}");
                if !options.force {
                    return Err(Error::new(ErrorKind::Incompatible, text));
                }
                lines.push(format!("{text}; going on, as was asked for"));
            }
        }
        for record in records.iter().filter(|record| record.status == ComponentStatus::Partial) {
            let text = format!(
                "component `{}` does not fit the target: the snapshot lacks files that could not be read, and they would be deleted",
                record.name
            );
            if !options.force {
                return Err(Error::new(ErrorKind::Incompatible, text));
            }
            lines.push(format!("{text}; going on, as was asked for"));
        }
        let infos = self.streams.iter().map(|component| component.info()).chain(&self.folders);
        let infos: Vec<ComponentInfo> = infos.cloned().collect();
        self.safety = Safety::of(&*self.provider, &infos, &silent).await?;
        for (info, folder) in self.folders.iter().filter_map(|info| Some((info, info.folder.as_ref()?))) {
            let record = records.iter().find(|record| record.name == info.name).expect("opened for a record");
            check_space(folder, record.sizes.logical_bytes)?;
        }
        Ok(())
    }
}

/// Why a target that says `found` cannot take `record`.
fn misfit(record: &ComponentRecord, found: &Inspection, component: &dyn Component) -> Option<String> {
    if let (Some(then), Some(now)) = (&record.edition, &found.edition)
        && then != now
        && !component.takes_edition(then)
    {
        return Some(format!("the snapshot is of edition {then}, the target of {now}"));
    }
    let (then, now) = (record.version.as_deref()?, found.version.as_deref()?);
    (major(now)? < major(then)?)
        .then(|| format!("the snapshot is of version {then}, the target of {now}, which is older"))
}

/// The number before the first dot.
fn major(version: &str) -> Option<u64> {
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Whether it is what `neo4j-admin database backup` writes.
pub(super) fn is_backup(layout: &Layout) -> bool {
    match layout {
        Layout::Neo4jDump { container } => container["kind"].as_str().is_some_and(|kind| kind.starts_with("backup")),
        Layout::Plain | Layout::Tree => false,
    }
}
