//! Where objects stand in a store: the only place that knows their names.

use super::envelope::ObjectType;
use crate::id::ObjectName;
use crate::id::{ObjectId, RunId};

/// Folder of config generations.
pub const CONFIG: &str = "config";
/// Folder of key slots.
pub const KEYS: &str = "keys";
/// Folder of content packs.
pub const PACKS: &str = "packs";
/// Folder of tree packs.
pub const TREES: &str = "trees";
/// Folder of index objects.
pub const INDEX: &str = "index";
/// Folder of manifests.
pub const SNAPSHOTS: &str = "snapshots";
/// Folder of confirmations.
pub const CONFIRMS: &str = "confirms";
/// Folder of marks.
pub const MARKS: &str = "marks";
/// Folder of leases.
pub const LEASES: &str = "leases";
/// Folder of reports.
pub const REPORTS: &str = "reports";

/// Folder of the objects of one type.
pub fn folder(kind: ObjectType) -> &'static str {
    match kind {
        ObjectType::ContentPack => PACKS,
        ObjectType::TreePack => TREES,
        ObjectType::Index => INDEX,
        ObjectType::Manifest => SNAPSHOTS,
        ObjectType::Confirm => CONFIRMS,
        ObjectType::Mark => MARKS,
        ObjectType::Lease => LEASES,
        ObjectType::Report => REPORTS,
    }
}

/// Name of the object `id` of type `kind`. Packs are spread over 256 folders; leases have names of their own.
pub fn object(kind: ObjectType, id: &ObjectId) -> ObjectName {
    let hex = id.to_hex();
    match kind {
        ObjectType::ContentPack | ObjectType::TreePack => {
            ObjectName::new(format!("{}/{}/{hex}", folder(kind), &hex[..2]))
        }
        ObjectType::Index
        | ObjectType::Manifest
        | ObjectType::Confirm
        | ObjectType::Mark
        | ObjectType::Lease
        | ObjectType::Report => ObjectName::new(format!("{}/{hex}", folder(kind))),
    }
}

/// Name of config generation `number`.
pub fn config(number: u32) -> ObjectName {
    ObjectName::new(format!("{CONFIG}/{number}"))
}

/// Name of a key slot's object.
pub fn key(id: &ObjectId) -> ObjectName {
    ObjectName::new(format!("{KEYS}/{id}"))
}

/// Name of mark `number`.
pub fn mark(number: u32) -> ObjectName {
    ObjectName::new(format!("{MARKS}/{number}"))
}

/// Folder of the leases of a run.
pub fn leases(run: &RunId) -> String {
    format!("{LEASES}/{run}")
}

/// The number in the name of an object that is named by its number; `None` with leading zeros.
pub fn number_in(name: &ObjectName) -> Option<u32> {
    let text = name.file_name();
    text.parse::<u32>().ok().filter(|number| number.to_string() == text)
}

/// The run in the name of a lease.
pub fn run_in(name: &ObjectName) -> Option<RunId> {
    let mut parts = name.as_str().split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(LEASES), Some(run), Some(_), None) => run.parse().ok(),
        _ => None,
    }
}

/// Name of the `number`th lease of a run.
pub fn lease(run: &RunId, number: u32) -> ObjectName {
    ObjectName::new(format!("{LEASES}/{run}/{number}"))
}

/// The identifier in the name of an object that is named by its content.
pub fn id_in(name: &ObjectName) -> Option<ObjectId> {
    name.file_name().parse().ok()
}
