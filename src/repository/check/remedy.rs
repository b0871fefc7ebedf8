//! What to do about damage.

use super::super::Damage;
use crate::format::layout;
use crate::format::report::Finding;

/// Brings back an object from a copy of the repository.
const FROM_COPY: &str = "infrahub-backup repair --from REPO";

/// What to do about damage to an object of a kind.
fn remedy(object: &str) -> String {
    match object.split('/').next().unwrap_or_default() {
        layout::INDEX => {
            "the packs still hold what it described; build it anew from them: infrahub-backup repair".to_owned()
        }
        layout::SNAPSHOTS => {
            format!("take it from a copy of the repository: {FROM_COPY}; without a copy the snapshot is lost")
        }
        layout::MARKS => {
            "infrahub-backup repair, on a machine that has worked with this repository, or with --from COPY".to_owned()
        }
        layout::REPORTS | layout::LEASES => {
            format!(
                "no backup is hurt; take it from a copy of the repository: {FROM_COPY}, or without one: infrahub-backup repair"
            )
        }
        layout::CONFIG | layout::KEYS => {
            format!("take it from a copy of the repository: {FROM_COPY}; without one nothing opens")
        }
        _ => format!(
            "take it from a replica: {FROM_COPY}; without one, back up again, which stores anew what is damaged, then: \
             infrahub-backup repair, which saves what still opens and tells what is lost"
        ),
    }
}

/// The finding of damage that hurts `hurts`.
pub fn finding(damage: Damage, hurts: Vec<String>) -> Finding {
    let remedy = remedy(&damage.object);
    Finding { object: damage.object, layer: damage.layer.to_owned(), problem: damage.problem, hurts, remedy }
}
