//! Fault messages as the kernel lays them out, and what a person reads.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate std;

use std::string::ToString;

use super::*;

fn decode(label: Word, words: &[Word]) -> Option<Fault> {
    Fault::decode(label, |index| words.get(index).copied().unwrap_or(0))
}

#[test]
fn page_faults_tell_read_write_and_fetch_apart() {
    for (prefetch, code, expected) in [
        (0, 4, Access::Read),
        (0, 6, Access::Write),
        (1, 0x14, Access::Fetch),
        (0, 0x15, Access::Fetch),
    ] {
        let fault = decode(5, &[0x40_1000, 0xdead_0000, prefetch, code]).unwrap();
        assert_eq!(
            fault,
            Fault::Page {
                ip: 0x40_1000,
                address: 0xdead_0000,
                access: expected,
                error_code: code
            }
        );
    }
    let without_nx = decode(5, &[0xdead_0000, 0xdead_0000, 0, 4]).unwrap();
    assert!(matches!(
        without_nx,
        Fault::Page {
            access: Access::Fetch,
            ..
        }
    ));
    let text = decode(5, &[0x40_1000, 0x123_4500, 0, 6])
        .unwrap()
        .to_string();
    assert_eq!(
        text,
        "page fault: write of 0x1234500 at 0x401000 (error code 0x6)"
    );
}

#[test]
fn capability_faults_say_why() {
    let missing = decode(1, &[0x40_1000, 77, 0, 2, 12]).unwrap();
    assert_eq!(
        missing.to_string(),
        "capability fault: send with 0x4d at 0x401000: empty slot, 12 bits left"
    );
    let Fault::Capability {
        failure,
        receiving: true,
        ..
    } = decode(1, &[1, 2, 1, 4, 64, 3, 52]).unwrap()
    else {
        unreachable!("not a capability fault while receiving")
    };
    assert_eq!(
        failure,
        LookupFailure::GuardMismatch {
            bits_left: 64,
            guard: 3,
            guard_bits: 52
        }
    );
}

#[test]
fn system_calls_and_exceptions_are_read_from_their_own_words() {
    let mut words = [0; 19];
    (words[15], words[16], words[18]) = (0x40_2000, 0x7000, Word::MAX - 99);
    let fault = decode(2, &words).unwrap();
    assert_eq!(fault.to_string(), "unknown system call -100 at 0x402000");
    assert_eq!(fault.ip(), 0x40_2000);
    let fault = decode(3, &[0x40_3000, 0x7000, 0x202, 6, 0]).unwrap();
    assert_eq!(
        fault,
        Fault::Exception {
            ip: 0x40_3000,
            sp: 0x7000,
            number: 6,
            code: 0
        }
    );
    let fault = decode(4, &[0x40_4000, 1, 0x5000, 2]).unwrap();
    assert_eq!(
        fault,
        Fault::Debug {
            ip: 0x40_4000,
            reason: 1,
            address: 0x5000,
            breakpoint: 2
        }
    );
}

#[test]
fn other_labels_are_no_faults() {
    assert!(
        [0, 6, 7, 0xf_ffff]
            .into_iter()
            .all(|label| decode(label, &[0; 20]).is_none())
    );
}
