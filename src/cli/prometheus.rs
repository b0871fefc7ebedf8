//! A status as metrics, in the text format that Prometheus and its textfile collector read.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>, text-based format 0.0.4.

use std::fmt::Write as _;
use std::time::Duration;

use crate::format::report::Outcome;
use crate::ops::status::{DeploymentStatus, DrillStatus, Status};

/// All metrics of `status`, with the recovery point and recovery time objectives, where there are any.
pub fn text(status: &Status, objective: Option<Duration>, recovery: Option<Duration>) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, help: &str, samples: Vec<(String, String)>| {
        if samples.is_empty() {
            return;
        }
        let name = format!("infrahub_backup_{name}");
        // Writing to a text cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let of_each = |value: &dyn Fn(&DeploymentStatus) -> Option<String>| {
        let sample = |deployment: &DeploymentStatus| {
            Some((labels(&[("deployment", &deployment.deployment)]), value(deployment)?))
        };
        status.deployments.iter().filter_map(sample).collect::<Vec<_>>()
    };
    metric(
        "status_timestamp_seconds",
        "When this was written.",
        vec![(String::new(), status.now.as_second().to_string())],
    );
    metric(
        "newest_good_snapshot_timestamp_seconds",
        "When the newest good snapshot was begun.",
        of_each(&|deployment| Some(deployment.newest_good?.created_at.as_second().to_string())),
    );
    metric("snapshots", "Snapshots.", of_each(&|deployment| Some(deployment.snapshots.to_string())));
    metric(
        "good_snapshots",
        "Snapshots that are whole.",
        of_each(&|deployment| Some(deployment.good_snapshots.to_string())),
    );
    metric(
        "growth_bytes_per_day",
        "What snapshots add to the repository each day.",
        of_each(&|deployment| Some(deployment.growth.bytes_per_day?.to_string())),
    );
    if let Some(objective) = objective {
        metric(
            "objective_missed",
            "Whether the newest good snapshot is older than the objective.",
            of_each(&|deployment| Some(u8::from(deployment.misses(objective)).to_string())),
        );
    }
    let of_drill =
        |value: &dyn Fn(&DrillStatus) -> String| of_each(&|deployment| Some(value(deployment.last_drill.as_ref()?)));
    metric(
        "drill_last_timestamp_seconds",
        "When the newest drill of a snapshot ended.",
        of_drill(&|drill| drill.at.as_second().to_string()),
    );
    metric(
        "drill_last_done",
        "Whether that drill ended as planned.",
        of_drill(&|drill| u8::from(drill.outcome == Outcome::Done).to_string()),
    );
    metric(
        "drill_last_recovery_seconds",
        "How long that drill took to restore and check.",
        of_drill(&|drill| format!("{}.{:03}", drill.elapsed_ms / 1000, drill.elapsed_ms % 1000)),
    );
    if let Some(objective) = recovery {
        metric(
            "recovery_objective_missed",
            "Whether the newest drill failed or took longer than the objective, or there is none.",
            of_each(&|deployment| Some(u8::from(deployment.misses_recovery(objective)).to_string())),
        );
    }
    let operations = status.operations.iter();
    metric(
        "operation_last_timestamp_seconds",
        "When the newest run of an operation ended.",
        operations
            .clone()
            .map(|operation| (labels(&[("operation", &operation.operation)]), operation.last.as_second().to_string()))
            .collect(),
    );
    metric(
        "operation_last_done",
        "Whether that run ended as planned.",
        operations
            .map(|operation| {
                let done = u8::from(operation.outcome == Outcome::Done);
                (labels(&[("operation", &operation.operation)]), done.to_string())
            })
            .collect(),
    );
    let verified = status.data_verified.iter();
    metric(
        "data_verified_timestamp_seconds",
        "When packs were last read and hashed.",
        verified.clone().map(|verified| (String::new(), verified.at.as_second().to_string())).collect(),
    );
    metric(
        "data_verified_findings",
        "Findings of damage of that run.",
        verified.map(|verified| (String::new(), verified.findings.to_string())).collect(),
    );
    text
}

/// `{name="value",…}`; in a value, backslash, quote and the end of a line are escaped.
fn labels(labels: &[(&str, &str)]) -> String {
    let escaped = |text: &str| text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_end_its_line_or_itself() {
        assert_eq!(labels(&[("deployment", "a\"b\\c\nd")]), r#"{deployment="a\"b\\c\nd"}"#);
    }
}
