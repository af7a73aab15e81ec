#![no_main]

libfuzzer_sys::fuzz_target!(
    |input: &[u8]| torture::checks::imports(input).unwrap_or_else(|fault| panic!("{fault}"))
);
