//! Evidence for somebody who has no key: reports as they are, with what shows that they are.
//!
//! Holds: only reports whose seal and signature are sound are in it; what is wrong with others, or missing, is a finding.
//! Does not: write anything, or read content, so that an auditor's key is enough.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::{Context, TOOL};
use crate::error::{Error, ErrorKind};
use crate::format::envelope::ObjectType;
use crate::format::key_slot::{KeySlot, Role};
use crate::format::report::{Finding, Report};
use crate::id::{ObjectId, RepositoryId, SlotId, hex_of};
use crate::repository::check::reports::check_reports;
use crate::repository::open::read_slots;
use crate::repository::snapshots::by_prefix;
use crate::repository::{Repository, RepositoryError};

/// Reports, and what was checked of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The repository that they are of.
    pub repository: RepositoryId,
    /// Where it was.
    pub location: String,
    /// When this was put together.
    pub exported_at: Timestamp,
    /// By which program.
    pub tool: String,
    /// How many reports were opened and checked: all that there are.
    pub checked: u64,
    /// The newest of all.
    pub newest: Option<ObjectId>,
    /// Damage among all, and reports that others name and that are gone.
    pub findings: Vec<Finding>,
    /// Those that were asked for, oldest first.
    pub reports: Vec<Exported>,
}

/// One report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Its id: the BLAKE3 hash of its bytes as stored.
    pub id: ObjectId,
    /// How many bytes that are.
    pub stored_bytes: u64,
    /// Who signed it.
    pub signature: Signature,
    /// Whether the report before it is there; `None` if it names none.
    pub previous_is_there: Option<bool>,
    /// What it says.
    #[serde(flatten)]
    pub report: Report,
}

/// A signature that was checked, and is valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signature {
    /// `valid`: others are findings.
    pub state: &'static str,
    /// Public half of the Ed25519 key, which the root of the repository certified, in hexadecimal.
    pub signer: String,
    /// The key slot that it belongs to, if that is still known.
    pub slot: Option<SlotId>,
    /// What people call that.
    pub label: Option<String>,
    /// What that allows.
    pub role: Option<Role>,
}

/// Puts the evidence together: all reports, or those that `texts` name (ids, beginnings of them, `latest`).
///
/// # Errors
/// If a text names no report or more than one, or the store cannot be read. Damage is none.
pub async fn collect(context: &Context, repository: &Arc<Repository>, texts: &[String]) -> Result<Evidence, Error> {
    let collecting = async {
        let checked = check_reports(repository, &context.executor, &std::collections::BTreeSet::new()).await?;
        let listed = repository.list_objects(ObjectType::Report).await?;
        let mut chosen = listed.clone();
        if !texts.is_empty() {
            let ids = texts.iter().map(|text| named(&listed, checked.newest, text));
            chosen = ids.collect::<Result<_, Error>>()?;
        }
        let (slots, _) = read_slots(&**repository.store(), repository.config()).await?;
        let by_signer: BTreeMap<&str, &KeySlot> = slots.iter().map(|slot| (slot.signer.as_str(), slot)).collect();
        let mut reports = Vec::new();
        for id in &chosen {
            let read = match repository.signed_report(id).await {
                Ok(read) => read,
                // A finding already.
                Err(RepositoryError::Damaged(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let signer = hex_of(&read.signer);
            let slot = by_signer.get(signer.as_str());
            reports.push(Exported {
                id: *id,
                stored_bytes: read.stored_bytes,
                signature: Signature {
                    state: "valid",
                    slot: slot.map(|slot| slot.slot),
                    label: slot.map(|slot| slot.label.clone()),
                    role: slot.map(|slot| slot.role),
                    signer,
                },
                previous_is_there: read.report.previous.map(|previous| listed.contains(&previous)),
                report: read.report,
            });
        }
        reports.sort_by_key(|exported| (exported.report.end, exported.id));
        Ok(Evidence {
            repository: repository.config().repository,
            location: repository.store().location(),
            exported_at: context.clock().now(),
            tool: TOOL.to_owned(),
            checked: checked.reports,
            newest: checked.newest,
            findings: checked.findings,
            reports,
        })
    };
    context.cancel.or(collecting).await?
}

fn named(
    listed: &std::collections::BTreeSet<ObjectId>,
    newest: Option<ObjectId>,
    text: &str,
) -> Result<ObjectId, Error> {
    let missing = || Error::new(ErrorKind::NotFound, format!("`{text}` names no report, or more than one"));
    if text == "latest" {
        return newest.ok_or_else(missing);
    }
    by_prefix(listed.iter(), text).map_err(|_| missing())
}
