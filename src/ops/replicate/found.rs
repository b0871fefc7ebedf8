//! Making the place of a replica: the clear objects of the source, as they are.

use crate::error::{Error, ErrorKind};
use crate::format::layout;
use crate::limits::CLEAR_OBJECT_SIZE_MAX;
use crate::ops::Context;
use crate::ops::init::try_out;
use crate::repository::open::{Place, look, read_config};
use crate::repository::{Repository, RepositoryError};
use crate::storage::{Store, StoreError};

/// Makes a replica of `source` in an empty place, which is tried out as one for a new repository is. Whether one writer is all
/// that the place has to bear says the config of the source, which the replica takes over.
///
/// # Errors
/// As for [`try_out`] and [`found_replica`]; for a source from which nothing can be deleted, since its replica would take nothing.
pub async fn make_replica(context: &Context, source: &Repository, target: &dyn Store) -> Result<(), Error> {
    source.require_deletion()?;
    if try_out(context, target, source.config().single_writer).await? {
        let location = target.location();
        context.warn(format!(
            "{location} is for a single writer, as the source is: nothing else may write to it at the same time"
        ));
    }
    found_replica(source, target).await?;
    Ok(())
}

/// Brings key slots and config generations of `source` into `target` that are not there: key slots first, configs in order,
/// so that the target opens with the same credentials as soon as it is a repository. Gives how many objects were put.
///
/// Into a replica that is there already, what came to the source since: without new slots nobody could check what their
/// owners sign.
///
/// # Errors
/// As for [`crate::repository::open::found`], if something else is there.
pub async fn found_replica(source: &Repository, target: &dyn Store) -> Result<u64, Error> {
    let location = target.location();
    match look(target).await? {
        Place::Empty => {}
        Place::Repository => {
            let config = read_config(target).await?;
            if (config.repository, &config.root) != (source.config().repository, &source.config().root) {
                return Err(RepositoryError::Exists { location }.into());
            }
        }
        Place::Foreign(Some(what)) => return Err(RepositoryError::Foreign { location, what }.into()),
        Place::Foreign(None) => return Err(RepositoryError::NotEmpty { location }.into()),
    }
    let mut put = 0;
    for folder in [layout::KEYS, layout::CONFIG] {
        let there = target.list(folder).await?;
        let mut missing = source.store().list(folder).await?;
        missing.retain(|info| there.iter().all(|known| known.name != info.name));
        // By number, where names are numbers: the highest one counts, so it comes last.
        missing.sort_by_key(|info| (layout::number_in(&info.name), info.name.clone()));
        for info in missing {
            let bytes = source.store().get(&info.name, CLEAR_OBJECT_SIZE_MAX).await?;
            match target.put_new(&info.name, bytes).await {
                Ok(()) => put += 1,
                // Another run was faster, or found another repository here.
                Err(StoreError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let config = read_config(target).await?;
    if config.repository != source.config().repository {
        let text = format!("another run made repository {} in {location} meanwhile", config.repository);
        return Err(Error::new(ErrorKind::Usage, text));
    }
    Ok(put)
}
