//! Relying only on what one's own key slot wrote (`create --dedup-own`).
//!
//! Any certified writer may say in an index where a chunk is, and a false place is found only by reading it, which a writer
//! cannot. Who does not trust the others relies on none of their indexes: chunks that only those describe are stored again.

use std::collections::{BTreeSet, HashSet};

use super::open::read_slots;
use super::{Repository, RepositoryError, decode_damage, seal_damage};
use crate::format::envelope::ObjectType;
use crate::format::index::Index;
use crate::format::layout;
use crate::id::PackId;
use crate::seal::object::unseal_signed;
use crate::seal::slot::signers_of;

impl Repository {
    /// The packs that an index describes which this key slot signed, in any of its versions. Indexes that cannot be read
    /// describe nothing.
    ///
    /// # Errors
    /// The store's.
    pub async fn packs_of_own_indexes(&self) -> Result<HashSet<PackId>, RepositoryError> {
        let (slots, _) = read_slots(&**self.store(), self.config()).await?;
        let own: BTreeSet<[u8; 32]> = signers_of(&slots, self.keys().slot);
        let mut packs = HashSet::new();
        for id in self.list_objects(ObjectType::Index).await? {
            let name = layout::object(ObjectType::Index, &id);
            let stored = match self.get_stored(ObjectType::Index, &id).await {
                Ok(stored) => stored,
                Err(RepositoryError::Damaged(_)) => continue,
                Err(error) => return Err(error),
            };
            let read = unseal_signed(self.keys(), ObjectType::Index, &stored)
                .map_err(|error| seal_damage(&name, error))
                .and_then(|(signer, body)| match own.contains(&signer) {
                    true => Index::decode(&body).map_err(|error| decode_damage(&name, &error)),
                    false => Ok(Index::default()),
                });
            packs.extend(read.unwrap_or_default().packs.iter().map(|pack| pack.id));
        }
        Ok(packs)
    }
}
