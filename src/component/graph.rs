//! Infrahub's graph beyond its dump: the id that a deployment has.
//!
//! Holds: an id is drawn at random and has no other form, so that it may stand in a statement as it is. Does not: decide when
//! an id is changed.

use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;

use super::ComponentError;
use crate::env::{Entropy, random_bytes};

/// Asks for the id. `uuid` of the node labelled `Root` is what Infrahub goes by.
pub(super) const ROOT: &str = "MATCH (root:Root) RETURN count(root) AS roots, head(collect(root.uuid)) AS id";

/// A fresh id of a deployment: a UUID of version 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewDeploymentId([u8; 16]);

impl NewDeploymentId {
    /// Draws one.
    pub fn draw(entropy: &dyn Entropy) -> Self {
        let mut bytes: [u8; 16] = random_bytes(entropy);
        // RFC 9562, 5.4: version 4, variant 10.
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }
}

/// Lower case, in five groups.
impl fmt::Display for NewDeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// What a graph says about its nodes labelled `Root`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// How many there are: one, in a graph of Infrahub.
    pub nodes: u64,
    /// The `uuid` of the first that has one.
    pub id: Option<String>,
}

/// A database that holds Infrahub's graph and can be asked and told about it while it runs.
#[async_trait]
pub trait Graph: Send + Sync {
    /// Asks for the node labelled `Root`.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    async fn root(&self) -> Result<Root, ComponentError>;

    /// Gives it this id, as of `now`.
    ///
    /// # Errors
    ///
    /// When the database does not say that it did; it may have all the same.
    async fn set_root(&self, id: NewDeploymentId, now: Timestamp) -> Result<(), ComponentError>;
}

/// The statement that gives every node labelled `Root` this id. What is put into it are hexadecimal digits and a time.
pub(super) fn set_root(id: NewDeploymentId, now: Timestamp) -> String {
    format!("MATCH (root:Root) SET root.uuid = '{id}', root.updated_at = '{now}' RETURN count(root) AS value")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Same(u8);

    impl Entropy for Same {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn an_id_is_a_uuid_of_version_4_whatever_is_drawn() {
        assert_eq!(NewDeploymentId::draw(&Same(0xff)).to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(NewDeploymentId::draw(&Same(0)).to_string(), "00000000-0000-4000-8000-000000000000");
    }
}
