//! infrahub-backup: backs up, verifies and restores Infrahub deployments, and proves that it did.
//!
//! Two wings that never see each other, and one hall where they meet:
//!
//! * **vault** — how bytes are kept: [`format`], [`chunker`], [`seal`], [`storage`], [`repository`];
//! * **field** — where bytes come from: [`deployment`], [`provider`], [`component`];
//! * **hall** — [`state`], [`retention`], [`archive`], [`ops`], [`error`] and [`cli`], the only printing.
//!
//! Leaves that all may use: [`limits`], [`id`], [`env`], [`tree_entry`], [`tar_header`]. `tests/architecture.rs` holds the table of who may
//! import whom.

#![forbid(unsafe_code)]

pub mod archive;
pub mod chunker;
pub mod cli;
pub mod component;
pub mod deployment;
pub mod env;
pub mod error;
pub mod format;
pub mod id;
pub mod limits;
pub mod ops;
pub mod provider;
pub mod repository;
pub mod retention;
pub mod seal;
pub mod state;
pub mod storage;
pub mod tar_header;
pub mod tree_entry;
