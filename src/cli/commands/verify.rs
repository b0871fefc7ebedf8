//! `verify`: is everything there, and is it what it should be?

use std::sync::Arc;

use serde_json::{Value, json};

use crate::cli::args::{DepthArg, Verify};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::log::Log;
use crate::cli::place;
use crate::cli::render::{self, Out};
use crate::cli::session::Session;
use crate::cli::settings::Settings;
use crate::env::{Entropy, random_bytes};
use crate::format::report::Finding;
use crate::ops::verify::{VerifyOptions, describe, verify_with, verify_without_key};
use crate::ops::{Cancel, Events, Level};
use crate::repository::Outside;
use crate::repository::check::Checked;
use crate::repository::check::choice::{Choice, Sample};
use crate::repository::check::unchecked::Unchecked;
use crate::repository::executor::{Executor, RayonExecutor};

/// `verify`
pub async fn run(session: &Session, args: &Verify) -> Result<Exit, Failure> {
    let (choice, chooses) = choice(args, session.context.entropy());
    if args.depth == DepthArg::Structure && chooses {
        let text = "`--sample`, `--max-age`, `--budget` and `--shard` choose packs, and depth `structure` reads none";
        return Err(Failure::usage(text).hint("add --depth data"));
    }
    if args.scratch.is_some() && args.depth != DepthArg::Rehearsal {
        let text = "`--scratch` says where a rehearsal writes its files";
        return Err(Failure::usage(text).hint("add --depth rehearsal"));
    }
    let repository = session.open().await?;
    let mut only = Vec::new();
    for text in &args.ids {
        only.push(session.snapshot(&repository, text, session.settings.deployment_name().as_deref()).await?.id);
    }
    let scratch = || args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let (depth, read, scratch) = match args.depth {
        DepthArg::Structure => ("structure", None, None),
        DepthArg::Data => ("data", Some(choice), None),
        DepthArg::Rehearsal => ("rehearsal", Some(choice), Some(scratch())),
    };
    let verified =
        verify_with(&session.context, &repository, VerifyOptions { only, read, scratch, heads: args.head.clone() })
            .await?;
    let mut document = document(&verified.checked, depth, &choice);
    document["rehearsed"] = json!(verified.rehearsed);
    document["report"] = json!(verified.report);
    let rehearsed = match verified.rehearsed.len() {
        0 => String::new(),
        many => format!("{many} snapshots were restored to scratch files and decoded\n"),
    };
    session.out.done(exit(&verified.checked), &document, || rehearsed + &text(&verified.checked, read.as_ref()))
}

/// `verify --without-key`
pub async fn run_without_key(
    settings: &Settings,
    args: &Verify,
    log: Arc<Log>,
    out: Out,
    cancel: Cancel,
) -> Result<Exit, Failure> {
    let outside = Outside::system();
    let (choice, _) = choice(args, &*outside.entropy);
    if args.scratch.is_some() {
        return Err(Failure::usage("without a key nothing can be restored, so that `--scratch` has no use"));
    }
    if choice.budget.is_some() && choice.shard.is_none() && choice.sample.is_none() {
        let text = "without a key nobody knows what was read before, so that `--budget` takes the same packs each time: add --shard or --sample";
        log.message(Level::Warning, text);
    }
    let store = place::store(settings)?;
    let executor: Arc<dyn Executor> = Arc::new(RayonExecutor);
    let events: Arc<dyn Events> = log;
    let checking = verify_without_key(&store, &executor, &*outside.clock, &cancel, &events, &choice);
    let checked = checking.await?;
    let mut document = document(&checked, "without-key", &choice);
    document["report"] = Value::Null;
    out.done(exit(&checked), &document, || text(&checked, Some(&choice)))
}

/// Which packs the flags choose, and whether they choose at all.
fn choice(args: &Verify, entropy: &dyn Entropy) -> (Choice, bool) {
    let seed = || args.seed.unwrap_or_else(|| u32::from_le_bytes(random_bytes(entropy)));
    let sample = args.sample.map(|parts_per_million| Sample { parts_per_million, seed: seed() });
    let choice = Choice { shard: args.shard, max_age: args.max_age, sample, budget: args.budget };
    (choice, choice != Choice::default())
}

fn exit(checked: &Checked) -> Exit {
    if checked.findings.is_empty() { Exit::Done } else { Exit::Damage }
}

fn document(checked: &Checked, depth: &str, choice: &Choice) -> Value {
    let mut document = json!({
        "depth": depth,
        "snapshots": checked.snapshots,
        "objects": checked.objects,
        "packs": checked.packs,
        "packs_read": checked.packs_read,
        "bytes_read": checked.bytes_read,
        "chunks_hashed": checked.chunks_hashed,
        "unreferenced_packs": checked.unreferenced_packs,
        "condemned_packs": checked.condemned_packs,
        "late": checked.late,
        "quarantined": checked.quarantined,
        "not_checked": checked.not_checked,
        "findings": checked.findings,
    });
    if let Some(sample) = choice.sample {
        document["seed"] = json!(sample.seed);
    }
    document
}

/// What was found, for people. `read` says which packs were to be read, if any.
pub fn text(checked: &Checked, read: Option<&Choice>) -> String {
    let findings: String = checked.findings.iter().map(finding_text).collect();
    let content = match read {
        None => "their content was not read: --depth data does".to_owned(),
        Some(_) if checked.chunks_hashed == 0 => format!("{} read and hashed", render::size(checked.bytes_read)),
        Some(_) => format!("{} read, {} chunks hashed", render::size(checked.bytes_read), checked.chunks_hashed),
    };
    let chosen = match read.filter(|choice| **choice != Choice::default()) {
        Some(choice) => format!("to be read was {}\n", describe(choice)),
        None => String::new(),
    };
    let left = [
        (checked.unreferenced_packs, "packs were left by interrupted runs and are harmless"),
        (checked.condemned_packs, "packs are condemned: prune deletes them"),
    ];
    let left: String =
        left.iter().filter(|(packs, _)| *packs > 0).map(|(packs, what)| format!("{packs} {what}\n")).collect();
    let not_checked: String = checked.not_checked.iter().map(not_checked_text).collect();
    let verdict = match (checked.findings.len(), checked.not_checked.is_empty()) {
        (0, true) => "no damage was found".to_owned(),
        (0, false) => "no damage was found in what was checked".to_owned(),
        (1, _) => "1 finding of damage".to_owned(),
        (many, _) => format!("{many} findings of damage"),
    };
    format!(
        "{findings}{left}{chosen}checked {} snapshots, {} objects, {} of {} packs; {content}\n{not_checked}{verdict}\n",
        checked.snapshots,
        checked.objects,
        if read.is_some() { checked.packs_read } else { checked.packs },
        checked.packs
    )
}

fn not_checked_text(unchecked: &Unchecked) -> String {
    match unchecked.bytes {
        Some(bytes) => {
            format!("not checked: {} packs, {}: {}\n", unchecked.count, render::size(bytes), unchecked.reason)
        }
        None => format!("not checked: {unchecked}\n"),
    }
}

/// A finding, for people.
pub fn finding_text(finding: &Finding) -> String {
    let hurts: String = finding.hurts.iter().map(|hurt| format!("  hurts   {hurt}\n")).collect();
    format!(
        "damage in {} ({})\n  what    {}\n{hurts}  remedy  {}\n",
        finding.object, finding.layer, finding.problem, finding.remedy
    )
}
