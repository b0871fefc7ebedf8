//! What is in the memory of this program stays there: keys and plaintext must not lie in a core image on a disk.
//!
//! Does not: lock pages against swapping, since all content goes through memory, not only keys.

use std::io;

/// Makes the kernel write no core image of this process, and lets nobody but root look into it.
///
/// Children are not bound by this: what a restore starts again shall fail as it always did. So the limit on core images, which
/// they would inherit, is left alone.
///
/// # Errors
/// What the kernel says.
#[cfg(target_os = "linux")]
pub fn keep_to_ourselves() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Makes the kernel write no core image of this process. Children inherit that, which here cannot be had otherwise.
///
/// # Errors
/// What the kernel says.
#[cfg(not(target_os = "linux"))]
pub fn keep_to_ourselves() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Core).maximum;
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum })?)
}
