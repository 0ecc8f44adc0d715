//! Tables that end anywhere, and bytes that are no AML. What real AML says is in `tests/aml.rs`.

use super::*;
use alloc::vec;
use proptest::prelude::*;

fn table(code: &[u8]) -> Vec<u8> {
    let mut bytes = b"DSDT".to_vec();
    bytes.extend((HEADER as u32 + code.len() as u32).to_le_bytes());
    bytes.resize(HEADER, 0);
    bytes.extend_from_slice(code);
    bytes
}

fn block(opcode: &[u8], name: &[u8], body: &[u8]) -> Vec<u8> {
    let length = 1 + name.len() + body.len();
    let mut bytes = opcode.to_vec();
    if length < 0x40 {
        bytes.push(length as u8);
    } else {
        bytes.extend([0x40 | ((length + 1) & 0xf) as u8, ((length + 1) >> 4) as u8]);
    }
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(body);
    bytes
}

/// A host bridge in `\_SB`, of bus 0x80 and domain 1.
fn sample() -> Vec<u8> {
    let mut body = vec![0x08];
    body.extend(b"_HID\x0c\x41\xd0\x0a\x08");
    body.extend(b"\x08_BBN\x0a\x80\x08_PXM\x01");
    let device = block(&[0x5b, 0x82], b"PC80", &body);
    block(&[0x10], b"\\_SB_", &device)
}

fn said(code: &[u8]) -> Said {
    let mut reader = Reader::default();
    reader.table(&table(code));
    reader.said()
}

const BRIDGE: HostBridge = HostBridge {
    segment: 0,
    bus: 0x80,
    proximity: Some(1),
    resources: None,
};

#[test]
fn a_host_bridge_is_found_and_what_is_unknown_ends_its_block_only() {
    assert_eq!(
        said(&sample()),
        Said {
            hosts: vec![BRIDGE],
            code: 0,
            unknown_resources: 1,
            skipped: 0
        }
    );
    // A call of a method, of which nobody knows how many arguments follow.
    let unknown = block(&[0x10], b"\\_SB_", b"ABCD\x01\x02");
    let both = [unknown, sample()].concat();
    assert_eq!((said(&both).hosts, said(&both).skipped), (vec![BRIDGE], 1));
}

#[test]
fn blocks_within_blocks_end() {
    let mut code = sample();
    for _ in 0..60 {
        code = block(&[0x10], b"ABCD", &code);
    }
    // Deeper than is followed: 60 blocks of up to 4,095 bytes fit two bytes of length.
    assert_eq!((said(&code).hosts.len(), said(&code).skipped), (0, 1));
}

#[test]
fn a_table_that_ends_anywhere_says_less_and_nothing_else() {
    let whole = table(&sample());
    for end in 0..whole.len() {
        let mut reader = Reader::default();
        reader.table(&whole[..end]);
        for host in reader.said().hosts {
            assert!(
                host.proximity.is_none() || host == BRIDGE,
                "{host:?} of {end} bytes"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_end(code in proptest::collection::vec(any::<u8>(), 0..400)) {
        said(&code);
    }

    /// One byte of a good table is wrong.
    #[test]
    fn any_wrong_byte_ends(at in 0usize..60, byte in any::<u8>()) {
        let mut code = sample();
        if let Some(place) = code.get_mut(at) {
            *place = byte;
        }
        said(&code);
    }
}
