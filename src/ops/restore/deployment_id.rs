//! `restore --reset-deployment-id`: what is restored gets an id of its own.
//!
//! Two deployments with one id pass for one. Infrahub reads it as it starts, so that it is set between the start of the database
//! and that of what reads it. Holds: that it can be done is known before anything is touched; it counts as done when the database
//! was asked again and says so. When it is not done, everything starts all the same, under the id of the snapshot, and the error
//! says so.

use super::compare::runs;
use crate::component::Component;
use crate::component::graph::{Graph, NewDeploymentId, Root};
use crate::deployment::{ComponentInfo, ComponentKind};
use crate::env::{Clock, Entropy};
use crate::error::{Error, ErrorKind};
use crate::format::manifest::ComponentRecord;
use crate::ops::Context;
use crate::ops::evidence::{Recorder, StepFacts};
use crate::ops::pause::Paused;
use crate::ops::start::READY_TIMEOUT;
use crate::provider::Provider;
use crate::state::{Journal, JournalEntry};

/// The id of a deployment, before and now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetId {
    /// That of the snapshot, if it had one.
    pub old: Option<String>,
    /// The new one.
    pub new: String,
}

/// The one graph among `records`.
pub(super) fn only_graph<'a>(records: &'a [ComponentRecord], flag: &str) -> Result<&'a str, Error> {
    let graphs: Vec<&str> = records
        .iter()
        .filter(|record| record.kind == ComponentKind::Neo4j.as_str())
        .map(|record| record.name.as_str())
        .collect();
    match graphs[..] {
        [only] => Ok(only),
        [] => {
            let text = format!("`{flag}` is given, and no graph database is restored: it is not among the components");
            Err(Error::new(ErrorKind::Usage, text))
        }
        _ => {
            let text = format!("`{flag}` means one graph database, and several are restored: {}", graphs.join(", "));
            Err(Error::new(ErrorKind::Usage, text))
        }
    }
}

/// Refuses what could not be done once the database is loaded. Gives what will be done.
pub(super) async fn check(provider: &dyn Provider, component: &dyn Component) -> Result<String, Error> {
    let name = &component.info().name;
    if component.graph().is_none() {
        let text = format!(
            "the deployment id cannot be reset: no bolt address of component `{name}` is known; nothing was touched"
        );
        return Err(Error::new(ErrorKind::Config, text));
    }
    let services = server(component.info());
    if !runs(provider, services).await? {
        let text = format!(
            "the deployment id cannot be reset: `{}` does not run, and is left as it is; nothing was touched",
            services.join("`, `")
        );
        return Err(Error::new(ErrorKind::Unavailable, text));
    }
    Ok(format!(
        "give the deployment a new id: `uuid` of the node labelled `Root` in `{name}`, before what reads it starts"
    ))
}

/// What must run for a graph to be asked.
fn server(info: &ComponentInfo) -> &[String] {
    info.asked_of(&info.stopped_for_load)
}

/// Starts the graph's server and what it needs, and nothing else; gives the deployment a new id, and reads it back.
pub(super) async fn reset(
    context: &Context,
    recorder: &Recorder,
    journal: &mut Journal,
    paused: &mut Paused,
    component: &dyn Component,
) -> Result<ResetId, Error> {
    let name = &component.info().name;
    paused.start_first(context, recorder, journal, server(component.info())).await?;
    let step = recorder.begin(context, "reset-deployment-id", name);
    // Not cancelled, like a start: it takes no longer than one, and half of it would be nothing.
    let result = in_graph(component, context.entropy(), context.clock()).await;
    let result = recorder.end_with(context, step, result, |done| StepFacts {
        note: Some(format!("deployment id {} replaced by {}, and read back", told(done.old.as_deref()), done.new)),
        ..StepFacts::default()
    });
    let text = format!("`{name}` was restored, and the deployment id was not reset: it is that of the snapshot");
    let done = result.map_err(|error| Error::with_source(ErrorKind::Incomplete, text, error))?;
    context.info(format!("the deployment id is {} now, and was {}", done.new, told(done.old.as_deref())));
    if let Err(error) = journal.note(JournalEntry::IdReset) {
        context.warn(Error::from(error).chain().join(": "));
    }
    Ok(done)
}

async fn in_graph(component: &dyn Component, entropy: &dyn Entropy, clock: &dyn Clock) -> Result<ResetId, Error> {
    component.wait_ready(READY_TIMEOUT).await?;
    let graph = component.graph().expect("checked before anything was touched");
    let old = only_root(component, graph.root().await?)?;
    let new = NewDeploymentId::draw(entropy);
    let set = graph.set_root(new, clock.now()).await;
    // An answer that got lost says nothing about what was done: what is there now does.
    let now = read_back(graph, component).await;
    match (now, set) {
        (Ok(Some(now)), _) if now == new.to_string() => Ok(ResetId { old, new: now }),
        (_, Err(error)) => Err(error.into()),
        (Err(error), Ok(())) => Err(error),
        (Ok(now), Ok(())) => {
            let text = format!("the id was set to {new}, and reads {}", told(now.as_deref()));
            Err(Error::new(ErrorKind::Source, text))
        }
    }
}

async fn read_back(graph: &dyn Graph, component: &dyn Component) -> Result<Option<String>, Error> {
    only_root(component, graph.root().await?)
}

/// The id of a graph that has one root.
fn only_root(component: &dyn Component, root: Root) -> Result<Option<String>, Error> {
    if root.nodes == 1 {
        return Ok(root.id);
    }
    let text = format!("`{}` has {} nodes labelled `Root`, and must have one", component.info().name, root.nodes);
    Err(Error::new(ErrorKind::Source, text))
}

/// An id for people.
pub fn told(id: Option<&str>) -> String {
    id.map_or_else(|| "(none)".to_owned(), |id| id.escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use async_trait::async_trait;
    use jiff::Timestamp;

    use super::*;
    use crate::component::{ComponentError, DumpStream, LoadStream};
    use crate::deployment::Inspection;
    use crate::env::{SystemClock, SystemEntropy};

    /// What becomes of an id that is set.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Set {
        Kept,
        /// Kept, and the answer is lost.
        Unanswered,
        Refused,
        /// Told as done, and not kept.
        Forgotten,
    }

    struct Scripted {
        info: ComponentInfo,
        root: Mutex<Root>,
        set: Set,
    }

    impl Scripted {
        fn new(nodes: u64, set: Set) -> Self {
            let info = ComponentInfo {
                name: "database".to_owned(),
                kind: ComponentKind::Neo4j,
                service: None,
                stopped_for_dump: vec![],
                stopped_for_load: vec![],
                folder: None,
            };
            Self { info, root: Mutex::new(Root { nodes, id: Some("old".to_owned()) }), set }
        }

        fn lost() -> ComponentError {
            let (component, question) = ("database".to_owned(), "q".to_owned());
            ComponentError::Query { component, question, source: "the line broke".into() }
        }

        async fn reset(&self) -> Result<ResetId, Error> {
            in_graph(self, &SystemEntropy, &SystemClock).await
        }
    }

    #[async_trait]
    impl Component for Scripted {
        fn info(&self) -> &ComponentInfo {
            &self.info
        }
        async fn inspect(&self) -> Result<Inspection, ComponentError> {
            Ok(Inspection::default())
        }
        async fn dump(&self) -> Result<Box<dyn DumpStream>, ComponentError> {
            Err(Self::lost())
        }
        async fn load(&self) -> Result<Box<dyn LoadStream>, ComponentError> {
            Err(Self::lost())
        }
        async fn wait_ready(&self, _: Duration) -> Result<(), ComponentError> {
            Ok(())
        }
        fn graph(&self) -> Option<&dyn Graph> {
            Some(self)
        }
    }

    #[async_trait]
    impl Graph for Scripted {
        async fn root(&self) -> Result<Root, ComponentError> {
            Ok(self.root.lock().unwrap().clone())
        }
        async fn set_root(&self, id: NewDeploymentId, _: Timestamp) -> Result<(), ComponentError> {
            if matches!(self.set, Set::Kept | Set::Unanswered) {
                self.root.lock().unwrap().id = Some(id.to_string());
            }
            if matches!(self.set, Set::Kept | Set::Forgotten) { Ok(()) } else { Err(Self::lost()) }
        }
    }

    #[tokio::test]
    async fn an_id_counts_as_reset_when_it_is_read_back_whatever_was_answered() {
        for set in [Set::Kept, Set::Unanswered] {
            let graph = Scripted::new(1, set);
            let done = graph.reset().await.unwrap();
            assert_eq!(done.old.as_deref(), Some("old"));
            assert_eq!(graph.root.lock().unwrap().id.as_ref(), Some(&done.new));
        }
    }

    #[tokio::test]
    async fn an_id_that_is_not_read_back_is_not_reset() {
        let refused = Scripted::new(1, Set::Refused).reset().await.unwrap_err();
        assert!(refused.chain().concat().contains("the line broke"), "{refused}");
        let forgotten = Scripted::new(1, Set::Forgotten).reset().await.unwrap_err();
        assert!(forgotten.to_string().ends_with("and reads old"), "{forgotten}");
    }

    #[tokio::test]
    async fn of_no_root_or_two_none_is_given_an_id() {
        for nodes in [0, 2] {
            let graph = Scripted::new(nodes, Set::Kept);
            let refused = graph.reset().await.unwrap_err();
            assert!(refused.to_string().contains(&format!("{nodes} nodes labelled `Root`")), "{refused}");
            assert_eq!(graph.root.lock().unwrap().id.as_deref(), Some("old"));
        }
    }
}
