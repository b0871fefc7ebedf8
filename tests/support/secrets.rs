//! Looks for secrets in every written form, in what a run wrote, said, and showed of itself to others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;

use super::files_below;

/// Secrets, each in all its forms.
pub struct Secrets {
    forms: Vec<Vec<u8>>,
}

impl Secrets {
    /// Secrets to look for: passwords, or keys as bytes.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self { forms: secrets.into_iter().flat_map(forms).collect() }
    }

    /// The first secret in `bytes`, with what stands around it.
    pub fn find(&self, bytes: &[u8]) -> Option<String> {
        self.forms.iter().find_map(|form| {
            let at = memmem::find(bytes, form)?;
            let around = &bytes[at.saturating_sub(200)..(at + form.len() + 50).min(bytes.len())];
            Some(String::from_utf8_lossy(around).into_owned())
        })
    }

    /// No secret is in `bytes`.
    #[track_caller]
    pub fn assert_nowhere(&self, what: &str, bytes: &[u8]) {
        assert_eq!(self.find(bytes), None, "a secret is in {what}");
    }

    /// No secret is in any file below `folder`, nor in its name.
    #[track_caller]
    pub fn assert_not_below(&self, folder: &Path) {
        let files = files_below(folder);
        assert!(!files.is_empty(), "{} is empty", folder.display());
        for name in files.into_keys() {
            self.assert_nowhere("a name", name.as_bytes());
            self.assert_nowhere(&name, &fs::read(folder.join(&name)).expect("a file"));
        }
    }
}

/// The secret as it is, in JSON, percent-encoded, in hexadecimal, and in Base64 wherever it begins in a longer text.
pub fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let percent = |keep: &dyn Fn(u8) -> bool| -> String {
        let one = |byte: &u8| if keep(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") };
        secret.iter().map(one).collect()
    };
    let some = percent(&|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    let mut forms = vec![hex.to_uppercase(), hex, some.to_lowercase(), some];
    forms.push(percent(&|byte| byte.is_ascii_alphanumeric() || b"-._~/:@".contains(&byte)));
    forms.push(percent(&|_| false));
    if let Ok(text) = std::str::from_utf8(secret) {
        forms.push(serde_json::to_string(text).expect("text").trim_matches('"').to_owned());
    }
    for lead in 0..3 {
        let padded = [&vec![0; lead][..], secret].concat();
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            // Without the characters that neighbours decide.
            let whole = engine.encode(&padded);
            forms.push(whole[(lead * 8).div_ceil(6)..padded.len() * 8 / 6].to_owned());
        }
    }
    forms.into_iter().map(String::into_bytes).chain([secret.to_vec()]).collect()
}

/// What processes showed of themselves while a test ran.
#[derive(Default)]
pub struct Seen {
    /// Arguments of all processes of this machine.
    pub arguments: BTreeSet<Vec<u8>>,
    /// The environment of processes that the binary started, by their arguments.
    pub environments: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Looks at all processes again and again, until it is asked what it saw.
pub struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watcher {
    /// Begins. Children are told by `mark`, which is in their environment.
    pub fn start(binary: PathBuf, mark: Vec<u8>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !stopped.load(Ordering::Relaxed) {
                look(&binary, &mark, &mut seen);
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            seen
        });
        Self { stop, thread }
    }

    /// Ends, and says what was seen.
    pub fn seen(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("looking at processes does not panic")
    }
}

/// One look. Processes end meanwhile, so that nothing that cannot be read is an error.
fn look(binary: &Path, mark: &[u8], seen: &mut Seen) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let process = entry.path();
        // The binary itself may have been given its password by a variable; so may a copy of it that has not yet become its child,
        // and that may do so between one of these looks and the next.
        let is_other = || fs::read_link(process.join("exe")).is_ok_and(|exe| exe != binary);
        let was_other = is_other();
        let (Ok(arguments), Ok(environment)) = (fs::read(process.join("cmdline")), fs::read(process.join("environ")))
        else {
            continue;
        };
        if was_other && is_other() && memmem::find(&environment, mark).is_some() {
            seen.environments.insert(arguments.clone(), environment);
        }
        seen.arguments.insert(arguments);
    }
}
