//! `report export`: evidence for an auditor.

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;

use super::verify::finding_text;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::whole_file::{self, There};
use crate::cli::{html, render};
use crate::id::hex_of;
use crate::ops::audit::{Evidence, collect};

/// Reports tell of hosts, users and commands.
const PAGE_MODE: u32 = 0o600;

/// What `report export --json` prints.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    evidence: &'a Evidence,
    /// The page, if one was written.
    html: Option<Page>,
}

/// The page that was written.
#[derive(Serialize)]
struct Page {
    file: String,
    bytes: u64,
    sha256: String,
}

/// `report export`; no `ids` are all.
pub async fn run(session: &Session, ids: &[String], html: Option<&Path>) -> Result<Exit, Failure> {
    if html.is_none() && !session.out.json {
        return Err(Failure::usage("nothing says what the evidence is to become")
            .hint("a page: --html FILE; a document on standard output: --json"));
    }
    if let Some(path) = html
        && path.symlink_metadata().is_ok()
    {
        return Err(there(path));
    }
    let repository = session.open().await?;
    let collected = collect(&session.context, &repository, ids).await;
    let evidence =
        collected.map_err(|error| Failure::from(error).hint("see what there is: infrahub-backup report list"))?;
    let page = html.map(|path| write_page(path, &evidence)).transpose()?;
    let exit = if evidence.findings.is_empty() { Exit::Done } else { Exit::Damage };
    let text = page.as_ref().map(|page| text(&evidence, page)).unwrap_or_default();
    session.out.done(exit, &Document { evidence: &evidence, html: page }, || text)
}

fn there(path: &Path) -> Failure {
    Failure::usage(format!("`{}` is already there", path.display())).hint("name a file that is not: --html FILE")
}

fn write_page(path: &Path, evidence: &Evidence) -> Result<Page, Failure> {
    let page = html::page(evidence);
    whole_file::write(path, page.as_bytes(), PAGE_MODE, There::Kept).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => there(path),
        _ => Failure::io(format!("`{}` cannot be written", path.display()), error),
    })?;
    let (file, bytes) = (path.display().to_string(), page.len() as u64);
    Ok(Page { file, bytes, sha256: hex_of(digest(&SHA256, page.as_bytes()).as_ref()) })
}

fn text(evidence: &Evidence, page: &Page) -> String {
    let findings: String = evidence.findings.iter().map(finding_text).collect();
    format!(
        "{findings}wrote {} of {} reports into {}: {}, SHA-256 {}\n",
        evidence.reports.len(),
        evidence.checked,
        page.file,
        render::size(page.bytes),
        page.sha256
    )
}
