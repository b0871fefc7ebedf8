//! Evidence as one page of HTML that stands for itself: no script, nothing from elsewhere.
//!
//! Holds: every text that comes from a report goes through [`escape`], so that no report can be more than text on the page, or
//! look like another text than it is. What slips through all the same, the page's own policy keeps from running or loading.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::commands::report::outcome;
use super::render;
use crate::format::report::{Finding, Outcome, Step};
use crate::id::ObjectId;
use crate::ops::audit::{Evidence, Exported};

const STYLE: &str = "\
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:76em;padding:0 1em;color:#1a1a1a;background:#fff}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2.5em;border-top:2px solid #888;padding-top:.6em}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.2em .6em;border-bottom:1px solid #ddd}\
th{font-weight:600}code,pre{font:12px/1.4 ui-monospace,monospace;overflow-wrap:anywhere;white-space:pre-wrap;margin:0}\
.done{color:#176017}.incomplete{color:#8a5a00}.failed,.damage{color:#a11212;font-weight:600}\
.lane{min-width:14em;background:#eee}.bar{height:.9em;min-width:1px;background:#4a76a8}\
.bar.failed{background:#a11212}.bar.incomplete{background:#c98a1b}\
@media print{body{max-width:none}h2{break-after:avoid}tr{break-inside:avoid}}";

/// The page.
pub fn page(evidence: &Evidence) -> String {
    let mut page = Page(String::new());
    page.0.push_str(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Evidence of infrahub-backup</title>\n<style>",
    );
    page.0.push_str(STYLE);
    page.0.push_str("</style>\n</head>\n<body>\n<h1>Evidence of infrahub-backup</h1>\n");
    page.facts(&[
        ("Repository", evidence.repository.to_string()),
        ("Place", evidence.location.clone()),
        ("Exported", evidence.exported_at.to_string()),
        ("By", evidence.tool.clone()),
        ("Reports in the repository", format!("{}, each opened, its signature and its hash checked", evidence.checked)),
        ("Newest report", evidence.newest.map_or_else(|| "none".to_owned(), |id| id.to_string())),
        ("Reports on this page", evidence.reports.len().to_string()),
    ]);
    page.findings(&evidence.findings, "Nothing is damaged, and each report that another one names is there.");
    page.contents(&evidence.reports);
    evidence.reports.iter().for_each(|exported| page.report(exported));
    page.0.push_str("</body>\n</html>\n");
    page.0
}

/// `text` as a text of HTML, in an element or in an attribute between double quotes: what would end either, what is not shown,
/// and what turns the direction of reading, is replaced or written out.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '`' => escaped.push_str("&#96;"),
            '\n' | '\t' => escaped.push(c),
            _ if c.is_control() || is_invisible(c) => {
                // Writing to a text cannot fail.
                let _ = write!(escaped, "\\u{{{:x}}}", u32::from(c));
            }
            _ => escaped.push(c),
        }
    }
    escaped
}

/// Marks of direction, spaces without width and the like: text with them looks like another text.
fn is_invisible(c: char) -> bool {
    matches!(u32::from(c), 0xad | 0x61c | 0x180e | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff
        | 0xfff9..=0xfffb | 0xe0000..=0xe007f)
}

/// Of `whole`, in hundredths of a percent.
fn share(part: u128, whole: u128) -> u128 {
    (part * 10_000).checked_div(whole).map_or(0, |share| share.min(10_000))
}

fn percent(hundredths: u128) -> String {
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

fn millis_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}

struct Page(String);

impl Page {
    /// A table of two columns.
    fn facts(&mut self, facts: &[(&str, String)]) {
        self.0.push_str("<table>\n");
        for (name, value) in facts {
            let value = escape(value);
            let _ = writeln!(self.0, "<tr><th>{name}</th><td><code>{value}</code></td></tr>");
        }
        self.0.push_str("</table>\n");
    }

    fn findings(&mut self, findings: &[Finding], none: &str) {
        if findings.is_empty() {
            let _ = writeln!(self.0, "<p class=\"done\">{none}</p>");
            return;
        }
        self.0.push_str("<table>\n<tr><th>Damage in</th><th>Check</th><th>What</th><th>Hurts</th></tr>\n");
        for finding in findings {
            let (object, layer, problem) = (escape(&finding.object), escape(&finding.layer), escape(&finding.problem));
            let hurts = escape(&finding.hurts.join("\n"));
            let _ = writeln!(
                self.0,
                "<tr class=\"damage\"><td><code>{object}</code></td><td>{layer}</td><td>{problem}</td><td>{hurts}</td></tr>"
            );
        }
        self.0.push_str("</table>\n");
    }

    fn contents(&mut self, reports: &[Exported]) {
        self.0.push_str("<table>\n<tr><th>Report</th><th>Began</th><th>Operation</th><th>Outcome</th><th>Took</th><th>Deployment</th></tr>\n");
        for Exported { id, report, .. } in reports {
            let (began, operation) = (render::time(report.start), escape(&report.operation));
            let took = render::millis(millis_between(report.start, report.end));
            let deployment = escape(report.deployment.as_deref().unwrap_or_default());
            let (word, short) = (outcome(report.outcome), id.short());
            let _ = writeln!(
                self.0,
                "<tr><td><a href=\"#r{id}\"><code>{short}</code></a></td><td>{began}</td><td>{operation}</td>\
                 <td class=\"{word}\">{word}</td><td>{took}</td><td>{deployment}</td></tr>"
            );
        }
        self.0.push_str("</table>\n");
    }

    fn report(&mut self, exported: &Exported) {
        let Exported { id, report, .. } = exported;
        let (operation, word) = (escape(&report.operation), outcome(report.outcome));
        let began = render::time(report.start);
        let _ = writeln!(self.0, "<h2 id=\"r{id}\">{operation}, {began}: <span class=\"{word}\">{word}</span></h2>");
        self.facts(&report_facts(exported));
        self.lines("Planned", &report.plan);
        self.lines("Error", &report.error);
        if !report.findings.is_empty() {
            self.findings(&report.findings, "");
        }
        self.timeline(&report.steps, report.start, report.end);
    }

    fn lines(&mut self, name: &str, lines: &[String]) {
        if !lines.is_empty() {
            let text = escape(&lines.join("\n"));
            let _ = writeln!(self.0, "<h3>{name}</h3>\n<pre>{text}</pre>");
        }
    }

    fn timeline(&mut self, steps: &[Step], start: Timestamp, end: Timestamp) {
        if steps.is_empty() {
            return;
        }
        self.0.push_str("<h3>Timeline</h3>\n<table>\n<tr><th>Step</th><th>After</th><th>Took</th><th>Outcome</th><th>When</th><th>Facts</th></tr>\n");
        let mut steps: Vec<&Step> = steps.iter().collect();
        steps.sort_by_key(|step| step.start);
        steps.into_iter().for_each(|step| self.step(step, start, end));
        self.0.push_str("</table>\n");
    }

    fn step(&mut self, step: &Step, start: Timestamp, end: Timestamp) {
        let (after, took) = (millis_between(start, step.start), millis_between(step.start, step.end));
        let whole = u128::from(millis_between(start, end));
        let left = share(after.into(), whole);
        let width = share(took.into(), whole).min(10_000 - left);
        let (action, target, word) = (escape(&step.action), escape(&step.target), outcome(step.outcome));
        let bar = match step.outcome {
            Outcome::Done => "bar",
            Outcome::Incomplete => "bar incomplete",
            Outcome::Failed => "bar failed",
        };
        let (after, took) = (render::millis(after), render::millis(took));
        let (left, width) = (percent(left), percent(width));
        let facts = escape(&step_facts(step).join("\n"));
        let _ = writeln!(
            self.0,
            "<tr><td>{action} {target}</td><td>{after}</td><td>{took}</td><td class=\"{word}\">{word}</td>\
             <td class=\"lane\"><div class=\"{bar}\" style=\"margin-left:{left};width:{width}\"></div></td>\
             <td><pre>{facts}</pre></td></tr>"
        );
    }
}

fn report_facts(exported: &Exported) -> Vec<(&'static str, String)> {
    let Exported { id, stored_bytes, signature, previous_is_there, report } = exported;
    let slot = match (&signature.slot, &signature.label, signature.role) {
        (Some(slot), Some(label), Some(role)) => format!("key slot {slot}, {}, called {label}", role.as_str()),
        (_, _, _) => "a key slot that is not there any more".to_owned(),
    };
    let previous = match (report.previous, previous_is_there) {
        (Some(previous), Some(true)) => format!("{previous}, which is there"),
        (Some(previous), _) => format!("{previous}, which is MISSING"),
        (None, _) => "none".to_owned(),
    };
    let mut facts = vec![
        ("Report (BLAKE3 of its bytes as stored)", format!("{id}, {stored_bytes} bytes")),
        ("Signature", format!("{} (Ed25519 {}), by {slot}", signature.state, signature.signer)),
        ("Report before", previous),
        ("Run", report.run.to_string()),
        ("Began, ended", format!("{}, {}", report.start, report.end)),
        ("By", format!("{} on {}, {}", report.user, report.host, report.tool)),
    ];
    facts.extend(report.deployment.iter().map(|name| ("Deployment", name.clone())));
    if !report.snapshots.is_empty() {
        let ids: Vec<String> = report.snapshots.iter().map(ObjectId::to_string).collect();
        facts.push(("Snapshots", ids.join("\n")));
    }
    if let Some(verified) = &report.verified {
        let (opened, hashed) = (verified.opened.as_slice().len(), verified.hashed.as_slice().len());
        facts.push(("Packs read whole and sound", format!("{opened} opened, {hashed} hashed only")));
    }
    facts
}

fn step_facts(step: &Step) -> Vec<String> {
    let mut facts: Vec<String> = step.command.iter().map(|command| format!("command: {command}")).collect();
    facts.extend(step.numbers.iter().map(|(name, number)| format!("{name}: {number}")));
    facts.extend(step.note.iter().map(|note| format!("note: {note}")));
    facts.extend(step.log.iter().map(|line| format!("| {line}")));
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_ends_an_element_or_an_attribute_is_left() {
        assert_eq!(
            escape("</pre><script>alert(\"1\")</script>"),
            "&lt;/pre&gt;&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;"
        );
        assert_eq!(escape("' onload='x` &amp;"), "&#39; onload=&#39;x&#96; &amp;amp;");
    }

    #[test]
    fn what_is_not_shown_or_turns_the_text_is_written_out() {
        assert_eq!(
            escape("a\u{202e}b\0c\r\u{1b}[2J\u{200b}\u{feff}"),
            "a\\u{202e}b\\u{0}c\\u{d}\\u{1b}[2J\\u{200b}\\u{feff}"
        );
        assert_eq!(escape("a\n\tb \u{e9}"), "a\n\tb \u{e9}");
    }

    #[test]
    fn a_bar_stays_in_its_lane() {
        assert_eq!(percent(share(1, 3)), "33.33%");
        assert_eq!(percent(share(7, 3)), "100.00%");
        assert_eq!(percent(share(7, 0)), "0.00%");
    }
}
