//! The claim of a running operation: renewed by new objects, never removed by the run itself.
//!
//! All times here are the store's: the time with which it lists a lease object. Of this machine's clock nothing depends but
//! when to renew. A renewal that the store has after the deadline it should extend does not extend it: the run has
//! *lapsed*, for good. Proof that this is enough: `format-spec/08-deletion.md`, "Why it holds".

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::{Repository, RepositoryError};
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::lease::Lease;
use crate::id::RunId;
use crate::seal::object::seal_object;
use crate::storage::StoreError;

/// Who claims, and for what.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// The run.
    pub run: RunId,
    /// `create`, `prune`, `replicate`, `repair`.
    pub operation: &'static str,
    /// Host and process, for people.
    pub holder: String,
}

#[derive(Debug, Clone, Copy)]
struct Standing {
    /// When the last lease that counts ends, by the store's clock.
    deadline: Timestamp,
    /// Number of the next lease.
    next: u32,
    lapsed: bool,
}

/// A lease that is renewed until it is dropped or ended.
pub struct RunLease {
    repository: Arc<Repository>,
    claimant: Claimant,
    began: Timestamp,
    standing: Arc<Mutex<Standing>>,
    renewing: tokio::task::JoinHandle<()>,
}

impl Drop for RunLease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

impl RunLease {
    /// Puts the first lease of a run and renews it from now on.
    pub async fn begin(repository: &Arc<Repository>, claimant: Claimant) -> Result<Self, RepositoryError> {
        let period = signed(repository.lease_period());
        let began = put_lease(repository, &claimant, 0, repository.lease_period().as_secs()).await?;
        let deadline = after(began, period);
        let standing = Arc::new(Mutex::new(Standing { deadline, next: 1, lapsed: false }));
        let renewing = tokio::spawn(renew(Arc::clone(repository), claimant.clone(), Arc::clone(&standing)));
        Ok(Self { repository: Arc::clone(repository), claimant, began, standing, renewing })
    }

    /// The store's time of the first lease: a moment that is past.
    pub fn began(&self) -> Timestamp {
        self.began
    }

    /// The run.
    pub fn claimant(&self) -> &Claimant {
        &self.claimant
    }

    /// When the lease ends, by the store's clock: what a manifest names.
    pub fn deadline(&self) -> Timestamp {
        lock(&self.standing).deadline
    }

    /// Puts the last lease, which says that the run has ended; gives the store's time of it: all that the run put, the store
    /// had by then.
    ///
    /// `None` if it cannot be put: the claim then runs out by itself.
    pub async fn end(self) -> Option<Timestamp> {
        self.renewing.abort();
        let next = lock(&self.standing).next;
        // The number may be taken by a renewal that was cut off: then the one behind it.
        for number in [next, next.saturating_add(1)] {
            match put_lease(&self.repository, &self.claimant, number, 0).await {
                Ok(at) => return Some(at),
                Err(RepositoryError::Store(StoreError::AlreadyExists { .. })) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

async fn renew(repository: Arc<Repository>, claimant: Claimant, standing: Arc<Mutex<Standing>>) {
    let period = repository.lease_period();
    loop {
        tokio::time::sleep(period / 3).await;
        let number = {
            let mut standing = lock(&standing);
            standing.next += 1;
            standing.next - 1
        };
        // One that fails leaves the deadline where it is; the next try takes another name.
        if let Ok(at) = put_lease(&repository, &claimant, number, period.as_secs()).await {
            let mut standing = lock(&standing);
            if at > standing.deadline {
                standing.lapsed = true;
            }
            if !standing.lapsed {
                standing.deadline = after(at, signed(period));
            }
        }
    }
}

/// Puts the `number`th lease of a run; gives the store's time of it.
async fn put_lease(
    repository: &Repository,
    claimant: &Claimant,
    number: u32,
    period_seconds: u64,
) -> Result<Timestamp, RepositoryError> {
    let lease = Lease {
        format: crate::format::FORMAT_VERSION,
        run: claimant.run,
        operation: claimant.operation.to_owned(),
        number,
        created_at: repository.clock().now(),
        period_seconds,
        holder: claimant.holder.clone(),
    };
    let stored = seal_object(repository.keys(), &**repository.entropy(), ObjectType::Lease, &lease.encode());
    let name = layout::lease(&claimant.run, number);
    repository.store().put_new(&name, stored.into()).await?;
    let listed = repository.store().list(&layout::leases(&claimant.run)).await?;
    let found = listed.into_iter().find(|info| info.name == name);
    let location = repository.store().location();
    Ok(found.ok_or(StoreError::NotFound { name, location })?.modified)
}

fn after(moment: Timestamp, period: SignedDuration) -> Timestamp {
    moment.saturating_add(period).expect("a duration of seconds can be added")
}

fn signed(period: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(period).expect("a lease is at most a day")
}

fn lock(standing: &Mutex<Standing>) -> std::sync::MutexGuard<'_, Standing> {
    standing.lock().unwrap_or_else(PoisonError::into_inner)
}
