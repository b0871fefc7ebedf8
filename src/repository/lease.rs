//! The claim of a running operation: renewed by new objects, never removed by the run itself.

use jiff::Timestamp;

use super::{Repository, RepositoryError};
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::lease::Lease;
use crate::id::RunId;
use crate::limits::LEASE_PERIOD;
use crate::seal::object::seal_object;

/// Puts the `number`th lease of `run` and gives its deadline, by the writer's clock.
pub async fn put_lease(
    repository: &Repository,
    run: RunId,
    operation: &str,
    number: u32,
    holder: &str,
) -> Result<Timestamp, RepositoryError> {
    let now = repository.clock().now();
    let lease = Lease {
        format: crate::format::FORMAT_VERSION,
        run,
        operation: operation.to_owned(),
        number,
        created_at: now,
        period_seconds: LEASE_PERIOD.as_secs(),
        holder: holder.to_owned(),
    };
    let stored = seal_object(repository.keys(), &**repository.entropy(), ObjectType::Lease, &lease.encode());
    repository.store().put_new(&layout::lease(&run, number), stored.into()).await?;
    let period = jiff::SignedDuration::try_from(LEASE_PERIOD).expect("a lease is hours");
    Ok(now.checked_add(period).expect("the clock is not at the end of time"))
}
