#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| infrahub_backup_fuzz::run("archive", bytes));
