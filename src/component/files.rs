//! A dump that lies in a file, or comes by standard input.
//!
//! Holds: [`DumpStream::finish`] succeeds only when the file was read to its end and is as long then as when it was
//! opened. Does not: judge the content; the stream's format does.

use std::path::Path;
use std::pin::Pin;
use std::time::Instant;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{ComponentError, DumpStream, ExitOk};
use crate::limits::INPUT_BLOCK_SIZE_MAX;

/// A file, or standard input, as a dump.
pub struct FileDump {
    component: String,
    path: String,
    reader: Pin<Box<dyn AsyncRead + Send>>,
    /// Length of the file when it was opened; unknown for pipes.
    expected: Option<u64>,
    bytes: u64,
    at_end: bool,
    started: Instant,
}

impl FileDump {
    /// Opens `path` as the dump of `component`; `-` is standard input.
    ///
    /// # Errors
    ///
    /// When it cannot be opened or is a folder.
    pub async fn open(component: &str, path: &Path) -> Result<Self, ComponentError> {
        let shown = path.display().to_string();
        let error = |source| ComponentError::Read { component: component.to_owned(), path: shown.clone(), source };
        let (reader, expected): (Pin<Box<dyn AsyncRead + Send>>, _) = if path == Path::new("-") {
            (Box::pin(tokio::io::stdin()), None)
        } else {
            let mut file = tokio::fs::File::open(path).await.map_err(error)?;
            file.set_max_buf_size(INPUT_BLOCK_SIZE_MAX);
            let metadata = file.metadata().await.map_err(error)?;
            if metadata.is_dir() {
                return Err(error(std::io::ErrorKind::IsADirectory.into()));
            }
            (Box::pin(file), metadata.is_file().then_some(metadata.len()))
        };
        let component = component.to_owned();
        Ok(Self { component, path: shown, reader, expected, bytes: 0, at_end: false, started: Instant::now() })
    }

    fn error(&self, source: std::io::Error) -> ComponentError {
        ComponentError::Read { component: self.component.clone(), path: self.path.clone(), source }
    }
}

#[async_trait]
impl DumpStream for FileDump {
    async fn next(&mut self) -> Result<Option<Bytes>, ComponentError> {
        if self.at_end {
            return Ok(None);
        }
        let mut piece = BytesMut::with_capacity(INPUT_BLOCK_SIZE_MAX);
        let mut room = (&mut piece).limit(INPUT_BLOCK_SIZE_MAX);
        let read = self.reader.read_buf(&mut room).await;
        let size = read.map_err(|source| self.error(source))?;
        self.bytes += size as u64;
        self.at_end = size == 0;
        Ok((size > 0).then(|| piece.freeze()))
    }

    async fn finish(self: Box<Self>) -> Result<ExitOk, ComponentError> {
        if !self.at_end {
            return Err(self.error(std::io::Error::other(format!("it was read up to byte {} only", self.bytes))));
        }
        if let Some(expected) = self.expected.filter(|&expected| expected != self.bytes) {
            let changed = format!("it had {expected} bytes when it was opened and {} when it was read", self.bytes);
            return Err(self.error(std::io::Error::other(changed)));
        }
        Ok(ExitOk { command: self.path, bytes: self.bytes, elapsed: self.started.elapsed(), log: Vec::new() })
    }

    async fn abort(self: Box<Self>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(path: &Path) -> Box<FileDump> {
        Box::new(FileDump::open("database", path).await.unwrap())
    }

    #[tokio::test]
    async fn a_file_comes_whole_and_in_bounded_pieces() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..700_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        std::fs::write(file.path(), &content).unwrap();
        let mut dump = open(file.path()).await;
        let mut read = Vec::new();
        while let Some(piece) = dump.next().await.unwrap() {
            assert!(!piece.is_empty() && piece.len() <= INPUT_BLOCK_SIZE_MAX);
            read.extend_from_slice(&piece);
        }
        assert_eq!(dump.finish().await.unwrap().bytes, 700_000);
        assert!(read == content);
    }

    #[tokio::test]
    async fn a_file_that_grows_while_it_is_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one").unwrap();
        let mut dump = open(file.path()).await;
        std::fs::write(file.path(), "one and two").unwrap();
        while dump.next().await.unwrap().is_some() {}
        assert!(matches!(dump.finish().await, Err(ComponentError::Read { .. })));
    }

    #[tokio::test]
    async fn a_file_that_was_not_read_to_its_end_gives_no_proof() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one").unwrap();
        let dump = open(file.path()).await;
        assert!(dump.finish().await.is_err());
    }
}
