//! The artifact store: a folder of files, kept with path, size, mode, owner, times and links.
//!
//! [`scan`] reads such a folder, [`restore`] puts one back. Both are synchronous and speak of
//! [`crate::tree_entry`]; neither knows how entries or contents are kept. All below the top folder is reached through
//! directory descriptors that never follow a symbolic link.

mod beneath;
mod place;
pub mod restore;
pub mod scan;
mod source_file;
