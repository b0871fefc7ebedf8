//! Blanking what a Neo4j store holds and does not use, while its dump goes by.
//!
//! A value that is replaced stays in the store: in property records that were freed, behind the last block of those that got
//! shorter, and in the records of long texts and lists. Nothing reads it, and everybody can. Here it becomes zeros; no length and no
//! offset changes. Indexes and transaction logs are not looked at: who redacts makes them anew.
//!
//! Holds: what is in use stays as it is, byte for byte. What is not understood is an error, never passed on as clean.
//! Does: the record format `aligned` of Neo4j 5 (`record-aligned-1.1`), whose layout `PropertyRecordFormat`,
//! `DynamicRecordFormat` and `PropertyType` of Neo4j's sources define.

use super::dump_format::UnwrapSink;

/// Records do not cross a page, in bytes.
const PAGE_SIZE: usize = 8 << 10;

/// A record of properties: nine bytes of links, then four blocks.
const PROPERTY_SIZE: usize = 41;
const PROPERTY_HEAD_SIZE: usize = 9;
const BLOCK_SIZE: usize = 8;
const BLOCKS: usize = 4;

/// A record of a long text or list: a byte of flags, three of length, four of link, then content. The first one of a store tells this
/// size instead.
const DYNAMIC_SIZE: usize = 128;
const DYNAMIC_HEAD_SIZE: usize = 8;
const DYNAMIC_IN_USE: u8 = 0x10;

/// Bits of a block before the content of a short text, and of a short list.
const TEXT_HEAD_BITS: u64 = 39;
const LIST_HEAD_BITS: u64 = 44;

/// What is wrong with a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScrubError {
    /// A record cannot be read.
    #[error("record {record} of `{file}` is not understood: {what}")]
    Record {
        /// The file of the store.
        file: &'static str,
        /// Its number, from 0.
        record: u64,
        /// What about it.
        what: &'static str,
    },
    /// It is another store.
    #[error("there is no `{file}` in it")]
    Missing {
        /// The file of the store.
        file: &'static str,
    },
}

/// A file that values are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum File {
    Properties,
    Texts,
    Lists,
}

const FILES: [File; 3] = [File::Properties, File::Texts, File::Lists];

impl File {
    fn name(self) -> &'static str {
        match self {
            Self::Properties => "neostore.propertystore.db",
            Self::Texts => "neostore.propertystore.db.strings",
            Self::Lists => "neostore.propertystore.db.arrays",
        }
    }

    fn record_size(self) -> usize {
        match self {
            Self::Properties => PROPERTY_SIZE,
            Self::Texts | Self::Lists => DYNAMIC_SIZE,
        }
    }

    fn blank(self, number: u64, record: &mut [u8]) -> Result<(), &'static str> {
        match self {
            Self::Properties => blank_property(record),
            Self::Texts | Self::Lists if number == 0 => {
                let size = u32::try_from(DYNAMIC_SIZE).expect("it is small");
                if record[..4] == size.to_be_bytes() { Ok(()) } else { Err("records have another size") }
            }
            Self::Texts | Self::Lists => blank_dynamic(record),
        }
    }
}

/// What stands between an unwrapper and what it gives to.
#[derive(Debug, Default)]
pub struct Scrub {
    file: Option<File>,
    /// Bytes of the file still to come.
    left: u64,
    page: Vec<u8>,
    /// Number of the next record.
    record: u64,
    seen: Vec<&'static str>,
    problem: Option<ScrubError>,
}

impl Scrub {
    /// Gives to `out`, blanked, what is given to it.
    pub fn before<'a>(&'a mut self, out: &'a mut dyn UnwrapSink) -> Scrubbing<'a> {
        Scrubbing { scrub: self, out }
    }

    /// What was not understood until now.
    ///
    /// # Errors
    /// That; what was given on is not clean then.
    pub fn check(&self) -> Result<(), ScrubError> {
        self.problem.clone().map_or(Ok(()), Err)
    }

    /// Behind the last byte.
    ///
    /// # Errors
    /// Unless everything was there that values are in.
    pub fn finish(self) -> Result<(), ScrubError> {
        self.check()?;
        match FILES.iter().find(|file| !self.seen.contains(&file.name())) {
            Some(file) => Err(ScrubError::Missing { file: file.name() }),
            None => Ok(()),
        }
    }

    fn begin(&mut self, gap: &[u8], size: u64) {
        let name = name_in(gap);
        self.file = FILES.into_iter().find(|file| name == file.name().as_bytes());
        self.seen.extend(self.file.map(File::name));
        (self.left, self.record) = (size, 0);
        self.page.clear();
    }

    /// Blanks the page that came together.
    fn blank(&mut self, file: File) {
        for record in self.page.chunks_exact_mut(file.record_size()) {
            if let Err(what) = file.blank(self.record, record) {
                self.problem.get_or_insert(ScrubError::Record { file: file.name(), record: self.record, what });
            }
            self.record += 1;
        }
    }
}

/// A [`Scrub`] at work.
pub struct Scrubbing<'a> {
    scrub: &'a mut Scrub,
    out: &'a mut dyn UnwrapSink,
}

impl UnwrapSink for Scrubbing<'_> {
    fn data(&mut self, mut bytes: &[u8]) {
        let Some(file) = self.scrub.file else { return self.out.data(bytes) };
        while !bytes.is_empty() {
            let (taken, rest) = bytes.split_at(bytes.len().min(PAGE_SIZE - self.scrub.page.len()));
            self.scrub.page.extend_from_slice(taken);
            self.scrub.left = self.scrub.left.saturating_sub(taken.len() as u64);
            bytes = rest;
            if self.scrub.page.len() == PAGE_SIZE || self.scrub.left == 0 {
                self.scrub.blank(file);
                self.out.data(&self.scrub.page);
                self.scrub.page.clear();
            }
        }
    }

    fn cut(&mut self) {
        self.out.cut();
    }

    fn frame(&mut self, gap: &[u8], data_length: u64) {
        self.scrub.begin(gap, data_length);
        self.out.frame(gap, data_length);
    }
}

/// The name, without folders, in the header that a gap ends with.
fn name_in(gap: &[u8]) -> &[u8] {
    let header = gap.len().checked_sub(crate::tar_header::BLOCK_SIZE).map_or(&[][..], |start| &gap[start..]);
    let name = header.get(..100).unwrap_or_default();
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    name.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

fn blank_dynamic(record: &mut [u8]) -> Result<(), &'static str> {
    if record[0] & DYNAMIC_IN_USE == 0 {
        record[1..].fill(0);
        return Ok(());
    }
    let length = usize::from(record[1]) << 16 | usize::from(record[2]) << 8 | usize::from(record[3]);
    match record.get_mut(DYNAMIC_HEAD_SIZE + length..) {
        Some(unused) => {
            unused.fill(0);
            Ok(())
        }
        None => Err("it holds more than it can"),
    }
}

/// Blocks of properties follow each other from the first one; the first that is none ends them.
fn blank_property(record: &mut [u8]) -> Result<(), &'static str> {
    let blocks = &mut record[PROPERTY_HEAD_SIZE..];
    let mut used = 0;
    while used < BLOCKS {
        let first = blocks[used * BLOCK_SIZE..].first_chunk().expect("a record has whole blocks");
        match blocks_of(u64::from_be_bytes(*first))? {
            0 => break,
            count => used += count,
        }
    }
    match blocks.get_mut(used * BLOCK_SIZE..) {
        Some(unused) => {
            unused.fill(0);
            Ok(())
        }
        None => Err("a property in it is longer than it"),
    }
}

/// How many blocks the property has that begins with this one; 0 if none does.
fn blocks_of(first: u64) -> Result<usize, &'static str> {
    let bits = |shift: u32, count: u32| (first >> shift) & ((1 << count) - 1);
    // 24 bits are the number of the key.
    let blocks = match bits(24, 4) {
        // What cannot be a type ends the list for Neo4j as well.
        0 | 15 => 0,
        // A truth value, whole numbers of up to 32 bits, a character, a short fraction; links to a long text and a long list.
        1..=5 | 7 | 9 | 10 => 1,
        6 => 2 - bits(28, 1),
        8 => 2,
        11 => blocks_for(TEXT_HEAD_BITS + bits(33, 6) * bits_of_character(bits(28, 5))?),
        12 => {
            let width = match bits(38, 6) {
                0 => 64,
                width => width,
            };
            blocks_for(LIST_HEAD_BITS + bits(32, 6) * width)
        }
        13 => match bits(28, 4) {
            1 => 1 + bits(32, 4),
            _ => return Err("a geometry of an unknown type"),
        },
        14 => match bits(28, 4) {
            // A date and a time of the day, in the block where they fit.
            1 | 2 => 2 - bits(32, 1),
            3 | 4 => 2,
            5 => 3,
            6 => 4,
            _ => return Err("a time of an unknown type"),
        },
        _ => unreachable!("four bits"),
    };
    usize::try_from(blocks).map_err(|_| "more blocks than there can be")
}

fn blocks_for(bits: u64) -> u64 {
    bits.div_ceil(64)
}

/// Bits of each character of a short text, by how it is written.
fn bits_of_character(encoding: u64) -> Result<u64, &'static str> {
    Ok(match encoding {
        // UTF-8, Latin 1.
        0 | 10 => 8,
        // Digits; dates; upper and lower hexadecimal digits.
        1 | 2 | 11 | 12 => 4,
        // Upper case, lower case, addresses of mail.
        3..=5 => 5,
        // Addresses of the web, letters and digits, the same with signs.
        6..=8 => 6,
        // Letters of western Europe.
        9 => 7,
        _ => return Err("a text in an unknown encoding"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar_header::BLOCK_SIZE as TAR_BLOCK_SIZE;

    /// Collects what is given on.
    #[derive(Default)]
    struct Kept(Vec<u8>);

    impl UnwrapSink for Kept {
        fn data(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
        fn cut(&mut self) {}
        fn frame(&mut self, _: &[u8], _: u64) {}
    }

    /// What comes of a file that comes in pieces of this length.
    fn scrubbed(name: &str, bytes: &[u8], piece: usize) -> Result<Vec<u8>, ScrubError> {
        let (mut scrub, mut kept) = (Scrub::default(), Kept::default());
        let mut gap = vec![0; 3 * TAR_BLOCK_SIZE];
        gap[2 * TAR_BLOCK_SIZE..][..name.len()].copy_from_slice(name.as_bytes());
        let mut sink = scrub.before(&mut kept);
        sink.frame(&gap, bytes.len() as u64);
        bytes.chunks(piece).for_each(|piece| sink.data(piece));
        scrub.check().map(|()| kept.0)
    }

    /// A record of properties with these blocks.
    fn property(blocks: [u64; BLOCKS]) -> Vec<u8> {
        [&[7; PROPERTY_HEAD_SIZE][..], &blocks.map(u64::to_be_bytes).concat()].concat()
    }

    /// The first block of a property of this type, with these bits behind it.
    fn block(kind: u64, more: u64) -> u64 {
        0x12_3456 | kind << 24 | more << 28
    }

    const OLD: u64 = 0x6f6c_6420_7661_6c75;

    fn blanked(blocks: [u64; BLOCKS]) -> Result<[u64; BLOCKS], &'static str> {
        let mut record = property(blocks);
        blank_property(&mut record)?;
        assert_eq!(record[..PROPERTY_HEAD_SIZE], [7; PROPERTY_HEAD_SIZE]);
        let block = |at| u64::from_be_bytes(*record[PROPERTY_HEAD_SIZE + at * BLOCK_SIZE..].first_chunk().unwrap());
        Ok([0, 1, 2, 3].map(block))
    }

    #[test]
    fn blocks_behind_the_last_property_of_a_record_become_zeros() {
        let truth = block(1, 1);
        assert_eq!(blanked([truth, 0, OLD, OLD]), Ok([truth, 0, 0, 0]));
        assert_eq!(blanked([truth, block(9, 5), truth, 0]), Ok([truth, block(9, 5), truth, 0]));
        assert_eq!(blanked([0, OLD, OLD, OLD]), Ok([0; 4]), "a record that was freed");
    }

    #[test]
    fn properties_are_as_long_as_neo4j_says() {
        let cases = [
            // A whole number of up to 35 bits, and a longer one whose second block is zero.
            (block(6, 1), 1),
            (block(6, 0), 2),
            (block(8, 0), 2),
            // `lll,llle|eeee`: 36 lower-case hexadecimal digits, 26 bytes of UTF-8, 3 of Latin 1, 5 letters of 5 bits, and 6.
            (block(11, 36 << 5 | 11), 3),
            (block(11, 26 << 5), 4),
            (block(11, 3 << 5 | 10), 1),
            (block(11, 5 << 5 | 4), 1),
            (block(11, 6 << 5 | 4), 2),
            // `width, count, type`: 20 of one bit, 21, one of 64, three of 64.
            (block(12, 1 << 10 | 20 << 4 | 1), 1),
            (block(12, 1 << 10 | 21 << 4 | 1), 2),
            (block(12, 1 << 4 | 6), 2),
            (block(12, 3 << 4 | 6), 4),
            // A point in the plane; a day near and far; a time with a zone; a duration.
            (block(13, 2 << 4 | 1), 3),
            (block(14, 1 << 4 | 1), 1),
            (block(14, 1), 2),
            (block(14, 5), 3),
            (block(14, 6), 4),
        ];
        for (first, length) in cases {
            assert_eq!(blocks_of(first), Ok(length), "{first:#x}");
            let blocks = [first, 0, 0, 0];
            let mut full = [first, OLD, OLD, OLD];
            if length < BLOCKS {
                full[length] = 0;
            }
            let kept = blanked(full).unwrap();
            assert_eq!(kept[..length], full[..length]);
            assert!(kept[length..].iter().all(|block| *block == 0));
            assert_eq!(blanked(blocks), Ok(blocks));
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for first in [block(11, 13), block(13, 2), block(14, 7)] {
            blanked([first, 0, 0, 0]).unwrap_err();
        }
        blanked([block(1, 0), block(14, 6), 0, 0]).unwrap_err();
        let file = property([block(11, 13), 0, 0, 0]).repeat(3);
        let error = scrubbed("./neostore.propertystore.db", &file, 1000).unwrap_err();
        assert!(matches!(error, ScrubError::Record { record: 0, .. }), "{error}");
        let other = [&[0, 0, 0, 64][..], &[0; 124]].concat();
        scrubbed("./neostore.propertystore.db.strings", &other, 1000).unwrap_err();
    }

    #[test]
    fn a_long_text_keeps_its_content_and_nothing_else() {
        let record = |head: [u8; 4], content: &[u8]| {
            let mut record = [&head[..], &[0xff; 4], content].concat();
            record.resize(DYNAMIC_SIZE, b'x');
            record
        };
        let first = [&[0, 0, 0, 128][..], &[9; 124]].concat();
        let used = record([0x10, 0, 0, 5], b"value of before");
        let freed = record([0, 0, 0, 120], b"value of before");
        let file = [first.clone(), used, freed].concat();
        for piece in [1, 100, 8 << 10] {
            let kept = scrubbed("neostore.propertystore.db.arrays", &file, piece).unwrap();
            assert_eq!(kept[..128], first);
            assert_eq!(kept[128..141], *b"\x10\0\0\x05\xff\xff\xff\xffvalue");
            assert!(kept[141..].iter().all(|byte| *byte == 0));
            assert_eq!(kept.len(), file.len());
        }
    }

    #[test]
    fn records_are_counted_anew_on_each_page_and_other_files_pass_by() {
        // 199 records, and 33 bytes that belong to none.
        let page = [property([0, OLD, OLD, OLD]).repeat(199), vec![5; 33]].concat();
        assert_eq!(page.len(), PAGE_SIZE);
        let clean = [property([0; 4]).repeat(199), vec![5; 33]].concat();
        assert_eq!(scrubbed("neostore.propertystore.db", &page.repeat(3), 777).unwrap(), clean.repeat(3));
        assert_eq!(scrubbed("neostore.propertystore.db.id", &page, 777).unwrap(), page);
    }

    #[test]
    fn a_dump_without_the_files_that_hold_values_is_refused() {
        assert_eq!(Scrub::default().finish(), Err(ScrubError::Missing { file: "neostore.propertystore.db" }));
    }
}
