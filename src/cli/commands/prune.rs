//! `prune`: frees what no snapshot needs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::forget;
use crate::cli::args::Prune;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render;
use crate::cli::session::Session;
use crate::ops::forget::{Choice, Forgetting};
use crate::ops::prune::{PrunePreview, dry_run, prune};
use crate::repository::sweep::{SweepOptions, Swept, Wait};

/// Grace period where none is given: longer than anybody's clock is wrong, and than a backup takes.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);

/// The shortest grace period: half of it is what listings may lag and clocks may differ.
const GRACE_MIN: Duration = Duration::from_secs(10);

/// `prune`
pub async fn run(session: &Session, args: &Prune) -> Result<Exit, Failure> {
    if args.rebase {
        return Err(Failure::not_built("`--rebase`"));
    }
    if args.grace < GRACE_MIN {
        return Err(Failure::usage(format!(
            "a grace period below {} s is shorter than what listings may lag and clocks may differ",
            GRACE_MIN.as_secs()
        )));
    }
    let policy = (!args.keep.is_empty()).then(|| args.keep.policy()).transpose()?;
    let choice = policy.map(|policy| Choice::Policy(Box::new(policy)));
    let options = SweepOptions { grace: args.grace, max_repack: args.max_repack };
    let repository = session.open().await?;
    let (context, cancel) = (&session.context, &session.context.cancel);
    if args.dry_run {
        let forgetting = match &choice {
            Some(choice) => Some(cancel.or(crate::ops::forget::plan(context, &repository, choice)).await??),
            None => None,
        };
        let without = forgetting.as_ref().map(Forgetting::forgotten).unwrap_or_default();
        let frees = cancel.or(dry_run(context, &repository, options, &without, false)).await??;
        let mut document = preview_document(&frees);
        document["forget"] = forgetting.as_ref().map_or(Value::Null, forget::document);
        session.out.result(&document, || {
            let forgetting = forgetting.as_ref().map(|done| forget::text(done, "would forget", None));
            format!("{}{}", forgetting.unwrap_or_default(), preview_text(&frees))
        })?;
        return Ok(Exit::Done);
    }
    let forgotten = match &choice {
        Some(choice) => Some(crate::ops::forget::forget(context, &repository, choice).await?.forgetting),
        None => None,
    };
    let pruned = prune(context, &repository, options).await?;
    let mut document = document(&pruned.swept);
    document["forget"] = forgotten.as_ref().map_or(Value::Null, forget::document);
    document["report"] = json!(pruned.report);
    session.out.done(Exit::Done, &document, || {
        let forgotten = forgotten.as_ref().map(|done| forget::text(done, "forgot", None));
        format!("{}{}", forgotten.unwrap_or_default(), text(&pruned.swept))
    })
}

const PARTLY_UNKNOWN: &str = "no pack goes while it is not known what a quarantined snapshot refers to: mend it by \
    `repair --from REPLICA`, or forget it";

/// What packs wait for, each reason once, with the number of packs.
fn waits<'a>(waiting: impl Iterator<Item = &'a Wait>) -> BTreeMap<String, u64> {
    let mut reasons = BTreeMap::new();
    for wait in waiting {
        let reason = match wait {
            Wait::Grace { until: Some(until) } => format!("the grace period, until {}", render::time(*until)),
            Wait::Grace { until: None } => "the grace period, which begins with the next run".to_owned(),
            Wait::Run { operation, holder, until } => {
                format!("a {operation} by {holder}, which may be alive until {}", render::time(*until))
            }
            Wait::Quarantined => {
                "a quarantined snapshot, of which a replica may bring back more: `repair --from REPLICA`, or forget it"
                    .to_owned()
            }
            Wait::ClockWentBack { newest } => {
                format!("the clock of the store, which is behind its newest object of {}", render::time(*newest))
            }
        };
        *reasons.entry(reason).or_default() += 1;
    }
    reasons
}

fn document(swept: &Swept) -> Value {
    json!({
        "dry_run": false,
        "deleted_packs": swept.deleted_packs,
        "deleted_bytes": swept.deleted_bytes,
        "deleted_manifests": swept.deleted_manifests,
        "deleted_leases": swept.deleted_leases,
        "condemned_packs": swept.condemned_packs,
        "condemned_bytes": swept.condemned_bytes,
        "pardoned_packs": swept.pardoned_packs,
        "repacked_packs": swept.repacked_packs,
        "repacked_bytes": swept.repacked_bytes,
        "forgotten_late": swept.forgotten_late,
        "partly_unknown": swept.is_partly_unknown,
        "waiting_packs": swept.waiting.len(),
        "waiting_bytes": swept.waiting_bytes,
        "waiting_for": waits(swept.waiting.iter().map(|(_, wait)| wait)),
        "indexes_put": swept.reindexed.put,
        "indexes_deleted": swept.reindexed.deleted,
        "hidden_objects": swept.hidden_objects,
        "hidden_until": swept.hidden_until,
        "kept_bytes": swept.kept_bytes,
    })
}

fn text(swept: &Swept) -> String {
    let mut lines = vec![format!("deleted {} packs, {}", swept.deleted_packs, render::size(swept.deleted_bytes))];
    if swept.repacked_packs > 0 {
        let put = render::size(swept.repacked_bytes);
        lines.push(format!("moved what lives out of {} packs, {put} written", swept.repacked_packs));
    }
    if swept.condemned_packs > 0 {
        let size = render::size(swept.condemned_bytes);
        lines.push(format!(
            "condemned {} packs, {size}: a run after the grace period deletes them",
            swept.condemned_packs
        ));
    }
    if swept.pardoned_packs > 0 {
        lines.push(format!("{} condemned packs are needed after all and stay", swept.pardoned_packs));
    }
    if swept.forgotten_late > 0 {
        lines.push(format!("forgot {} snapshots that landed too late and were never confirmed", swept.forgotten_late));
    }
    if swept.cannot_repack_content {
        lines.push("packs that are mostly dead were left: this key slot does not read content".to_owned());
    }
    if swept.is_partly_unknown {
        lines.push(PARTLY_UNKNOWN.to_owned());
    }
    lines.extend(wait_lines(swept.waiting.iter().map(|(_, wait)| wait)));
    if swept.hidden_objects > 0 {
        let until = match swept.hidden_until {
            Some(until) => format!("it refuses to remove the last of them until {}", render::time(until)),
            None => "its own rules say when they go".to_owned(),
        };
        lines.push(format!("the bucket keeps versions: {} objects are only hidden; {until}", swept.hidden_objects));
    }
    lines.push(format!("kept {}", render::size(swept.kept_bytes)));
    lines.join("\n") + "\n"
}

fn wait_lines<'a>(waiting: impl Iterator<Item = &'a Wait>) -> Vec<String> {
    waits(waiting).into_iter().map(|(reason, packs)| format!("{packs} condemned packs wait for {reason}")).collect()
}

fn preview_document(frees: &PrunePreview) -> Value {
    json!({
        "dry_run": true,
        "would_delete_packs": frees.delete_packs,
        "would_delete_bytes": frees.delete_bytes,
        "would_condemn_packs": frees.condemn_packs,
        "would_condemn_bytes": frees.condemn_bytes,
        "waiting_packs": frees.waiting.len(),
        "waiting_bytes": frees.waiting_bytes,
        "waiting_for": waits(frees.waiting.iter()),
        "partly_unknown": frees.is_partly_unknown,
    })
}

fn preview_text(frees: &PrunePreview) -> String {
    let mut lines = vec![
        format!("would delete {} packs, {}", frees.delete_packs, render::size(frees.delete_bytes)),
        format!("would condemn {} packs, {}", frees.condemn_packs, render::size(frees.condemn_bytes)),
    ];
    if frees.is_partly_unknown {
        lines.push(PARTLY_UNKNOWN.to_owned());
    }
    lines.extend(wait_lines(frees.waiting.iter()));
    lines.join("\n") + "\n"
}
