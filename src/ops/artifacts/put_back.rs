//! Putting an artifact tree back into the bucket that the deployment has now.
//!
//! Order: what is there is listed, all files of the tree are put, and only then what was listed and is not in the tree is
//! removed. So an object that the databases still refer to is there until all of the new ones are.
//!
//! Holds: only keys at the top of the bucket are removed, which are the ones that Infrahub gives; what lies in folders is not in the
//! snapshot and may be somebody else's. Each object is whole under its key, old or new.
//! Does not: put a bucket in another's place in one step, as a folder is: none can.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::bucket::{OwnKeys, open};
use crate::error::{Error, ErrorKind};
use crate::format::manifest::ComponentRecord;
use crate::format::tree::{FileContent, TreeEntry};
use crate::ops::restore::RestoredComponent;
use crate::ops::trees::TreeReader;
use crate::ops::{Context, Progress};
use crate::provider::bucket::BucketAccess;
use crate::repository::Repository;
use crate::repository::chunks::ChunkReader;
use crate::repository::stream::StreamReader;
use crate::storage::StoreError;
use crate::storage::bucket::{Bucket, BucketObject};
use crate::tree_entry::{EntryKind, printable};

/// Objects that are put or removed at the same time.
const AT_ONCE: usize = 8;

/// Largest object of which several are in memory at the same time, in bytes.
const SMALL_SIZE_MAX: u64 = 1 << 20;

/// What an artifact tree is put back with.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// What every operation needs.
    pub context: &'a Context,
    /// Where the tree is.
    pub reader: &'a Arc<ChunkReader>,
    /// Whose tree it is.
    pub record: &'a ComponentRecord,
    /// Where it goes.
    pub access: &'a BucketAccess,
}

impl Target<'_> {
    /// Whether the bucket answers and every entry of the tree can be in it. Touches nothing.
    pub async fn check(self, repository: &Repository) -> Result<(), Error> {
        let bucket = open(self.context, self.access)?;
        let listed = self.context.cancel.or(bucket.list()).await?.map_err(|error| self.refused(error))?;
        OwnKeys::of(repository, &self.access.bucket).check(self.access, &listed)?;
        let mut tree = TreeReader::open(self.reader, self.record)?;
        while let Some(entry) = self.context.cancel.or(tree.next()).await?? {
            key_of(&entry).map_err(|why| {
                let text = format!("component `{}` does not fit the target: {why}", self.record.name);
                Error::new(ErrorKind::Incompatible, text)
            })?;
        }
        Ok(())
    }

    fn refused(&self, error: StoreError) -> Error {
        let text = format!("component `{}` cannot be put into {}", self.record.name, self.access);
        Error::with_source(ErrorKind::Unavailable, text, error)
    }

    /// Puts all of the tree back, and removes what is not in it.
    pub async fn put_back(self, repository: &Repository) -> Result<RestoredComponent, Error> {
        let bucket = open(self.context, self.access)?;
        let before = self.context.cancel.or(bucket.list()).await?.map_err(|error| self.refused(error))?;
        let own = OwnKeys::of(repository, &self.access.bucket);
        own.check(self.access, &before)?;
        let put = self.put(&bucket).await;
        self.context.events.progress_done("restore", &self.record.name);
        let (kept, bytes) = put?;
        let notes = self.remove_others(&bucket, before, &kept, &own).await?;
        let (name, files) = (self.record.name.clone(), Some(kept.len() as u64));
        Ok(RestoredComponent { name, bytes, files, counts_match: None, notes, problems: vec![] })
    }

    /// Puts all files; their keys and bytes.
    async fn put(self, bucket: &Bucket) -> Result<(HashSet<String>, u64), Error> {
        let mut tree = TreeReader::open(self.reader, self.record)?;
        let (mut keys, mut bytes) = (HashSet::new(), 0);
        let mut putting = FuturesUnordered::new();
        while let Some(entry) = self.context.cancel.or(tree.next()).await?? {
            let key = key_of(&entry).map_err(|why| Error::new(ErrorKind::Incompatible, why))?;
            let (Some(key), EntryKind::File(content)) = (key, entry.kind) else { continue };
            keys.insert(key.clone());
            bytes += content.size;
            if content.size > SMALL_SIZE_MAX {
                self.put_large(bucket, &key, &content).await?;
            } else {
                let content = self.whole(&content).await?;
                putting.push(put_small(bucket, key, content));
            }
            while putting.len() >= AT_ONCE {
                self.ended(&mut putting).await?;
            }
            let (target, total_bytes) = (self.record.name.clone(), Some(self.record.sizes.logical_bytes));
            self.context.events.progress(&Progress { action: "restore", target, done_bytes: bytes, total_bytes });
        }
        while !putting.is_empty() {
            self.ended(&mut putting).await?;
        }
        Ok((keys, bytes))
    }

    async fn ended<F>(&self, requests: &mut FuturesUnordered<F>) -> Result<(), Error>
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        match self.context.cancel.or(requests.next()).await? {
            Some(ended) => ended.map_err(|error| self.refused(error)),
            None => Ok(()),
        }
    }

    async fn whole(&self, content: &FileContent) -> Result<Bytes, Error> {
        let mut stream = StreamReader::new(Arc::clone(self.reader), &content.root, content.size)?;
        let mut whole = BytesMut::new();
        while let Some(piece) = self.context.cancel.or(stream.next()).await?? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    async fn put_large(&self, bucket: &Bucket, key: &str, content: &FileContent) -> Result<(), Error> {
        let mut stream = StreamReader::new(Arc::clone(self.reader), &content.root, content.size)?;
        let mut writer = bucket.write(key, content.size).map_err(|error| self.refused(error))?;
        let written = async {
            while let Some(piece) = self.context.cancel.or(stream.next()).await?? {
                self.context.cancel.or(writer.write(&piece)).await?.map_err(|error| self.refused(error))?;
            }
            Ok(())
        };
        match written.await {
            Ok(()) => self.context.cancel.or(writer.finish()).await?.map_err(|error| self.refused(error)),
            Err(error) => {
                writer.abort().await;
                Err(error)
            }
        }
    }

    /// Removes what was there before and is not in the tree. That it cannot be removed is told and harms nobody: nothing refers to
    /// it.
    async fn remove_others(
        &self,
        bucket: &Bucket,
        before: Vec<BucketObject>,
        kept: &HashSet<String>,
        own: &OwnKeys,
    ) -> Result<Vec<String>, Error> {
        let others = before.into_iter().filter(|object| !kept.contains(&object.key) && !own.has(&object.key));
        let (in_folders, others): (Vec<_>, Vec<_>) = others.partition(|object| object.key.contains('/'));
        let (mut removed, mut left, mut why) = (0_u64, 0_u64, None);
        for batch in others.chunks(AT_ONCE) {
            let removing: FuturesUnordered<_> = batch.iter().map(|object| bucket.delete(&object.key)).collect();
            for ended in self.context.cancel.or(removing.collect::<Vec<_>>()).await? {
                match ended {
                    Ok(()) => removed += 1,
                    Err(error) => {
                        left += 1;
                        why.get_or_insert(error);
                    }
                }
            }
        }
        let mut notes = Vec::new();
        if removed > 0 {
            notes.push(format!("{removed} objects that are not in the snapshot were removed"));
        }
        if let Some(error) = why {
            let why = Error::from(error).chain().join(": ");
            notes.push(format!("{left} objects that are not in the snapshot could not be removed: {why}"));
        }
        if !in_folders.is_empty() {
            let count = in_folders.len();
            notes.push(format!("{count} objects in folders of the bucket are not in the snapshot and were left"));
        }
        if self.access.is_shared {
            notes.push("all objects were put as private, the deployment's own access list was not set".to_owned());
        }
        Ok(notes)
    }
}

async fn put_small(bucket: &Bucket, key: String, content: Bytes) -> Result<(), StoreError> {
    let mut writer = bucket.write(&key, content.len() as u64)?;
    writer.write(&content).await?;
    writer.finish().await
}

/// The key of a file; `None` for a folder, which is in the keys of what it holds. If no object can be this entry, why.
fn key_of(entry: &TreeEntry) -> Result<Option<String>, String> {
    let shown = || printable(&entry.path);
    match &entry.kind {
        EntryKind::Directory => Ok(None),
        EntryKind::Symlink { .. } => Err(format!("`{}` is a symbolic link, which no bucket can hold", shown())),
        EntryKind::HardLink { .. } => {
            Err(format!("`{}` is a further name of a file, which no bucket can hold", shown()))
        }
        EntryKind::File(_) => match std::str::from_utf8(&entry.path) {
            Ok(key) if Bucket::is_key(key) => Ok(Some(key.to_owned())),
            Ok(_) | Err(_) => Err(format!("no object can have the key `{}`", shown())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tree::ContentRoot;
    use crate::tree_entry::{Entry, EntryMeta, FileTime};

    fn entry(path: &[u8], kind: EntryKind<FileContent>) -> TreeEntry {
        let mtime = FileTime { seconds: 0, nanoseconds: 0 };
        Entry { path: path.to_vec(), meta: EntryMeta { mode: 0o644, uid: 0, gid: 0, mtime }, kind }
    }

    fn file(path: &[u8]) -> TreeEntry {
        let root = ContentRoot { depth: 0, chunks: vec![] };
        entry(path, EntryKind::File(FileContent { size: 0, root }))
    }

    #[test]
    fn a_file_is_an_object_under_its_path_and_a_folder_is_none() {
        for path in ["184ab-x", "a/b c/ü", "a%2Fb"] {
            assert_eq!(key_of(&file(path.as_bytes())), Ok(Some(path.to_owned())));
        }
        assert_eq!(key_of(&entry(b"a", EntryKind::Directory)), Ok(None));
    }

    #[test]
    fn what_no_bucket_can_hold_is_refused() {
        let long = [b'x'; 1025];
        for path in [&b"\xff"[..], b"a\nb", b"", &long] {
            assert!(key_of(&file(path)).unwrap_err().contains("no object can have the key"), "{path:?}");
        }
        let link = EntryKind::Symlink { target: b"a".to_vec() };
        assert!(key_of(&entry(b"l", link)).unwrap_err().contains("symbolic link"));
        let link = EntryKind::HardLink { first: b"a".to_vec() };
        assert!(key_of(&entry(b"l", link)).unwrap_err().contains("further name"));
    }
}
