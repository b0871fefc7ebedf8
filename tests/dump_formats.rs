//! The codecs of the two dump formats, against real dumps.
//!
//! The fixtures were made with `neo4j-admin database dump --to-stdout` (Neo4j 5.26.30 Community, 120 nodes, one index)
//! and `pg_dump --format=custom` (PostgreSQL 15.18; three tables, a view, a materialized view, two large objects).

mod neo4j {
    use std::io::Write;

    use infrahub_backup::component::neo4j::dump_format::{
        ContainerInfo, ContainerKind, DumpFormatError, Frame, FrameDecoder, Layer, UnwrapSink, Unwrapper, Wrapper,
        encode_frame, recognise,
    };
    use infrahub_backup::limits::INPUT_BLOCK_SIZE_MAX;
    use proptest::prelude::*;

    const DUMP: &[u8] = include_bytes!("fixtures/neo4j-community-5.26.30.dump");
    const HEADER_SIZE: usize = 24;
    const KINDS: [ContainerKind; 8] = [
        ContainerKind::DumpZstd,
        ContainerKind::DumpGzip,
        ContainerKind::LegacyZstd,
        ContainerKind::LegacyGzip,
        ContainerKind::BackupTarV1,
        ContainerKind::BackupZstdV1,
        ContainerKind::BackupTarV2,
        ContainerKind::BackupZstdV2,
    ];

    #[derive(Default, PartialEq)]
    struct Unwrapped {
        tar: Vec<u8>,
        data: Vec<u8>,
        cuts: Vec<usize>,
        headers: Vec<u8>,
        frames: Vec<(usize, u64)>,
    }

    impl UnwrapSink for Unwrapped {
        fn data(&mut self, bytes: &[u8]) {
            assert!(!bytes.is_empty() && bytes.len() <= INPUT_BLOCK_SIZE_MAX, "a piece of {} bytes", bytes.len());
            self.tar.extend_from_slice(bytes);
            self.data.extend_from_slice(bytes);
        }
        fn cut(&mut self) {
            self.cuts.push(self.data.len());
        }
        fn frame(&mut self, gap: &[u8], data_length: u64) {
            self.tar.extend_from_slice(gap);
            encode_frame(gap, data_length, &mut self.headers);
            self.frames.push((gap.len(), data_length));
        }
    }

    fn unwrap_in(pieces: usize, dump: &[u8]) -> Result<(ContainerInfo, Unwrapped), DumpFormatError> {
        let (mut unwrapper, mut out) = (Unwrapper::new(), Unwrapped::default());
        for piece in dump.chunks(pieces) {
            unwrapper.push(piece, &mut out)?;
        }
        let info = unwrapper.finish(&mut out)?;
        Ok((info, out))
    }

    fn wrap(info: &ContainerInfo, tar: &[u8]) -> Vec<u8> {
        let (mut wrapper, mut dump) = (Wrapper::new(info).unwrap(), Vec::new());
        for piece in tar.chunks(100_000) {
            wrapper.tar_bytes(piece, &mut dump).unwrap();
        }
        wrapper.finish(&mut dump).unwrap();
        dump
    }

    /// The tar of the fixture, decompressed by the library rather than by the code under test.
    fn real_tar() -> Vec<u8> {
        zstd::decode_all(&DUMP[4..]).unwrap().split_off(HEADER_SIZE)
    }

    fn text(text: &[u8]) -> Vec<u8> {
        [&[u8::try_from(text.len()).unwrap()], text].concat()
    }

    /// Metadata of a full backup, as `BackupMetadataV1` of Neo4j writes it.
    fn metadata() -> Vec<u8> {
        let store = [vec![1], vec![7; 16], text(b"record"), text(b"aligned"), vec![1, 1]].concat();
        [store, text(&[1; 16]), text(b"neo4j"), vec![0; 24], text(&[0b101])].concat()
    }

    fn metadata_v2() -> Vec<u8> {
        let field = |name: &[u8]| [&u32::try_from(name.len()).unwrap().to_be_bytes(), name].concat();
        [vec![2], metadata(), vec![0, 0, 0, 1], field(b"metadataScript"), field(b"CREATE USER x")].concat()
    }

    fn counts(files: u64, bytes: u64) -> Vec<u8> {
        [&1u32.to_be_bytes()[..], &files.to_be_bytes(), &bytes.to_be_bytes()].concat()
    }

    fn zstd_of(contents: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(contents).unwrap();
        encoder.finish().unwrap()
    }

    fn gzip_of(contents: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::GzBuilder::new()
            .filename("a name")
            .extra(vec![1, 2, 3])
            .comment("a comment")
            .write(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(contents).unwrap();
        encoder.finish().unwrap()
    }

    /// `tar` in a container built by hand after Neo4j's sources.
    fn container(kind: ContainerKind, tar: &[u8], counts: &[u8]) -> Vec<u8> {
        let zstd = |parts: &[&[u8]]| zstd_of(&parts.concat());
        match kind {
            ContainerKind::DumpZstd => [b"DZV1".to_vec(), zstd(&[b"zstd", counts, tar])].concat(),
            ContainerKind::DumpGzip => [b"DGV1".to_vec(), gzip_of(tar)].concat(),
            ContainerKind::LegacyZstd => zstd(&[b"zstd", counts, tar]),
            ContainerKind::LegacyGzip => gzip_of(tar),
            ContainerKind::BackupTarV1 => [b"BTV1", &metadata()[..], tar].concat(),
            ContainerKind::BackupZstdV1 => [b"BZV1".to_vec(), zstd(&[b"zstd", &metadata(), counts, tar])].concat(),
            ContainerKind::BackupTarV2 => [b"BTV2", &metadata_v2()[..], tar].concat(),
            ContainerKind::BackupZstdV2 => [b"BZV2".to_vec(), zstd(&[b"zstd", &metadata_v2(), counts, tar])].concat(),
        }
    }

    #[test]
    fn the_real_dump_unwraps_to_its_exact_tar() {
        let (info, out) = unwrap_in(64 << 10, DUMP).unwrap();
        assert_eq!((info.kind, info.files, info.data_bytes), (ContainerKind::DumpZstd, 37, 997_599));
        assert_eq!(info.prefix, &zstd::decode_all(&DUMP[4..]).unwrap()[..HEADER_SIZE]);
        assert!(out.tar == real_tar());
        assert_eq!(out.data.len(), 997_599);
        assert_eq!(out.cuts.len() + 1, out.frames.len());
    }

    #[test]
    fn every_container_comes_back_from_every_size_of_pieces() {
        let tar = real_tar();
        for kind in KINDS {
            let dump = container(kind, &tar, &counts(37, 997_599));
            assert_eq!(recognise(&dump), Some(kind));
            let (info, out) = unwrap_in(64 << 10, &dump).unwrap();
            assert_eq!((info.kind, info.files), (kind, 37));
            assert!(out.tar == tar, "{kind}");

            let again = wrap(&info, &out.tar);
            for pieces in [1, 7, 64 << 10] {
                let (info_again, out_again) = unwrap_in(pieces, &again).unwrap();
                assert_eq!(info_again, info, "{kind} in pieces of {pieces}");
                assert!(out_again == out, "{kind} in pieces of {pieces}");
            }
        }
    }

    #[test]
    fn the_tar_can_be_put_together_from_frames_and_data() {
        let (_, out) = unwrap_in(1000, DUMP).unwrap();
        let (mut decoder, mut frames) = (FrameDecoder::new(), Vec::new());
        out.headers.chunks(1000).for_each(|piece| decoder.push(piece, &mut frames).unwrap());
        decoder.finish().unwrap();
        let (mut tar, mut data) = (Vec::new(), out.data.as_slice());
        for Frame { gap, data_length } in frames {
            let (next, rest) = data.split_at(usize::try_from(data_length).unwrap());
            tar.extend([&gap, next].concat());
            data = rest;
        }
        assert!(tar == real_tar());
    }

    #[test]
    fn a_real_dump_cut_off_at_any_byte_is_refused() {
        assert!(matches!(unwrap_in(1, b""), Err(DumpFormatError::Empty)));
        for end in (1..DUMP.len()).step_by(7).chain(DUMP.len() - 40..DUMP.len()) {
            let result = unwrap_in(64 << 10, &DUMP[..end]).map(|(info, _)| info);
            assert!(
                matches!(result, Err(DumpFormatError::Truncated { layer: Layer::Stream, at, .. }) if at == end as u64),
                "at {end}: {result:?}"
            );
        }
    }

    /// Three members, small enough to try every offset.
    fn small_tar() -> Vec<u8> {
        let entry = |name: &[u8], kind: u8, contents: &[u8], size: &[u8]| {
            let mut block = [0u8; 512];
            block[..name.len()].copy_from_slice(name);
            block[124..124 + size.len()].copy_from_slice(size);
            block[148..156].fill(b' ');
            block[156] = kind;
            block[257..265].copy_from_slice(b"ustar\x0000");
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            let mut bytes = block.to_vec();
            bytes.extend_from_slice(contents);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
            bytes
        };
        let octal = |size: usize| format!("{size:011o}\0").into_bytes();
        [
            entry(b"./", b'5', b"", &octal(0)),
            entry(b"PaxHeader", b'x', b"12 size=600\n", &octal(12)),
            entry(b"a", b'0', &[1; 600], &octal(0)),
            entry(b"././@LongLink", b'L', &[b'n'; 300], &octal(300)),
            entry(b"b", b'0', &[2; 5], &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]),
            entry(b"empty", b'0', b"", &octal(0)),
            vec![0; 1024],
        ]
        .concat()
    }

    #[test]
    fn sizes_come_from_pax_records_and_from_base_256() {
        let (info, out) = unwrap_in(1, &container(ContainerKind::DumpGzip, &small_tar(), b"")).unwrap();
        assert_eq!((info.files, info.data_bytes), (3, 605));
        assert_eq!(out.data, [vec![1; 600], vec![2; 5]].concat());
        assert_eq!(out.cuts, [0, 600]);
        let lengths: Vec<_> = out.frames.iter().map(|frame| frame.1).collect();
        assert_eq!(lengths, [600, 5, 0]);
    }

    #[test]
    fn a_small_dump_of_every_kind_cut_off_at_any_byte_is_refused() {
        for kind in KINDS {
            let dump = container(kind, &small_tar(), &counts(3, 605));
            assert!(unwrap_in(64, &dump).is_ok(), "{kind}");
            for end in 0..dump.len() {
                let result = unwrap_in(64, &dump[..end]).map(|(info, _)| info);
                let truncated = matches!(result, Err(DumpFormatError::Truncated { .. }));
                assert!(truncated || end == 0, "{kind} at {end}: {result:?}");
            }
        }
    }

    #[test]
    fn a_changed_byte_in_the_compressed_data_is_refused_or_changes_nothing() {
        // A larger window, or a table's entry that no symbol uses, changes nothing that is unwrapped.
        let (tar, mut harmless) = (real_tar(), 0);
        for place in (4..DUMP.len()).step_by(5) {
            let mut dump = DUMP.to_vec();
            dump[place] ^= 0x40;
            if let Ok((_, out)) = unwrap_in(64 << 10, &dump) {
                assert!(out.tar == tar, "byte {place}");
                harmless += 1;
            }
        }
        assert!(harmless < 20, "{harmless} changed bytes were taken");
    }

    #[test]
    fn a_changed_checksum_is_refused() {
        let mut zstd = DUMP.to_vec();
        *zstd.last_mut().unwrap() ^= 1;
        assert!(matches!(unwrap_in(64 << 10, &zstd), Err(DumpFormatError::Compression { .. })));
        let mut gzip = container(ContainerKind::DumpGzip, &small_tar(), b"");
        let crc = gzip.len() - 8;
        gzip[crc] ^= 1;
        assert!(matches!(unwrap_in(9, &gzip), Err(DumpFormatError::Compression { .. })));
    }

    #[test]
    fn a_byte_behind_the_end_is_refused_where_it_stands() {
        for kind in KINDS {
            let mut dump = container(kind, &small_tar(), &counts(3, 605));
            let end = dump.len() as u64;
            dump.push(b'x');
            let Err(DumpFormatError::Trailing { layer, at }) = unwrap_in(100, &dump).map(|(info, _)| info) else {
                panic!("{kind} was taken");
            };
            let expected = if layer == Layer::Tar { small_tar().len() as u64 } else { end };
            assert_eq!(at, expected, "{kind}");
        }
        let twice = [DUMP, &DUMP[4..]].concat();
        assert!(matches!(unwrap_in(4096, &twice), Err(DumpFormatError::Trailing { layer: Layer::Stream, .. })));
    }

    #[test]
    fn a_dump_with_fewer_files_than_it_names_is_refused() {
        let refuse =
            |files, bytes| unwrap_in(512, &container(ContainerKind::DumpZstd, &small_tar(), &counts(files, bytes)));
        assert!(matches!(refuse(4, 605), Err(DumpFormatError::Count { what: "files", expected: 4, found: 3 })));
        assert!(matches!(refuse(3, 606), Err(DumpFormatError::Count { what: "bytes", expected: 606, found: 605 })));
        assert!(refuse(0, 0).is_ok(), "zero is unknown");
    }

    #[test]
    fn a_zstd_frame_without_a_checksum_is_refused() {
        let dump = [b"DZV1".to_vec(), zstd::encode_all(&small_tar()[..], 3).unwrap()].concat();
        let result = unwrap_in(3, &dump).map(|(info, _)| info);
        assert!(matches!(result, Err(DumpFormatError::CompressionHeader { at: 4, .. })), "{result:?}");
    }

    #[test]
    fn a_plain_tar_and_a_tar_without_files_are_refused() {
        let plain = unwrap_in(64, &small_tar()).map(|(info, _)| info);
        assert_eq!(
            plain.unwrap_err().to_string(),
            "not a dump of Neo4j: it begins with the bytes `2e2f0000` at byte 0"
        );
        let empty = unwrap_in(64, &container(ContainerKind::DumpGzip, &[0; 1024], b""));
        assert!(matches!(empty, Err(DumpFormatError::NoFiles)));
    }

    #[test]
    fn a_differential_backup_is_refused() {
        let mut dump = container(ContainerKind::BackupTarV1, &small_tar(), b"");
        let flags = 4 + metadata().len() - 1;
        dump[flags] = 1;
        assert!(matches!(unwrap_in(64, &dump), Err(DumpFormatError::Header { .. })));
    }

    #[test]
    fn a_gap_beyond_the_limit_is_refused_before_it_is_taken() {
        let folder = &small_tar()[..512];
        let tar = folder.repeat(3000);
        let dump = container(ContainerKind::BackupTarV1, &tar, b"");
        assert!(matches!(unwrap_in(64 << 10, &dump), Err(DumpFormatError::GapTooLarge { .. })));
    }

    #[test]
    fn a_frame_that_wants_a_window_of_a_gigabyte_is_refused() {
        // Magic, descriptor with checksum, window; the frame ends there, which the decoder only minds in its window.
        let frame = |log: u8| [b"DZV1\x28\xb5\x2f\xfd\x04", &[(log - 10) << 3][..]].concat();
        let error = |log| unwrap_in(1, &frame(log)).map(|(info, _)| info).unwrap_err();
        assert!(matches!(error(30), DumpFormatError::Compression { at: 10, .. }), "{}", error(30));
        assert!(matches!(error(27), DumpFormatError::Truncated { at: 10, .. }), "{}", error(27));
    }

    #[test]
    fn pushing_nothing_changes_nothing() {
        let (mut unwrapper, mut out) = (Unwrapper::new(), Unwrapped::default());
        for piece in DUMP.chunks(3000) {
            (0..100).for_each(|_| unwrapper.push(b"", &mut out).unwrap());
            unwrapper.push(piece, &mut out).unwrap();
        }
        assert_eq!(unwrapper.finish(&mut out).unwrap().files, 37);
    }

    #[test]
    fn a_refused_dump_cannot_be_finished() {
        let (mut unwrapper, mut out) = (Unwrapper::new(), Unwrapped::default());
        assert!(unwrapper.push(b"nonsense", &mut out).is_err());
        assert!(matches!(unwrapper.push(DUMP, &mut out), Err(DumpFormatError::Spent)));
        assert!(matches!(unwrapper.finish(&mut out), Err(DumpFormatError::Spent)));
    }

    #[test]
    fn a_container_is_not_written_with_another_ones_header() {
        let (info, _) = unwrap_in(4096, DUMP).unwrap();
        let mixed = ContainerInfo { kind: ContainerKind::BackupTarV2, ..info };
        assert!(matches!(Wrapper::new(&mixed).map(|_| ()), Err(DumpFormatError::Prefix { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn no_bytes_behind_any_magic_make_it_panic(
            kind in 0usize..8, bytes in prop::collection::vec(any::<u8>(), 0..2000), pieces in 1usize..300
        ) {
            let magics: [&[u8]; 8] =
                [b"DZV1\x28\xb5\x2f\xfd\x04", b"DGV1\x1f\x8b\x08", b"BTV1\x01", b"BTV2\x02\x01", b"BZV2", b"BZV1", b"\x28\xb5\x2f\xfd\x04", b""];
            let _ = unwrap_in(pieces, &[magics[kind], &bytes].concat());
        }

        #[test]
        fn a_damaged_tar_never_panics_and_never_gives_more_than_came(
            place in 0usize..4608, value in any::<u8>(), pieces in 1usize..1000
        ) {
            let mut tar = small_tar();
            let place = place % tar.len();
            tar[place] = value;
            let dump = container(ContainerKind::BackupTarV2, &tar, b"");
            if let Ok((_, out)) = unwrap_in(pieces, &dump) {
                prop_assert!(out.tar == tar);
            }
        }
    }
}

mod postgres {
    use infrahub_backup::component::postgres::dump_format::{
        CustomCompression, CustomFormatCheck, CustomFormatError, CustomFormatInfo,
    };
    use proptest::prelude::*;

    const PLAIN: &[u8] = include_bytes!("fixtures/postgres-15-uncompressed.pgdump");
    const GZIP: &[u8] = include_bytes!("fixtures/postgres-15-gzip.pgdump");
    const EMPTY: &[u8] = include_bytes!("fixtures/postgres-15-empty-database.pgdump");
    const SEEKABLE: &[u8] = include_bytes!("fixtures/postgres-15-seekable.pgdump");

    fn check_in(pieces: usize, dump: &[u8]) -> Result<(CustomFormatInfo, Vec<u64>), CustomFormatError> {
        let (mut check, mut cuts) = (CustomFormatCheck::new(), Vec::new());
        for piece in dump.chunks(pieces) {
            check.push(piece, &mut |at| cuts.push(at))?;
        }
        Ok((check.finish()?, cuts))
    }

    fn place_of(text: &[u8], dump: &[u8]) -> u64 {
        dump.windows(text.len()).position(|window| window == text).unwrap() as u64
    }

    #[test]
    fn the_real_dump_tells_what_it_is() {
        let (info, cuts) = check_in(64 << 10, PLAIN).unwrap();
        assert_eq!((info.format_version.as_str(), info.database.as_str()), ("1.14", "prefect"));
        assert!(info.server_version.starts_with("15.") && info.pg_dump_version.starts_with("15."));
        assert_eq!(info.compression, CustomCompression::None);
        // Three tables and one entry of large objects; the materialized view is computed anew.
        assert_eq!((info.data_blocks, info.large_objects, info.toc_entries), (4, 2, 26));
        assert_eq!(cuts.len(), 4);
    }

    #[test]
    fn cuts_stand_where_data_blocks_begin() {
        let (_, cuts) = check_in(64 << 10, PLAIN).unwrap();
        for cut in &cuts {
            let block = &PLAIN[usize::try_from(*cut).unwrap()..];
            assert!(matches!(block[..2], [1 | 3, 0]), "no block at {cut}");
        }
        // Type, dump id and the length of the first piece stand before the first row.
        assert!(cuts.contains(&(place_of(b"1\tflow 1\t", PLAIN) - 1 - 5 - 5)));
        for pieces in [1, 7, 1000] {
            assert_eq!(check_in(pieces, PLAIN).unwrap().1, cuts);
        }
    }

    #[test]
    fn compressed_empty_and_seekable_dumps_are_whole() {
        let (gzip, _) = check_in(7, GZIP).unwrap();
        assert_eq!((gzip.compression, gzip.data_blocks, gzip.large_objects), (CustomCompression::Gzip, 4, 2));
        let (empty, cuts) = check_in(7, EMPTY).unwrap();
        assert_eq!((empty.database.as_str(), empty.data_blocks, cuts.len()), ("nothing", 0, 0));
        let (seekable, cuts) = check_in(7, SEEKABLE).unwrap();
        assert_eq!((seekable.data_blocks, cuts.len()), (4, 4));
    }

    #[test]
    fn a_dump_cut_off_at_any_byte_is_refused() {
        for dump in [GZIP, EMPTY] {
            for end in 0..dump.len() {
                let error = check_in(64 << 10, &dump[..end]).unwrap_err();
                assert!(!matches!(error, CustomFormatError::Malformed { .. }), "at {end}: {error}");
            }
        }
        for end in (0..PLAIN.len()).step_by(11) {
            assert!(check_in(64 << 10, &PLAIN[..end]).is_err(), "at {end}");
        }
    }

    #[test]
    fn the_place_of_the_cut_is_named() {
        let (_, cuts) = check_in(4096, PLAIN).unwrap();
        let first = usize::try_from(cuts[0]).unwrap();
        let error = |end: usize| check_in(4096, &PLAIN[..end]).unwrap_err();
        assert_eq!(error(0), CustomFormatError::Empty);
        assert_eq!(error(3), CustomFormatError::TruncatedHeader { at: 3 });
        assert!(
            matches!(error(600), CustomFormatError::TruncatedToc { entry: 3, entries: 26, at: 600 }),
            "{}",
            error(600)
        );
        assert!(matches!(error(first), CustomFormatError::DataBlockMissing { .. }));
        assert!(matches!(error(first + 100), CustomFormatError::TruncatedData { .. }));
    }

    #[test]
    fn a_byte_behind_the_last_block_is_refused() {
        for dump in [PLAIN, GZIP, EMPTY] {
            let error = check_in(512, &[dump, b"\0"].concat()).unwrap_err();
            assert_eq!(error, CustomFormatError::TrailingBytes { at: dump.len() as u64 });
        }
    }

    #[test]
    fn a_dump_without_one_of_its_blocks_is_refused() {
        let (_, cuts) = check_in(4096, PLAIN).unwrap();
        let (first, second) = (usize::try_from(cuts[0]).unwrap(), usize::try_from(cuts[1]).unwrap());
        let error = check_in(4096, &[&PLAIN[..first], &PLAIN[second..]].concat()).unwrap_err();
        assert!(matches!(error, CustomFormatError::UnexpectedBlock { .. }), "{error}");
    }

    #[test]
    fn other_formats_are_named() {
        let error = |dump: &[u8]| check_in(100, dump).unwrap_err();
        assert_eq!(error(b"--\n-- PostgreSQL database dump\n--\n"), CustomFormatError::PlainFormat);
        assert_eq!(error(b"toc.dat\0\0\0\0"), CustomFormatError::TarFormat);
        assert_eq!(error(b"PGDMP\x01\x0e\x00\x04\x08\x03"), CustomFormatError::DirectoryFormat);
        assert_eq!(
            error(b"PGDMP\x01\x11\x00\x04\x08\x01"),
            CustomFormatError::UnsupportedVersion { major: 1, minor: 17 }
        );
        assert_eq!(error(b"\x1f\x8b\x08\0\0\0"), CustomFormatError::NotCustom { found: "1f8b080000".to_owned() });
    }

    /// A dump written by hand after `pg_backup_archiver.c`: one table, two lists of large objects.
    fn built(minor: u8) -> Vec<u8> {
        fn int(value: i32, out: &mut Vec<u8>) {
            out.push(u8::from(value < 0));
            out.extend(value.unsigned_abs().to_le_bytes());
        }
        fn text(value: Option<&str>, out: &mut Vec<u8>) {
            int(value.map_or(-1, |text| i32::try_from(text.len()).unwrap()), out);
            out.extend(value.unwrap_or("").bytes());
        }
        let mut out = b"PGDMP\x01".to_vec();
        out.extend([minor, 0, 4, 8, 1]);
        if minor >= 15 {
            out.push(3)
        } else {
            int(-1, &mut out)
        }
        (0..7).for_each(|part| int(part, &mut out));
        ["db", "17.1", "17.2"].iter().for_each(|value| text(Some(value), &mut out));
        int(4, &mut out);
        for (id, description, flag) in [(1, "TABLE", 3), (2, "TABLE DATA", 1), (3, "BLOBS", 1), (4, "BLOBS", 1)] {
            int(id, &mut out);
            int(i32::from(flag == 1), &mut out);
            ["0", "0", "t", description].iter().for_each(|value| text(Some(value), &mut out));
            int(2, &mut out);
            let texts = if minor >= 14 { 6 } else { 5 };
            (0..texts).for_each(|_| text(None, &mut out));
            if minor >= 16 {
                int(i32::from(b'r'), &mut out);
            }
            [Some("owner"), Some("false"), Some("1"), None].iter().for_each(|value| text(*value, &mut out));
            out.push(flag);
            out.extend([0; 8]);
        }
        out.push(1);
        [2, 0].iter().for_each(|value| int(*value, &mut out));
        for id in [3, 4] {
            out.push(3);
            // An object id beyond 2^31 is written as a negative integer.
            [id, -5, 3].iter().for_each(|value| int(*value, &mut out));
            out.extend(b"abc");
            [0, 0].iter().for_each(|value| int(*value, &mut out));
        }
        out
    }

    #[test]
    fn every_version_of_the_format_is_read() {
        for minor in 12..=16 {
            let (info, cuts) = check_in(3, &built(minor)).unwrap();
            assert_eq!(info.format_version, format!("1.{minor}"));
            let expected = if minor >= 15 { CustomCompression::Zstd } else { CustomCompression::Gzip };
            assert_eq!((info.compression, info.data_blocks, info.large_objects), (expected, 3, 2));
            assert_eq!((info.data_bytes, cuts.len()), (6, 3));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn no_bytes_make_it_panic(
            start in 0usize..3000, bytes in prop::collection::vec(any::<u8>(), 0..300), pieces in 1usize..100
        ) {
            let _ = check_in(pieces, &[&PLAIN[..start], &bytes].concat());
        }

        #[test]
        fn a_changed_byte_never_makes_it_panic(place in 0usize..2000, value in any::<u8>(), minor in 12u8..=16) {
            let mut dump = built(minor);
            let place = place % dump.len();
            dump[place] = value;
            let _ = check_in(50, &dump);
        }
    }
}
