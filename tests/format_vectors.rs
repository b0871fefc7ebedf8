//! The vectors of `format-spec/vectors`, both ways: every file decodes as it promises, and the encoder writes every file
//! again, byte for byte. `INFRAHUB_UPDATE_VECTORS=1` writes the files anew.
//!
//! Other readers run the same files. What is in a file and how it is read is told in `format-spec/vectors/README.md`.

#[path = "format_vectors/cases.rs"]
mod cases;
#[path = "format_vectors/cases_clear.rs"]
mod cases_clear;
#[path = "format_vectors/cases_identity.rs"]
mod cases_identity;
#[path = "format_vectors/craft.rs"]
mod craft;
#[path = "format_vectors/decode.rs"]
mod decode;
#[path = "format_vectors/file.rs"]
mod file;

use std::collections::BTreeMap;
use std::path::PathBuf;

use file::Vector;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("format-spec/vectors")
}

fn written() -> BTreeMap<String, Vector> {
    let all = cases::all().into_iter().chain(cases_clear::all()).chain(cases_identity::all());
    let vectors: Vec<Vector> = all.collect();
    let named: BTreeMap<String, Vector> = vectors.iter().map(|vector| (vector.name.clone(), vector.clone())).collect();
    assert_eq!(named.len(), vectors.len(), "two vectors have one name");
    named
}

fn stored() -> BTreeMap<String, String> {
    let listed = std::fs::read_dir(folder()).expect("the folder of the vectors is there");
    let texts = listed.filter_map(|entry| {
        let path = entry.expect("listed").path();
        let name = path.file_stem()?.to_str()?.to_owned();
        (path.extension()? == "txt").then(|| (name, std::fs::read_to_string(&path).expect("read")))
    });
    texts.collect()
}

fn update_if_asked() {
    if std::env::var_os("INFRAHUB_UPDATE_VECTORS").is_none_or(|value| value != "1") {
        return;
    }
    std::fs::create_dir_all(folder()).expect("made");
    for gone in stored().keys().filter(|name| !written().contains_key(*name)) {
        std::fs::remove_file(folder().join(format!("{gone}.txt"))).expect("removed");
    }
    for (name, vector) in written() {
        std::fs::write(folder().join(format!("{name}.txt")), vector.text()).expect("written");
    }
}

#[test]
fn the_encoder_writes_every_vector_again_and_every_vector_decodes_as_it_promises() {
    update_if_asked();
    let (stored, written) = (stored(), written());
    let names: Vec<&String> = stored.keys().collect();
    assert_eq!(names, written.keys().collect::<Vec<_>>(), "the folder and the encoder have different vectors");
    let mut wrong = Vec::new();
    for (name, text) in &stored {
        if *text != written[name].text() {
            wrong.push(format!("{name}: the encoder writes something else"));
        }
        let vector = Vector::parse(name, text);
        let outcome = decode::outcome(&vector);
        if outcome != vector.expect {
            wrong.push(format!("{name}: expected {}, got {outcome}", vector.expect));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
