//! Reading streams: recipes to chunk ids, chunk ids to bytes, in order, a little ahead.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use super::chunks::ChunkReader;
use super::{Damage, RepositoryError};
use crate::format::tree::ContentRoot;
use crate::id::{ChunkId, PackId};
use crate::limits::RECIPE_DEPTH_MAX;

/// Runs of chunks that are fetched ahead. Each may pin one decoded segment, at most two MiB.
const RUNS_AHEAD: usize = 4;

/// Chunks in one run: about what a segment of average chunks holds.
const RUN_CHUNKS_MAX: usize = 64;

/// The chunk ids of a stream, in order, read from its recipe as they are needed.
pub struct ChunkIds {
    reader: Arc<ChunkReader>,
    levels: Vec<Level>,
}

/// One level of a recipe: chunks still to be read, and ids not yet handed out.
struct Level {
    chunks: VecDeque<ChunkId>,
    partial: Vec<u8>,
}

impl ChunkIds {
    /// The ids below `root`.
    pub fn new(reader: Arc<ChunkReader>, root: &ContentRoot) -> Result<Self, RepositoryError> {
        if root.depth > RECIPE_DEPTH_MAX {
            let problem = format!("{} levels of recipes", root.depth);
            return Err(Damage { object: "a manifest or tree".to_owned(), layer: "recipe", problem }.into());
        }
        let mut levels: Vec<Level> = Vec::new();
        levels.resize_with(usize::from(root.depth) + 1, || Level { chunks: VecDeque::new(), partial: Vec::new() });
        levels[0].chunks.extend(&root.chunks);
        Ok(Self { reader, levels })
    }

    /// The next id.
    pub async fn next(&mut self) -> Result<Option<ChunkId>, RepositoryError> {
        let last = self.levels.len() - 1;
        loop {
            if let Some(id) = self.levels[last].chunks.pop_front() {
                return Ok(Some(id));
            }
            // The deepest level above that still has a chunk fills the level below it.
            let Some(above) = (0..last).rev().find(|level| !self.levels[*level].chunks.is_empty()) else {
                return self.finish();
            };
            let id = self.levels[above].chunks.pop_front().expect("found not empty");
            let bytes = self.reader.chunk(&id).await?;
            let below = &mut self.levels[above + 1];
            below.partial.extend_from_slice(&bytes);
            let whole = below.partial.len() / ChunkId::SIZE * ChunkId::SIZE;
            let (ids, _) = below.partial[..whole].as_chunks::<{ ChunkId::SIZE }>();
            below.chunks.extend(ids.iter().map(|id| ChunkId::from_bytes(*id)));
            below.partial.drain(..whole);
        }
    }

    fn finish(&self) -> Result<Option<ChunkId>, RepositoryError> {
        match self.levels.iter().all(|level| level.partial.is_empty()) {
            true => Ok(None),
            false => {
                let problem = "its length is not a multiple of an id".to_owned();
                Err(Damage { object: "a recipe".to_owned(), layer: "recipe", problem }.into())
            }
        }
    }
}

/// Neighbouring chunks of a stream that lie in one segment.
struct Run {
    ids: Vec<ChunkId>,
}

/// Groups ids into runs.
struct Runs {
    ids: ChunkIds,
    /// The first id of the next run, and where it is.
    next: Option<(ChunkId, (PackId, u32))>,
}

impl Runs {
    async fn next(&mut self) -> Result<Option<Run>, RepositoryError> {
        let first = match self.next.take() {
            Some(first) => Some(first),
            None => self.located().await?,
        };
        let Some((id, place)) = first else { return Ok(None) };
        let mut run = Run { ids: vec![id] };
        while run.ids.len() < RUN_CHUNKS_MAX {
            match self.located().await? {
                Some((id, other)) if other == place => run.ids.push(id),
                other => {
                    self.next = other;
                    break;
                }
            }
        }
        Ok(Some(run))
    }

    async fn located(&mut self) -> Result<Option<(ChunkId, (PackId, u32))>, RepositoryError> {
        let Some(id) = self.ids.next().await? else { return Ok(None) };
        let (_, pack, segment, _) = self.ids.reader.locate(&id)?;
        Ok(Some((id, (pack, segment))))
    }
}

/// The bytes of a stream, chunk by chunk, each checked against its hash.
pub struct StreamReader {
    runs: BoxStream<'static, Result<VecDeque<Bytes>, RepositoryError>>,
    ready: VecDeque<Bytes>,
    left: u64,
    length: u64,
}

impl StreamReader {
    /// The bytes below `root`, which must be `length` in all.
    pub fn new(reader: Arc<ChunkReader>, root: &ContentRoot, length: u64) -> Result<Self, RepositoryError> {
        let runs = Runs { ids: ChunkIds::new(Arc::clone(&reader), root)?, next: None };
        let runs = stream::try_unfold(runs, |mut runs| async move { Ok(runs.next().await?.map(|run| (run, runs))) });
        let runs = runs
            .map(move |run: Result<Run, RepositoryError>| {
                let reader = Arc::clone(&reader);
                async move {
                    let mut pieces = VecDeque::new();
                    for id in run?.ids {
                        pieces.push_back(reader.chunk(&id).await?);
                    }
                    Ok(pieces)
                }
            })
            .buffered(RUNS_AHEAD)
            .boxed();
        Ok(Self { runs, ready: VecDeque::new(), left: length, length })
    }

    /// The next piece.
    ///
    /// # Errors
    /// Damage if the stream ends before or after its length.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RepositoryError> {
        let wrong = |problem: String| Damage { object: "a stream".to_owned(), layer: "recipe", problem };
        while self.ready.is_empty() {
            match self.runs.next().await.transpose()? {
                Some(pieces) => self.ready = pieces,
                None if self.left > 0 => return Err(wrong(format!("it ends {} bytes early", self.left)).into()),
                None => return Ok(None),
            }
        }
        let piece = self.ready.pop_front();
        if let Some(piece) = &piece {
            let left = self.left.checked_sub(piece.len() as u64);
            self.left = left.ok_or_else(|| wrong(format!("it is longer than its {} bytes", self.length)))?;
        }
        Ok(piece)
    }
}
