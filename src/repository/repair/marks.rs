//! Marks that are damaged or missing: one new mark says again all that they said, as far as it is known.
//!
//! What a mark said is known to the machines that read it before, from their caches, and to a copy of the whole repository. A
//! replica has marks of its own: they are another history, and tell nothing.

use std::collections::BTreeMap;

use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::mark::Mark;
use crate::id::ObjectName;
use crate::limits::OBJECT_SIZE_MAX;
use crate::repository::lease::Claimant;
use crate::repository::marks::Record;
use crate::repository::{Damage, Repository, RepositoryError, get_or_damage, missing};
use crate::seal::object::unseal_object;
use crate::storage::StoreError;

/// How often it is tried anew because another run was faster.
const TRIES_MAX: u32 = 20;

/// Of a damaged mark this share of its bytes must be where a copy has the same, for the copy to be of it. Two different sealed
/// objects share one byte in 256.
const SAME_PERCENT: usize = 50;

/// What became of the marks.
#[derive(Debug, Default)]
pub struct MendedMarks {
    /// Those of which it is known what they said, with where from.
    pub known: BTreeMap<u32, &'static str>,
    /// Those of which nobody knows any more what they said.
    pub lost: BTreeMap<u32, Damage>,
    /// The mark that says it all again, if one was put.
    pub restated: Option<u32>,
}

struct Found {
    marks: BTreeMap<u32, Mark>,
    damages: BTreeMap<u32, Damage>,
    last: u32,
}

/// Restates the marks if some are damaged; `None` if none is that matters. What is lost is left out if `accept_loss`, else
/// nothing is put.
pub async fn mend_marks(
    repository: &Repository,
    copy: Option<&Repository>,
    claimant: &Claimant,
    accept_loss: bool,
    pretend: bool,
) -> Result<Option<MendedMarks>, RepositoryError> {
    for _ in 0..TRIES_MAX {
        let mut found = read_all(repository).await?;
        if found.damages.is_empty() {
            return Ok(None);
        }
        let mut mended = MendedMarks::default();
        let damaged: Vec<ObjectName> = found.damages.keys().map(|number| layout::mark(*number)).collect();
        for (number, damage) in std::mem::take(&mut found.damages) {
            match known(repository, copy, number, &found.marks).await? {
                Some((mark, from)) => {
                    found.marks.insert(number, mark);
                    mended.known.insert(number, from);
                }
                None => drop(mended.lost.insert(number, damage)),
            }
        }
        if pretend || !(mended.lost.is_empty() || accept_loss) {
            return Ok(Some(mended));
        }
        let mut record = Record::default();
        found.marks.values().for_each(|mark| record.add(mark, None));
        record.newest = found.last;
        let decisions = record.restate(|_| true, |_| true);
        mended.restated = repository.put_mark_after(claimant, &record, true, decisions).await?;
        if mended.restated.is_some() {
            for name in damaged {
                repository.store().delete(&name).await?;
            }
            return Ok(Some(mended));
        }
    }
    Err(RepositoryError::Contended { tries: TRIES_MAX })
}

/// All marks from the last one on that restates those before it.
async fn read_all(repository: &Repository) -> Result<Found, RepositoryError> {
    let listed = repository.store().list(layout::MARKS).await?;
    let last = listed.iter().filter_map(|info| layout::number_in(&info.name)).max().unwrap_or(0);
    let mut found = Found { marks: BTreeMap::new(), damages: BTreeMap::new(), last };
    let mut number = 1;
    loop {
        match read(repository, number).await {
            Ok(mark) if mark.restated => {
                found.damages.retain(|_, damage| damage.layer != "presence");
                found.marks = BTreeMap::from([(number, mark)]);
            }
            Ok(mark) => drop(found.marks.insert(number, mark)),
            Err(RepositoryError::Damaged(damage)) if number > last && damage.layer == "presence" => return Ok(found),
            Err(RepositoryError::Damaged(damage)) => drop(found.damages.insert(number, damage)),
            Err(error) => return Err(error),
        }
        found.last = found.last.max(number);
        number += 1;
    }
}

async fn read(repository: &Repository, number: u32) -> Result<Mark, RepositoryError> {
    let name = layout::mark(number);
    let stored = get_or_damage(&**repository.store(), &name, OBJECT_SIZE_MAX).await?;
    opened(repository, number, &stored).ok_or_else(|| {
        let problem = format!("it is no mark {number} of this repository");
        Damage { object: name.to_string(), layer: "seal", problem }.into()
    })
}

fn opened(repository: &Repository, number: u32, stored: &[u8]) -> Option<Mark> {
    let body = unseal_object(repository.keys(), ObjectType::Mark, stored).ok()?;
    Mark::decode(&body).ok().filter(|mark| mark.number == number)
}

/// What a mark said that cannot be read here, and who knows it.
async fn known(
    repository: &Repository,
    copy: Option<&Repository>,
    number: u32,
    others: &BTreeMap<u32, Mark>,
) -> Result<Option<(Mark, &'static str)>, RepositoryError> {
    if let Some(body) = repository.cache().mark(number)?
        && let Ok(mark) = Mark::decode(&body)
    {
        return Ok(Some((mark, "the local cache")));
    }
    let Some(copy) = copy else { return Ok(None) };
    let name = layout::mark(number);
    let Some(theirs) = get(copy, &name).await? else { return Ok(None) };
    let Some(mark) = opened(repository, number, &theirs) else { return Ok(None) };
    let ours = get(repository, &name).await?;
    let same = match &ours {
        Some(ours) => is_damaged_copy(ours, &theirs),
        None => has_same_history(copy, others).await?,
    };
    Ok(same.then_some((mark, "the copy")))
}

async fn get(repository: &Repository, name: &ObjectName) -> Result<Option<bytes::Bytes>, RepositoryError> {
    match repository.store().get(name, OBJECT_SIZE_MAX).await {
        Ok(stored) => Ok(Some(stored)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether `ours` is `theirs` with some bytes changed or cut off.
fn is_damaged_copy(ours: &[u8], theirs: &[u8]) -> bool {
    let same = ours.iter().zip(theirs).filter(|(a, b)| a == b).count();
    let compared = ours.len().min(theirs.len());
    compared >= 64 && same * 100 >= compared * SAME_PERCENT
}

/// Whether the copy has a mark that is here as well, and no other one under the number of one that is.
async fn has_same_history(copy: &Repository, others: &BTreeMap<u32, Mark>) -> Result<bool, RepositoryError> {
    let mut common = 0;
    for (number, mark) in others {
        match read(copy, *number).await {
            Ok(theirs) if theirs == *mark => common += 1,
            Ok(_) => return Ok(false),
            Err(RepositoryError::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(common > 0)
}

/// Whether a `prune` may be at work that knows what a lost mark condemned.
pub async fn may_be_pruned(
    repository: &Repository,
    now: crate::repository::runs::Moment,
) -> Result<bool, RepositoryError> {
    let runs = repository.runs().await?;
    Ok(runs
        .values()
        .any(|run| !run.relies() && run.is_alive(now, crate::limits::MARGIN_MAX) && run.operation == "prune"))
}

/// The damage of a mark that nobody has, for an error.
pub fn first_lost(mended: &MendedMarks) -> Option<Damage> {
    mended.lost.iter().next().map(|(number, damage)| match damage.layer {
        "presence" => missing(&layout::mark(*number)),
        _ => damage.clone(),
    })
}
