//! `verify`: is everything there, and is it what it should be?

use serde_json::json;

use crate::cli::args::{DepthArg, Verify};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render;
use crate::cli::session::Session;
use crate::format::report::Finding;
use crate::ops::verify::{Verified, verify};
use crate::repository::check::{Checked, Depth};

/// `verify`
pub async fn run(session: &Session, args: &Verify) -> Result<Exit, Failure> {
    let repository = session.open().await?;
    let mut only = Vec::new();
    for text in &args.ids {
        only.push(session.snapshot(&repository, text, session.settings.deployment_name().as_deref()).await?.id);
    }
    let (depth, name) = match args.depth {
        DepthArg::Structure => (Depth::Structure, "structure"),
        DepthArg::Data => (Depth::Data, "data"),
    };
    let Verified { checked, report, .. } = verify(&session.context, &repository, depth, &only).await?;
    let document = json!({
        "depth": name,
        "snapshots": checked.snapshots,
        "objects": checked.objects,
        "packs": checked.packs,
        "packs_read": checked.packs_read,
        "bytes_read": checked.bytes_read,
        "chunks_hashed": checked.chunks_hashed,
        "unreferenced_packs": checked.unreferenced_packs,
        "findings": checked.findings,
        "report": report,
    });
    session.out.result(&document, || text(&checked, args.depth))?;
    Ok(if checked.findings.is_empty() { Exit::Done } else { Exit::Damage })
}

/// What was found, for people.
pub fn text(checked: &Checked, depth: DepthArg) -> String {
    let findings: String = checked.findings.iter().map(finding_text).collect();
    let read = match depth {
        DepthArg::Structure => "their content was not read: --depth data does".to_owned(),
        DepthArg::Data => {
            format!("{} read, {} chunks hashed", render::size(checked.bytes_read), checked.chunks_hashed)
        }
    };
    let left = match checked.unreferenced_packs {
        0 => String::new(),
        packs => format!("{packs} packs were left by interrupted runs and are harmless\n"),
    };
    let verdict = match checked.findings.len() {
        0 => "no damage was found".to_owned(),
        1 => "1 finding of damage".to_owned(),
        many => format!("{many} findings of damage"),
    };
    format!(
        "{findings}{left}checked {} snapshots, {} objects, {} packs; {read}\n{verdict}\n",
        checked.snapshots, checked.objects, checked.packs
    )
}

fn finding_text(finding: &Finding) -> String {
    let hurts: String = finding.hurts.iter().map(|hurt| format!("  hurts   {hurt}\n")).collect();
    format!(
        "damage in {} ({})\n  what    {}\n{hurts}  remedy  {}\n",
        finding.object, finding.layer, finding.problem, finding.remedy
    )
}
