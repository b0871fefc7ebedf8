//! `forget`: which snapshots stay.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cli::args::Forget;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render;
use crate::cli::session::Session;
use crate::ops::forget::{Choice, Forgetting, forget, plan};
use crate::ops::prune::{PrunePreview, dry_run};
use crate::repository::sweep::SweepOptions;

/// `forget`
pub async fn run(session: &Session, args: &Forget) -> Result<Exit, Failure> {
    if !args.ids.is_empty() && !args.keep.is_empty() {
        return Err(Failure::usage("either snapshots are named, or rules say which to keep"));
    }
    let named = args.ids.is_empty().then(|| args.keep.policy()).transpose()?;
    let repository = session.open().await?;
    let choice = match named {
        Some(policy) => Choice::Policy(Box::new(policy)),
        None => {
            let mut ids = BTreeSet::new();
            for text in &args.ids {
                ids.insert(session.snapshot_by_id(&repository, text).await?.id);
            }
            Choice::Snapshots(ids)
        }
    };
    let cancel = &session.context.cancel;
    if args.dry_run {
        let forgetting = cancel.or(plan(&session.context, &repository, &choice)).await??;
        let options = SweepOptions { grace: super::prune::GRACE, max_repack: 0 };
        let frees = cancel.or(dry_run(&session.context, &repository, options, &forgetting.forgotten(), true)).await??;
        let mut document = document(&forgetting);
        document["dry_run"] = json!(true);
        document["would_free_bytes"] = json!(frees.condemn_bytes);
        session.out.result(&document, || text(&forgetting, "would forget", Some(&frees)))?;
        return Ok(Exit::Done);
    }
    let done = forget(&session.context, &repository, &choice).await?;
    let mut document = document(&done.forgetting);
    document["dry_run"] = json!(false);
    document["report"] = json!(done.report);
    session.out.done(Exit::Done, &document, || text(&done.forgetting, "forgot", None))
}

/// What was decided about each snapshot.
pub fn document(forgetting: &Forgetting) -> Value {
    let decisions: Vec<Value> = forgetting
        .decisions
        .iter()
        .map(|decision| {
            let reasons: Vec<String> = decision.keep.iter().map(ToString::to_string).collect();
            json!({ "id": decision.id, "forgotten": decision.keep.is_empty(), "reasons": reasons })
        })
        .collect();
    json!({ "forgotten": forgetting.forgotten(), "decisions": decisions })
}

/// The same for people.
pub fn text(forgetting: &Forgetting, verb: &str, frees: Option<&PrunePreview>) -> String {
    let rows: Vec<Vec<String>> = forgetting
        .decisions
        .iter()
        .filter_map(|decision| {
            let snapshot = forgetting.snapshots.iter().find(|snapshot| snapshot.id == decision.id)?;
            let reasons: Vec<String> = decision.keep.iter().map(ToString::to_string).collect();
            let what = if decision.keep.is_empty() { "forget" } else { "keep" };
            Some(vec![
                decision.id.short(),
                render::time(snapshot.manifest.created_at),
                snapshot.manifest.deployment.clone(),
                what.to_owned(),
                reasons.join(", "),
            ])
        })
        .collect();
    let table = render::table(&["ID", "CREATED", "DEPLOYMENT", "", "WHY"], &[], &rows);
    let count = forgetting.forgotten().len();
    let room = match frees {
        Some(frees) => format!(", which would free {} by and by", render::size(frees.condemn_bytes)),
        None if count > 0 => "; `infrahub-backup prune` frees what only they held".to_owned(),
        None => String::new(),
    };
    format!("{table}{verb} {count} of {} snapshots{room}\n", forgetting.snapshots.len())
}
