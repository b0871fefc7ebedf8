//! Who takes over a machine that has a writer's key, in the middle of a backup, finds nothing in memory that reads a backup.
//!
//! What there is to be found comes from the specification: the reader's slot is opened here with the algorithms that
//! format-spec/07-keys.md names, and the key of each pack with those of 04-pack.md.

mod support;

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use hpke::aead::ExportOnlyAead;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, setup_receiver};
use support::grants::{base64_of, hex, opened};
use support::secrets::Secrets;
use support::{Sandbox, noise, wait_until};

/// Above a pack, so that one is written while the run goes on.
const STREAM_BYTES: usize = 20 << 20;

/// A secret and what it is.
type Named = (String, Vec<u8>);

type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type EncappedKey = <X25519HkdfSha256 as Kem>::EncappedKey;

/// The key of a content pack.
fn pack_key(pack: &[u8], repository: &[u8], content_secret: &[u8]) -> Vec<u8> {
    let secret = PrivateKey::from_bytes(content_secret).expect("32 bytes");
    let enc = EncappedKey::from_bytes(&pack[44..76]).expect("32 bytes");
    let info = [&b"infrahub-backup 1 content pack"[..], repository, &pack[..44]].concat();
    let mode = OpModeR::Base;
    let context = setup_receiver::<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>(&mode, &secret, &enc, &info);
    let mut exported = [0; 64];
    context.unwrap_or_else(|error| panic!("{error}")).export(b"pack", &mut exported).expect("64 bytes");
    assert_eq!(exported[32..], pack[76..108], "the commitment of the pack");
    exported[..32].to_vec()
}

fn packs(sandbox: &Sandbox) -> Vec<PathBuf> {
    let names = sandbox.objects().into_keys().filter(|name| name.starts_with("packs/"));
    names.map(|name| sandbox.repository.join(name)).collect()
}

/// Everything that a process can read of itself; `None` if it may not be looked into.
fn memory(process: u32) -> Option<Vec<Vec<u8>>> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).ok()?;
    let mut memory = fs::File::open(format!("/proc/{process}/mem")).ok()?;
    let mut regions = Vec::new();
    for line in maps.lines().filter(|line| !line.contains("[v")) {
        let mut words = line.split_whitespace();
        let (range, mode) = (words.next().expect("a range"), words.next().expect("a mode"));
        let (start, end) = range.split_once('-').expect("two numbers");
        let number = |text: &str| u64::from_str_radix(text, 16).expect("hexadecimal");
        if !mode.starts_with('r') {
            continue;
        }
        let (start, end) = (number(start), number(end));
        let mut region = vec![0; usize::try_from(end - start).expect("it fits")];
        memory.seek(SeekFrom::Start(start)).expect("a place");
        // A region may go while it is read.
        if memory.read_exact(&mut region).is_ok() {
            regions.push(region);
        }
    }
    Some(regions)
}

/// A backup that has written a pack and waits for more; it is killed when this is dropped.
struct Running(Child);

impl Running {
    fn start(sandbox: &Sandbox, seed: &str) -> Self {
        let before = packs(sandbox).len();
        let mut command = sandbox.command(["create", "from-files", "--postgres-path", "-", "--allow-raw", "--quiet"]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("it starts");
        child.stdin.as_mut().expect("a pipe").write_all(&noise(seed, STREAM_BYTES)).expect("it reads");
        wait_until("a pack is written", || packs(sandbox).len() > before);
        Self(child)
    }

    fn memory(&self) -> Option<Vec<Vec<u8>>> {
        memory(self.0.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Which of `secrets` are in memory.
fn found(regions: &[Vec<u8>], secrets: &[Named]) -> Vec<String> {
    let is_there = |secret: &[u8]| {
        let secrets = Secrets::new([secret]);
        regions.iter().any(|region| secrets.find(region).is_some())
    };
    secrets.iter().filter(|(_, secret)| is_there(secret)).map(|(name, _)| name.clone()).collect()
}

#[test]
fn the_memory_of_a_writer_holds_nothing_that_opens_a_pack_written_earlier() {
    let mut sandbox = Sandbox::with_repository();
    let (reader, writer) = (sandbox.key.clone(), sandbox.path("writer.key"));
    sandbox.run(["key", "add", "--role", "writer", "--new-key-file", "writer.key"]).ok();
    fs::create_dir(sandbox.path("data")).expect("a folder");
    for (day, key) in [("reader's day", &reader), ("writer's day", &writer)] {
        sandbox.key.clone_from(key);
        sandbox.write("data/file", noise(day, 300_000));
        sandbox.run(["create", "from-files", "--artifacts-path", "data"]).ok();
    }
    let (key, slot_secret, grant) = opened(&sandbox.repository, &reader);
    let content = base64_of(&grant["content"]["1"]);
    let repository = hex(&grant["repository"]);
    let mut secrets: Vec<Named> = vec![
        ("the reader's key".to_owned(), key),
        ("the secret of the reader's slot".to_owned(), slot_secret),
        ("the root".to_owned(), base64_of(&grant["root"])),
        ("the reader's signer".to_owned(), base64_of(&grant["signer"])),
        ("the content key".to_owned(), content.clone()),
    ];
    let earlier = packs(&sandbox);
    assert!(earlier.len() >= 2, "{earlier:?}");
    for path in earlier {
        let pack = fs::read(&path).expect("a pack");
        secrets.push((format!("the key of {}", path.display()), pack_key(&pack, &repository, &content)));
    }
    let (_, _, own) = opened(&sandbox.repository, &writer);
    assert_eq!((own.get("content"), own.get("root")), (None, None));
    let held = vec![
        ("the id key".to_owned(), base64_of(&own["id_key"])),
        ("the metadata key".to_owned(), base64_of(&own["metadata"]["1"])),
        ("the writer's signer".to_owned(), base64_of(&own["signer"])),
    ];

    let running = Running::start(&sandbox, "today");
    let Some(regions) = running.memory() else {
        eprintln!("not tested, since this user may not look into processes: what the memory of a writer holds");
        return;
    };
    assert_eq!(found(&regions, &secrets), [""; 0]);
    // What looks finds what is there.
    assert_eq!(found(&regions, &held).len(), held.len(), "{:?}", found(&regions, &held));
    drop((running, regions));
    sandbox.key = reader;
    let running = Running::start(&sandbox, "tomorrow");
    let regions = running.memory().expect("as before");
    assert!(found(&regions, &secrets).contains(&"the content key".to_owned()));
}
