//! What the registers of PCI Express and of the header say beyond what every caller
//! reads. That every bit is where lspci has it: the package `compare`.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod functions;

use functions::machine;
use hw::ConfigSpace;
use hw::capability::{Capability, Express, PowerLimit, SlotCapabilities, SlotControl, SlotStatus};
use hw::header::{Bridge as BridgeHeader, CardBus, Layout, SelfTest, Timing};
use portcullis_hw as hw;
use sim::config::{Bridge, Endpoint, ExpressShape, PortKind};

#[test]
fn express_registers_are_where_the_port_has_them() {
    let shape = ExpressShape {
        kind: PortKind::RootPort,
        flr: false,
        slot: Some(7),
    };
    let (mut machine, at) = machine(Endpoint::new(1, 2).express(shape));
    let port = Express::decode(&machine, at, 0x40).unwrap();
    let slot = port.slot_registers(&machine, at).unwrap();
    assert_eq!(slot.capabilities.number(), 7);
    assert!(
        slot.capabilities
            .contains(SlotCapabilities::HOT_PLUG | SlotCapabilities::SURPRISE)
    );
    let control = SlotControl::POWER_OFF
        .with_power_indicator(SlotControl::INDICATOR_BLINK)
        .with_attention_indicator(SlotControl::INDICATOR_OFF);
    machine.write16(at, port.slot_control_register(), control.bits());
    let slot = port.slot_registers(&machine, at).unwrap();
    assert_eq!(slot.control, control);
    assert_eq!(slot.control.power_indicator(), SlotControl::INDICATOR_BLINK);
    machine.poke(at, port.slot_status_register(), &[0x48, 0x01]);
    machine.write16(at, port.slot_status_register(), SlotStatus::EVENTS.bits());
    let slot = port.slot_registers(&machine, at).unwrap();
    assert_eq!(slot.status, SlotStatus::PRESENT);
    assert!(port.root(&machine, at).unwrap().is_some());
    assert!(port.link(&machine, at).unwrap().is_some());
    assert!(port.device2(&machine, at).unwrap().is_some());
    assert!(port.link2(&machine, at).unwrap().is_some());
    assert_eq!(port.device(&machine, at).capabilities.payload_log2(), 1);
}

#[test]
fn what_an_express_function_has_follows_from_its_type_and_version() {
    for (kind, version, link, root, second) in [
        (0u8, 1u8, true, false, false),
        (4, 2, true, true, true),
        (9, 2, false, false, true),
        (10, 2, false, true, true),
    ] {
        let function = Endpoint::new(1, 2)
            .express(functions::EXPRESS)
            .raw(0x42, &[kind << 4 | version]);
        let (machine, at) = machine(function);
        let express = Express::decode(&machine, at, 0x40).unwrap();
        assert_eq!(express.link(&machine, at).unwrap().is_some(), link);
        assert_eq!(express.root(&machine, at).unwrap().is_some(), root);
        assert_eq!(express.device2(&machine, at).unwrap().is_some(), second);
        assert_eq!(
            express.link2(&machine, at).unwrap().is_some(),
            second && link
        );
        assert_eq!(express.slot_registers(&machine, at), None);
    }
}

#[test]
fn power_limits_have_steps_above_239_watts() {
    let watts = |value, scale| PowerLimit { value, scale }.milliwatts();
    assert_eq!(watts(25, 0), Some(25_000));
    assert_eq!(watts(0xef, 0), Some(239_000));
    assert_eq!(watts(0xf0, 0), Some(250_000));
    assert_eq!(watts(0xfe, 0), Some(600_000));
    assert_eq!(watts(0xff, 0), None);
    assert_eq!((watts(0xff, 1), watts(0xff, 3)), (Some(25_500), Some(255)));
}

#[test]
fn headers_say_what_else_they_have() {
    let function = functions::full()
        .raw(0x0c, &[0x10, 0x40, 0x00, 0xc5])
        .raw(0x3e, &[8, 16]);
    let (machine, at) = machine(function);
    let timing = Timing::read(&machine, at, Layout::Endpoint);
    let expected = Timing {
        cache_line: 16,
        latency: 64,
        min_grant: 8,
        max_latency: 16,
    };
    assert_eq!(timing, expected);
    assert_eq!(Timing::read(&machine, at, Layout::Bridge).min_grant, 0);
    let test = SelfTest {
        running: true,
        code: 5,
    };
    assert_eq!(SelfTest::read(&machine, at), Some(test));
}

#[test]
fn bridges_of_both_kinds_are_read() {
    let bridge =
        Bridge::new(0, 1, 2).with(|bridge| bridge.raw(0x1b, &[0x20]).raw(0x1e, &[0, 0x40]));
    let (machine, at) = machine(bridge);
    let bridge = BridgeHeader::read(&machine, at);
    assert_eq!(
        (bridge.secondary_latency, bridge.secondary_status.bits()),
        (0x20, 0x4000)
    );

    let card = Endpoint::new(1, 2)
        .raw(0x0e, &[2])
        .raw(0x18, &[5, 6, 9, 0xb0])
        .raw(0x1c, &[0, 0, 0, 0xf0, 0, 0xf0, 0xff, 0xf3])
        .raw(0x2c, &[0x00, 0x20, 0, 0, 0xfc, 0x20, 0, 0])
        .raw(0x3e, &[0x40, 0x05])
        .raw(0x40, &[0xaa, 0x17, 0xc4, 0x20, 0x01]);
    let (machine, at) = functions::machine(card);
    let card = CardBus::read(&machine, at);
    assert_eq!((card.buses.secondary, card.secondary_latency), (6, 0xb0));
    let windows = |windows: [Option<hw::header::Window>; 2]| {
        windows.map(|window| window.map(|window| (window.base, window.limit)))
    };
    assert_eq!(
        windows(card.memory),
        [Some((0xf000_0000, 0xf3ff_ffff)), None]
    );
    assert_eq!(windows(card.io), [Some((0x2000, 0x20ff)), None]);
    assert_eq!((card.subsystem.vendor, card.legacy_ports), (0x17aa, 1));
}
