//! A machine with two hot-plug slots and what happens at them, for the tests of cards that come and go.

use hw::Sbdf;
use ipc_proto::pci::{self, EventNextReply};
use ipc_proto::{Badge, BadgeKind, EventKind, Message, Rule};
use sim::config::{Bridge, Endpoint, ExpressShape, Machine, MsiShape, PortKind, Space};
use system::info::PortInterrupt;
use system::model::DeviceMatch;

use super::scene::at;
use super::*;

/// Root port with a slot, buses 1 to 3; it reports errors.
pub const PORT: &str = "0000:00:1c.0";
/// Root port with a slot, bus 4.
pub const OTHER_PORT: &str = "0000:00:1d.0";
/// Where the first function of a card in the first slot is.
pub const CARD: &str = "0000:01:00.0";
pub const OTHER_CARD: &str = "0000:04:00.0";
/// PCI Express, MSI and error reporting of the ports.
pub const EXPRESS: u16 = 0x40;
pub const MSI: u16 = 0x7c;
pub const ERRORS: u16 = 0x100;

pub fn root_port(first: u8, last: u8, slot: u16) -> Bridge {
    let express = ExpressShape {
        kind: PortKind::RootPort,
        flr: false,
        slot: Some(slot),
    };
    let msi = MsiShape {
        wide: true,
        maskable: false,
        vectors_log2: 1,
    };
    Bridge::new(0, first, last)
        .memory(
            0xe800_0000 + (u32::from(first) << 24),
            0xe8ff_ffff + (u32::from(first) << 24),
        )
        .with(|endpoint| {
            let mut port = endpoint
                .express(express)
                .msi(msi)
                .extended(1, 2, &[0; 0x34]);
            // Root Error Command, Root Error Status.
            port = port.allow(ERRORS + 0x2c, &[7]);
            port = port.allow_clear(ERRORS + 0x30, &[0x7f]);
            access_control(port, 0x138)
        })
}

/// A function with function-level reset and error reporting.
pub fn card() -> Endpoint {
    let card = Endpoint::new(0x1b36, 0x0010)
        .class(0x01, 0x08, 0x02)
        .msi(MsiShape {
            wide: true,
            maskable: false,
            vectors_log2: 0,
        })
        .express(ExpressShape {
            kind: PortKind::Endpoint,
            flr: true,
            slot: None,
        })
        .extended(1, 2, &[0; 0x28])
        .allow_clear(0x104, &[0xff; 4])
        .allow_clear(0x110, &[0xff; 4]);
    access_control(card, 0x12c)
}

/// Access control, as the next extended capability, which starts at `offset`.
fn access_control(endpoint: Endpoint, offset: u16) -> Endpoint {
    endpoint
        .extended(0x0d, 1, &[0x5f, 0x00, 0x00, 0x00])
        .allow(offset + 6, &[0x5f])
}

/// A function without any reset.
pub fn plain() -> Endpoint {
    Endpoint::new(0x1234, 0x11e8).class(0x00, 0xff, 0x00)
}

pub fn space(endpoint: Endpoint) -> Space {
    endpoint.into()
}

/// Ports, and what is behind them at boot.
pub fn machine(cards: &[(&str, Endpoint)]) -> Machine {
    let mut machine = Machine::new();
    let ports = [
        machine.add(PORT, root_port(1, 3, 5)),
        machine.add(OTHER_PORT, root_port(4, 4, 6)),
    ];
    for (at, card) in cards {
        machine.add(at, card.clone());
    }
    for port in ports {
        machine.add_slot(port, EXPRESS);
    }
    machine
}

/// Clients 0 and 1 may have everything, client 2 only the plain function.
pub fn booted(cards: &[(&str, Endpoint)]) -> Booted {
    booted_on(machine(cards))
}

pub fn booted_on(machine: Machine) -> Booted {
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    let plain = DeviceMatch::Ids {
        vendor: 0x1234,
        device: 0x11e8,
    };
    let mut info = pci_info();
    info.port_interrupt = Some(PortInterrupt {
        handler: 503,
        address: 0xfee0_0000,
        data: 0x55,
    });
    let clients = vec![
        client("zero", &[any]),
        client("one", &[any]),
        client("two", &[plain]),
    ];
    let booted = Booted::with(World::new(machine), info, clients);
    booted.rest();
    booted
}

impl Booted {
    /// Interrupts of ports that wait.
    pub fn interrupts(&self) {
        for _ in 0..100 {
            if self.world(|world| world.machine.take_messages()) == 0 {
                return;
            }
            self.shard.borrow_mut().on_interrupt();
        }
        panic!("interrupts never end");
    }

    /// Lets time pass until nothing is under way, with interrupts.
    pub fn rest(&self) {
        for _ in 0..10_000 {
            self.interrupts();
            if !self.tick() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Lets `micros` pass, with interrupts.
    pub fn pass(&self, micros: u64) {
        let until = self.world(|world| world.clock_us()) + micros;
        for _ in 0..10_000 {
            self.interrupts();
            if self.world(|world| world.alarm.is_none_or(|due| due > until)) {
                let now = self.world(|world| world.clock_us());
                self.world(|world| world.clock.advance_us(until.saturating_sub(now)));
                return;
            }
            self.tick();
        }
        panic!("it never comes to rest");
    }

    pub fn admin(&self) -> pci::Stub<Caller<'_>> {
        self.stub(Badge::plain(BadgeKind::Admin, 0))
    }

    /// Sends a request that is parked; gives the ticket.
    pub fn parked(&self, badge: Badge, request: pci::Request) -> u32 {
        let reply = self.send(badge, request);
        assert_eq!(reply, None, "answered at once");
        self.world(|world| world.next_ticket)
    }

    /// The answer to a parked request, if it is there.
    pub fn answer(&self, ticket: u32) -> Option<Message> {
        self.world(|world| world.answers.remove(&ticket))
    }

    /// What a client is told, oldest first.
    pub fn news(&self, client: u16) -> Vec<(EventKind, Sbdf, u64)> {
        let mut news = Vec::new();
        loop {
            match self.client(client).event_next() {
                Ok(EventNextReply {
                    event,
                    device,
                    detail,
                    lost,
                }) => {
                    assert_eq!(lost, 0);
                    news.push((event, device, detail));
                }
                Err(refusal) => {
                    assert_eq!(refusal.rule, Rule::EndOfList);
                    return news;
                }
            }
        }
    }

    pub fn plug(&self, port: &str, card: Vec<(&str, Endpoint)>) {
        let card = card
            .into_iter()
            .map(|(place, card)| (at(place), space(card)))
            .collect();
        self.world(|world| world.machine.plug(at(port), card));
    }

    pub fn pull(&self, port: &str) {
        self.world(|world| world.machine.pull(at(port)));
    }

    pub fn press(&self, port: &str) {
        self.world(|world| {
            world
                .machine
                .at_slot(at(port), sim::config::SlotEvent::Button);
        });
    }

    /// Is the device in the table?
    pub fn knows(&self, device: &str) -> bool {
        self.shard.borrow().devices().find(at(device)).is_some()
    }
}
