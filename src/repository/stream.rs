//! Reading streams: recipes to chunk ids, chunk ids to bytes, in order, a little ahead.
//!
//! Sealed bytes are fetched further ahead and in longer pieces ([`super::ahead`]) than they are decoded.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};

use super::ahead::{FETCHES_AHEAD, Fetched, Stretch};
use super::chunks::ChunkReader;
use super::{Damage, RepositoryError};
use crate::format::envelope::ObjectType;
use crate::format::tree::ContentRoot;
use crate::id::{ChunkId, PackId};
use crate::limits::RECIPE_DEPTH_MAX;

/// Runs of chunks that are decoded ahead: where the stream changes between segments with each chunk, they must reach as far as the
/// next segment that nobody decoded yet. Each may pin one decoded segment, at most two MiB, but most of them share a few.
const RUNS_AHEAD: usize = 12;

/// Chunks in one run: about what a segment of average chunks holds.
const RUN_CHUNKS_MAX: usize = 64;

/// Runs in one batch: more would hold back the first of them.
const BATCH_RUNS_MAX: usize = 32;

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

/// Where a chunk is: kind of its pack, pack, segment.
type Place = (ObjectType, PackId, u32);

/// Neighbouring chunks of a stream that lie in one segment.
struct Run {
    ids: Vec<ChunkId>,
    place: Place,
}

/// Groups ids into runs.
struct Runs {
    ids: ChunkIds,
    /// The first id of the next run, and where it is.
    next: Option<(ChunkId, Place)>,
}

impl Runs {
    async fn next(&mut self) -> Result<Option<Run>, RepositoryError> {
        let first = match self.next.take() {
            Some(first) => Some(first),
            None => self.located().await?,
        };
        let Some((id, place)) = first else { return Ok(None) };
        let mut run = Run { ids: vec![id], place };
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

    async fn located(&mut self) -> Result<Option<(ChunkId, Place)>, RepositoryError> {
        let Some(id) = self.ids.next().await? else { return Ok(None) };
        let location = self.ids.reader.locate(&id)?;
        Ok(Some((id, (location.kind, location.pack, location.segment))))
    }
}

/// Runs whose segments are fetched by one read.
struct Batch {
    runs: Vec<Run>,
    stretch: Option<Stretch>,
}

/// Groups runs into batches.
struct Batches {
    runs: Runs,
    /// The first run of the next batch, or what went wrong before it: what comes before an error is still read.
    next: Option<Result<Batch, RepositoryError>>,
}

impl Batches {
    async fn next(&mut self) -> Result<Option<Batch>, RepositoryError> {
        let first = match self.next.take() {
            Some(first) => Some(first?),
            None => self.single().await?,
        };
        let Some(mut batch) = first else { return Ok(None) };
        while batch.runs.len() < BATCH_RUNS_MAX {
            match self.single().await.transpose() {
                Some(Ok(other)) if batch.takes_in(&other) => batch.runs.extend(other.runs),
                other => {
                    self.next = other;
                    break;
                }
            }
        }
        Ok(Some(batch))
    }

    async fn single(&mut self) -> Result<Option<Batch>, RepositoryError> {
        let Some(run) = self.runs.next().await? else { return Ok(None) };
        let (kind, pack, segment) = run.place;
        let stretch = self.runs.ids.reader.stretch(kind, pack, segment)?;
        Ok(Some(Batch { runs: vec![run], stretch }))
    }
}

impl Batch {
    fn takes_in(&mut self, other: &Self) -> bool {
        match (&mut self.stretch, &other.stretch) {
            (Some(stretch), Some(other)) => stretch.take_in(other),
            (Some(_), None) | (None, Some(_)) | (None, None) => false,
        }
    }
}

/// Fetches what a batch needs, and gives its runs with the bytes that they hold on to.
async fn fetched(reader: Arc<ChunkReader>, batch: Result<Batch, RepositoryError>) -> Result<Ready, RepositoryError> {
    let Batch { runs, stretch } = batch?;
    let Some(stretch) = stretch else { return Ok(Ready { runs, bytes: None }) };
    // A task of its own, so that it goes on while its stream is not looked at.
    let fetching = tokio::spawn(async move { reader.fetch(stretch).await });
    Ok(Ready { runs, bytes: fetching.await.expect("fetching does not panic") })
}

/// Runs that can be decoded.
struct Ready {
    runs: Vec<Run>,
    bytes: Option<Arc<Fetched>>,
}

impl Ready {
    fn into_runs(self) -> impl futures::Stream<Item = Result<(Run, Option<Arc<Fetched>>), RepositoryError>> {
        let Self { runs, bytes } = self;
        stream::iter(runs.into_iter().map(move |run| Ok((run, bytes.clone()))))
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
        let batches = Batches { runs, next: None };
        let batches = stream::try_unfold(batches, |mut batches| async move {
            Ok(batches.next().await?.map(|batch| (batch, batches)))
        });
        let fetching = Arc::clone(&reader);
        let runs = batches
            .map(move |batch| fetched(Arc::clone(&fetching), batch))
            .buffered(FETCHES_AHEAD)
            .map_ok(Ready::into_runs)
            .try_flatten()
            .map(move |run| {
                let reader = Arc::clone(&reader);
                async move {
                    // The bytes are held until all that lies in them is decoded.
                    let (run, _bytes) = run?;
                    reader.chunks(run.ids).await.map(VecDeque::from)
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
