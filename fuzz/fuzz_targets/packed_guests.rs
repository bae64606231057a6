#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mika_fuzz::packed_guests(bytes));
