#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ex_cubecl_fuzz::checks::allocator(data));
