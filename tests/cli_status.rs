//! `status`, which a cron job nobody watches relies on, and `report verify` and `report export`, which an auditor does.

mod support;

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use support::{Ran, Sandbox};

/// A repository with as many snapshots of deployment `site`.
fn world(snapshots: usize) -> Sandbox {
    let sandbox = Sandbox::with_repository();
    fs::create_dir(sandbox.path("data")).expect("made");
    for number in 0..snapshots {
        back_up(&sandbox, number);
    }
    sandbox
}

fn back_up(sandbox: &Sandbox, number: usize) {
    sandbox.write(&format!("data/{number}"), support::noise(&number.to_string(), 20_000));
    sandbox.run(["create", "from-files", "--artifacts-path", "data", "--deployment", "site"]).ok();
}

#[track_caller]
fn tells(ran: &Ran, texts: &[&str]) {
    for text in texts {
        assert!(ran.text().contains(text), "no `{text}` in {}", ran.text());
    }
}

fn site(ran: &Ran) -> Value {
    ran.json()["deployments"][0].clone()
}

#[test]
fn a_fresh_snapshot_meets_the_objective_and_an_old_one_does_not() {
    let sandbox = world(1);
    let fresh = sandbox.run(["status", "--rpo", "1d", "--json"]).ok();
    assert_eq!(site(&fresh)["newest_good"]["id"], sandbox.snapshots()[0].as_str());
    assert_eq!(fresh.json()["missed"], serde_json::json!([]));
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let late = sandbox.run(["status", "--rpo", "1s"]).with_code(5);
    tells(&late, &["OBJECTIVE MISSED: site"]);
}

#[test]
fn what_has_no_good_snapshot_misses_every_objective() {
    let sandbox = world(0);
    tells(&sandbox.run(["status"]).ok(), &["there are no snapshots", "data was never verified"]);
    sandbox.run(["status", "--rpo", "30d"]).with_code(5);
    back_up(&sandbox, 0);
    sandbox.run(["status", "--rpo", "30d"]).ok();
    let other = sandbox.run(["status", "--rpo", "30d", "--deployment", "elsewhere"]).with_code(5);
    tells(&other, &["elsewhere: no good snapshot"]);
    let partial = world(0);
    let broken = ["create", "from-files", "--neo4j-path", "none.dump", "--artifacts-path", "data", "--allow-partial"];
    partial.run(broken.into_iter().chain(["--deployment", "site"])).with_code(3);
    tells(&partial.run(["status", "--rpo", "30d"]).with_code(5), &["1 snapshots, 0 of them good"]);
}

#[test]
fn growth_leaves_the_first_snapshot_aside_and_operations_tell_how_they_last_went() {
    let sandbox = world(1);
    assert_eq!(site(&sandbox.run(["status", "--json"]).ok())["growth"]["bytes_per_day"], Value::Null);
    back_up(&sandbox, 1);
    let grown = sandbox.run(["status", "--json"]).ok();
    let growth = &site(&grown)["growth"];
    let per_day = growth["bytes_per_day"].as_u64().expect("a number");
    // One more file of 20,000 bytes that cannot be compressed; the day is not over, and counts as one.
    assert!((20_000..40_000).contains(&per_day), "{per_day}");
    let counted = growth["days"].as_array().expect("days").iter().map(|day| day["snapshots"].as_u64().unwrap_or(0));
    assert_eq!(counted.sum::<u64>(), 1);
    assert_eq!(grown.json()["data_verified"], Value::Null);
    sandbox.run(["verify", "--depth", "data"]).ok();
    let verified = sandbox.run(["status", "--json"]).ok().json();
    assert_eq!(verified["data_verified"]["findings"], 0);
    let operations = verified["operations"].as_array().expect("operations");
    let names: Vec<_> = operations.iter().map(|operation| operation["operation"].as_str().expect("text")).collect();
    assert_eq!(names, ["create", "verify"]);
    assert!(operations.iter().all(|operation| operation["outcome"] == "done"), "{operations:?}");
}

#[test]
fn metrics_are_written_whole_and_replace_those_before() {
    let sandbox = world(1);
    let file = sandbox.write("backup.prom", "what was there before\n");
    sandbox.run(["status", "--rpo", "1d", "--prometheus", "backup.prom"]).ok();
    let text = fs::read_to_string(&file).expect("a file");
    for line in [
        "infrahub_backup_snapshots{deployment=\"site\"} 1",
        "infrahub_backup_good_snapshots{deployment=\"site\"} 1",
        "infrahub_backup_objective_missed{deployment=\"site\"} 0",
        "infrahub_backup_operation_last_done{operation=\"create\"} 1",
        "# TYPE infrahub_backup_newest_good_snapshot_timestamp_seconds gauge",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("before"), "{text}");
    let left = fs::read_dir(sandbox.path("")).expect("a folder").filter_map(Result::ok);
    let ours = left.filter(|entry| entry.file_name().to_string_lossy().starts_with("backup.prom"));
    assert_eq!(ours.count(), 1, "what was written beside it is left");
    let refused = sandbox.run(["status", "--prometheus", "no/such/folder.prom"]).with_code(1);
    refused.says(&["no/such/folder.prom"]);
}

/// The reports, oldest first: ids and files.
fn reports(sandbox: &Sandbox) -> Vec<(String, PathBuf)> {
    let listed = sandbox.run(["report", "list", "--json"]).ok().json();
    let ids = listed.as_array().expect("a list").iter().map(|report| report["id"].as_str().expect("an id").to_owned());
    let file = |id: &str| {
        let name = sandbox.objects().into_keys().find(|name| name.starts_with("reports/") && name.ends_with(id));
        sandbox.repository.join(name.expect("a report has a file"))
    };
    ids.map(|id| (id.clone(), file(&id))).collect()
}

#[test]
fn reports_that_follow_one_another_are_in_order_and_the_newest_is_named() {
    let sandbox = world(3);
    let checked = sandbox.run(["report", "verify", "--json"]).ok().json();
    assert_eq!((checked["reports"].as_u64(), checked["findings"].clone()), (Some(3), serde_json::json!([])));
    let newest = &reports(&sandbox)[2].0;
    assert_eq!(checked["newest"], newest.as_str());
    sandbox.run(["report", "verify", "--head", newest]).ok();
    // Nothing was written: looking leaves no trace in what is looked at.
    assert_eq!(reports(&sandbox).len(), 3);
}

#[test]
fn a_report_that_was_removed_or_changed_is_found() {
    let sandbox = world(3);
    let all = reports(&sandbox);
    let (middle, newest) = (fs::read(&all[1].1).expect("a file"), fs::read(&all[2].1).expect("a file"));
    fs::remove_file(&all[1].1).expect("removed");
    tells(&sandbox.run(["report", "verify"]).with_code(4), &[&all[1].0, "1 finding of damage"]);
    let mut changed = middle.clone();
    changed[middle.len() / 2] ^= 1;
    fs::write(&all[1].1, changed).expect("written");
    tells(&sandbox.run(["report", "verify"]).with_code(4), &[&all[1].0]);
    fs::write(&all[1].1, middle).expect("written");
    sandbox.run(["report", "verify"]).ok();
    // The newest is named by none: only who remembers it sees that it is gone.
    fs::remove_file(&all[2].1).expect("removed");
    sandbox.run(["report", "verify"]).ok();
    tells(&sandbox.run(["report", "verify", "--head", &all[2].0]).with_code(4), &[&all[2].0]);
    // Under the name of another it does not count either.
    fs::write(&all[1].1, newest).expect("written");
    sandbox.run(["report", "verify"]).with_code(4);
}

/// All tags of a page, and that each is one of ours: no script, nothing from elsewhere, no attribute that does something.
#[track_caller]
fn assert_harmless(page: &str) {
    let names = "a body code div h1 h2 h3 head html meta p pre span style table td th title tr";
    for rest in page.split('<').skip(1) {
        let (tag, _) = rest.split_once('>').unwrap_or_else(|| panic!("a tag without an end: {rest}"));
        let tag = tag.trim_start_matches('/').trim_start_matches("!doctype ");
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(names.split(' ').any(|known| known == name), "a tag that is not ours: <{tag}>");
        for attribute in attributes.split("\" ").filter(|attribute| !attribute.is_empty()) {
            let (key, value) = attribute.split_once("=\"").unwrap_or_else(|| panic!("no attribute of ours: <{tag}>"));
            let value = value.trim_end_matches('"');
            let good = match key {
                "class" | "id" => value.chars().all(|c| c.is_ascii_alphanumeric() || c == ' '),
                "href" => value.strip_prefix("#r").is_some_and(|id| id.len() == 64),
                "style" => value.chars().all(|c| c.is_ascii_digit() || "margin-left:;width.%".contains(c)),
                "lang" | "charset" | "name" | "content" | "http-equiv" => true,
                _ => false,
            };
            assert!(good, "an attribute that is not ours: <{tag}>");
        }
    }
    for elsewhere in ["http:", "https:", "url(", "@import", "javascript:"] {
        assert!(!page.contains(elsewhere), "{elsewhere} in the page");
    }
}

#[test]
fn texts_in_reports_stay_texts_on_the_page() {
    let mut sandbox = Sandbox::with_repository();
    sandbox.set("USER", "\"><script>alert(1)</script>");
    let folder = "<img src=x onerror=alert(2)>";
    fs::create_dir(sandbox.path(folder)).expect("made");
    sandbox.write(&format!("{folder}/file"), "content");
    let create = ["create", "from-files", "--artifacts-path", folder, "--tag", "a=</style><script>alert(3)</script>"];
    sandbox.run(create).ok();
    let missing = "' onmouseover='alert(4)\u{202e}<svg onload=alert(5)>";
    sandbox.run(["create", "from-files", "--neo4j-path", missing, "--deployment", "site"]);
    sandbox.run(["report", "export", "--all", "--html", "page.html"]).ok();
    let page = fs::read_to_string(sandbox.path("page.html")).expect("a page");
    assert_harmless(&page);
    // They are there all the same, as they were.
    assert!(page.contains("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt; on "), "{page}");
    assert!(page.contains("default-src 'none'"), "a page without a policy");
    assert!(!page.contains('\u{202e}'), "a text that turns the direction of reading");
}

#[test]
fn a_page_of_evidence_tells_what_was_done_and_by_whom_and_is_not_overwritten() {
    let sandbox = world(2);
    sandbox.run(["key", "add", "--role", "auditor", "--new-key-file", "auditor.key"]).ok();
    sandbox.run(["verify", "--depth", "data"]).ok();
    let ids: Vec<String> = reports(&sandbox).into_iter().map(|(id, _)| id).collect();
    let written = sandbox.run(["report", "export", "--all", "--html", "page.html", "--json"]).ok().json();
    let page = fs::read_to_string(sandbox.path("page.html")).expect("a page");
    assert_harmless(&page);
    for text in ids.iter().map(String::as_str).chain(["verify", "valid (Ed25519 ", "reader, called ", "which is there"])
    {
        assert!(page.contains(text), "no `{text}` in the page");
    }
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(sandbox.path("page.html")).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(written["html"]["bytes"], page.len());
    sandbox.run(["report", "export", "--all", "--html", "page.html"]).with_code(2).says(&["already there"]);
    // The same by the key of an auditor, who writes nothing.
    let mut auditor = sandbox.command_without_key(["report", "export", "--all", "--json", "--key-file", "auditor.key"]);
    auditor.env("HOME", sandbox.path("home"));
    let by_auditor = Ran::of(auditor).ok().json();
    assert_eq!(by_auditor["reports"], written["reports"]);
    assert_eq!(reports(&sandbox).len(), ids.len());
    let exported = by_auditor["reports"].as_array().expect("reports").clone();
    let found: Vec<&str> = exported.iter().map(|report| report["id"].as_str().expect("an id")).collect();
    assert_eq!(found, ids);
    assert_eq!((&exported[1]["previous"], &exported[1]["previous_is_there"]), (&exported[0]["id"], &Value::Bool(true)));
    let signature = &exported[1]["signature"];
    assert_eq!((&signature["state"], &signature["role"]), (&Value::from("valid"), &Value::from("reader")));
    let slots = sandbox.run(["key", "list", "--json"]).ok().json();
    assert_eq!(signature["slot"], slots["slots"][0]["id"]);
}

#[test]
fn reports_are_exported_by_name_and_damage_among_all_of_them_is_told() {
    let sandbox = world(3);
    let all = reports(&sandbox);
    let chosen = sandbox.run(["report", "export", &all[0].0[..16], "latest", "--json"]).ok().json();
    let ids: Vec<_> =
        chosen["reports"].as_array().expect("reports").iter().map(|report| report["id"].clone()).collect();
    assert_eq!(ids, [Value::from(all[0].0.as_str()), Value::from(all[2].0.as_str())]);
    assert_eq!((&chosen["checked"], &chosen["html"]), (&Value::from(3), &Value::Null));
    sandbox.run(["report", "export", "--json"]).with_code(2);
    sandbox.run(["report", "export", "latest"]).with_code(2).says(&["--html FILE"]);
    sandbox.run(["report", "export", "abcdef", "--json"]).with_code(1).says(&["names no report"]);
    fs::remove_file(&all[1].1).expect("removed");
    sandbox.run(["report", "export", "latest", "--html", "gone.html"]).with_code(4);
    let page = fs::read_to_string(sandbox.path("gone.html")).expect("a page");
    assert!(page.contains("which is MISSING") && page.contains(&format!("reports/{}", all[1].0)), "{page}");
    let mut changed = fs::read(&all[0].1).expect("there");
    changed[100] ^= 1;
    fs::write(&all[0].1, changed).expect("written");
    let left = sandbox.run(["report", "export", "--all", "--json"]).with_code(4).json();
    assert_eq!(left["reports"].as_array().map(Vec::len), Some(1));
    assert_eq!(left["findings"].as_array().map(Vec::len), Some(2));
}
