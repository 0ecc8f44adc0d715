//! What the capabilities of a function say, and where their registers are. The
//! lists that lead to them: `capability_lists.rs`.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod functions;

use functions::{EXPRESS, full, machine};
use hw::bar;
use hw::capability::{
    AdvancedFeatures, Capability, CapabilityError, CapabilityList, Express, InBar, Msi, Msix,
    MsixError, PageRange, PhysicalSlot, PortType, PowerManagement, PowerState,
};
use hw::header::Layout;
use hw::{ConfigSpace, Header};
use portcullis_hw as hw;
use sim::config::{BarShape, Endpoint, ExpressShape, MsiShape, MsixShape, PortKind};

fn find<T: Capability>(function: Endpoint) -> Result<Option<T>, CapabilityError> {
    let (machine, at) = machine(function);
    CapabilityList::read(&machine, at, Layout::Endpoint).find(&machine, at)
}

#[test]
fn power_management_is_decoded() {
    let power = find::<PowerManagement>(Endpoint::new(1, 2).power_management(true));
    let power = power.unwrap().unwrap();
    assert_eq!(power.version, 3);
    assert!(power.d1 && power.d2 && power.no_soft_reset);
    assert_eq!(power.state, PowerState::D0);
    assert_eq!(power.control_register(), 0x44);
    let (mut machine, at) = machine(Endpoint::new(1, 2).power_management(false));
    machine.write16(at, power.control_register(), PowerState::D3Hot.bits());
    let power = PowerManagement::decode(&machine, at, 0x40).unwrap();
    assert_eq!(power.state, PowerState::D3Hot);
    assert!(!power.no_soft_reset);
}

#[test]
fn advanced_features_are_decoded_and_reset_the_function() {
    let (mut machine, at) = machine(Endpoint::new(1, 2).command(7).advanced_features());
    let features = AdvancedFeatures::decode(&machine, at, 0x40).unwrap();
    assert!(features.function_level_reset && features.transactions_pending);
    assert_eq!(features.status_register(), 0x45);
    machine.write8(
        at,
        features.control_register(),
        AdvancedFeatures::INITIATE_FLR,
    );
    assert_eq!(machine.resets(at), 1);
    assert_eq!(machine.read16(at, 4), 0);
}

#[test]
fn express_is_decoded_and_resets_the_function() {
    let (mut machine, at) = machine(full().command(7));
    let express = Express::decode(&machine, at, 0x58).unwrap();
    assert_eq!(express.port, PortType::Endpoint);
    assert_eq!((express.version, express.max_payload), (2, 256));
    assert!(express.function_level_reset);
    assert_eq!(express.slot, None);
    assert_eq!(express.device_status_register(), 0x62);
    machine.write16(at, express.device_control_register(), Express::INITIATE_FLR);
    assert_eq!(machine.resets(at), 1);
}

#[test]
fn a_root_port_with_a_slot_is_decoded() {
    let port = find::<Express>(Endpoint::new(1, 2).express(ExpressShape {
        kind: PortKind::RootPort,
        flr: false,
        slot: Some(0x1234 & 0x1fff),
    }));
    let port = port.unwrap().unwrap();
    assert_eq!(port.port, PortType::RootPort);
    assert!(port.port.is_downstream() && !port.function_level_reset);
    let slot = PhysicalSlot {
        number: 0x1234,
        hot_plug: true,
        surprise: true,
        attention_button: true,
        power_controller: true,
    };
    assert_eq!(port.slot, Some(slot));
    assert_eq!(
        (port.slot_control_register(), port.slot_status_register()),
        (0x58, 0x5a)
    );
}

#[test]
fn all_express_port_types_are_known_or_refused() {
    for kind in 0..16u8 {
        let function = Endpoint::new(1, 2)
            .express(EXPRESS)
            .raw(0x42, &[kind << 4 | 2]);
        let refused = matches!(
            find::<Express>(function),
            Err(CapabilityError::Reserved { field: "device/port type", value, .. }) if value == u32::from(kind)
        );
        assert_eq!(
            refused,
            [2, 3, 11, 12, 13, 14, 15].contains(&kind),
            "{kind}"
        );
    }
}

#[test]
fn all_four_msi_layouts_have_their_registers_where_the_device_has_them() {
    // (wide, maskable) and upper address, data, mask, pending, bytes from the start.
    let layouts = [
        (false, false, None, 8, None, None, 10),
        (true, false, Some(8), 12, None, None, 14),
        (false, true, None, 8, Some(12), Some(16), 20),
        (true, true, Some(8), 12, Some(16), Some(20), 24),
    ];
    for (wide, maskable, upper, data, mask, pending, bytes) in layouts {
        let shape = MsiShape {
            wide,
            maskable,
            vectors_log2: 3,
        };
        let (mut machine, at) = machine(Endpoint::new(1, 2).msi(shape));
        let msi = Msi::decode(&machine, at, 0x40).unwrap();
        let from_start = |register: u16| register - 0x40;
        assert_eq!(from_start(msi.control_register()), 2);
        assert_eq!(from_start(msi.address_register()), 4);
        assert_eq!(msi.upper_address_register().map(from_start), upper);
        assert_eq!(from_start(msi.data_register()), data);
        assert_eq!(msi.mask_register().map(from_start), mask);
        assert_eq!(msi.pending_register().map(from_start), pending);
        assert_eq!(msi.bytes(), bytes);
        assert_eq!((msi.vectors, msi.enabled), (8, false));
        // The device takes what is written there, and has nothing to write behind its end.
        machine.write16(at, msi.data_register(), 0x1234);
        assert_eq!(machine.read16(at, msi.data_register()), 0x1234);
        if let Some(mask) = msi.mask_register() {
            machine.write32(at, mask, u32::MAX);
            assert_eq!(machine.read32(at, mask), 0xff);
        }
        let enable = Msi::ENABLE | msi.multiple_enable(4).unwrap();
        machine.write16(at, msi.control_register(), enable);
        assert_eq!(machine.read16(at, msi.control_register()) & 0x71, 0x21);
        assert!(Msi::decode(&machine, at, 0x40).unwrap().enabled);
    }
}

#[test]
fn multiple_enable_takes_powers_of_two_up_to_what_is_asked_for() {
    let shape = MsiShape {
        wide: false,
        maskable: false,
        vectors_log2: 2,
    };
    let msi = find::<Msi>(Endpoint::new(1, 2).msi(shape))
        .unwrap()
        .unwrap();
    let fields = [0, 1, 2, 3, 4, 8].map(|vectors| msi.multiple_enable(vectors));
    assert_eq!(fields, [None, Some(0), Some(0x10), None, Some(0x20), None]);
}

#[test]
fn reserved_vector_counts_are_refused() {
    for count in [6u8, 7] {
        let function =
            Endpoint::new(1, 2).capability(0x05, &[count << 1, 0, 0, 0, 0, 0, 0, 0], &[]);
        let refused = CapabilityError::Reserved {
            id: 5,
            offset: 0x40,
            field: "multiple message capable",
            value: u32::from(count),
        };
        assert_eq!(find::<Msi>(function), Err(refused));
    }
}

#[test]
fn capabilities_that_pass_the_end_are_refused() {
    // (id, first bytes, the last place where it fits)
    let families: [(u8, [u8; 4], u8); 5] = [
        (0x01, [0, 0, 0, 0], 0xf8),
        (0x05, [0x80, 0x01, 0, 0], 0xe8),
        (0x10, [0x02, 0, 0, 0], 0xf4),
        (0x11, [0, 0, 0, 0], 0xf4),
        (0x13, [6, 3, 0, 0], 0xf8),
    ];
    for (id, body, fits) in families {
        let decode = |offset: u8| {
            let function = Endpoint::new(1, 2)
                .raw(offset.into(), &[id, 0])
                .raw(u16::from(offset) + 2, &body[..2]);
            let (machine, at) = machine(function);
            match id {
                0x01 => PowerManagement::decode(&machine, at, offset).map(|_| ()),
                0x05 => Msi::decode(&machine, at, offset).map(|_| ()),
                0x10 => Express::decode(&machine, at, offset).map(|_| ()),
                0x11 => Msix::decode(&machine, at, offset).map(|_| ()),
                _ => AdvancedFeatures::decode(&machine, at, offset).map(|_| ()),
            }
        };
        assert_eq!(decode(fits), Ok(()), "{id:#x}");
        let refused = decode(fits + 4).unwrap_err();
        assert!(
            matches!(refused, CapabilityError::BeyondEnd { id: found, offset, .. }
                if found == u16::from(id) && offset == u16::from(fits) + 4),
            "{refused:?}"
        );
    }
}

fn msix(entries: u16, table: (u8, u32), pending: (u8, u32)) -> Endpoint {
    Endpoint::new(1, 2)
        .bar(
            0,
            BarShape::Io {
                size: 0x20,
                address: 0,
                bits: 32,
            },
        )
        .bar(
            1,
            BarShape::Memory32 {
                size: 0x4000,
                address: 0xfe00_0000,
                prefetchable: false,
            },
        )
        .bar(
            2,
            BarShape::Memory64 {
                size: 0x10_0000,
                address: 0x80_0000_0000,
                prefetchable: true,
            },
        )
        .msix(MsixShape {
            entries,
            table,
            pending,
        })
}

fn withheld(function: Endpoint) -> Result<Vec<PageRange>, MsixError> {
    let (mut machine, at) = machine(function);
    let header = Header::read(&machine, at).unwrap();
    let bars = bar::probe(&mut machine, at, &header).unwrap();
    let msix = Msix::decode(&machine, at, 0x40).unwrap();
    Ok(msix.withheld_pages(&bars)?.to_vec())
}

#[test]
fn msix_is_decoded() {
    let msix = find::<Msix>(msix(5, (1, 0x1000), (2, 0x2008)))
        .unwrap()
        .unwrap();
    assert_eq!(msix.entries, 5);
    assert_eq!(
        msix.table,
        InBar {
            bar: 1,
            offset: 0x1000
        }
    );
    assert_eq!(
        msix.pending,
        InBar {
            bar: 2,
            offset: 0x2008
        }
    );
    assert_eq!((msix.table_bytes(), msix.pending_bytes()), (80, 8));
    assert_eq!(msix.entry_offset(4), Some(0x1040));
    assert_eq!(msix.entry_offset(5), None);
    assert_eq!(msix.control_register(), 0x42);
    assert!(!msix.enabled);
}

#[test]
fn msix_pages_are_withheld() {
    let page = |bar, first, count| PageRange { bar, first, count };
    // Table and pending bits in one page.
    assert_eq!(
        withheld(msix(5, (1, 0x1000), (1, 0x1800))),
        Ok(vec![page(1, 1, 1)])
    );
    // In different BARs.
    let both = vec![page(1, 0, 1), page(2, 0xff, 1)];
    assert_eq!(withheld(msix(5, (1, 0), (2, 0xf_fff8))), Ok(both));
    // A table over the edge of a page, and one of several pages.
    let edge = vec![page(1, 0, 2), page(1, 3, 1)];
    assert_eq!(withheld(msix(2, (1, 0xff0), (1, 0x3000))), Ok(edge));
    let long = vec![page(2, 1, 8), page(2, 0, 1)];
    assert_eq!(withheld(msix(2048, (2, 0x1000), (2, 0x800))), Ok(long));
    assert!(page(2, 1, 8).contains(2, 8) && !page(2, 1, 8).contains(2, 9));
    assert!(!page(2, 1, 8).contains(1, 8));
}

#[test]
fn msix_structures_outside_their_bar_are_refused() {
    let beyond = MsixError::BeyondBar {
        what: "table",
        bar: 1,
        end: 0x4010,
        size: 0x4000,
    };
    assert_eq!(withheld(msix(2, (1, 0x3ff0), (1, 0))), Err(beyond));
    let beyond = MsixError::BeyondBar {
        what: "pending bits",
        bar: 1,
        end: 0x1_0000_0000,
        size: 0x4000,
    };
    assert_eq!(withheld(msix(2, (1, 0), (1, 0xffff_fff8))), Err(beyond));
    let (what, bar) = ("table", 0);
    assert_eq!(
        withheld(msix(2, (0, 0), (1, 0))),
        Err(MsixError::NotMemory { what, bar })
    );
    for bar in [3, 4] {
        assert_eq!(
            withheld(msix(2, (bar, 0), (1, 0))),
            Err(MsixError::NoSuchBar { what, bar })
        );
    }
}

#[test]
fn reserved_bar_numbers_of_msix_are_refused() {
    for bar in [6, 7] {
        let refused = |field| CapabilityError::Reserved {
            id: 0x11,
            offset: 0x40,
            field,
            value: u32::from(bar),
        };
        assert_eq!(
            find::<Msix>(msix(1, (bar, 0), (1, 0))),
            Err(refused("table BIR"))
        );
        assert_eq!(
            find::<Msix>(msix(1, (1, 0), (bar, 0))),
            Err(refused("PBA BIR"))
        );
    }
}
