//! Is every pack that an index names there, at its length?

use std::collections::HashMap;

use super::super::{Damage, RepositoryError, missing};
use super::Checker;
use super::view::PackFacts;
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::id::PackId;
use crate::storage::StoreError;

impl Checker {
    /// Looks all packs up in one listing. What it does not show is asked for by its name, if the index still names it then.
    pub(super) async fn packs_present(&mut self) -> Result<(), RepositoryError> {
        self.view.take_new_packs();
        self.packs_listed = true;
        let mut sizes = HashMap::new();
        for kind in [ObjectType::ContentPack, ObjectType::TreePack] {
            for info in self.repository.store().list(layout::folder(kind)).await? {
                let Some(id) = layout::id_in(&info.name).filter(|id| layout::object(kind, id) == info.name) else {
                    let problem = "its name is not that of a pack".to_owned();
                    self.report(Damage { object: info.name.to_string(), layer: "name", problem }, vec![]);
                    continue;
                };
                sizes.insert(id, info.size);
            }
        }
        let packs = self.view.packs();
        self.checked.unreferenced_packs = sizes.keys().filter(|id| !packs.contains_key(id)).count() as u64;
        let is_right = |(id, facts): &(&PackId, &PackFacts)| sizes.get(id) == Some(&u64::from(facts.stored_size));
        let suspects: Vec<PackId> = packs.iter().filter(|pack| !is_right(pack)).map(|(id, _)| *id).collect();
        if suspects.is_empty() {
            return Ok(());
        }
        // A `prune` takes packs out of the index before it deletes them: what is still named is missing indeed.
        self.refresh().await?;
        for pack in suspects {
            self.one_present(pack).await?;
        }
        Ok(())
    }

    /// Asks for packs that the index names since they were listed.
    pub(super) async fn new_packs_present(&mut self) -> Result<(), RepositoryError> {
        for pack in self.view.take_new_packs() {
            self.one_present(pack).await?;
        }
        Ok(())
    }

    async fn one_present(&mut self, pack: PackId) -> Result<(), RepositoryError> {
        let Some(facts) = self.view.packs().get(&pack).copied() else { return Ok(()) };
        let name = facts.name(&pack);
        match self.repository.store().size(&name).await {
            Ok(size) if size == u64::from(facts.stored_size) => {}
            Ok(size) => {
                let problem = format!("it holds {size} bytes where its index says {}", facts.stored_size);
                self.pack_damage(pack, Damage { object: name.to_string(), layer: "length", problem });
            }
            Err(StoreError::NotFound { .. }) => self.pack_damage(pack, missing(&name)),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
