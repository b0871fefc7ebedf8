//! The decoders for libFuzzer. What they are and what must hold is told in `tests/decoders/all.rs`.

#![forbid(unsafe_code)]

// Seeds are for the tests, which write them out for `fuzz/run`.
#[allow(dead_code)]
#[path = "../../tests/decoders/all.rs"]
mod decoders;

/// Runs the decoder of that name.
pub fn run(name: &str, bytes: &[u8]) {
    let decoder = decoders::ALL.iter().find(|decoder| decoder.name == name);
    (decoder.expect("a target is named after its decoder").run)(bytes);
}
