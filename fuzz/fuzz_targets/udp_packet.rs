#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mika_fuzz::udp_packet(bytes));
