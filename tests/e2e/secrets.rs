//! Looks for the deployment's passwords in every written form.

use std::path::Path;

use base64::Engine;

use crate::deployment::{NEO4J_PASSWORD, POSTGRES_PASSWORD};
use crate::support::secrets::{Secrets, forms};

fn passwords() -> Secrets {
    Secrets::new([NEO4J_PASSWORD, POSTGRES_PASSWORD].map(str::as_bytes))
}

/// No password is in `bytes`.
#[track_caller]
pub fn assert_nowhere(what: &str, bytes: &[u8]) {
    passwords().assert_nowhere(what, bytes);
}

/// No password is in any file below `folder`, nor in its name.
#[track_caller]
pub fn assert_not_below(folder: &Path) {
    passwords().assert_not_below(folder);
}

#[test]
fn a_password_is_found_in_each_of_its_forms() {
    let find = |text: &str| passwords().find(text.as_bytes());
    for form in forms(NEO4J_PASSWORD.as_bytes()) {
        let form = String::from_utf8(form).expect("text");
        assert!(find(&format!("before {form} behind")).is_some(), "{form}");
    }
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("keeper:{NEO4J_PASSWORD}@host"));
    assert!(find(&encoded).is_some(), "{encoded}");
    assert_eq!(find("nothing"), None);
}
