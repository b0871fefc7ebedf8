//! What this program makes of a vector.

use std::collections::{BTreeMap, BTreeSet};

use infrahub_backup::chunker::{Chunker, CutSizes};
use infrahub_backup::component::neo4j::dump_format::{DumpFormatError, FrameDecoder};
use infrahub_backup::format::FormatError;
use infrahub_backup::format::bytes::FieldReader;
use infrahub_backup::format::envelope::{Head, ObjectType};
use infrahub_backup::format::identity::Identity;
use infrahub_backup::format::index::{Index, PackEntry, PackFooter, SegmentEntry};
use infrahub_backup::format::key_file::KeyFile;
use infrahub_backup::format::key_slot::Role;
use infrahub_backup::format::lease::Lease;
use infrahub_backup::format::manifest::Manifest;
use infrahub_backup::format::mark::Mark;
use infrahub_backup::format::report::Report;
use infrahub_backup::format::tree::{TreeDecoder, TreeError};
use infrahub_backup::id::{ObjectId, RepositoryId, SlotId};
use infrahub_backup::limits::OBJECT_PLAIN_SIZE_MAX;
use infrahub_backup::seal::SealError;
use infrahub_backup::seal::keys::{ContentPublic, KeyParts, Keys};
use infrahub_backup::seal::object::unseal_object;
use infrahub_backup::seal::pack::PackOpener;
use infrahub_backup::seal::slot::{Credential, open_config, open_slot, unlock};
use infrahub_backup::tree_entry::EntryError;
use zeroize::Zeroizing;

use crate::file::Vector;

type Outcome = Result<(), String>;

/// `success`, or the layer that refused.
pub fn outcome(vector: &Vector) -> String {
    let bytes = &vector.bytes;
    let result = match vector.kind.as_str() {
        "head" => Head::decode(bytes).map(|_| ()).map_err(|_| "envelope failure".to_owned()),
        "object" => object(vector),
        "content pack" => content_pack(vector),
        "tree pack" => tree_pack(vector),
        "index" => Index::decode(bytes).map(|_| ()).map_err(of_format),
        "tree" => tree(bytes),
        "config" => open_config(bytes).map(|_| ()).map_err(of_seal),
        "key slot" => key_slot(vector),
        "key file" => key_file(vector),
        "identity file" => identity_file(vector),
        "manifest" => Manifest::decode(bytes).map(|_| ()).map_err(of_format),
        "lease" => Lease::decode(bytes).map(|_| ()).map_err(of_format),
        "mark" => Mark::decode(bytes).map(|_| ()).map_err(of_format),
        "report" => Report::decode(bytes).map(|_| ()).map_err(of_format),
        "neo4j frames" => neo4j_frames(vector),
        "cut" => cut(vector),
        other => Err(format!("kind `{other}` is not known")),
    };
    result.map_or_else(|failure| failure, |()| "success".to_owned())
}

fn of_format(error: FormatError) -> String {
    if matches!(error, FormatError::Limit { .. }) { "limit failure" } else { "decode failure" }.to_owned()
}

fn of_seal(error: SealError) -> String {
    match error {
        SealError::Format(error) => return of_format(error),
        SealError::WrongType { .. } => "envelope failure",
        SealError::Commitment => "commitment failure",
        SealError::Decrypt | SealError::WrongKey => "decrypt failure",
        SealError::Decompress => "decompress failure",
        SealError::UnknownSigner { .. }
        | SealError::Signature
        | SealError::ForeignRoot
        | SealError::NoTrustedRoot { .. } => "signature failure",
        other => return other.to_string(),
    }
    .to_owned()
}

/// Before an object is opened, a form that is not valid is a matter of its envelope.
fn of_envelope(error: SealError) -> String {
    if matches!(error, SealError::Format(_)) { "envelope failure".to_owned() } else { of_seal(error) }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("{what} is {found:?} and not {expected:?}")) }
}

/// The keys that a vector names: as an auditor's, who signs nothing.
fn keys(vector: &Vector) -> Keys {
    let key = |name: &str| Zeroizing::new(vector.array::<32>(name));
    let content = if vector.get("content-secret").is_some() {
        BTreeMap::from([(1, key("content-secret"))])
    } else {
        BTreeMap::new()
    };
    let parts = KeyParts {
        repository: RepositoryId::from_bytes(vector.array("repository")),
        slot: SlotId::from_bytes([0; 16]),
        role: Role::Auditor,
        id_key: key("id-key"),
        metadata: BTreeMap::from([(1, key("metadata-key"))]),
        content,
        content_public: ContentPublic { generation: 1, key: [9; 32] },
        signer: Zeroizing::new([0; 32]),
        certified: BTreeSet::from([vector.array("signer-public")]),
        root_public: [0; 32],
    };
    Keys::from_parts(parts).expect("there is a metadata key")
}

fn object(vector: &Vector) -> Outcome {
    let code = vector.text_of("type").parse().expect("a number");
    let kind = ObjectType::from_code(code).expect("an assigned type");
    let body = unseal_object(&keys(vector), kind, &vector.bytes).map_err(of_envelope)?;
    same("the body", body, vector.hex("body"))
}

fn segments(vector: &Vector, keys: &Keys, opener: &PackOpener, segments: &[SegmentEntry]) -> Outcome {
    let given: Vec<Vec<u8>> =
        vector.all("base-chunk").map(|hex| infrahub_backup::id::bytes_of_hex(hex).expect("hexadecimal")).collect();
    for (ordinal, segment) in (0u32..).zip(segments) {
        let find = |id| given.iter().find(|plain| keys.chunk_id(plain) == id).expect("the chunks of bases are given");
        let base: Vec<u8> = segment.base.iter().flat_map(|id| find(*id).clone()).collect();
        let start = segment.offset as usize;
        let sealed = &vector.bytes[start..start + segment.stored_length as usize];
        let plain = opener.unseal(ordinal, segment.offset, sealed, &base, segment.plain_length()).map_err(of_seal)?;
        let mut rest = &plain[..];
        for chunk in &segment.chunks {
            let (bytes, behind) = rest.split_at(chunk.length as usize);
            if keys.chunk_id(bytes) != chunk.id {
                return Err("chunk failure".to_owned());
            }
            rest = behind;
        }
    }
    Ok(())
}

fn content_pack(vector: &Vector) -> Outcome {
    let keys = keys(vector);
    let entry = vector.hex("entry");
    let mut fields = FieldReader::new("pack entry", &entry);
    let entry = PackEntry::decode(&mut fields).map_err(of_format)?;
    let opener = PackOpener::new(&keys, ObjectType::ContentPack, &vector.bytes).map_err(of_envelope)?;
    same("the name of the pack", ObjectId::of(&vector.bytes), entry.id)?;
    segments(vector, &keys, &opener, &entry.segments)
}

fn tree_pack(vector: &Vector) -> Outcome {
    let keys = keys(vector);
    let opener = PackOpener::new(&keys, ObjectType::TreePack, &vector.bytes).map_err(of_envelope)?;
    let footer = opener.footer(&vector.bytes, OBJECT_PLAIN_SIZE_MAX).map_err(of_seal)?;
    let footer = PackFooter::decode(&footer).map_err(of_format)?;
    let stored_size = u32::try_from(vector.bytes.len()).expect("vectors are short");
    let entry = footer.describe(ObjectId::of(&vector.bytes), stored_size).map_err(of_format)?;
    segments(vector, &keys, &opener, &entry.segments)
}

fn tree(bytes: &[u8]) -> Outcome {
    let of_tree = |error| match error {
        TreeError::ContentRoot { .. } | TreeError::Entry(EntryError::PathTooLong { .. }) => "limit failure".to_owned(),
        _ => "decode failure".to_owned(),
    };
    let mut decoder = TreeDecoder::new();
    decoder.push(bytes).map_err(of_tree)?;
    decoder.finish().map_err(of_tree)
}

fn key_slot(vector: &Vector) -> Outcome {
    let config = open_config(&vector.hex("config")).map_err(of_seal)?;
    let slot = open_slot(&config, &vector.bytes).map_err(of_seal)?;
    let text_in = |field: &str| String::from_utf8(vector.hex(field)).expect("text");
    let credential = match (vector.get("passphrase"), vector.get("identity")) {
        (Some(passphrase), _) => Credential::Passphrase(Zeroizing::new(passphrase.to_owned())),
        (None, Some(_)) => Credential::Identity(Identity::decode(&text_in("identity")).map_err(of_format)?),
        (None, None) => Credential::KeyFile(KeyFile::decode(&text_in("key-file")).map_err(of_format)?),
    };
    let keys = unlock(&config, &[slot], &credential).map_err(of_seal)?;
    same("a chunk id", keys.chunk_id(b"chunk").to_hex(), vector.text_of("id-of-chunk").to_owned())
}

fn key_file(vector: &Vector) -> Outcome {
    let text = String::from_utf8(vector.bytes.clone()).map_err(|_| "decode failure".to_owned())?;
    let file = KeyFile::decode(&text).map_err(of_format)?;
    same("the key", file.key.to_vec(), vector.hex("key"))
}

fn identity_file(vector: &Vector) -> Outcome {
    let text = String::from_utf8(vector.bytes.clone()).map_err(|_| "decode failure".to_owned())?;
    let identity = Identity::decode(&text).map_err(of_format)?;
    same("the key", identity.secret.to_vec(), vector.hex("key"))?;
    let root = identity.roots.get(&RepositoryId::from_bytes(vector.array("repository")));
    same("the root", root.map(|root| root.to_vec()), Some(vector.hex("root")))
}

fn neo4j_frames(vector: &Vector) -> Outcome {
    let of_frames = |error| match error {
        DumpFormatError::FrameTooLarge { .. } => "limit failure".to_owned(),
        _ => "decode failure".to_owned(),
    };
    let (mut decoder, mut frames) = (FrameDecoder::new(), Vec::new());
    decoder.push(&vector.bytes, &mut frames).map_err(of_frames)?;
    decoder.finish().map_err(of_frames)?;
    let lengths: Vec<String> =
        frames.iter().map(|frame| format!("{}+{}", frame.gap.len(), frame.data_length)).collect();
    same("the frames", lengths.join(" "), vector.text_of("frames").to_owned())
}

fn cut(vector: &Vector) -> Outcome {
    let seed = keys(vector).cut_seed();
    same("the seed", format!("{seed:016x}"), vector.text_of("cut-seed").to_owned())?;
    let numbers: Vec<usize> = vector.text_of("profile").split(' ').map(|n| n.parse().expect("a number")).collect();
    let [min, avg, max, level] = numbers[..] else { panic!("a profile is four numbers") };
    let sizes = CutSizes { min, avg, max, level: u8::try_from(level).expect("a level is small") };
    let lengths = Chunker::new(sizes, seed).lengths(&vector.bytes, true);
    let lengths: Vec<String> = lengths.iter().map(ToString::to_string).collect();
    same("the lengths", lengths.join(" "), vector.text_of("lengths").to_owned())
}
