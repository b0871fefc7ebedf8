//! zstd frames of segments and metadata objects, with an optional prefix (the base).

use std::cell::RefCell;

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, ResetDirective, find_frame_compressed_size, get_frame_content_size,
};

use super::SealError;

/// Level of segments and metadata. On database dumps level 1 is the faster and the smaller one, see benches/README.md.
const LEVEL: i32 = 1;

/// Hash and chain log with a prefix: with the smaller tables of the level most matches in the prefix are lost.
const PREFIX_TABLE_LOG: u32 = 20;

thread_local! {
    // Making a context costs more than a small object does. Those that had a prefix hold megabytes of tables, and are not kept.
    static ENCODER: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
    static DECODER: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// Compresses to one zstd frame that holds its content size; `prefix` may be empty.
///
/// The window covers prefix and plaintext.
pub fn compress(plain: &[u8], prefix: &[u8]) -> Vec<u8> {
    if prefix.is_empty() {
        return ENCODER.with_borrow_mut(|context| {
            context.reset(ResetDirective::SessionAndParameters).expect("zstd resets any context");
            set_parameters(context);
            encode(context, plain)
        });
    }
    let mut context = CCtx::create();
    set_parameters(&mut context);
    let window = u32::try_from(plain.len() + prefix.len()).expect("segments and bases are a few MiB");
    set(&mut context, CParameter::WindowLog(window.next_power_of_two().ilog2().clamp(10, 27)));
    set(&mut context, CParameter::HashLog(PREFIX_TABLE_LOG));
    set(&mut context, CParameter::ChainLog(PREFIX_TABLE_LOG));
    context.ref_prefix(prefix).expect("zstd takes any prefix");
    encode(&mut context, plain)
}

fn set(context: &mut CCtx<'_>, parameter: CParameter) {
    context.set_parameter(parameter).expect("zstd takes the parameters of this file");
}

fn set_parameters(context: &mut CCtx<'_>) {
    set(context, CParameter::CompressionLevel(LEVEL));
    set(context, CParameter::ContentSizeFlag(true));
    set(context, CParameter::ChecksumFlag(false));
}

fn encode(context: &mut CCtx<'_>, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(plain.len()));
    context.compress2(&mut out, plain).expect("the output has the size that zstd asks for");
    out
}

/// Decompresses one frame whose content is at most `size_max` bytes long; the frame must say its size.
pub fn decompress(frame: &[u8], prefix: &[u8], size_max: u64) -> Result<Vec<u8>, SealError> {
    let size = get_frame_content_size(frame).ok().flatten().ok_or(SealError::Decompress)?;
    // One frame and nothing else: what follows would be passed over silently.
    if size > size_max || find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err(SealError::Decompress);
    }
    let mut plain = Vec::with_capacity(usize::try_from(size).map_err(|_| SealError::Decompress)?);
    if prefix.is_empty() {
        DECODER.with_borrow_mut(|context| {
            context.reset(ResetDirective::SessionAndParameters).expect("zstd resets any context");
            decode(context, frame, &mut plain)
        })?;
    } else {
        let mut context = DCtx::create();
        context.ref_prefix(prefix).map_err(|_| SealError::Decompress)?;
        decode(&mut context, frame, &mut plain)?;
    }
    if plain.len() as u64 != size {
        return Err(SealError::Decompress);
    }
    Ok(plain)
}

fn decode(context: &mut DCtx<'_>, frame: &[u8], plain: &mut Vec<u8>) -> Result<(), SealError> {
    context.set_parameter(DParameter::WindowLogMax(27)).expect("zstd takes window logs up to 27");
    context.decompress(plain, frame).map_err(|_| SealError::Decompress)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_with_a_prefix_reads_back_only_with_that_prefix() {
        let prefix: Vec<u8> = (0..200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut plain = prefix.clone();
        plain[1000] ^= 1;
        let frame = compress(&plain, &prefix);
        assert!(frame.len() < 1000, "{} bytes", frame.len());
        assert_eq!(decompress(&frame, &prefix, plain.len() as u64).as_deref(), Ok(&plain[..]));
        assert_ne!(decompress(&frame, &[], plain.len() as u64).as_deref(), Ok(&plain[..]));
    }

    #[test]
    fn what_one_frame_left_in_a_context_does_not_change_the_next_one() {
        let (one, two) = (b"abcdefgh".repeat(500), b"hgfedcba".repeat(700));
        let fresh = std::thread::spawn({
            let one = one.clone();
            move || compress(&one, &[])
        });
        compress(&two, &[]);
        assert_eq!(compress(&one, &[]), fresh.join().expect("it compresses"));
        assert_eq!(decompress(&compress(&one, &two)[..20], &two, 1 << 20), Err(SealError::Decompress));
        assert_eq!(decompress(&compress(&one, &[])[..12], &[], 1 << 20), Err(SealError::Decompress));
        assert_eq!(decompress(&compress(&two, &[]), &[], 1 << 20).as_deref(), Ok(&two[..]));
    }

    #[test]
    fn a_frame_that_would_grow_beyond_its_limit_is_refused_unread() {
        let bomb = compress(&vec![0; 10 << 20], &[]);
        assert_eq!(decompress(&bomb, &[], 1 << 20), Err(SealError::Decompress));
    }
}
