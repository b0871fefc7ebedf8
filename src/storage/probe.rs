//! Whether a store keeps what the repository counts on, tried out before a repository is founded there.
//!
//! A service may answer politely and still let two creators of one name win, or list what it took only later. Such a
//! service loses backups, and only under load. So a new place is tried: puts of taken names, many creators of one new name
//! at once, a listing and ranged reads of what was just put.
//!
//! Holds: what is reported was seen. A race that did not show here may still be there: the probe finds what is usual, and
//! is no proof. It puts a few dozen small objects below `probes/` and takes them away again as well as it can.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use futures::future::join_all;

use super::http::at_once;
use super::{ObjectName, Store, StoreError};
use crate::env::{Entropy, random_bytes};
use crate::id::hex_of;

/// The folder of probes. It holds nothing of a repository.
pub const PROBES: &str = "probes";

/// Creators of one name at once. Measured: of a service that checks first and writes then, s3s-fs 0.14.1, two to eight of
/// eight win in nineteen rounds of twenty, if they are sent at one moment; sent as they are ready, in one of twenty.
const CREATORS: usize = 8;

/// Rounds of such a race, each on a new name.
const ROUNDS: usize = 6;

/// Length in bytes of what a creator puts. Longer bodies make the creators meet less often.
const BODY_SIZE: usize = 4 << 10;

/// What a store does not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// It says itself that a put is not create-only.
    Declared,
    /// A put of a taken name was not refused.
    TakenNamePut,
    /// A put of a taken name was refused, or seemed so, and replaced the object.
    TakenNameReplaced,
    /// Of several creators of one name at once not exactly one was told that it won.
    Winners {
        /// How many were told so.
        won: usize,
        /// Of how many.
        of: usize,
    },
    /// The bytes kept are not those of the creator that was told that it won.
    OtherBytes,
    /// What was put is not listed, or not at its length.
    NotListed,
    /// What was put is not there, or differs.
    NotRead,
    /// A range of an object is not the bytes that it should be.
    Range,
}

impl Lack {
    /// Whether one writer alone can do without. Nobody can read from a store that does not give what it took.
    pub fn spares_a_single_writer(&self) -> bool {
        match self {
            Self::Declared | Self::TakenNamePut | Self::TakenNameReplaced | Self::Winners { .. } | Self::OtherBytes => {
                true
            }
            Self::NotListed | Self::NotRead | Self::Range => false,
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declared => f.write_str("it does not put if absent"),
            Self::TakenNamePut => f.write_str("a put of a name that is taken is not refused"),
            Self::TakenNameReplaced => f.write_str("a put of a name that is taken replaces the object"),
            Self::Winners { won, of } => {
                write!(f, "a put if absent is not atomic: {won} of {of} creators of one name were told that they won")
            }
            Self::OtherBytes => {
                f.write_str("a put if absent is not atomic: the bytes kept are not those of the creator that won")
            }
            Self::NotListed => f.write_str("what was put is not listed"),
            Self::NotRead => f.write_str("what was put does not come back"),
            Self::Range => f.write_str("a range of an object is not what was asked for"),
        }
    }
}

/// Tries out a store; gives all that it lacks.
///
/// # Errors
/// Those of the store, where it does not even do one thing at a time.
pub async fn probe(store: &dyn Store, entropy: &dyn Entropy) -> Result<Vec<Lack>, StoreError> {
    let prefix = format!("{PROBES}/{}", hex_of(&random_bytes::<8>(entropy)));
    let mut put = Vec::new();
    let found = find_lacks(store, entropy, &prefix, &mut put).await;
    // What stays is small, and no repository looks at it.
    join_all(put.iter().map(|name| store.delete(name))).await;
    found
}

async fn find_lacks(
    store: &dyn Store,
    entropy: &dyn Entropy,
    prefix: &str,
    put: &mut Vec<ObjectName>,
) -> Result<Vec<Lack>, StoreError> {
    let mut lacks = Vec::new();
    if !store.capabilities().create_only {
        lacks.push(Lack::Declared);
    }
    let name = ObjectName::new(format!("{prefix}-one"));
    let first = body(entropy);
    put.push(name.clone());
    store.put_new(&name, first.clone()).await?;
    lacks.extend(reads(store, &name, &first).await?);
    match store.put_new(&name, body(entropy)).await {
        Err(StoreError::AlreadyExists { .. }) => {}
        Ok(()) => lacks.push(Lack::TakenNamePut),
        Err(error) => return Err(error),
    }
    if read(store, &name).await?.as_ref() != Some(&first) && !lacks.contains(&Lack::NotRead) {
        lacks.push(Lack::TakenNameReplaced);
    }
    for round in 0..ROUNDS {
        let name = ObjectName::new(format!("{prefix}-race-{round}"));
        put.push(name.clone());
        if let Some(lack) = race(store, entropy, &name).await? {
            lacks.push(lack);
            break;
        }
    }
    Ok(lacks)
}

/// Whether what was just put is listed and comes back, whole and in parts.
async fn reads(store: &dyn Store, name: &ObjectName, bytes: &Bytes) -> Result<Vec<Lack>, StoreError> {
    let mut lacks = Vec::new();
    let listed = store.list(PROBES).await?;
    if !listed.iter().any(|info| info.name == *name && info.size == bytes.len() as u64) {
        lacks.push(Lack::NotListed);
    }
    if read(store, name).await?.as_ref() != Some(bytes) {
        lacks.push(Lack::NotRead);
    }
    let end = BODY_SIZE as u64;
    for range in [0..1, 5..5 + end / 2, end - 1..end] {
        if !gives_range(store, name, bytes, range).await? {
            lacks.push(Lack::Range);
            break;
        }
    }
    // A range past the end must be an error and never a shorter answer.
    if !matches!(store.get_range(name, end - 1..end + 1).await, Err(StoreError::TooShort { .. }))
        && !lacks.contains(&Lack::Range)
    {
        lacks.push(Lack::Range);
    }
    Ok(lacks)
}

async fn gives_range(
    store: &dyn Store,
    name: &ObjectName,
    bytes: &Bytes,
    range: Range<u64>,
) -> Result<bool, StoreError> {
    let inside = |at: u64| usize::try_from(at).expect("a probe is small");
    let expected = bytes.slice(inside(range.start)..inside(range.end));
    match store.get_range(name, range).await {
        Ok(found) => Ok(found == expected),
        Err(error) if error.is_transient() => Err(error),
        Err(_) => Ok(false),
    }
}

async fn read(store: &dyn Store, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
    match store.get(name, BODY_SIZE as u64).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Many creators of one new name at once.
async fn race(store: &dyn Store, entropy: &dyn Entropy, name: &ObjectName) -> Result<Option<Lack>, StoreError> {
    let bodies: Vec<Bytes> = (0..CREATORS).map(|_| body(entropy)).collect();
    let puts = join_all(bodies.iter().map(|bytes| store.put_new(name, bytes.clone())));
    let answers = at_once(CREATORS, puts).await;
    let mut winners = Vec::new();
    for (bytes, answer) in bodies.iter().zip(answers) {
        match answer {
            Ok(()) => winners.push(bytes),
            Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let [winner] = winners.as_slice() else {
        return Ok(Some(Lack::Winners { won: winners.len(), of: CREATORS }));
    };
    Ok((read(store, name).await?.as_ref() != Some(*winner)).then_some(Lack::OtherBytes))
}

fn body(entropy: &dyn Entropy) -> Bytes {
    // Each differs from each in its first bytes already.
    let mut bytes = vec![0; BODY_SIZE];
    entropy.fill(&mut bytes);
    bytes.into()
}
