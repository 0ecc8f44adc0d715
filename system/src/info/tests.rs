//! [`PdInfo::read`] against the encoder.

use super::*;
use crate::model::MAX_ARGS;

fn text<const N: usize>(text: &str) -> String<N> {
    text.try_into().unwrap()
}

fn samples() -> [PdInfo; 3] {
    let client = |window| ClientEntry {
        name: text("net"),
        window,
        window_bits: 12,
        events: 99,
        notification: 98,
        devices: [
            DeviceMatch::Address(0x18),
            DeviceMatch::Class {
                class: 0x01_08_02,
                mask: u32::MAX,
            },
        ]
        .into_iter()
        .collect(),
        dma_quota: 1 << 33,
        largest_buffer: 1 << 21,
        vectors: 300,
        reserved_vectors: 7,
        interrupt_rate: 20_000,
        core: 3,
    };
    let piece = |slot| UntypedPiece {
        slot,
        base: u64::MAX,
        bits: 47,
    };
    let server = PdInfo {
        format: 1,
        abi_fingerprint: u64::MAX,
        name: text("pci-server-0"),
        pd: 5,
        cnode_bits: 14,
        free_slots: Slots {
            first: 900,
            count: 15_000,
        },
        tsc_mhz: 2100,
        clients: (0..MAX_CLIENTS as u32).map(client).collect(),
        testing: true,
        role: Role::Pci(PciInfo {
            shard: 1,
            ecam: [EcamWindow {
                vaddr: 0x4000_0000,
                paddr: 0xb000_0000,
                segment: 0,
                first_bus: 0,
                last_bus: 255,
            }]
            .into_iter()
            .collect(),
            mmio: (0..MAX_UNTYPED as u32).map(piece).collect(),
            config_ports: 0,
            port_interrupt: None,
            unit_messages: Default::default(),
            withheld: Vec::new(),
            large_bars: Vec::new(),
            ats: Vec::new(),
            virtual_functions: Vec::new(),
            proximity: Vec::new(),
            io: Vec::new(),
            iommu_present: true,
            iommu_shard: 0,
            msi_shard: 0,
            intx: Vec::new(),
            unprotected: false,
            done: 70,
        }),
    };
    let client = PdInfo {
        clients: Vec::new(),
        role: Role::Client(ClientInfo {
            client: 3,
            window_bits: 10,
            untyped_bits: 16,
            pci: [(0, 0, 0, 255)].into_iter().collect(),
            iommu: Some(0),
            inspect: true,
            admin: false,
            clients: [text("net")].into_iter().collect(),
            channels: Vec::new(),
            args: text::<MAX_ARGS>("--fast"),
            pds: [(text("net"), 7)].into_iter().collect(),
        }),
        ..server.clone()
    };
    [server, client, PdInfo::empty()]
}

#[test]
fn reading_in_place_is_decoding() {
    let mut buffer = [0; 0x4000];
    // Over each other: nothing of what was there before is left.
    let mut read = PdInfo::empty();
    for info in samples() {
        let bytes = postcard::to_slice(&info, &mut buffer).unwrap();
        read.read(bytes).unwrap();
        assert_eq!(read, info);
    }
}

#[test]
fn too_few_and_too_many_bytes_are_refused() {
    let mut buffer = [0; 0x4000];
    for info in samples() {
        let length = postcard::to_slice(&info, &mut buffer).unwrap().len();
        for cut in 0..length {
            assert!(PdInfo::empty().read(&buffer[..cut]).is_err(), "{cut}");
        }
        assert!(PdInfo::empty().read(&buffer[..=length]).is_err());
    }
}
