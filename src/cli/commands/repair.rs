//! `repair`: mends what is damaged, tells exactly what is lost.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use super::replicate::at_place;
use crate::cli::args::Repair;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::place;
use crate::cli::render;
use crate::cli::session::Session;
use crate::error::Error;
use crate::id::ObjectName;
use crate::ops::repair::{RepairOptions, Repaired, dry_run, loss_lines, repair};
use crate::repository::Repository;
use crate::repository::repair::clear::mend_clear;
use crate::storage::Store;

/// Lines of what is lost that are shown to people; the report and the JSON have all.
const LOSS_LINES_MAX: usize = 100;

/// `repair`
pub async fn run(session: &Session, args: &Repair) -> Result<Exit, Failure> {
    let (context, cancel) = (&session.context, &session.context.cancel);
    let there = match &args.from {
        Some(from) => {
            let there = at_place(session, from);
            let (store, _) = place::look(&there.settings, &context.state).await?.repository()?;
            Some((there, store))
        }
        None => None,
    };
    let clear = match &there {
        Some((_, copy)) => mended_clear(session, &**copy, args.dry_run).await?,
        None => vec![],
    };
    let repository = session.open().await?;
    let replica = match &there {
        Some((there, store)) => Some(opened(there, Arc::clone(store)).await?),
        None => None,
    };
    let options = RepairOptions {
        read_data: args.read_data,
        accept_lost_marks: args.accept_lost_marks,
        forget_lost: args.forget_lost,
    };
    let mut done = if args.dry_run {
        cancel.or(dry_run(context, &repository, replica.as_ref(), options)).await??
    } else {
        repair(context, &repository, replica.as_ref(), options).await?
    };
    done.brought.splice(0..0, clear);
    let exit = if done.is_whole() { Exit::Done } else { Exit::Damage };
    if done.dry_run {
        session.out.result(&document(&done), || text(&done))?;
        return Ok(exit);
    }
    session.out.done(exit, &document(&done), || text(&done))
}

/// What is needed before anything can be opened.
async fn mended_clear(session: &Session, copy: &dyn Store, pretend: bool) -> Result<Vec<ObjectName>, Failure> {
    let ours = place::store(&session.settings)?;
    let brought = session.context.cancel.or(mend_clear(&*ours, copy, pretend)).await?.map_err(Error::from)?;
    for name in &brought {
        let did = if pretend { "would bring" } else { "brought" };
        session.context.info(format!("{did} `{name}` from {}", copy.location()));
    }
    Ok(brought)
}

async fn opened(there: &Session, store: Arc<dyn Store>) -> Result<Arc<Repository>, Failure> {
    let config = crate::repository::open::read_config(&*store).await.map_err(Error::from)?;
    there.open_found(store, &config).await
}

fn document(done: &Repaired) -> Value {
    let marks = done.marks.as_ref().map(|marks| {
        json!({ "known": marks.known, "lost": marks.lost.keys().collect::<Vec<_>>(), "restated": marks.restated })
    });
    let index = done.rebuilt.as_ref().map(|rebuilt| {
        json!({
            "packs": rebuilt.packs.len(),
            "undescribed_packs": rebuilt.undescribed,
            "unreadable": rebuilt.damages.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "objects_put": rebuilt.indexes.len(),
            "objects_deleted": rebuilt.deleted,
        })
    });
    json!({
        "dry_run": done.dry_run,
        "found": done.found,
        "marks": marks,
        "brought": names(&done.brought),
        "removed": names(&done.removed),
        "index": index,
        "packs_brought": done.healed.packs,
        "bytes_brought": done.healed.bytes,
        "chunks_salvaged": done.healed.chunks_salvaged,
        "chunks_from_replica": done.healed.chunks_from_replica,
        "descriptions_stored": done.healed.descriptions,
        "bytes_stored": done.healed.stored_bytes,
        "confirmed": done.decided.confirmed,
        "quarantined": done.decided.quarantined,
        "reinstated": done.decided.reinstated,
        "forgotten": done.decided.forgotten,
        "condemned_packs": done.decided.condemned.len(),
        "pardoned_packs": done.decided.pardoned.len(),
        "lost": done.lost,
        "lost_manifests": done.lost_manifests,
        "left": done.left,
        "report": done.report,
    })
}

fn names(names: &[ObjectName]) -> Vec<&str> {
    names.iter().map(ObjectName::as_str).collect()
}

fn text(done: &Repaired) -> String {
    let mut text = String::new();
    let would = if done.dry_run { "would: " } else { "" };
    let _ = writeln!(text, "{} findings of damage before", done.found.len());
    for line in actions(done) {
        let _ = writeln!(text, "{would}{line}");
    }
    let lines = loss_lines(&done.lost);
    for line in lines.iter().take(LOSS_LINES_MAX) {
        let _ = writeln!(text, "lost: {line}");
    }
    if lines.len() > LOSS_LINES_MAX {
        let _ =
            writeln!(text, "lost: {} lines more; all are in the report and in --json", lines.len() - LOSS_LINES_MAX);
    }
    for id in &done.lost_manifests {
        let _ = writeln!(text, "lost: the manifest of snapshot {id}; to give the snapshot up: --forget-lost");
    }
    for finding in &done.left {
        let _ = writeln!(
            text,
            "left: {} ({}): {}\n  remedy  {}",
            finding.object, finding.layer, finding.problem, finding.remedy
        );
    }
    let verdict = match (done.is_whole(), done.dry_run) {
        (true, true) => "nothing would be lost",
        (true, false) => "nothing is lost, and no damage is left",
        (false, true) => "some of it cannot be mended from here; a replica may help: --from REPO",
        (false, false) => "the rest can be used; what is lost may still be in a replica: --from REPO",
    };
    let _ = writeln!(text, "{verdict}");
    text
}

/// What was done, line by line.
fn actions(done: &Repaired) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(marks) = &done.marks {
        for (number, from) in &marks.known {
            lines.push(format!("say mark {number} again, as {from} knows it"));
        }
        lines.extend(marks.lost.keys().map(|number| format!("go on without mark {number}, which nobody knows")));
    }
    lines.extend(done.brought.iter().map(|name| format!("bring `{name}` from the copy")));
    lines.extend(done.removed.iter().map(|name| format!("remove `{name}`, which nobody can read")));
    if let Some(rebuilt) = &done.rebuilt {
        lines.push(format!("describe {} packs in the index again", rebuilt.packs.len()));
        lines.extend(rebuilt.damages.iter().map(|damage| format!("leave a pack out of the index: {damage}")));
    }
    let healed = &done.healed;
    let mut count = |many: u64, what: &str| {
        if many > 0 {
            lines.push(format!("{what} {many}"));
        }
    };
    count(healed.chunks_salvaged, "store anew what can still be read here, chunks:");
    count(healed.chunks_from_replica, "store anew what the replica has, chunks:");
    count(healed.descriptions, "store descriptions of packs anew:");
    count(done.decided.confirmed.len() as u64, "confirm snapshots of a copied repository:");
    count(done.decided.reinstated.len() as u64, "reinstate snapshots that are whole again:");
    count(done.decided.quarantined.len() as u64, "quarantine snapshots of which a part is lost:");
    count(done.decided.forgotten.len() as u64, "forget snapshots whose manifests are lost:");
    count(done.decided.condemned.len() as u64, "condemn packs that are damaged or missing; prune removes them:");
    count(done.decided.pardoned.len() as u64, "pardon packs that are needed after all:");
    if healed.packs > 0 {
        lines.push(format!("put back {} packs from the replica, {}", healed.packs, render::size(healed.bytes)));
    }
    lines
}
