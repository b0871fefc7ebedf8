//! The objects in clear: configs and key slots. Their signatures need no key.

use super::super::{Damage, RepositoryError, get_or_damage, open, seal_damage};
use super::Checker;
use crate::format::config::Config;
use crate::format::layout;
use crate::limits::CLEAR_OBJECT_SIZE_MAX;
use crate::seal::slot::open_config;
use crate::storage::Store;

/// All config generations that can be read, oldest first, and the damage to the others. Each is signed by the root that it
/// names itself; whether that is the right one only a key slot tells.
pub(super) async fn configs(store: &dyn Store) -> Result<(Vec<Config>, Vec<Damage>), RepositoryError> {
    let (mut configs, mut damages): (Vec<Config>, Vec<Damage>) = (Vec::new(), Vec::new());
    let mut numbers: Vec<u32> =
        store.list(layout::CONFIG).await?.iter().filter_map(|info| layout::number_in(&info.name)).collect();
    numbers.sort_unstable();
    for number in numbers {
        let name = layout::config(number);
        let read = get_or_damage(store, &name, CLEAR_OBJECT_SIZE_MAX).await.and_then(|stored| {
            let config = open_config(&stored).map_err(|error| seal_damage(&name, error))?;
            let wrong = |problem: String| Damage { object: name.to_string(), layer: "name", problem };
            if config.generation != number {
                return Err(wrong(format!("it says that it is generation {}", config.generation)).into());
            }
            Ok(config)
        });
        match read {
            Ok(config) => configs.push(config),
            Err(RepositoryError::Damaged(damage)) => damages.push(damage),
            Err(error) => return Err(error),
        }
    }
    if let Some((last, others)) = configs.split_last() {
        for other in others.iter().filter(|other| other.repository != last.repository) {
            let problem = format!("it is of repository {}, not of {}", other.repository, last.repository);
            let object = layout::config(other.generation).to_string();
            damages.push(Damage { object, layer: "name", problem });
        }
    }
    Ok((configs, damages))
}

impl Checker {
    /// Config generations and key slots, read anew.
    pub(super) async fn clear_objects(&mut self) -> Result<(), RepositoryError> {
        let store = std::sync::Arc::clone(self.repository.store());
        let (configs, damages) = configs(&*store).await?;
        self.checked.objects += configs.len() as u64;
        for damage in damages {
            self.report(damage, vec!["everything: without its config nothing opens".to_owned()]);
        }
        let config = self.repository.config().clone();
        let (slots, damages) = open::read_slots(&*store, &config).await?;
        self.checked.objects += slots.len() as u64;
        for damage in damages {
            self.report(damage, vec!["everything, for who uses this key".to_owned()]);
        }
        Ok(())
    }
}
