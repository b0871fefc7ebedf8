//! Restoring a backup of Neo4j Enterprise: its server goes on running, and one database of it is stopped.
//!
//! Holds: nothing of what is there is touched before all of the backup is where the server is. What is left to do behind the load
//! (users and roles, the start of the database) is done before anything that reads it starts; users and roles that are not brought
//! back do not keep the rest from running.

use super::IntoDeployment;
use super::fit::is_backup;
use crate::component::{Component, OnlineRestore, Served};
use crate::deployment::ComponentInfo;
use crate::error::Error;
use crate::format::manifest::ComponentRecord;
use crate::ops::Context;
use crate::ops::evidence::{Recorder, StepFacts};

/// What takes this record while its server runs, if that is how it is taken.
pub(super) fn of<'a>(component: &'a dyn Component, record: &ComponentRecord) -> Option<&'a dyn OnlineRestore> {
    component.online_restore().filter(|_| is_backup(&record.layout))
}

impl IntoDeployment {
    /// The services that must be stopped while this component is restored.
    pub(super) fn stopped_for(&self, info: &ComponentInfo, records: &[ComponentRecord]) -> Vec<String> {
        let mut stopped = info.stopped_for_load.clone();
        if let Some(online) = self.online(records).find(|(name, _)| *name == info.name).map(|(_, online)| online) {
            stopped.retain(|service| service != online.service());
        }
        stopped
    }

    fn online<'a>(&'a self, records: &'a [ComponentRecord]) -> impl Iterator<Item = (&'a str, &'a dyn OnlineRestore)> {
        self.streams.iter().filter_map(|component| {
            let name = component.info().name.as_str();
            let record = records.iter().find(|record| record.name == name)?;
            Some((name, of(&**component, record)?))
        })
    }

    /// What will be done, for people.
    pub(super) fn online_lines(&self, records: &[ComponentRecord]) -> Vec<String> {
        let line = |(name, online): (&str, &dyn OnlineRestore)| {
            format!(
                "for that, stop the database in `{name}` through its server, which runs on; then bring back users and roles, if the snapshot has some, and start the database ({} is not stopped)",
                online.service()
            )
        };
        self.online(records).map(line).collect()
    }
}

/// Brings users and roles back and starts the database; gives what was not brought back.
pub(super) async fn serve(
    context: &Context,
    recorder: &Recorder,
    name: &str,
    online: &dyn OnlineRestore,
) -> Result<Vec<String>, Error> {
    context.info(format!("starting the database in `{name}`"));
    let step = recorder.begin(context, "start-database", name);
    // Not cancelled, like a start of a service.
    let served = online.serve().await.map_err(Error::from);
    let facts = |served: &Served| StepFacts {
        log: served.ran.iter().chain(&served.problems).cloned().collect(),
        ..StepFacts::default()
    };
    let Served { problems, .. } = recorder.end_with(context, step, served, facts)?;
    problems.iter().for_each(|problem| context.warn(format!("`{name}`: {problem}")));
    Ok(problems)
}
