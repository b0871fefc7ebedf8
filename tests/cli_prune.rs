//! `forget`, `prune`, `snapshots hold`, `release` and `tag` as a person types them; and `kill -9` in the middle of a `prune`.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use support::{Sandbox, noise};

/// The shortest grace period that is accepted.
const GRACE: &str = "10s";

/// Kills in the middle of a `prune`.
const KILLS: u32 = 50;

/// Backs up a folder with one file of noise; gives the snapshot's id.
fn back_up(sandbox: &Sandbox, seed: &str, size: usize) -> String {
    let folder = sandbox.path("artifacts");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("file"), noise(seed, size)).expect("a file");
    let created = sandbox.run(["create", "from-files", "--artifacts-path", "artifacts", "--json"]).ok().json();
    created["id"].as_str().expect("an id").to_owned()
}

fn stored(sandbox: &Sandbox, folder: &str) -> u64 {
    sandbox.objects().iter().filter(|(name, _)| name.starts_with(folder)).map(|(_, size)| size).sum()
}

fn number(document: &Value, field: &str) -> u64 {
    document[field].as_u64().unwrap_or_else(|| panic!("no {field} in {document:#}"))
}

#[test]
fn a_dry_run_tells_what_goes_and_what_it_frees_and_changes_nothing() {
    let sandbox = Sandbox::with_repository();
    let first = back_up(&sandbox, "one", 400_000);
    let second = back_up(&sandbox, "two", 400_000);
    let before = sandbox.objects();
    let told = sandbox.run(["forget", "--keep-last", "1", "--dry-run", "--json"]).ok().json();
    assert_eq!(told["forgotten"], serde_json::json!([first]));
    assert!(number(&told, "would_free_bytes") > 390_000, "{told:#}");
    let text = sandbox.run(["prune", "--keep-last", "1", "--dry-run"]).ok();
    let said = String::from_utf8_lossy(&text.out);
    assert!(said.contains("would forget 1 of 2 snapshots") && said.contains("would condemn"), "{said}");
    assert_eq!(sandbox.objects(), before);
    assert_eq!(sandbox.snapshots(), [first, second]);
}

#[test]
fn forgetting_without_a_rule_or_with_rule_and_id_is_an_error_of_usage() {
    let sandbox = Sandbox::with_repository();
    let id = back_up(&sandbox, "one", 1000);
    for arguments in [vec!["forget"], vec!["forget", &id, "--keep-last", "1"], vec!["prune", "--grace", "1s"]] {
        assert_eq!(sandbox.run(arguments).code, Some(2));
    }
    assert_eq!(sandbox.snapshots(), [id]);
}

#[test]
fn a_held_snapshot_survives_rules_and_its_own_name_until_it_is_released() {
    let sandbox = Sandbox::with_repository();
    let first = back_up(&sandbox, "one", 1000);
    let second = back_up(&sandbox, "two", 1000);
    sandbox.run(["snapshots", "hold", &first[..8]]).ok();
    sandbox.run(["forget", "--keep-last", "1"]).ok();
    assert_eq!(sandbox.snapshots(), [first.clone(), second.clone()]);
    let refused = sandbox.run(["forget", &first]);
    assert!(refused.code == Some(2) && refused.err.contains("is held"), "{}", refused.err);
    let listed = sandbox.run(["snapshots", "list", "--json"]).ok().json();
    assert_eq!((&listed[0]["hold"], &listed[1]["hold"]), (&Value::Bool(true), &Value::Bool(false)));
    sandbox.run(["snapshots", "release", &first]).ok();
    sandbox.run(["forget", "--keep-last", "1"]).ok();
    assert_eq!(sandbox.snapshots(), [second]);
}

#[test]
fn tags_are_set_and_taken_away_and_rules_see_them() {
    let sandbox = Sandbox::with_repository();
    let first = back_up(&sandbox, "one", 1000);
    let second = back_up(&sandbox, "two", 1000);
    sandbox.run(["snapshots", "tag", &first, "reason=audit", "other=x"]).ok();
    sandbox.run(["snapshots", "tag", &first, "other="]).ok();
    let listed = sandbox.run(["snapshots", "list", "--json"]).ok().json();
    assert_eq!(listed[0]["tags"], serde_json::json!({ "reason": "audit" }));
    sandbox.run(["forget", "--keep-last", "1", "--keep-tag", "reason"]).ok();
    assert_eq!(sandbox.snapshots(), [first, second]);
}

#[test]
fn the_last_good_snapshot_goes_only_when_told() {
    let sandbox = Sandbox::with_repository();
    let only = back_up(&sandbox, "one", 1000);
    sandbox.run(["forget", "--keep-tag", "nothing-has-this"]).ok();
    assert_eq!(sandbox.snapshots(), [only]);
    sandbox.run(["forget", "--keep-tag", "nothing-has-this", "--allow-last"]).ok();
    assert!(sandbox.snapshots().is_empty());
    sandbox.assert_clean();
}

#[test]
fn prune_condemns_first_and_deletes_after_the_grace_period() {
    let sandbox = Sandbox::with_repository();
    back_up(&sandbox, "one", 900_000);
    let second = back_up(&sandbox, "two", 900_000);
    // Half of the grace period must pass before a run that ended counts as dead.
    std::thread::sleep(Duration::from_secs(6));
    let first_run = sandbox.run(["prune", "--keep-last", "1", "--grace", GRACE, "--json"]).ok().json();
    assert!(number(&first_run, "condemned_packs") > 0 && number(&first_run, "deleted_packs") == 0, "{first_run:#}");
    let before = stored(&sandbox, "packs");
    std::thread::sleep(Duration::from_secs(11));
    let second_run = sandbox.run(["prune", "--grace", GRACE, "--json"]).ok().json();
    assert!(number(&second_run, "deleted_bytes") > 850_000, "{second_run:#}");
    assert!(stored(&sandbox, "packs") < before - 850_000);
    assert_eq!(sandbox.snapshots(), [second]);
    sandbox.assert_clean();
}

/// A number that differs from kill to kill, the same in every run of the test.
fn spread(n: u32) -> u64 {
    u64::from(n.wrapping_mul(2_654_435_761) >> 16) % 100
}

#[test]
fn fifty_prunes_that_are_killed_lose_nothing_and_the_next_one_finishes() {
    let sandbox = Sandbox::with_repository();
    let mut contents: BTreeMap<String, String> = BTreeMap::new();
    for n in 0..3 {
        contents.insert(back_up(&sandbox, &format!("start {n}"), 300_000), format!("start {n}"));
    }
    let (mut hits, mut typical) = (0, Duration::from_millis(200));
    for n in 0..KILLS {
        if n % 4 == 0 {
            contents.insert(back_up(&sandbox, &format!("round {n}"), 300_000), format!("round {n}"));
        }
        let began = std::time::Instant::now();
        let mut running = sandbox.start("prune", ["prune", "--keep-last", "3", "--grace", GRACE]);
        std::thread::sleep(typical.mul_f64(f64::from(u32::try_from(spread(n)).expect("below 100")) / 90.0));
        if running.has_ended() {
            typical = began.elapsed().min(Duration::from_secs(2));
        } else {
            hits += 1;
        }
        running.kill();
    }
    assert!(hits > 10, "only {hits} of {KILLS} were killed at work");
    sandbox.assert_clean();
    let ended = sandbox.run(["prune", "--keep-last", "3", "--grace", GRACE, "--json"]).ok().json();
    assert!(number(&ended, "kept_bytes") > 0, "{ended:#}");
    let left = sandbox.snapshots();
    assert_eq!(left.len(), 3);
    for id in left {
        let out = sandbox.path(&format!("out-{}", &id[..8]));
        sandbox.run(["restore", &id, "--to-files", out.to_str().expect("text"), "--yes"]).ok();
        let restored = std::fs::read(out.join("artifacts/file")).expect("restored");
        assert!(restored == noise(&contents[&id], 300_000), "snapshot {id} came back as something else");
    }
    std::thread::sleep(Duration::from_secs(17));
    sandbox.run(["prune", "--grace", GRACE]).ok();
    std::thread::sleep(Duration::from_secs(11));
    sandbox.run(["prune", "--grace", GRACE]).ok();
    // Three snapshots of 300 kB of noise and their metadata are left.
    assert!(stored(&sandbox, "packs") < 1_300_000, "{} bytes are left", stored(&sandbox, "packs"));
    sandbox.assert_clean();
}
