//! `replicate`: brings snapshots into another repository.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use super::init;
use crate::cli::args::{Global, Replicate};
use crate::cli::credential;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::place::{self, Place};
use crate::cli::render;
use crate::cli::session::Session;
use crate::cli::settings::{Location, Settings, is_s3};
use crate::id::SnapshotId;
use crate::ops::replicate::{
    LeftOut, Mode, Pair, ReplicateOptions, ReplicatePlan, Replicated, Selection, found_replica, make_replica, plan,
    relation, replicate,
};
use crate::repository::Repository;
use crate::seal::slot::Credential;

/// `replicate`
pub async fn run(session: &Session, args: &Replicate) -> Result<Exit, Failure> {
    let context = &session.context;
    // Before the source is narrowed down to what is its own.
    let there = at_target(session, args);
    let session = &at_source(session, args)?;
    let (store, config) = place::look(&session.settings, &context.state).await?.repository()?;
    let credential = context.cancel.or(credential::to_open(&session.settings, &config)).await??;
    let source = context.cancel.or(context.open(store, &credential)).await??;
    place::remember(&context.state, &source, session.settings.global().accept_new_repository)?;
    let selection = selection(session, &source, &args.snapshot).await?;
    let options = ReplicateOptions { selection, other_keys: args.other_keys() };
    let (target, place) = match place::look(&there.settings, &context.state).await? {
        Place::Repository { store, config } => {
            if store.location() == source.store().location() {
                let text = format!("{} is the repository itself: a replica needs a place of its own", store.location());
                return Err(Failure::usage(text));
            }
            let mode = relation(source.config(), &config)?;
            if mode == Mode::Copy && !args.dry_run {
                found_replica(&source, &*store).await?;
            }
            let location = store.location();
            let target = match (mode, args.other_keys()) {
                (Mode::Reseal, false) => {
                    let id = config.repository;
                    let text = format!("{location} holds another repository, {id}, which has keys of its own");
                    return Err(Failure::usage(text));
                }
                (Mode::Copy, false) => opened(&there, store, &credential).await?,
                (Mode::Copy | Mode::Reseal, true) => there.open_found(store, &config).await?,
            };
            (Some(target), location)
        }
        Place::Empty(location) if !args.init => {
            return Err(place::missing(&location)
                .hint("to make the replica there: infrahub-backup replicate --to PLACE --init"));
        }
        Place::Empty(location) if args.dry_run => (None, location.to_string()),
        Place::Empty(location) => {
            let target = made(&there, args, &location, &source, &credential).await?;
            let place = target.store().location();
            (Some(target), place)
        }
    };
    if args.dry_run {
        let planned = context.cancel.or(plan(context, &source, target.as_ref(), &options)).await??;
        session.out.result(&plan_document(&planned, &place, target.is_none()), || {
            plan_text(&planned, &place, target.is_none())
        })?;
        return Ok(Exit::Done);
    }
    let target = target.expect("only a dry run goes on without a target");
    let done = replicate(context, &source, &target, &options).await?;
    let exit = exit(&done, &options.selection);
    session.out.done(exit, &document(&done, &source, &target), || text(&done, &place))
}

/// The snapshots that are asked for.
async fn selection(session: &Session, source: &Repository, texts: &[String]) -> Result<Selection, Failure> {
    if texts.is_empty() {
        return Ok(Selection::All);
    }
    let mut ids = BTreeSet::new();
    for text in texts {
        let deployment = session.settings.deployment_name();
        ids.insert(session.snapshot(source, text, deployment.as_deref()).await?.id);
    }
    Ok(Selection::Only(ids))
}

/// The same session at the source. Which S3 server is meant by a flag is none of its business if only the target is in S3.
fn at_source(session: &Session, args: &Replicate) -> Result<Session, Failure> {
    let mut global = session.settings.global().clone();
    if is_s3(&args.to) && !session.settings.is_in_s3()? {
        global.legacy.s3_endpoint = None;
    }
    Ok(with_settings(session, Settings::new(global, typed(session))))
}

/// The same session, whose repository is the target: opened by what `--to-key…` says, or by what opens the source.
fn at_target(session: &Session, args: &Replicate) -> Session {
    let mut global = flags_of_target(session.settings.global(), &args.to);
    let mut typed = typed(session);
    if args.other_keys() {
        global.key_file.clone_from(&args.to_key_file);
        global.identity = None;
        global.password_file.clone_from(&args.to_password_file);
        global.password_command.clone_from(&args.to_password_command);
        // They are as good as typed: no variable that belongs to the source may stand in their way.
        typed = credential::FLAGS.to_vec();
    }
    with_settings(session, Settings::new(global, typed))
}

/// The flags of the source with another place, which is complete: bucket and folder that flags name are the source's. A server
/// and a region hold for both, where both are in S3.
fn flags_of_target(global: &Global, to: &str) -> Global {
    let mut global = global.clone();
    let legacy = &mut global.legacy;
    (legacy.s3_bucket, legacy.s3_prefix) = (None, None);
    if !is_s3(to) {
        (legacy.s3_endpoint, legacy.s3_region) = (None, None);
    }
    global.repo = Some(to.to_owned());
    global
}

/// The same session at another place, opened by the same key.
pub(super) fn at_place(session: &Session, place: &str) -> Session {
    with_settings(session, Settings::new(flags_of_target(session.settings.global(), place), typed(session)))
}

fn typed(session: &Session) -> Vec<&'static str> {
    credential::FLAGS.into_iter().filter(|flag| session.settings.is_typed(flag)).collect()
}

fn with_settings(session: &Session, settings: Settings) -> Session {
    Session { settings, context: session.context.clone(), log: Arc::clone(&session.log), out: session.out }
}

async fn opened(
    there: &Session,
    store: Arc<dyn crate::storage::Store>,
    credential: &Credential,
) -> Result<Arc<Repository>, Failure> {
    let target = there.context.cancel.or(there.context.open(store, credential)).await??;
    place::remember(&there.context.state, &target, there.settings.global().accept_new_repository)?;
    Ok(target)
}

/// Makes the target: the same repository at another place, or a new one with keys of its own.
async fn made(
    there: &Session,
    args: &Replicate,
    location: &Location,
    source: &Repository,
    credential: &Credential,
) -> Result<Arc<Repository>, Failure> {
    if !args.other_keys() {
        let store = place::make_store(location, &there.settings)?;
        make_replica(&there.context, source, &*store).await?;
        return opened(there, store, credential).await;
    }
    let key = there.context.cancel.or(init::new_key(there, location, false, false)).await??;
    let made = init::make(there, location, key, false).await?;
    if let Some(path) = &made.key_file {
        there.context.info(init::key_advice(path).trim_end());
    }
    opened(there, made.store, &made.credential).await
}

fn exit(done: &Replicated, selection: &Selection) -> Exit {
    match (done.findings.is_empty(), done.is_whole(selection)) {
        (false, _) => Exit::Damage,
        (true, false) => Exit::Incomplete,
        (true, true) => Exit::Done,
    }
}

fn pair_document(pair: &Pair) -> Value {
    let stream = |stream: &crate::ops::replicate::StreamProof| {
        json!({
            "component": stream.component,
            "stream": stream.stream,
            "length": stream.length,
            "blake3": stream.blake3,
            "read_back": stream.read_back,
        })
    };
    json!({
        "source": pair.source,
        "target": pair.target,
        "streams": pair.streams.iter().map(stream).collect::<Vec<_>>(),
    })
}

fn left_out_documents(left_out: &[LeftOut]) -> Vec<Value> {
    left_out.iter().map(|left| json!({ "snapshot": left.id, "reason": left.reason.to_string() })).collect()
}

fn document(done: &Replicated, source: &Repository, target: &Repository) -> Value {
    json!({
        "mode": done.mode.as_str(),
        "source": source.store().location(),
        "target": target.store().location(),
        "repository": target.config().repository,
        "copied": done.pairs.iter().map(pair_document).collect::<Vec<_>>(),
        "there": done.there,
        "forgotten": done.forgotten,
        "late": done.late,
        "withdrawn": done.withdrawn,
        "left_out": left_out_documents(&done.left_out),
        "packs_copied": done.counts.packs_copied,
        "bytes_copied": done.counts.bytes_copied,
        "packs_adopted": done.counts.packs_adopted,
        "chunks_stored_anew": done.counts.chunks_stored_anew,
        "bytes_stored": done.counts.bytes_stored,
        "proof": {
            "in_both": done.proof.in_both,
            "missing": done.proof.missing,
            "only_in_target": done.proof.only_there,
            "resolved": done.proof.resolved,
        },
        "findings": done.findings,
        "report": done.report,
        "source_report": done.source_report,
    })
}

fn text(done: &Replicated, place: &str) -> String {
    let mut text = String::new();
    let (many, counts) = (done.pairs.len(), &done.counts);
    match (done.mode, many) {
        (_, 0) => text.push_str("nothing was copied: "),
        (Mode::Copy, _) => {
            let _ = write!(
                text,
                "copied {many} snapshots in {} packs, {}: ",
                counts.packs_copied,
                render::size(counts.bytes_copied)
            );
        }
        (Mode::Reseal, _) => {
            let _ = write!(text, "sealed {many} snapshots anew, {}: ", render::size(counts.bytes_stored));
        }
    }
    let _ = writeln!(text, "{} are in {place}", done.proof.in_both);
    if done.mode == Mode::Copy && counts.chunks_stored_anew > 0 {
        let _ = writeln!(
            text,
            "{} chunks were stored anew, because the target condemned their packs",
            counts.chunks_stored_anew
        );
    }
    for pair in done.pairs.iter().filter(|pair| pair.source != pair.target) {
        let _ = writeln!(text, "  {} is {} there", pair.source.short(), pair.target.short());
    }
    rest(&mut text, &done.forgotten, &done.late, &done.left_out);
    for finding in &done.findings {
        let _ = writeln!(text, "damage in {} ({}): {}", finding.object, finding.layer, finding.problem);
    }
    let _ = writeln!(text, "proof: {}", done.proof);
    text
}

/// What was not brought, and why.
fn rest(text: &mut String, forgotten: &[SnapshotId], late: &[SnapshotId], left_out: &[LeftOut]) {
    for (ids, why) in [(forgotten, "forgotten there"), (late, "not certain to be whole here")] {
        if !ids.is_empty() {
            let _ = writeln!(text, "{} not copied: {why}", ids.len());
        }
    }
    for left in left_out {
        let _ = writeln!(text, "not copied: {}: {}", left.id.short(), left.reason);
    }
}

fn plan_document(planned: &ReplicatePlan, place: &str, init: bool) -> Value {
    let ids: Vec<SnapshotId> = planned.chosen.snapshots.iter().map(|snapshot| snapshot.id).collect();
    json!({
        "dry_run": true,
        "mode": planned.mode.as_str(),
        "target": place,
        "init": init,
        "copy": ids,
        "there": planned.chosen.there.keys().collect::<Vec<_>>(),
        "forgotten": planned.chosen.forgotten,
        "late": planned.chosen.late,
        "left_out": left_out_documents(&planned.left_out),
        "packs": planned.needed.map(|needed| needed.packs),
        "bytes": planned.needed.map(|needed| needed.bytes),
        "chunks_anew": planned.needed.map(|needed| needed.chunks_anew),
    })
}

fn plan_text(planned: &ReplicatePlan, place: &str, init: bool) -> String {
    let mut text = String::new();
    if init {
        let _ = writeln!(text, "would make a repository in {place}");
    }
    let many = planned.chosen.snapshots.len();
    let _ = match planned.needed {
        Some(needed) => {
            let (packs, bytes) = (needed.packs, render::size(needed.bytes));
            writeln!(text, "would copy {many} snapshots to {place}: {packs} packs, {bytes}, as they are sealed")
        }
        None => writeln!(text, "would read {many} snapshots and seal them anew under the keys of {place}"),
    };
    rest(&mut text, &planned.chosen.forgotten, &planned.chosen.late, &planned.left_out);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(repo: Option<&str>, bucket: Option<&str>) -> Global {
        let text = |text: &str| Some(text.to_owned());
        let mut global = Global { repo: repo.map(str::to_owned), ..Global::default() };
        global.legacy.s3_bucket = bucket.map(str::to_owned);
        (global.legacy.s3_prefix, global.legacy.s3_region) = (bucket.and(text("of-source")), text("region"));
        global.legacy.s3_endpoint = text("http://127.0.0.1:9");
        global
    }

    fn target(global: &Global, to: &str) -> String {
        let location = Settings::new(flags_of_target(global, to), vec![]).location();
        location.unwrap_or_else(|failure| panic!("{to}: {}", failure.error)).to_string()
    }

    #[test]
    fn the_target_is_where_to_says_whatever_flags_say_of_the_source() {
        for source in [flags(None, Some("source")), flags(Some("s3://source/folder"), None)] {
            assert_eq!(target(&source, "/replica"), "/replica");
            assert_eq!(target(&source, "gs://replica/a"), "gs://replica/a");
            assert_eq!(target(&source, "s3://replica/a"), "s3://replica/a at http://127.0.0.1:9");
        }
    }

    #[test]
    fn a_server_that_is_named_for_a_target_in_s3_is_not_refused_for_a_source_in_a_folder() {
        let is_in_s3 = |global| Settings::new(global, vec![]).is_in_s3().unwrap_or_else(|_| panic!("no configuration"));
        assert!(!is_in_s3(flags(Some("/source"), None)));
        assert!(is_in_s3(flags(Some("s3://source"), None)) && is_in_s3(flags(None, Some("source"))));
    }
}
