//! What the registers of each capability family say: the places of their fields, and
//! the values at the edges. That every bit is where lspci has it: the package `compare`.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod functions;

use functions::machine;
use hw::ConfigSpace;
use hw::bar::{Register, Slot, Space};
use hw::capability::*;
use hw::header::{Layout, Subsystem};
use portcullis_hw as hw;
use sim::config::{BarShape, Endpoint, FixedShape, VirtualShape};

/// An extended capability behind an Express one, decoded.
fn extended<T: ExtendedCapability>(body: &[u8]) -> Result<T, CapabilityError> {
    let (machine, at) = machine(functions::full().extended(T::ID, 1, body));
    let list = CapabilityList::read(&machine, at, Layout::Endpoint);
    list.find_extended(&machine, at).map(Option::unwrap)
}

fn conventional<T: Capability>(body: &[u8]) -> Result<T, CapabilityError> {
    let (machine, at) = machine(Endpoint::new(1, 2).capability(T::ID, body, &[]));
    T::decode(&machine, at, 0x40)
}

#[test]
fn access_control_is_decoded() {
    let control = extended::<AccessControl>(&[0x5f, 0x08, 0x1d, 0]).unwrap();
    assert_eq!(control.offset, 0x150);
    assert!(control.capabilities.contains(AcsServices::ISOLATION));
    assert!(control.control.contains(AcsServices::ISOLATION));
    assert!(!control.control.contains(AcsServices::TRANSLATION_BLOCKING));
    assert_eq!(control.control_register(), 0x156);
    // A size without egress control means nothing; 256 is written as 0.
    assert_eq!(control.egress_bits, 0);
    let egress = |size| {
        extended::<AccessControl>(&[0x20, size, 0, 0])
            .unwrap()
            .egress_bits
    };
    assert_eq!((egress(8), egress(0)), (8, 256));
}

#[test]
fn address_translation_is_decoded() {
    let ats = extended::<AddressTranslation>(&[0x65, 0, 0x03, 0x80]).unwrap();
    assert_eq!(
        (ats.queue_depth, ats.page_aligned, ats.global_invalidate),
        (5, true, true)
    );
    assert!(ats.control.is_enabled());
    assert_eq!(ats.control.smallest_unit(), 3);
    assert_eq!(AtsControl::enabled(3), ats.control);
    let deepest = extended::<AddressTranslation>(&[0, 0, 0, 0]).unwrap();
    assert_eq!(deepest.queue_depth, 32);
    assert!(!deepest.control.is_enabled());
}

#[test]
fn alternative_routing_is_decoded() {
    let routing = extended::<AlternativeRouting>(&[0x02, 0x11, 0x32, 0]).unwrap();
    assert_eq!(
        routing.capabilities,
        AriFlags::ACCESS_GROUPS | AriFlags::from_bits_retain(0x1100)
    );
    assert_eq!((routing.next_function, routing.group), (0x11, 3));
    assert_eq!(routing.control_register(), 0x156);
}

#[test]
fn page_requests_and_process_ids_are_decoded() {
    let body = [1, 0, 0, 0x81, 0x40, 0, 0, 0, 0x20, 0, 0, 0];
    let request = extended::<PageRequest>(&body).unwrap();
    assert_eq!(request.control, PriControl::ENABLE);
    assert_eq!(
        request.status,
        PriStatus::STOPPED | PriStatus::RESPONSE_PASID
    );
    assert_eq!((request.capacity, request.allocation), (0x40, 0x20));
    assert_eq!(request.allocation_register(), 0x15c);
    let pasid = extended::<Pasid>(&[0x06, 0x14, 0x01, 0]).unwrap();
    assert_eq!((pasid.width, pasid.control), (20, PasidFlags::ENABLE));
    assert!(
        pasid
            .capabilities
            .contains(PasidFlags::EXECUTE | PasidFlags::PRIVILEGED)
    );
}

#[test]
fn error_reporting_is_decoded() {
    let mut body = [0; 0x34];
    body[0x02] = 0x20;
    body[0x06] = 0x10;
    body[0x08] = 0x30;
    body[0x0c] = 0x01;
    body[0x11] = 0x20;
    body[0x14] = 0x15;
    body[0x18] = 0xaa;
    body[0x28] = 0x07;
    body[0x2f] = 0x08;
    body[0x30..0x34].copy_from_slice(&[0x00, 0x01, 0x08, 0x02]);
    let (machine, at) = machine(functions::full().extended(1, 2, &body));
    let errors = ErrorReporting::decode(&machine, at, 0x150).unwrap();
    assert_eq!(errors.uncorrectable, UncorrectableErrors::ACS_VIOLATION);
    assert_eq!(
        errors.uncorrectable_mask,
        UncorrectableErrors::UNSUPPORTED_REQUEST
    );
    let fatal = UncorrectableErrors::DATA_LINK_PROTOCOL | UncorrectableErrors::SURPRISE_DOWN;
    assert_eq!(errors.severity, fatal);
    assert_eq!(errors.correctable, CorrectableErrors::RECEIVER);
    assert_eq!(
        errors.correctable_mask,
        CorrectableErrors::ADVISORY_NON_FATAL
    );
    assert_eq!(errors.control.first_error(), 0x15);
    assert_eq!(errors.header_log, [0xaa, 0, 0, 0]);
    let root = errors.root(&machine, at).unwrap();
    assert_eq!(
        root.command,
        RootErrorCommand::all() & RootErrorCommand::from_bits_retain(7)
    );
    assert_eq!(root.status.interrupt_message(), 1);
    assert_eq!(
        (root.correctable_source, root.uncorrectable_source),
        (0x0100, 0x0208)
    );
    assert_eq!(errors.root_status_register(), 0x180);
}

#[test]
fn containment_is_decoded() {
    let body = [0xe3, 0x14, 0x0a, 0, 0x37, 0x05, 0x08, 0x02];
    let port = extended::<Containment>(&body).unwrap();
    assert_eq!((port.interrupt_message(), port.log_words()), (3, 4));
    assert_eq!(
        port.control,
        DpcControl::TRIGGER_NON_FATAL | DpcControl::INTERRUPT_ENABLE
    );
    assert!(
        port.status
            .contains(DpcStatus::TRIGGERED | DpcStatus::ROOT_PORT_BUSY)
    );
    assert_eq!(
        (port.status.reason(), port.status.reason_extension()),
        (3, 1)
    );
    assert_eq!((port.status.first_error(), port.source), (5, 0x0208));
}

#[test]
fn numbers_and_vendors_are_decoded() {
    // `full` has one.
    let serial = extended::<SerialNumber>(&[0; 8]).unwrap();
    assert_eq!(serial.to_string(), "08-07-06-05-04-03-02-01");
    let vendor = extended::<DesignatedVendor>(&[0x98, 0x1e, 0x81, 0x03, 0x08, 0]).unwrap();
    assert_eq!((vendor.vendor, vendor.id), (0x1e98, 8));
    assert_eq!((vendor.revision, vendor.length), (1, 0x38));
    let subsystem = conventional::<BridgeSubsystem>(&[0, 0, 0x43, 0x10, 0x83, 0x83]).unwrap();
    let expected = Subsystem {
        vendor: 0x1043,
        id: 0x8383,
    };
    assert_eq!(subsystem.0, expected);
    let data = conventional::<VitalProductData>(&[0x34, 0x92, 0, 0, 0, 0]).unwrap();
    assert_eq!((data.address, data.flag), (0x1234, true));
    assert_eq!(
        (data.address_register(), data.data_register()),
        (0x42, 0x44)
    );
}

#[test]
fn extended_capabilities_that_pass_the_end_are_refused() {
    fn at_end<T: ExtendedCapability>(bytes: u16) {
        let decode = |offset| {
            let (machine, at) = machine(functions::full());
            T::decode(&machine, at, offset).map(|_| ())
        };
        let refused = decode(4096 - bytes + 4);
        assert!(
            matches!(refused, Err(CapabilityError::BeyondEnd { id, .. }) if id == T::ID),
            "{refused:?}"
        );
        // Offsets that no list gives are refused, too.
        assert!(matches!(
            decode(0xfffc),
            Err(CapabilityError::BeyondEnd { .. })
        ));
        assert!(!matches!(
            decode(4096 - bytes),
            Err(CapabilityError::BeyondEnd { .. })
        ));
    }
    at_end::<AccessControl>(8);
    at_end::<AddressTranslation>(8);
    at_end::<AlternativeRouting>(8);
    at_end::<Containment>(12);
    at_end::<DesignatedVendor>(12);
    at_end::<ErrorReporting>(0x2c);
    at_end::<PageRequest>(16);
    at_end::<Pasid>(8);
    at_end::<ResizableBars>(12);
    at_end::<SerialNumber>(12);
    at_end::<SrIov>(0x40);
    at_end::<VfResizableBars>(12);
}

fn physical(bar_bytes: u64) -> Endpoint {
    let shape = VirtualShape {
        total: 8,
        first_offset: 0x80,
        stride: 2,
        device: 0x10ed,
        bar_bytes,
    };
    functions::full().virtualization(shape, Endpoint::new(0x8086, 0x10ed))
}

#[test]
fn virtual_functions_are_decoded_and_addressed() {
    let (mut machine, at) = machine(physical(0x4000));
    let read = |machine: &sim::config::Machine| SrIov::decode(machine, at, 0x150).unwrap();
    let physical = read(&machine);
    assert_eq!(
        (physical.initial, physical.total, physical.count),
        (8, 8, 0)
    );
    assert_eq!((physical.first_offset, physical.stride), (0x80, 2));
    assert_eq!((physical.device, physical.system_page), (0x10ed, 1));
    assert_eq!(physical.virtual_function(at, 0), None);
    machine.write16(at, physical.count_register(), 3);
    let physical = read(&machine);
    let names = [0, 1, 2, 3].map(|index| physical.virtual_function(at, index));
    let name = |text: &str| Some(text.parse().unwrap());
    assert_eq!(
        names,
        [name("00:13.0"), name("00:13.2"), name("00:13.4"), None]
    );
    // Beyond the segment's last bus, and in place of the physical function itself.
    let last = "ff:1f.7".parse().unwrap();
    assert_eq!(physical.virtual_function(last, 0), None);
    let nowhere = SrIov {
        first_offset: 0,
        ..physical
    };
    assert_eq!(nowhere.virtual_function(at, 0), None);
}

#[test]
fn bars_of_virtual_functions_are_sized_and_left_as_they_were() {
    let (mut machine, at) = machine(physical(0x4000));
    let physical = SrIov::decode(&machine, at, 0x150).unwrap();
    machine.write32(at, physical.bar_register(0).unwrap(), 0xfe00_0000);
    let before = machine.snapshot(at);
    let slots = physical.probe_bars(&mut machine, at).unwrap();
    assert_eq!(machine.snapshot(at), before);
    let Slot::Bar(bar) = slots[0] else {
        unreachable!("{slots:?}");
    };
    let space = Space::Memory64 {
        prefetchable: false,
    };
    assert_eq!(
        (bar.size, bar.address, bar.space),
        (0x4000, 0xfe00_0000, space)
    );
    assert_eq!(slots[1], Slot::UpperHalf);
    let address = bar.address;
    assert_eq!(
        physical.bars(&machine, at)[0],
        Register::Region { space, address }
    );
    assert_eq!(physical.bar_register(6), None);
    // Not while they are there.
    machine.write16(
        at,
        physical.control_register(),
        SrIovControl::VF_ENABLE.bits(),
    );
    let writes = machine.writes();
    let refused = physical.probe_bars(&mut machine, at);
    assert!(refused.is_err());
    assert_eq!(machine.writes(), writes);
}

#[test]
fn resizable_bars_change_their_size() {
    let memory = BarShape::Memory64 {
        size: 1 << 28,
        address: 0x38_1000_0000,
        prefetchable: true,
    };
    let function = functions::full()
        .bar(0, memory)
        .resizable(0, 1 << 8 | 1 << 10 | 1 << 30, 8);
    let (mut machine, at) = machine(function);
    let ResizableBars(bars) = ResizableBars::decode(&machine, at, 0x150).unwrap();
    let [bar] = bars[..] else {
        unreachable!("{bars:?}");
    };
    assert_eq!((bar.bar, bar.bytes()), (0, Some(1 << 28)));
    let sizes: Vec<_> = bar.sizes().collect();
    assert_eq!(sizes, [1 << 28, 1 << 30, 1 << 50]);
    assert_eq!(
        (
            bar.encode(1 << 20),
            bar.encode(3 << 28),
            bar.encode(1 << 19)
        ),
        (None, None, None)
    );
    let before = machine.read32(at, bar.control_register);
    let control = before & !Resizable::SIZE_MASK | bar.encode(1 << 30).unwrap();
    machine.write32(at, bar.control_register, control);
    let header = hw::Header::read(&machine, at).unwrap();
    let probed = hw::bar::probe(&mut machine, at, &header).unwrap();
    assert_eq!(probed.get(0).unwrap().size, 1 << 30);
    let ResizableBars(bars) = ResizableBars::decode(&machine, at, 0x150).unwrap();
    assert_eq!(bars[0].bytes(), Some(1 << 30));
}

#[test]
fn reserved_counts_and_sizes_of_resizable_bars() {
    for count in [0u8, 7] {
        let refused = extended::<ResizableBars>(&[0, 0, 0, 0, count << 5, 0, 0, 0]);
        assert!(
            matches!(refused, Err(CapabilityError::Reserved { value, .. }) if value == u32::from(count))
        );
    }
    let VfResizableBars(bars) = extended(&[0x10, 0, 0, 0, 1 << 5, 44, 0, 0]).unwrap();
    assert_eq!(bars[0].bytes(), None);
    assert_eq!(bars[0].encode(1 << 20), Some(0));
}

#[test]
fn fixed_allocations_are_decoded() {
    let entries = [
        FixedShape {
            stands_for: 0,
            property: 1,
            address: 0x12_3456_0000,
            size: 1 << 33,
        },
        FixedShape {
            stands_for: 8,
            property: 0,
            address: 0xfe00_0000,
            size: 0x1_0000,
        },
        FixedShape {
            stands_for: 10,
            property: 2,
            address: 0x1000,
            size: 0x20,
        },
    ];
    let (machine, at) = machine(Endpoint::new(1, 2).fixed(&entries));
    let fixed = EnhancedAllocation::decode(&machine, at, 0x40).unwrap();
    assert_eq!((fixed.count, fixed.buses), (3, None));
    let found: Vec<_> = fixed.entries(&machine, at).map(Result::unwrap).collect();
    let targets = found.iter().map(|entry| entry.target).collect::<Vec<_>>();
    assert_eq!(
        targets,
        [
            AllocationTarget::Bar(0),
            AllocationTarget::Rom,
            AllocationTarget::VfBar(1)
        ]
    );
    for (found, entry) in found.iter().zip(entries) {
        assert_eq!(
            (found.base, found.max_offset + 1),
            (entry.address, entry.size)
        );
        assert_eq!(found.last(), Some(entry.address + entry.size - 1));
        assert!(found.enabled && !found.writable);
        assert_eq!(found.secondary, AllocationProperty::Unavailable);
    }
    assert_eq!(
        found[0].primary,
        AllocationProperty::Memory { prefetchable: true }
    );
    assert_eq!(found[2].primary, AllocationProperty::Io);
}

#[test]
fn broken_allocations_end_the_entries() {
    // Two entries, the first of one word.
    let small = [2, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let (machine, at) = machine(Endpoint::new(1, 2).capability(0x14, &small, &[]));
    let fixed = EnhancedAllocation::decode(&machine, at, 0x40).unwrap();
    let entries: Vec<_> = fixed.entries(&machine, at).collect();
    assert!(matches!(
        entries[..],
        [Err(CapabilityError::Reserved {
            field: "entry size",
            ..
        })]
    ));
    // Entries that pass the end.
    let (machine, at) =
        functions::machine(Endpoint::new(1, 2).raw(0xf0, &[0x14, 0, 63, 0, 2, 0, 0, 0]));
    let fixed = EnhancedAllocation::decode(&machine, at, 0xf0).unwrap();
    let entries: Vec<_> = fixed.entries(&machine, at).collect();
    assert!(matches!(
        entries[..],
        [Ok(_), Err(CapabilityError::BeyondEnd { .. })]
    ));
}

#[test]
fn a_message_is_read_as_the_function_has_it() {
    let shape = sim::config::MsiShape {
        wide: true,
        maskable: true,
        vectors_log2: 1,
    };
    let (mut machine, at) = machine(Endpoint::new(1, 2).msi(shape));
    let msi = Msi::decode(&machine, at, 0x40).unwrap();
    machine.write32(at, msi.address_register(), 0xfee0_1000);
    machine.write32(at, msi.upper_address_register().unwrap(), 1);
    machine.write16(at, msi.data_register(), 0x4321);
    machine.write32(at, msi.mask_register().unwrap(), 2);
    let message = msi.message(&machine, at);
    assert_eq!((message.address, message.data), (0x1_fee0_1000, 0x4321));
    assert_eq!((message.mask, message.pending), (Some(2), Some(0)));
}
