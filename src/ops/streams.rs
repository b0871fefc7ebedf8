//! A component's stream on its way into the repository and back.
//!
//! In: read by its own task, decoded (Neo4j containers), checked (both formats), cut at the borders that the format tells.
//! Out: read, joined and wrapped again. A stream counts only if its process exited with 0 *and* its format ended properly.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Context, Progress};
use crate::component::neo4j::dump_format::{
    ContainerInfo, ContainerKind, DumpFormatError, Frame, FrameDecoder, UnwrapSink, Unwrapper, Wrapper, encode_frame,
    recognise,
};
use crate::component::neo4j::scrub::Scrub;
use crate::component::postgres::dump_format::CustomFormatCheck;
use crate::component::{DumpStream, ExitOk};
use crate::deployment::ComponentKind;
use crate::error::{Error, ErrorKind};
use crate::format::config::ProfileName;
use crate::format::manifest::{ComponentRecord, Layout, Sizes, StreamRecord};
use crate::format::tree::ContentRoot;
use crate::limits::INPUT_BLOCKS_AHEAD;
use crate::repository::RepositoryError;
use crate::repository::chunks::ChunkReader;
use crate::repository::cut::CutCounts;
use crate::repository::session::{ComponentWriter, Cutter, InputBlock, StreamWork, WriteSession};
use crate::repository::stream::StreamReader;

/// Bytes of a block that are decoded before full segments are looked for: a kilobyte of zstd can hold a megabyte of zeros.
const DECODE_STEP: usize = 4 << 10;

/// What was stored of a component.
#[derive(Debug)]
pub struct Stored {
    /// Its streams.
    pub streams: Vec<StreamRecord>,
    /// What they are together.
    pub layout: Layout,
    /// What was counted.
    pub sizes: Sizes,
    /// What should be known about it.
    pub warnings: Vec<String>,
}

/// Adds what was counted of one stream.
pub fn add_counts(sizes: &mut Sizes, counts: CutCounts) {
    sizes.logical_bytes += counts.bytes;
    sizes.shared_bytes += counts.shared_bytes;
    sizes.chunks += counts.chunks;
    sizes.new_chunks += counts.new_chunks;
}

/// How the bytes of a stream are understood.
enum Codec {
    /// As they are.
    Plain,
    /// As they are, checked.
    Postgres(Box<CustomFormatCheck>),
    /// Unwrapped.
    Neo4j(Box<Unwrapper>),
    /// Unwrapped, and blanked where the store does not use it.
    Redacted(Box<(Unwrapper, Scrub)>),
}

/// Which of a component's streams bytes go to.
const CONTENT: usize = 0;
const HEADERS: usize = 1;

/// What is known of a dump before it is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected<'a> {
    /// How long it may become, in bytes.
    pub total_bytes: Option<u64>,
    /// Whether values were replaced in it: then what they were before must not be in it either.
    pub redacted: bool,
    /// The same component in earlier snapshots, the youngest first.
    pub earlier: &'a [&'a ComponentRecord],
}

/// Stores the dump of a component.
///
/// # Errors
/// [`ErrorKind::Source`] if the process or the format says that it is not whole.
pub async fn store(
    context: &Context,
    session: &WriteSession,
    component: &str,
    kind: ComponentKind,
    allow_raw: bool,
    expected: Expected<'_>,
    dump: Box<dyn DumpStream>,
) -> Result<(Stored, ExitOk), Error> {
    let (send, mut receive) = mpsc::channel(INPUT_BLOCKS_AHEAD);
    let feeder = tokio::spawn(feed(context.clone(), session.budget().clone(), dump, send));
    let consuming = consume(context, session, component, kind, allow_raw, expected, &mut receive);
    let stored = context.cancel.or(consuming).await.and_then(|stored| stored);
    drop(receive);
    let fed = feeder.await.expect("reading a dump does not panic");
    context.events.progress_done("dump", component);
    match (stored, fed) {
        // What the process says explains more than what its bytes look like.
        (_, Err(Feed::Source(error))) => Err(error),
        (Err(error), _) => Err(error),
        (Ok(_), Err(Feed::Abandoned)) => {
            Err(Error::new(ErrorKind::Internal, "the stream was given up without a reason"))
        }
        (Ok(stored), Ok(exit)) => Ok((stored, exit)),
    }
}

/// Why reading ended early.
enum Feed {
    /// The source, or the operator.
    Source(Error),
    /// Nobody takes the bytes any more.
    Abandoned,
}

async fn feed(
    context: Context,
    budget: crate::repository::budget::Budget,
    mut dump: Box<dyn DumpStream>,
    send: mpsc::Sender<InputBlock>,
) -> Result<ExitOk, Feed> {
    let ended = loop {
        // When nobody takes the bytes any more, a process that is silent must not be waited for.
        let next = tokio::select! {
            biased;
            () = send.closed() => break Err(Feed::Abandoned),
            next = context.cancel.or(dump.next()) => next,
        };
        match next {
            Ok(Ok(Some(bytes))) => {
                let permit = budget.acquire(bytes.len() as u64).await;
                let block = InputBlock { bytes, border: false, permit: Some(permit) };
                if send.send(block).await.is_err() {
                    break Err(Feed::Abandoned);
                }
            }
            Ok(Ok(None)) => break Ok(()),
            Ok(Err(error)) => break Err(Feed::Source(error.into())),
            Err(cancelled) => break Err(Feed::Source(cancelled)),
        }
    };
    match ended {
        Ok(()) => dump.finish().await.map_err(|error| Feed::Source(error.into())),
        Err(why) => {
            dump.abort().await;
            Err(why)
        }
    }
}

async fn consume(
    context: &Context,
    session: &WriteSession,
    component: &str,
    kind: ComponentKind,
    allow_raw: bool,
    expected: Expected<'_>,
    receive: &mut mpsc::Receiver<InputBlock>,
) -> Result<Stored, Error> {
    let mut writer = session.component().await;
    let mut warnings = Vec::new();
    let first = receive.recv().await;
    let codec = match expected.redacted {
        // What is not understood cannot be blanked, and is never stored as it is.
        true => Codec::Redacted(Box::default()),
        false => codec_for(component, kind, allow_raw, first.as_ref().map_or(&[], |block| &block.bytes), &mut warnings),
    };
    let neo4j = matches!(codec, Codec::Neo4j(_) | Codec::Redacted(_));
    let roots = |name: &str| -> Vec<&ContentRoot> {
        expected.earlier.iter().filter_map(|record| record.stream(name)).map(|stream| &stream.root).collect()
    };
    let mut streams = vec![writer.content_after(ProfileName::Dump, &roots("content"))];
    if neo4j {
        streams.push(writer.content_after(ProfileName::Meta, &roots("headers")));
    }
    let mut decode = Decode { codec: Some(codec), block: Bytes::new(), at: 0, offset: 0, result: Ok(()) };
    let mut next = first;
    let mut done_bytes = 0;
    while let Some(block) = next {
        done_bytes += block.bytes.len() as u64;
        decode.block = block.bytes;
        decode.at = 0;
        decode = writer.drive(&mut streams, decode).await?;
        decode.result.as_ref().map_err(|problem| not_whole(component, problem))?;
        drop(block.permit);
        let target = component.to_owned();
        context.events.progress(&Progress { action: "dump", target, done_bytes, total_bytes: expected.total_bytes });
        next = receive.recv().await;
    }
    let mut last = Finish { codec: decode.codec, container: None, result: Ok(()) };
    last = writer.drive(&mut streams, last).await?;
    last.result.map_err(|problem| not_whole(component, &problem))?;
    end_streams(writer, streams, last.container, done_bytes, warnings).await
}

async fn end_streams(
    mut writer: ComponentWriter,
    streams: Vec<crate::repository::session::OpenStream>,
    container: Option<ContainerInfo>,
    dump_bytes: u64,
    warnings: Vec<String>,
) -> Result<Stored, Error> {
    let (mut sizes, mut records) = (Sizes::default(), Vec::new());
    for (name, stream) in ["content", "headers"].into_iter().zip(streams) {
        let (record, counts) = writer.end_as(name, stream).await?;
        add_counts(&mut sizes, counts);
        records.push(record);
    }
    sizes.added_bytes = writer.finish().await?;
    let layout = match container {
        Some(info) => {
            let container = serde_json::to_value(&info).expect("a container is plain data");
            Layout::Neo4jDump { container }
        }
        None => {
            debug_assert_eq!(sizes.logical_bytes, dump_bytes, "a plain stream is stored as it came");
            Layout::Plain
        }
    };
    Ok(Stored { streams: records, layout, sizes, warnings })
}

fn not_whole(component: &str, problem: &str) -> Error {
    let cause = Error::new(ErrorKind::Source, problem);
    Error::with_source(ErrorKind::Source, format!("the dump of component `{component}` is not whole"), cause)
}

/// A stream declared as a database must be one, unless told otherwise.
fn codec_for(component: &str, kind: ComponentKind, allow_raw: bool, first: &[u8], warnings: &mut Vec<String>) -> Codec {
    let mut raw = |known: bool, codec: Codec| {
        // An empty dump is never what was meant.
        if allow_raw && !known && !first.is_empty() {
            warnings.push(format!("`{component}` is not in the format of its kind and was stored as it is"));
            return Codec::Plain;
        }
        codec
    };
    match kind {
        ComponentKind::Neo4j => {
            let known = recognise(first).is_some();
            raw(known, Codec::Neo4j(Box::default()))
        }
        ComponentKind::Postgres => {
            let known = first.starts_with(b"PGDMP");
            raw(known, Codec::Postgres(Box::default()))
        }
        ComponentKind::Artifacts | ComponentKind::Opaque => Codec::Plain,
    }
}

/// The CPU work on one block: decode a step, cut it, and pause whenever a segment is full.
struct Decode {
    codec: Option<Codec>,
    block: Bytes,
    at: usize,
    offset: u64,
    result: Result<(), String>,
}

impl StreamWork for Decode {
    fn run(&mut self, cutter: &mut Cutter<'_>) -> Result<bool, RepositoryError> {
        while self.at < self.block.len() && self.result.is_ok() {
            let end = (self.at + DECODE_STEP).min(self.block.len());
            let step = self.block.slice(self.at..end);
            self.step(&step, cutter)?;
            self.offset += step.len() as u64;
            self.at = end;
            if cutter.has_full() {
                break;
            }
        }
        Ok(self.at < self.block.len() && self.result.is_ok())
    }
}

impl Decode {
    fn step(&mut self, step: &[u8], cutter: &mut Cutter<'_>) -> Result<(), RepositoryError> {
        match self.codec.as_mut().expect("the codec is there until the end") {
            Codec::Plain => cutter.push(CONTENT, step),
            Codec::Postgres(check) => {
                let mut borders = Vec::new();
                if let Err(error) = check.push(step, &mut |offset| borders.push(offset)) {
                    self.result = Err(error.to_string());
                    return Ok(());
                }
                let mut at = 0;
                for border in borders {
                    let border = usize::try_from(border.saturating_sub(self.offset)).unwrap_or(0).clamp(at, step.len());
                    cutter.push(CONTENT, &step[at..border])?;
                    cutter.border(CONTENT)?;
                    at = border;
                }
                cutter.push(CONTENT, &step[at..])
            }
            Codec::Neo4j(unwrapper) => {
                let mut sink = CutSink { cutter, failed: None };
                let result = unwrapper.push(step, &mut sink);
                let failed = sink.failed;
                if let Err(error) = result {
                    self.result = Err(with_cause(&error));
                }
                failed.map_or(Ok(()), Err)
            }
            Codec::Redacted(both) => {
                let (unwrapper, scrub) = &mut **both;
                let mut sink = CutSink { cutter, failed: None };
                let result = unwrapper.push(step, &mut scrub.before(&mut sink));
                let failed = sink.failed;
                let scrubbed = scrub.check().map_err(|error| error.to_string());
                self.result = result.map_err(|error| with_cause(&error)).and(scrubbed);
                failed.map_or(Ok(()), Err)
            }
        }
    }
}

/// The CPU work after the last block.
struct Finish {
    codec: Option<Codec>,
    container: Option<ContainerInfo>,
    result: Result<(), String>,
}

impl StreamWork for Finish {
    fn run(&mut self, cutter: &mut Cutter<'_>) -> Result<bool, RepositoryError> {
        match self.codec.take().expect("the end comes once") {
            Codec::Plain => {}
            Codec::Postgres(check) => self.result = check.finish().map(drop).map_err(|error| error.to_string()),
            Codec::Redacted(both) => {
                let (unwrapper, mut scrub) = *both;
                let mut sink = CutSink { cutter, failed: None };
                let ended = unwrapper.finish(&mut scrub.before(&mut sink));
                let ended = ended.map_err(|error| with_cause(&error));
                match ended.and_then(|info| scrub.finish().map(|()| info).map_err(|error| error.to_string())) {
                    Ok(info) => self.container = Some(info),
                    Err(problem) => self.result = Err(problem),
                }
                if let Some(error) = sink.failed {
                    return Err(error);
                }
            }
            Codec::Neo4j(unwrapper) => {
                let mut sink = CutSink { cutter, failed: None };
                match unwrapper.finish(&mut sink) {
                    Ok(info) => self.container = Some(info),
                    Err(error) => self.result = Err(with_cause(&error)),
                }
                if let Some(error) = sink.failed {
                    return Err(error);
                }
            }
        }
        Ok(false)
    }
}

fn with_cause(error: &DumpFormatError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Sends what an unwrapper gives to the two streams of a Neo4j dump.
struct CutSink<'a, 'b> {
    cutter: &'a mut Cutter<'b>,
    failed: Option<RepositoryError>,
}

impl CutSink<'_, '_> {
    fn keep(&mut self, result: Result<(), RepositoryError>) {
        if let Err(error) = result {
            self.failed.get_or_insert(error);
        }
    }
}

impl UnwrapSink for CutSink<'_, '_> {
    fn data(&mut self, bytes: &[u8]) {
        let result = self.cutter.push(CONTENT, bytes);
        self.keep(result);
    }

    fn cut(&mut self) {
        let result = self.cutter.border(CONTENT);
        self.keep(result);
    }

    fn frame(&mut self, gap: &[u8], data_length: u64) {
        let mut frame = Vec::with_capacity(gap.len() + 12);
        encode_frame(gap, data_length, &mut frame);
        let result = self.cutter.push(HEADERS, &frame);
        self.keep(result);
    }
}

/// A component's dump as it goes out: byte for byte, or wrapped again.
pub enum Output {
    /// The stream as it is.
    Plain(StreamReader),
    /// A Neo4j dump.
    Neo4j(Box<Rewrap>),
}

/// Where the joined tar goes.
enum Wrapping {
    /// Into its container.
    Container(Wrapper),
    /// Out as it is: to check it.
    Bare,
}

/// A Neo4j dump being joined and wrapped.
pub struct Rewrap {
    content: StreamReader,
    headers: StreamReader,
    frames: FrameDecoder,
    ready: std::collections::VecDeque<Frame>,
    wrapper: Option<Wrapping>,
    /// Content bytes that belong before the next gap.
    left: u64,
    rest: Bytes,
}

impl Output {
    /// Opens the dump of `component` for a load command's standard input.
    ///
    /// A gzip dump without its four first bytes loads from a file only: it gets them.
    pub fn open_for_load(reader: &Arc<ChunkReader>, component: &ComponentRecord) -> Result<Self, Error> {
        Self::open_as(reader, component, true, |kind| match kind {
            ContainerKind::LegacyGzip => ContainerKind::DumpGzip,
            other => other,
        })
    }

    /// Opens the dump of `component`.
    pub fn open(reader: &Arc<ChunkReader>, component: &ComponentRecord) -> Result<Self, Error> {
        Self::open_as(reader, component, true, |kind| kind)
    }

    /// Opens what is inside the dump of `component`, joined and checked as [`Output::open`] does, but not wrapped.
    pub fn open_bare(reader: &Arc<ChunkReader>, component: &ComponentRecord) -> Result<Self, Error> {
        Self::open_as(reader, component, false, |kind| kind)
    }

    fn open_as(
        reader: &Arc<ChunkReader>,
        component: &ComponentRecord,
        wrapped: bool,
        kind: impl FnOnce(ContainerKind) -> ContainerKind,
    ) -> Result<Self, Error> {
        let stream = |name: &str| -> Result<StreamReader, Error> {
            let record = component.stream(name).ok_or_else(|| {
                let text = format!("component `{}` has no stream `{name}`", component.name);
                Error::new(ErrorKind::Damaged, text)
            })?;
            Ok(StreamReader::new(Arc::clone(reader), &record.root, record.length)?)
        };
        match &component.layout {
            Layout::Plain => Ok(Self::Plain(stream("content")?)),
            Layout::Neo4jDump { container } => {
                let mut info: ContainerInfo = serde_json::from_value(container.clone()).map_err(broken)?;
                info.kind = kind(info.kind);
                let wrapper = Wrapper::new(&info).map_err(broken)?;
                Ok(Self::Neo4j(Box::new(Rewrap {
                    content: stream("content")?,
                    headers: stream("headers")?,
                    frames: FrameDecoder::new(),
                    ready: std::collections::VecDeque::new(),
                    wrapper: Some(if wrapped { Wrapping::Container(wrapper) } else { Wrapping::Bare }),
                    left: 0,
                    rest: Bytes::new(),
                })))
            }
            Layout::Tree => {
                let text = format!("component `{}` is a folder; name a file in it", component.name);
                Err(Error::new(ErrorKind::Usage, text))
            }
        }
    }

    /// The next piece of the dump.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Plain(stream) => Ok(stream.next().await?),
            Self::Neo4j(rewrap) => rewrap.next().await,
        }
    }
}

fn broken(error: impl std::error::Error) -> Error {
    Error::new(ErrorKind::Damaged, format!("the stored dump cannot be wrapped again: {error}"))
}

impl Rewrap {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut out = Vec::new();
        while self.wrapper.is_some() && out.is_empty() {
            if self.left > 0 {
                self.data(&mut out).await?;
            } else if let Some(frame) = self.frame().await? {
                self.left = frame.data_length;
                self.wrap(&frame.gap, &mut out)?;
            } else {
                self.finish(&mut out).await?;
            }
        }
        Ok((!out.is_empty()).then(|| Bytes::from(out)))
    }

    fn wrap(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        match self.wrapper.as_mut().expect("not ended") {
            Wrapping::Container(wrapper) => wrapper.tar_bytes(bytes, out).map_err(broken),
            Wrapping::Bare => {
                out.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    async fn data(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.rest.is_empty() {
            let more = self.content.next().await?;
            self.rest =
                more.ok_or_else(|| Error::new(ErrorKind::Damaged, "the content ends before its headers say"))?;
        }
        let size = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.rest.len());
        let piece = self.rest.split_to(size);
        self.left -= size as u64;
        self.wrap(&piece, out)
    }

    async fn frame(&mut self) -> Result<Option<Frame>, Error> {
        while self.ready.is_empty() {
            let Some(bytes) = self.headers.next().await? else { return Ok(None) };
            let mut frames = Vec::new();
            self.frames.push(&bytes, &mut frames).map_err(broken)?;
            self.ready.extend(frames);
        }
        Ok(self.ready.pop_front())
    }

    async fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        std::mem::take(&mut self.frames).finish().map_err(broken)?;
        if !self.rest.is_empty() || self.content.next().await?.is_some() {
            return Err(Error::new(ErrorKind::Damaged, "the content goes on after its headers end"));
        }
        match self.wrapper.take().expect("not ended") {
            Wrapping::Container(wrapper) => wrapper.finish(out).map_err(broken),
            Wrapping::Bare => Ok(()),
        }
    }
}
