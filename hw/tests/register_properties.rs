//! Every decoder on any bytes, on bytes that change at each read, and on a function
//! that vanishes in the middle: no panic, and no more reads than the registers have places.

use hw::capability::*;
use hw::header::{Bridge, CardBus, Interrupt, Layout, SelfTest, Subsystem, Timing};
use hw::{ConfigSpace, Header, Sbdf, bar};
use portcullis_hw as hw;
use proptest::prelude::*;
use sim::config::{Machine, Misbehaviour, Space};

/// Ids of conventional and extended families that are decoded.
const CONVENTIONAL: [u8; 10] = [1, 3, 5, 7, 9, 0x0d, 0x10, 0x11, 0x13, 0x14];
const EXTENDED: [u8; 14] = [
    1, 3, 0x0b, 0x0d, 0x0e, 0x0f, 0x10, 0x13, 0x15, 0x1b, 0x1d, 0x23, 0x24, 0,
];

/// Any bytes, with a list of decoded families in both spaces.
fn any_function() -> impl Strategy<Value = Vec<u8>> {
    let conventional = prop::collection::vec((0usize..10, 0u8..9, any::<u8>()), 1..10);
    let extended = prop::collection::vec((0usize..14, 0u16..12), 1..40);
    let bytes = prop::collection::vec(any::<u8>(), 4096);
    (bytes, conventional, extended, 0u8..4).prop_map(|(mut bytes, conventional, extended, kind)| {
        let mut put = |at: usize, value: u8| {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        };
        put(0x06, 0x10);
        put(0x0e, kind);
        let mut link = if kind == 2 { 0x14 } else { 0x34 };
        let mut at = 0x40u8;
        for (family, words, odd) in conventional {
            put(link, at | odd & 3);
            let at_byte = usize::from(at);
            put(at_byte, CONVENTIONAL[family]);
            link = at_byte + 1;
            let Some(next) = at.checked_add(4 + 4 * words) else {
                break;
            };
            at = next;
        }
        let mut at = 0x100u16;
        for (family, words) in extended {
            let next = at + 8 + 4 * words;
            let header = u32::from(EXTENDED[family]) | 1 << 16 | u32::from(next) << 20;
            for (index, byte) in header.to_le_bytes().into_iter().enumerate() {
                put(usize::from(at) + index, byte);
            }
            at = next;
        }
        bytes
    })
}

/// Reads everything that a function has to say. The result does not matter: that it comes does.
fn read_all<C: ConfigSpace>(cfg: &C, at: Sbdf) {
    for layout in [Layout::Endpoint, Layout::Bridge, Layout::CardBus] {
        let _ = Timing::read(cfg, at, layout);
        let _ = bar::read_rom(cfg, at, layout);
        let registers = bar::read_registers(cfg, at, 0x10, layout.bar_count());
        assert_eq!(registers.len(), 6);
    }
    let _ = (Header::read(cfg, at), Subsystem::read(cfg, at));
    let _ = (Interrupt::read(cfg, at), SelfTest::read(cfg, at));
    let _ = (Bridge::read(cfg, at), CardBus::read(cfg, at));
    let list = CapabilityList::read(cfg, at, Layout::Endpoint);
    for entry in &list.entries {
        conventional(cfg, at, entry.offset);
    }
    for entry in &list.extended {
        extended(cfg, at, entry.offset);
    }
    // Also where no list leads.
    for offset in 0..=u8::MAX {
        conventional(cfg, at, offset);
    }
    for offset in (0..0x2000).step_by(0x3c) {
        extended(cfg, at, offset);
    }
}

fn conventional<C: ConfigSpace>(cfg: &C, at: Sbdf, offset: u8) {
    // Lists give multiples of four alone; accesses to others read ones.
    if let Ok(power) = PowerManagement::decode(cfg, at, offset) {
        assert!(power.auxiliary_current() <= 375);
    }
    if let Ok(msi) = Msi::decode(cfg, at, offset) {
        assert!(msi.vectors.is_power_of_two() && msi.vectors <= 32);
        let _ = msi.message(cfg, at);
    }
    let _ = Msix::decode(cfg, at, offset);
    let _ = AdvancedFeatures::decode(cfg, at, offset);
    let _ = BridgeSubsystem::decode(cfg, at, offset);
    let _ = VitalProductData::decode(cfg, at, offset);
    if let Ok(express) = Express::decode(cfg, at, offset) {
        assert!(express.max_payload <= 4096);
        let device = express.device(cfg, at);
        assert!(device.capabilities.phantom_bits() <= 3);
        let _ = device.capabilities.slot_power_limit().milliwatts();
        let _ = (express.link(cfg, at), express.root(cfg, at));
        let _ = (express.device2(cfg, at), express.link2(cfg, at));
        assert_eq!(
            express.slot_registers(cfg, at).is_some(),
            express.slot.is_some()
        );
    }
    if let Ok(fixed) = EnhancedAllocation::decode(cfg, at, offset) {
        let entries: Vec<_> = fixed.entries(cfg, at).collect();
        assert!(entries.len() <= usize::from(fixed.count) && entries.len() <= 17);
        assert!(entries.iter().rev().skip(1).all(Result::is_ok));
        for entry in entries.into_iter().flatten() {
            assert!(entry.offset + 4 + 4 * u16::from(entry.words) <= 256);
            let _ = entry.last();
        }
    }
}

fn extended<C: ConfigSpace>(cfg: &C, at: Sbdf, offset: u16) {
    if let Ok(errors) = ErrorReporting::decode(cfg, at, offset) {
        let _ = errors.root(cfg, at);
    }
    if let Ok(control) = AccessControl::decode(cfg, at, offset) {
        assert!(control.egress_bits <= 256);
    }
    if let Ok(ats) = AddressTranslation::decode(cfg, at, offset) {
        assert!((1..=32).contains(&ats.queue_depth));
    }
    if let Ok(physical) = SrIov::decode(cfg, at, offset) {
        let _ = physical.bars(cfg, at);
        for index in [
            0,
            1,
            physical.count.wrapping_sub(1),
            physical.count,
            u16::MAX,
        ] {
            let found = physical.virtual_function(at, index);
            assert!(found != Some(at) && (found.is_none() || index < physical.count));
        }
    }
    let resizable = ResizableBars::decode(cfg, at, offset).map(|bars| bars.0);
    let of_virtual = VfResizableBars::decode(cfg, at, offset).map(|bars| bars.0);
    for bar in [resizable, of_virtual].into_iter().flatten().flatten() {
        for bytes in bar.sizes() {
            assert!(
                bar.encode(bytes)
                    .is_some_and(|bits| bits & !Resizable::SIZE_MASK == 0)
            );
        }
        let _ = bar.bytes();
    }
    let _ = AlternativeRouting::decode(cfg, at, offset);
    let _ = Containment::decode(cfg, at, offset);
    let _ = DesignatedVendor::decode(cfg, at, offset);
    let _ = PageRequest::decode(cfg, at, offset);
    let _ = Pasid::decode(cfg, at, offset);
    let _ = SerialNumber::decode(cfg, at, offset).map(|number| number.to_string());
}

fn machine(bytes: &[u8], how: Option<Misbehaviour>) -> (Machine, Sbdf) {
    let mut space = Space::known(bytes);
    if let Some(how) = how {
        space.misbehave(how);
    }
    let mut machine = Machine::new();
    let at = machine.add("00:03.0", space);
    (machine, at)
}

/// Most reads that one decoder does: Enhanced Allocation of 17 entries.
const READS: usize = 100;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in any_function()) {
        let (machine, at) = machine(&bytes, None);
        read_all(&machine, at);
    }

    #[test]
    fn bytes_that_change_at_each_read_are_decoded_or_refused(bytes in any_function(), seed: u64) {
        let how = Misbehaviour::Changing { bytes: 0..4096, seed };
        let (machine, at) = machine(&bytes, Some(how));
        read_all(&machine, at);
    }

    #[test]
    fn a_function_may_vanish_at_any_moment(bytes in any_function(), accesses in 0u32..400) {
        let (machine, at) = machine(&bytes, Some(Misbehaviour::VanishesAfter { accesses }));
        read_all(&machine, at);
    }

    #[test]
    fn a_function_may_end_anywhere(bytes in any_function(), length in 0usize..4096) {
        let bytes = bytes.get(..length).unwrap_or_default();
        let (machine, at) = machine(bytes, None);
        read_all(&machine, at);
    }

    #[test]
    fn each_decoder_reads_a_bounded_number_of_registers(bytes in any_function(), seed: Option<u64>) {
        let how = seed.map(|seed| Misbehaviour::Changing { bytes: 0..4096, seed });
        let (machine, at) = machine(&bytes, how);
        for offset in (0..=u8::MAX).step_by(4) {
            let before = machine.reads();
            conventional(&machine, at, offset);
            prop_assert!(machine.reads() - before < READS + 60);
        }
        for offset in (0x100..0x1000).step_by(4) {
            let before = machine.reads();
            extended(&machine, at, offset);
            prop_assert!(machine.reads() - before < READS);
        }
    }

    #[test]
    fn probing_virtual_functions_leaves_every_register_as_it_was(bytes in any_function()) {
        let (mut machine, at) = machine(&bytes, None);
        for offset in (0x100..0x1000).step_by(4) {
            if let Ok(physical) = SrIov::decode(&machine, at, offset) {
                let before = machine.writes();
                let slots = physical.probe_bars(&mut machine, at);
                prop_assert!(machine.writes() - before <= 12);
                prop_assert!(slots.is_ok() || machine.writes() == before);
            }
        }
        prop_assert_eq!(machine.snapshot(at), bytes);
    }
}
