//! What to type next, for every error that can be foreseen. Only here are commands and flags known.

use crate::error::{Error, ErrorKind};

/// The hint for an error that brought none.
pub fn of(error: &Error) -> Option<String> {
    let chain = error.chain();
    let says = |text: &str| chain.iter().any(|line| line.contains(text));
    let by_text = [
        ("holds a plakar repository", "use another --repo; the old one stays readable with plakar"),
        ("holds a restic repository", "use another --repo; the old one stays readable with restic"),
        ("it is encrypted, and no key for it was given", "name its private key file: --decrypt-key FILE"),
        ("it is not encrypted", "leave out --decrypt-key; is INFRAHUB_DECRYPT_KEY set?"),
        (
            "was encrypted for another key, or is damaged",
            "name the private key file that belongs to it: --decrypt-key FILE",
        ),
        (
            "dumps in `database/`, and a snapshot holds one",
            "unpack it, and give the full one: infrahub-backup create from-files --neo4j-path FILE",
        ),
        (
            "the archive `",
            "bring it again from where it is kept, or take another; to see what is in it: tar -tvzf FILE",
        ),
        ("is not empty and holds no repository", "use another --repo, or a folder of its own: --repo PATH/repository"),
        ("there is already a repository", "back up into it: infrahub-backup create"),
        (
            "no Docker engine answers",
            "name the engine: DOCKER_HOST=unix:///PATH; without Docker, describe the deployment in infrahub-backup.toml",
        ),
        (
            "the Docker engine at `",
            "start it, or name another: DOCKER_HOST=unix:///PATH or DOCKER_HOST=tcp://HOST:PORT",
        ),
        ("is not a place of a Docker engine", "forward its socket: ssh -L /tmp/docker.sock:/var/run/docker.sock HOST"),
        ("the Docker context `", "see what there is: docker context ls"),
        ("there is no Compose project `", "see what there is: infrahub-backup environment list"),
        ("more than one Compose project", "say which: --project NAME"),
        ("is not an Infrahub deployment", "see what there is: infrahub-backup environment list"),
        (
            "no Compose project is an Infrahub deployment",
            "start it: docker compose up -d; elsewhere, describe the deployment in infrahub-backup.toml",
        ),
        ("has no container", "start it: docker compose up -d"),
        (
            "was killed instead of stopped",
            "start it, give it more memory, then try again; a killed database cannot be dumped",
        ),
        ("component `artifacts` cannot be backed up", "to go on without it: --exclude artifacts"),
        (
            "cannot be read from bucket `",
            "if it is elsewhere from here: INFRAHUB_STORAGE_ENDPOINT_URL=http://HOST:PORT; to go on without it: --exclude artifacts",
        ),
        (
            "cannot be put into bucket `",
            "if it is elsewhere from here: INFRAHUB_STORAGE_ENDPOINT_URL=http://HOST:PORT; to go on without it: --exclude artifacts",
        ),
        ("the key file belongs to repository", "name the key file of this repository: --key-file FILE"),
        ("has an unfinished", "start what it left stopped: infrahub-backup resume"),
        (
            "cannot keep a repository",
            "use another store; if only one process ever writes there at a time: infrahub-backup init --single-writer",
        ),
        (
            "was made before anything could be deleted",
            "copy into a new one with other keys: infrahub-backup replicate --to PLACE --init --to-key-file FILE",
        ),
        ("that snapshots need are in no pack", "see what can be mended: infrahub-backup repair --dry-run"),
        (
            "nobody knows any more what it decided",
            "if a copy of the repository has it: --from REPO; to do without: --accept-lost-marks",
        ),
        ("what is sealed there cannot stand in", "name a replica under the same keys: --from REPO"),
        ("nothing can be opened", "take it from a copy: infrahub-backup repair --from REPO"),
        ("is held and cannot be forgotten", "if it may go: infrahub-backup snapshots release ID"),
        ("outlived its lease", "start again: what was stored and is still there is not stored twice"),
        (
            "no space is left in the container",
            "free space where Docker keeps its containers; or mount a larger volume at /tmp of the service `database`",
        ),
        ("may not be written", "look at the owner and mode of the folder, or at what the keys of the bucket allow"),
        ("no space is left", "free space there, then start again: what was stored is not stored twice"),
        ("still runs ", "wait longer: --wait-for-tasks 2h; to interrupt what runs: --force"),
        (
            "whether tasks run is not known",
            "see why: docker compose logs task-manager; to interrupt what runs: --force",
        ),
        (
            "no container of service `task-manager`",
            "start it: docker compose up -d task-manager; if a run of this program was killed: infrahub-backup resume",
        ),
        ("about its flow runs", "see why: docker compose logs task-manager"),
        ("has no `", "add it to the configuration file: docs/reference/configuration.md"),
        ("not a dump of Neo4j", "if it is to be kept as it is: --allow-raw"),
        ("not a dump in the custom format", "if it is to be kept as it is: --allow-raw"),
        ("less than half of the", "if that is right: --allow-shrink"),
        ("does not fit the target", "if you know better: --force"),
        ("could not be backed up, so nothing was touched", "if that may be lost: --no-safety-snapshot"),
        ("Neo4j may keep its database stopped", "restore it again, or accept it: infrahub-backup resume"),
        (
            "keeps its database `",
            "see why: infrahub-backup report show latest; then restore it again, or accept it: infrahub-backup resume",
        ),
        ("no container of service `database`", "start it: docker compose up -d database"),
        ("what is there is neither the old nor the new", "restore it again, or accept it: infrahub-backup resume"),
        ("is no scratch deployment", "see docs/guides/drill.md; into scratch files: leave out --target-config"),
        ("`--migrate-format` is not possible", "leave out --migrate-format"),
        ("the migration of component", "see why: infrahub-backup report show latest; then restore it again"),
        ("the deployment id was not reset", crate::ops::resume::ID_BY_HAND),
        ("no bolt address of component", "name it: uri in [component.neo4j]; see docs/reference/configuration.md"),
        ("the deployment id cannot be reset: `", "start it: docker compose up -d; or leave out --reset-deployment-id"),
        ("is not running as before", "start what it left stopped: infrahub-backup resume"),
        ("does not run as before", "start what it left stopped: infrahub-backup resume"),
        (
            "which has keys of its own",
            "to seal everything anew under its keys: --to-key-file FILE or --to-password-file FILE",
        ),
        ("a replica needs a place of its own", "name another place: --to PLACE"),
        ("were changed meanwhile", "see them, then start again: infrahub-backup key list"),
        (
            "names no root of repository",
            "add the line that it needs, told by who can open the repository: infrahub-backup key list",
        ),
        ("was removed at", "give the key of a slot that is there: --key-file, --password-file or --password-command"),
        ("may not change keys", "open the repository with a key whose role is reader: infrahub-backup key list"),
        ("may not read content", "open the repository with a key whose role is reader: infrahub-backup key list"),
        ("cannot be read whole", "to leave out what cannot be read: --allow-partial"),
    ];
    if let Some((_, hint)) = by_text.iter().find(|(text, _)| says(text)) {
        return Some((*hint).to_owned());
    }
    of_kind(error.kind()).map(str::to_owned)
}

fn of_kind(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::Usage => Some("see the flags: infrahub-backup help"),
        ErrorKind::Config => Some("see docs/reference/configuration.md, then: infrahub-backup environment detect"),
        ErrorKind::NotFound => Some("see what there is: infrahub-backup snapshots list"),
        ErrorKind::NoRepository => Some("name the place with --repo, or make a repository there: infrahub-backup init"),
        ErrorKind::Busy => Some("wait for it: --wait 1h; if nothing runs any more: infrahub-backup resume"),
        ErrorKind::Credentials => Some("give the right one: --key-file, --password-file or --password-command"),
        ErrorKind::Unavailable => Some("see whether the place, the service or the network answers, then start again"),
        ErrorKind::Source => Some("look at the output of the command: infrahub-backup report show latest"),
        ErrorKind::Incompatible => None,
        ErrorKind::Damaged => Some("see what is hurt and what to do: infrahub-backup verify --depth data"),
        ErrorKind::Incomplete => Some("see what is missing: infrahub-backup report show latest"),
        ErrorKind::Cancelled => Some("start again: what was stored is not stored twice"),
        ErrorKind::Internal => None,
    }
}

/// What a killed run leaves behind.
pub const AFTER_KILL: &str = "infrahub-backup resume";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plakar_repository_names_the_way_out() {
        let error =
            Error::new(ErrorKind::NoRepository, "/r holds a plakar repository, not a repository of this program");
        assert!(of(&error).is_some_and(|hint| hint.contains("readable with plakar")));
    }

    #[test]
    fn errors_of_operations_name_the_flag_that_allows_them() {
        let cases = [
            ("the dump of component `x` has 1 bytes, less than half of the 9 of the last snapshot", "--allow-shrink"),
            ("component `x` does not fit the target: the snapshot is of edition a, the target of b", "--force"),
            ("component `x` cannot be read whole", "--allow-partial"),
        ];
        for (text, flag) in cases {
            let hint = of(&Error::new(ErrorKind::Source, text)).expect("a hint");
            assert!(hint.contains(flag), "{text}: {hint}");
        }
    }

    #[test]
    fn a_repository_without_deletion_is_left_by_sealing_anew_since_a_copy_of_its_config_would_be_without_it_too() {
        let error = Error::from(crate::repository::RepositoryError::NoDeletion { location: "/r".to_owned() });
        let hint = of(&error).expect("a hint");
        assert!(hint.ends_with("infrahub-backup replicate --to PLACE --init --to-key-file FILE"), "{hint}");
    }

    #[test]
    fn a_cause_may_decide_the_hint() {
        let cause = Error::new(ErrorKind::Internal, "the key file belongs to repository 00");
        let error = Error::with_source(ErrorKind::Credentials, "the repository in /r does not open", cause);
        assert!(of(&error).is_some_and(|hint| hint.contains("of this repository")));
    }
}
