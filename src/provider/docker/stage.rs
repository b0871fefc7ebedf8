//! A folder in a container that runs, for files that a program there can only read or write as files.
//!
//! Holds: its name says whose run made it, so that whoever comes after a killed run finds it, ends what still works in it and
//! removes it, and leaves alone what another machine's run works in. What works in it has its path among its arguments: that is
//! how it is found, since numbers of processes are given again when a container restarts. Does not: reach into a container
//! that is stopped; what is left there is removed when it runs again.

use std::sync::Arc;
use std::time::Duration;

use super::{DockerError, DockerProvider};
use crate::provider::exec::{self, CommandSpec};

/// Where such folders are, and how their names begin.
const PREFIX: &str = "/tmp/infrahub-backup.";

/// Ends what works in folders, removes them, and tells how many there were. The first is ours, and what is called like it and
/// was not touched for a day is nobody's.
const REMOVE: &str = r##"# Removes what a run left in a container.
own=$1 removed=0
for folder in "$own" $(find "${own%/*}" -maxdepth 1 -name 'infrahub-backup.*' -mmin +1440 2>/dev/null); do
    there=
    [ ! -e "$folder" ] || there=1
    tries=0
    while [ $tries -lt 100 ]; do
        left=
        for entry in /proc/[0-9]*; do
            number=${entry#/proc/}
            [ "$number" != $$ ] && grep -qF -- "$folder" "$entry/cmdline" 2>/dev/null || continue
            kill -KILL "$number" 2>/dev/null && left=1 there=1
        done
        [ -n "$left" ] || break
        tries=$((tries + 1))
        sleep 0.1
    done
    rm -rf -- "$folder" || exit 1
    [ -z "$there" ] || removed=$((removed + 1))
done
echo $removed"##;

/// How long the removal may take: a file of many gigabytes is not gone at once.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

impl DockerProvider {
    /// Where the files of this run are in a container: a folder that is not there before, and is not there afterwards.
    pub fn stage(&self) -> String {
        format!("{PREFIX}{}", self.owner)
    }

    /// Ends what works in the stage of a service that runs, and removes it; how many there were. A service of which nothing runs
    /// has none that could be reached.
    ///
    /// # Errors
    ///
    /// When the container cannot be entered, or does not let go of it.
    pub async fn remove_stage(&self, service: &str) -> Result<usize, DockerError> {
        let there = match self.can_be_entered(service).await {
            Err(DockerError::NoContainer { .. }) => false,
            found => found?,
        };
        if !there {
            return Ok(0);
        }
        let mut spec = CommandSpec::new(["sh", "-c", REMOVE, "sh", &self.stage()].map(str::to_owned).to_vec());
        // As the container's own user: what others made there it may end and remove as well, being root.
        spec.place = Some(Arc::new(self.in_service(service)));
        spec.total_timeout = REMOVE_TIMEOUT;
        let said = exec::run(&spec, self.masker()).await;
        let failed = |source| DockerError::NotRemoved {
            service: service.to_owned(),
            path: self.stage(),
            source: Box::new(source),
        };
        let said = said.map_err(failed)?;
        let missing = || DockerError::Answer { about: service.to_owned(), what: "number of removed folders" };
        String::from_utf8_lossy(&said.stdout).trim().parse().map_err(|_| missing())
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn remove(folder: &std::path::Path) -> String {
        let removed = Command::new("sh").args(["-c", REMOVE, "sh"]).arg(folder).output().unwrap();
        assert!(removed.status.success(), "{removed:?}");
        String::from_utf8(removed.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn what_works_in_the_folder_is_ended_and_the_folder_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let (own, other) = (parent.path().join("own"), parent.path().join("other"));
        let work = |folder: &std::path::Path| {
            std::fs::create_dir(folder).unwrap();
            let script = "echo; while sleep 0.1; do echo >>\"$1\"/file; done";
            let mut command = Command::new("sh");
            let mut child = command.args(["-c", script, "sh"]).arg(folder).stdout(Stdio::piped()).spawn().unwrap();
            // It runs.
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
            child
        };
        let (mut ours, mut theirs) = (work(&own), work(&other));
        let removed = remove(&own);
        let ended = ours.wait().unwrap();
        let goes_on = theirs.try_wait().unwrap().is_none();
        theirs.kill().unwrap();
        theirs.wait().unwrap();
        assert!(!ended.success() && !own.exists());
        assert!(goes_on && other.exists(), "what is another's was touched");
        assert_eq!((removed.as_str(), remove(&own).as_str()), ("1", "0"));
    }

    #[test]
    fn what_another_machines_run_left_goes_when_it_is_a_day_old() {
        let parent = tempfile::tempdir().unwrap();
        let [young, old] = ["infrahub-backup.young", "infrahub-backup.old"].map(|name| parent.path().join(name));
        for folder in [&young, &old] {
            std::fs::create_dir(folder).unwrap();
        }
        let aged = Command::new("touch").args(["-d", "25 hours ago"]).arg(&old).status().unwrap();
        assert!(aged.success());
        assert_eq!(remove(&parent.path().join("infrahub-backup.own")), "1");
        assert!(young.exists() && !old.exists());
    }

    #[test]
    fn a_link_in_its_place_costs_nothing_of_what_it_leads_to() {
        let parent = tempfile::tempdir().unwrap();
        let (kept, link) = (parent.path().join("kept"), parent.path().join("link"));
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "").unwrap();
        std::os::unix::fs::symlink(&kept, &link).unwrap();
        remove(&link);
        assert!(kept.join("file").exists() && link.symlink_metadata().is_err());
    }
}
