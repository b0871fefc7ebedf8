//! Object stores against real S3 servers: versitygw and moto, which keep what a repository needs, and s3s-fs, which does not.
//!
//! `INFRAHUB_TEST_PARTS` names the folder of scripts that bring them up (`tests/parts`); without it each test prints what it
//! did not test.

#[path = "../contract/mod.rs"]
mod contract;
mod proxy;
mod server;
mod stores;
#[path = "../support/mod.rs"]
mod support;

mod binary;
