//! Any bytes as a DHCP message.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fuzz::leash::put_on(), |bytes: &[u8]| fuzz::check::payload(bytes));
