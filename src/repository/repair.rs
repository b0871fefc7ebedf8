//! Mending a repository: what can be brought back is, and what cannot be is told exactly and marked.
//!
//! In this order, each durable before the next: marks ([`marks`]), objects in clear ([`clear`]) and other single objects
//! ([`objects`]), the index ([`rebuild`]), chunks ([`heal`]), one mark that decides ([`decide`]).
//!
//! Holds: nothing that a snapshot needs is deleted; only objects are deleted whose bytes are not what their names say, and only
//! when what stands for them is there or nobody can ever read them. A run that was cut off is finished by the next one.
//! Does not: find damage (`check`), or delete packs (`sweep`).

pub mod clear;
pub mod decide;
pub mod heal;
pub mod marks;
pub mod objects;
pub mod rebuild;
