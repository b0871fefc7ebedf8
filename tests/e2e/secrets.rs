//! Looks for the deployment's passwords in every written form.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::deployment::{NEO4J_PASSWORD, POSTGRES_PASSWORD};
use crate::support::files_below;

/// The password as it is, in JSON, percent-encoded, in hexadecimal, and in Base64 wherever it begins in a longer text.
fn forms(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent = |keep: &dyn Fn(u8) -> bool| -> String {
        let one = |byte: u8| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        secret.bytes().map(one).collect()
    };
    let json = serde_json::to_string(secret).expect("text").trim_matches('"').to_owned();
    let some = percent(&|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    let mut forms = vec![secret.to_owned(), json, hex.to_uppercase(), hex, some.to_lowercase(), some];
    forms.push(percent(&|byte| byte.is_ascii_alphanumeric() || b"-._~/:@".contains(&byte)));
    forms.push(percent(&|_| false));
    for lead in 0..3 {
        let padded = [&vec![0; lead][..], secret.as_bytes()].concat();
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            // Without the characters that neighbours decide.
            let whole = engine.encode(&padded);
            forms.push(whole[(lead * 8).div_ceil(6)..padded.len() * 8 / 6].to_owned());
        }
    }
    forms
}

/// The first password in `bytes`, with what stands around it.
fn find(bytes: &[u8]) -> Option<String> {
    [NEO4J_PASSWORD, POSTGRES_PASSWORD].into_iter().flat_map(forms).find_map(|form| {
        let at = bytes.windows(form.len()).position(|window| window == form.as_bytes())?;
        let around = &bytes[at.saturating_sub(200)..(at + form.len() + 50).min(bytes.len())];
        Some(String::from_utf8_lossy(around).into_owned())
    })
}

/// No password is in `bytes`.
#[track_caller]
pub fn assert_nowhere(what: &str, bytes: &[u8]) {
    assert_eq!(find(bytes), None, "a password is in {what}");
}

/// No password is in any file below `folder`, nor in its name.
#[track_caller]
pub fn assert_not_below(folder: &Path) {
    let files = files_below(folder);
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for name in files.into_keys() {
        assert_nowhere("a name", name.as_bytes());
        assert_nowhere(&name, &fs::read(folder.join(&name)).expect("a file"));
    }
}

#[test]
fn a_password_is_found_in_each_of_its_forms() {
    for form in forms(NEO4J_PASSWORD) {
        assert!(find(format!("before {form} behind").as_bytes()).is_some(), "{form}");
    }
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("keeper:{NEO4J_PASSWORD}@host"));
    assert!(find(encoded.as_bytes()).is_some(), "{encoded}");
    assert_eq!(find(b"nothing"), None);
}
