//! `restore --migrate-format`: the store that was loaded gets the block format of Neo4j Enterprise.
//!
//! Holds: it happens while the server is stopped, behind the load and as a part of it: a component whose migration did not end
//! well counts as half replaced. What cannot be migrated is refused before anything is touched.

use super::MIGRATE;
use crate::component::Component;
use crate::error::{Error, ErrorKind};
use crate::ops::Context;
use crate::ops::evidence::{Recorder, StepFacts};

/// Refuses what has no such format, or no command for it. Gives what will be done.
pub(super) fn check(component: &dyn Component) -> Result<String, Error> {
    let name = &component.info().name;
    match component.migration() {
        Ok(_) => Ok(format!("bring the store of `{name}` into the format `block`, before its server starts")),
        Err(reason) => {
            let text = format!("`{MIGRATE}` is not possible for `{name}`: {reason}; nothing was touched");
            Err(Error::new(ErrorKind::Incompatible, text))
        }
    }
}

/// Migrates it.
pub(super) async fn migrate(context: &Context, recorder: &Recorder, component: &dyn Component) -> Result<(), Error> {
    let name = &component.info().name;
    context.info(format!("bringing the store of `{name}` into the format `block`"));
    let step = recorder.begin(context, "migrate", name);
    let result = async {
        let migration = component.migration().map_err(|reason| Error::new(ErrorKind::Incompatible, reason))?;
        Ok(context.cancel.or(migration.to_block()).await??)
    };
    let result: Result<Vec<String>, Error> = result.await;
    let facts = |log: &Vec<String>| StepFacts { log: log.clone(), ..StepFacts::default() };
    recorder.end_with(context, step, result, facts).map(drop)
}
