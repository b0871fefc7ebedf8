//! Places in object stores as the command line and the environment name them.
//!
//! `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, the predecessor's
//! `s3://KEY:SECRET@HOST:PORT/BUCKET/PREFIX`, and its flags `--s3-bucket` and so on.
//!
//! Holds: no error repeats a text that may hold a secret. What the flags say beats the variables, and keys in a place beat
//! those of the environment.

use std::path::PathBuf;

use super::failure::Failure;
use super::legacy::Predecessor;
use super::variables;
use crate::storage::remote::{RemotePlace, Service, Variables};

/// A place in an object store and what opens the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Where it is.
    pub place: RemotePlace,
    /// The service's variables.
    pub variables: Variables,
}

/// The place that `text` names behind `scheme://`.
pub fn parse(scheme: &str, text: &str, flags: &Predecessor, environment: Variables) -> Result<Bucket, Failure> {
    match scheme {
        "s3" => parse_s3(text, flags, environment),
        "gs" => plain(Service::Google, text, environment),
        "az" => plain(Service::Azure, text, environment),
        _ => Err(Failure::usage(format!("`{scheme}://` is not a place for a repository"))),
    }
}

/// The place that the predecessor's flags name, if they name one.
pub fn from_flags(flags: &Predecessor, environment: Variables) -> Result<Option<Bucket>, Failure> {
    let Some(bucket) = &flags.s3_bucket else {
        check_unused(flags)?;
        return Ok(None);
    };
    let endpoint = endpoint(flags, &environment)?;
    let prefix = flags.s3_prefix.clone().unwrap_or_default();
    s3(bucket, &prefix, endpoint, flags, environment).map(Some)
}

/// Refuses flags that would say something if the repository were in S3.
pub fn check_unused(flags: &Predecessor) -> Result<(), Failure> {
    let given =
        [(&flags.s3_bucket, "--s3-bucket"), (&flags.s3_prefix, "--s3-prefix"), (&flags.s3_endpoint, "--s3-endpoint")];
    let of_archive = |flag: &str| flags.archive_in_store && flag == "--s3-endpoint";
    // A region alone chooses no place, and clusters set it for everybody.
    match given.iter().find(|(value, flag)| value.is_some() && !of_archive(flag)) {
        Some((_, flag)) => {
            Err(Failure::usage(format!("`{flag}` is given, but the repository is in no bucket or in another one"))
                .hint("name the bucket: --repo s3://BUCKET/PREFIX, or --s3-bucket BUCKET without --repo"))
        }
        None => Ok(()),
    }
}

fn parse_s3(text: &str, flags: &Predecessor, mut variables: Variables) -> Result<Bucket, Failure> {
    if flags.s3_bucket.is_some() || flags.s3_prefix.is_some() {
        return Err(Failure::usage("the place names bucket and folder, and `--s3-bucket` or `--s3-prefix` do so too"));
    }
    let (authority, path) = text.split_once('/').unwrap_or((text, ""));
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if user.is_none() && !host.contains(':') {
        let endpoint = endpoint(flags, &variables)?;
        return s3(host, path, endpoint, flags, variables);
    }
    // The predecessor's form: the server first. It spoke TLS unless the place held keys or the endpoint said otherwise.
    if let Some(user) = user {
        let (key, secret) = user
            .split_once(':')
            .ok_or_else(|| Failure::usage("the place holds a key without its secret: s3://KEY:SECRET@HOST/BUCKET"))?;
        variables.set("AWS_ACCESS_KEY_ID", decoded(key)?);
        variables.set("AWS_SECRET_ACCESS_KEY", decoded(secret)?);
        // A token of the environment belongs to other keys.
        variables.remove("AWS_SESSION_TOKEN");
    }
    let said = flags.s3_endpoint.as_deref().and_then(|endpoint| endpoint.split_once("://")).map(|(scheme, _)| scheme);
    let scheme = said.unwrap_or(if user.is_some() { "http" } else { "https" });
    let endpoint = checked_endpoint(&format!("{scheme}://{host}"))?;
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    s3(bucket, prefix, Some(endpoint), flags, variables)
}

fn s3(
    bucket: &str,
    prefix: &str,
    endpoint: Option<String>,
    flags: &Predecessor,
    mut variables: Variables,
) -> Result<Bucket, Failure> {
    // The older names that the predecessor read.
    for (name, old) in [("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY")] {
        if variables.get(name).is_none()
            && let Some(value) = variables.get(old).map(str::to_owned)
        {
            variables.set(name, value);
        }
    }
    add_credentials_file(&mut variables);
    let service = Service::S3 { endpoint, region: flags.s3_region.clone() };
    bucket_in(service, bucket, prefix, variables)
}

fn plain(service: Service, text: &str, variables: Variables) -> Result<Bucket, Failure> {
    if text.contains('@') {
        return Err(Failure::usage("credentials of this service are not read from the place")
            .hint("give them as the service's variables: docs/guides/object-stores.md"));
    }
    let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
    bucket_in(service, bucket, prefix, variables)
}

fn bucket_in(service: Service, bucket: &str, prefix: &str, variables: Variables) -> Result<Bucket, Failure> {
    let name_ok = bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'$'));
    if bucket.is_empty() || !name_ok {
        return Err(Failure::usage("the place names no bucket").hint("name it: --repo s3://BUCKET/PREFIX"));
    }
    let prefix = prefix.trim_matches('/').to_owned();
    if prefix.split('/').any(|part| part == "." || part == "..") || prefix.contains("//") {
        return Err(Failure::usage("the folder in the bucket is not a plain path: a/b"));
    }
    Ok(Bucket { place: RemotePlace { service, bucket: bucket.to_owned(), prefix }, variables })
}

/// The server, if another than Amazon's is named: by the flag, else by the variables that Amazon's own tools read.
fn endpoint(flags: &Predecessor, environment: &Variables) -> Result<Option<String>, Failure> {
    let variable = |name| environment.get(name).map(str::to_owned);
    let given = flags.s3_endpoint.clone();
    let given = given.or_else(|| variable("AWS_ENDPOINT_URL_S3")).or_else(|| variable("AWS_ENDPOINT_URL"));
    given.map(|text| checked_endpoint(&text)).transpose()
}

/// Scheme, host and port; without a scheme it is TLS. The text is not repeated: it may hold keys where they do not belong.
fn checked_endpoint(text: &str) -> Result<String, Failure> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
    let host = rest.trim_end_matches('/');
    let host_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'[' | b']');
    if !matches!(scheme, "http" | "https") || host.is_empty() || !host.bytes().all(host_ok) {
        return Err(Failure::usage("the S3 endpoint is not a server: https://HOST:PORT, without path or keys"));
    }
    Ok(format!("{scheme}://{host}"))
}

/// What stands between a scheme and `@`, where `%2F` means `/`.
fn decoded(text: &str) -> Result<String, Failure> {
    let refused = || Failure::usage("the key in the place is not written as in an address: `/` as %2F");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|c| char::from(c).to_digit(16)).ok_or_else(refused);
                u8::try_from(digit()? * 16 + digit()?).expect("two hexadecimal digits are a byte")
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| refused())
}

/// The variables of all services.
pub fn environment() -> Variables {
    let mut found = Variables::default();
    variables::below(&["AWS_", "GOOGLE_", "AZURE_"]).for_each(|(name, value)| found.set(name, value));
    found
}

/// Keys from the file that Amazon's own tools keep, where the environment has none and names no other way.
fn add_credentials_file(variables: &mut Variables) {
    const OTHER_WAYS: [&str; 4] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ];
    if OTHER_WAYS.iter().any(|name| variables.get(name).is_some()) {
        return;
    }
    let path = variables.get("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
    let home = || variables::get("HOME").map(|home| PathBuf::from(home).join(".aws/credentials"));
    let profile = variables.get("AWS_PROFILE").unwrap_or("default").to_owned();
    // No file is the usual case; a server that needs no keys may be asked without.
    let Some(text) = path.or_else(home).and_then(|path| std::fs::read_to_string(path).ok()) else { return };
    for (name, value) in keys_of_profile(&zeroize::Zeroizing::new(text), &profile) {
        variables.set(name, value);
    }
}

/// The keys of one profile of a credentials file.
fn keys_of_profile<'a>(text: &'a str, profile: &str) -> Vec<(&'static str, &'a str)> {
    const KEYS: [(&str, &str); 3] = [
        ("aws_access_key_id", "AWS_ACCESS_KEY_ID"),
        ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        ("aws_session_token", "AWS_SESSION_TOKEN"),
    ];
    let header = |line: &'a str| Some(line.strip_prefix('[')?.strip_suffix(']')?.trim());
    let lines = text.lines().map(str::trim);
    let section =
        lines.skip_while(|line| header(line) != Some(profile)).skip(1).take_while(|line| header(line).is_none());
    let pair = |line: &'a str| {
        let (key, value) = line.split_once('=')?;
        let (_, name) = KEYS.iter().find(|(known, _)| *known == key.trim())?;
        Some((*name, value.trim()))
    };
    section.filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3_place(text: &str, flags: &Predecessor) -> Bucket {
        parse("s3", text, flags, keys()).unwrap()
    }

    /// Keys, so that no file of this machine is looked at.
    fn keys() -> Variables {
        let mut variables = Variables::default();
        variables.set("AWS_ACCESS_KEY_ID", "environment");
        variables.set("AWS_SESSION_TOKEN", "token");
        variables
    }

    #[test]
    fn a_bucket_and_a_folder_are_named_as_an_address() {
        let flags = Predecessor { s3_endpoint: Some("http://127.0.0.1:9000/".to_owned()), ..Predecessor::default() };
        assert_eq!(s3_place("backups/a/b/", &flags).place.to_string(), "s3://backups/a/b at http://127.0.0.1:9000");
        assert_eq!(s3_place("backups", &Predecessor::default()).place.to_string(), "s3://backups");
        for (scheme, shown) in [("gs", "gs://backups/a"), ("az", "az://backups/a")] {
            let found = parse(scheme, "backups/a", &Predecessor::default(), Variables::default()).unwrap();
            assert_eq!(found.place.to_string(), shown);
        }
    }

    #[test]
    fn the_predecessors_form_names_the_server_first_and_its_keys_beat_those_of_the_environment() {
        let found = s3_place("KEY:SEC%2FRET%40@host:9000/backups/a/b", &Predecessor::default());
        assert_eq!(found.place.to_string(), "s3://backups/a/b at http://host:9000");
        assert_eq!(found.variables.get("AWS_ACCESS_KEY_ID"), Some("KEY"));
        assert_eq!(found.variables.get("AWS_SECRET_ACCESS_KEY"), Some("SEC/RET@"));
        assert_eq!(found.variables.get("AWS_SESSION_TOKEN"), None);
    }

    #[test]
    fn the_predecessors_form_speaks_tls_without_keys_or_where_the_endpoint_says_so() {
        let found = s3_place("host:9000/backups", &Predecessor::default());
        assert_eq!(found.place.to_string(), "s3://backups at https://host:9000");
        let flags = Predecessor { s3_endpoint: Some("https://host:9000".to_owned()), ..Predecessor::default() };
        assert_eq!(s3_place("K:S@host:9000/backups", &flags).place.to_string(), "s3://backups at https://host:9000");
    }

    #[test]
    fn the_predecessors_flags_name_a_place() {
        let some = |text: &str| Some(text.to_owned());
        let flags = Predecessor { s3_bucket: some("b"), s3_prefix: some("p"), ..Predecessor::default() };
        let mut environment = keys();
        environment.set("AWS_ENDPOINT_URL", "http://general");
        environment.set("AWS_ENDPOINT_URL_S3", "http://s3");
        let found = from_flags(&flags, environment).unwrap().unwrap();
        assert_eq!(found.place.to_string(), "s3://b/p at http://s3");
        assert_eq!(from_flags(&Predecessor::default(), keys()).unwrap(), None);
    }

    #[test]
    fn what_is_no_place_is_refused_and_not_repeated() {
        let none = Predecessor::default();
        for text in ["", "/a", "KEY-XYZZY@host/b", "K:XYZZY@ho st/b", "K:XYZZY@host", "b/../XYZZY", "K:S%zzXYZZY@h/b"] {
            let failure = parse("s3", text, &none, keys()).unwrap_err();
            assert!(!failure.error.to_string().contains("XYZZY"), "{text}: {}", failure.error);
        }
        for text in ["ftp://XYZZY", "http://K:XYZZY@host", "http://host/XYZZY", "http://"] {
            let flags = Predecessor { s3_endpoint: Some(text.to_owned()), ..Predecessor::default() };
            let failure = parse("s3", "b", &flags, keys()).unwrap_err();
            assert!(!failure.error.to_string().contains("XYZZY"), "{text}: {}", failure.error);
        }
    }

    #[test]
    fn keys_of_one_profile_are_read() {
        let text = "[default]\naws_access_key_id = A\n# no\n[other]\naws_access_key_id=B\naws_secret_access_key = C=\n";
        assert_eq!(keys_of_profile(text, "default"), [("AWS_ACCESS_KEY_ID", "A")]);
        assert_eq!(keys_of_profile(text, "other"), [("AWS_ACCESS_KEY_ID", "B"), ("AWS_SECRET_ACCESS_KEY", "C=")]);
        assert!(keys_of_profile(text, "none").is_empty());
    }
}
