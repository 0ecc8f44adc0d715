//! The root task: boots the system, then supervises it.
//!
//! It finds out about the machine (`discover`), lets `root-core` make the plan
//! and check it, carries the plan out (`maker`), starts the servers one by one and
//! then the clients, and from then on waits at its endpoint (`hands` do what the
//! supervisor decides), with a second thread (`medic`) that restarts servers and
//! a third (`reclaimer`) that takes dead clients' memory back. It must not be on the path of any request, block on a client, or decide anything that the plan does not say.

#![no_std]
#![no_main]

extern crate alloc;

mod cutting;
mod discover;
mod hands;
mod maker;
mod medic;
mod post_mortem;
mod reclaimer;
mod stock;
mod survey;
mod voice;

use alloc::format;
use alloc::string::String;
use core::convert::Infallible;
use core::fmt;

use ipc_proto::log::LogRing;
use ipc_proto::supervisor;
use ipc_proto::{Badge, BadgeKind};
use root_core::facts::Machine;
use root_core::medic::{Cause, Told};
use root_core::memory;
use root_core::objects::Kind as Object;
use root_core::plan::{Inputs, Kernel, Pd, Plan, SERIAL_PORTS};
use root_core::supervisor::{Rules, Supervisor, Ward};
use sel4::bootinfo::slot as boot_slot;
use sel4::irq::Vector;
use sel4::tcb::Then;
use sel4::{
    ABI, BootInfo, Endpoint, Fault, Frame, FrameSize, IoPort, IoPortControl, IrqControl,
    KERNEL_VERSION, Notification, ObjectType, Rights, Tcb, Untyped, UserContext, VSpace,
};
use sel4_glue::Port;
use sel4_glue::root::{self, Arrival, Desk, Heap, Second, Space};
use system::bundle::{self, Bundle};
use system::layout::{event, pd, priority};
use system::model::System;

use discover::Ways;
use hands::{EXIT_PORT, RootHands};
use maker::{Maker, Own};
use medic::{Parts, Report, Reports};
use reclaimer::Reclaimer;
use stock::{OWN_BITS, Stock, own};
use voice::{Console, Serial, Voice};

sel4_rt::root_entry!(main);

/// Memory for the plan. The kernel copies the root task's image when it boots, so this is not larger than needed.
#[global_allocator]
static HEAP: Heap<{ 1 << 20 }> = Heap::new();

/// Slots for the root task's own objects and capabilities.
const OWN_SLOTS: u32 = 256;

/// What the plan needs to know of the kernel.
const KERNEL: Kernel = Kernel {
    size_of,
    fan_out: sel4::object::RETYPE_MAX,
    abi_fingerprint: sel4::ABI_FINGERPRINT,
    cpu_vector_base: Vector::PROCESSOR_OFFSET,
};

fn size_of(kind: Object) -> u8 {
    maker::object(kind).size_bits()
}

fn main(frame: &'static [u8]) -> ! {
    let boot = match sel4::parse_bootinfo(frame) {
        Ok(boot) => boot,
        Err(error) => {
            let cores = sel4::config::MAX_NUM_NODES;
            wrong_kernel(format_args!(
                "{error} It was built for seL4 {KERNEL_VERSION} (ABI family {ABI}) for {cores} core(s)"
            ))
        }
    };
    root::use_ipc_buffer(&boot);
    let irq = IrqControl::at(boot_slot::IRQ_CONTROL);
    let (untyped, empty) = (
        Untyped::at(boot.untyped.start),
        own(boot.empty.start as u32),
    );
    if let Err(mismatch) = sel4::check_kernel(irq, untyped, empty) {
        wrong_kernel(format_args!("{mismatch}"))
    }
    let mut voice = Voice::default();
    let mut exit = IoPort::at(0);
    match run(frame, &boot, &mut exit) {
        Ok(never) => match never {},
        Err(error) => {
            say!(voice, "@end fail the system cannot start: {error}");
            hands::exit(exit, false);
            stop()
        }
    }
}

/// Says what is wrong, and stops: the machine's way out is not known when the kernel is not.
fn wrong_kernel(what: fmt::Arguments<'_>) -> ! {
    voice::last_words(format_args!("@end fail {what}"));
    stop()
}

/// Nothing more to do, ever.
fn stop() -> ! {
    loop {
        sel4::yield_now();
    }
}

/// Boots and supervises. Only returns when the system cannot start.
fn run(frame: &'static [u8], boot: &BootInfo<'_>, exit: &mut IoPort) -> Result<Infallible, String> {
    let mut voice = Voice::default();
    let extra = root::extra_boot_information(frame, boot);
    let mut machine = discover::facts(boot, extra);
    let (first, end) = machine.empty_slots;
    let own_end = first.saturating_add(OWN_SLOTS).min(end);
    machine.empty_slots = (own_end, end);
    let memory = memory::for_root(&machine.untypeds, OWN_BITS)
        .ok_or("no RAM for the root task's own objects")?;
    let mut stock = Stock::new(memory, first, own_end);

    let ports = IoPortControl(own(boot_slot::IO_PORTS as u32));
    let (com_first, com_last) = SERIAL_PORTS;
    let serial = kernel(
        stock.fill(|slot| ports.issue(com_first, com_last, slot)),
        "the serial line's ports",
    )?;
    Serial::use_ports(serial);
    *exit = IoPort::at(kernel(
        stock.fill(|slot| ports.issue(EXIT_PORT, EXIT_PORT + 3, slot)),
        "the exit port",
    )?);

    let vspace = VSpace::at(boot_slot::VSPACE);
    let mut space = Space::take(vspace, stock).ok_or("the address space was taken before")?;

    let bundle = bundle(boot)?;
    let system = bundle
        .find(bundle::SYSTEM)
        .ok_or("the bundle has no system description")?;
    let system: System =
        postcard::from_bytes(system).map_err(|error| format!("the system description: {error}"))?;
    let mut ways = Ways {
        access: system.config_access,
        control: ports,
        ports: None,
    };
    discover::discover(&mut machine, &mut space, extra, &mut ways, &mut voice)?;
    let reserved = [memory.slot];
    let inputs = Inputs {
        machine: &machine,
        system: &system,
        programs: &bundle,
        reserved: &reserved,
        kernel: KERNEL,
    };
    let plan = Plan::make(&inputs).map_err(|error| format!("{error}"))?;
    root_core::distribution::check(&plan)
        .map_err(|error| format!("the plan gives too much away: {error}"))?;
    tell(&machine, &plan, &mut voice);

    let stock = space.tables();
    let own = Own {
        endpoint: Endpoint::at(kernel(
            stock.object(ObjectType::Endpoint),
            "the supervisor's endpoint",
        )?),
        events: Notification::at(kernel(
            stock.object(ObjectType::Notification),
            "the supervisor's notification",
        )?),
        medic: Endpoint::at(kernel(
            stock.object(ObjectType::Endpoint),
            "the medic's endpoint",
        )?),
        alarm: Notification::at(kernel(
            stock.object(ObjectType::Notification),
            "the medic's notification",
        )?),
        serial: serial as u32,
        config_ports: ways.ports,
    };
    let this = Tcb::at(boot_slot::TCB);
    kernel(
        this.bind_notification(own.events),
        "the supervisor's notification",
    )?;
    kernel(
        this.set_priority(this, priority::ROOT),
        "the supervisor's priority",
    )?;
    let maker = Maker::new(&plan, own);
    maker.begin()?;
    let wards = plan.pds.iter().map(|pd| ward(pd, &system));
    let rules = Rules {
        testing: system.testing,
        restarts: system.restarts,
        end: system.end,
    };
    let supervisor = Supervisor::new(wards, rules)?;
    let reports = medic(&own, &mut space, &maker, boot, &inputs)?;
    let own_badge = Badge::plain(BadgeKind::Pd, pd::ROOT);
    let to_medic = space
        .tables()
        .fill(|slot| maker::mint(slot, own.medic.cptr(), Rights::CALL, own_badge));
    let to_medic = Port::at(kernel(to_medic, "a way to call the medic")?);
    let flag = Badge::from_word(Badge::event(event::MEDIC)).ok_or("no badge")?;
    let wake = space
        .tables()
        .fill(|slot| maker::mint(slot, own.alarm.cptr(), Rights::WRITE, flag));
    let wake = Notification::at(kernel(wake, "a way to wake the medic")?);
    let reclaimer = kernel(Reclaimer::start(&own, &mut space), "the third thread")?;
    let mut root = Root {
        desk: Desk::new(own.endpoint),
        supervisor,
        reports,
        hands: RootHands::new(maker, &plan, (to_medic, wake), reclaimer, *exit, voice),
        space,
        plan: &plan,
    };
    root.start(&inputs)?;
    root.supervise()
}

/// Starts the second thread, which restarts servers.
fn medic(
    own: &Own,
    space: &mut Space<Stock>,
    maker: &Maker<'_>,
    boot: &BootInfo<'_>,
    inputs: &Inputs<'_>,
) -> Result<Reports, String> {
    let stock = space.tables();
    let tcb = Tcb::at(kernel(stock.object(ObjectType::Tcb), "a second thread")?);
    let frame = ObjectType::Frame(FrameSize::Small);
    let frame = Frame::at(kernel(stock.object(frame), "a second IPC buffer")?);
    let flag = Badge::from_word(Badge::event(event::MEDIC)).ok_or("no badge")?;
    let bell = stock.fill(|slot| maker::mint(slot, own.events.cptr(), Rights::WRITE, flag));
    let bell = Notification::at(kernel(bell, "the supervisor's notification")?);
    let buffer = kernel(space.page(frame), "a second IPC buffer")?;
    let parts = Parts {
        second: Second {
            tcb,
            buffer: (frame, buffer),
            priority: priority::MEDIC,
            events: own.alarm,
        },
        endpoint: own.medic,
        bell,
        restarts: inputs.system.restarts,
        tsc_mhz: inputs.machine.tsc_mhz,
        boot,
    };
    medic::start(&parts, maker.plan(), maker)
}

/// Adds what was wanted to a kernel error.
fn kernel<T>(result: sel4::Result<T>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// The bundle behind the root task's image.
fn bundle(boot: &BootInfo<'_>) -> Result<Bundle<'static>, String> {
    let memory = root::bundle_memory(boot);
    let header = memory.first_chunk().ok_or(bundle::BundleError::NoMagic);
    let header = header.map_err(|error| format!("{error}"))?;
    let total = bundle::total_bytes(header).and_then(|total| usize::try_from(total).ok());
    // A header without the magic is told apart by the parser.
    let bytes = memory
        .get(..total.unwrap_or(memory.len()))
        .unwrap_or(memory);
    Bundle::parse(bytes).map_err(|error| format!("{error}"))
}

fn ward(pd: &Pd, system: &System) -> Ward {
    let client = pd
        .client()
        .and_then(|id| system.clients.get(usize::from(id)));
    Ward {
        name: pd.name.clone(),
        kind: pd.kind,
        must_finish: client.is_some_and(|client| client.must_finish),
        may_fault: client.is_some_and(|client| client.may_fault),
    }
}

/// What was found and planned.
fn tell(machine: &Machine, plan: &Plan, voice: &mut Voice) {
    let ram: u64 = machine.ram().bytes() >> 20;
    say!(
        voice,
        "{} core(s), {ram} MiB of RAM, {} host bridge(s), {} remapping unit(s), seL4 {}",
        machine.cores,
        machine.hosts.len(),
        machine.units.len(),
        sel4::KERNEL_VERSION,
    );
    for (number, shard) in plan.shards.iter().enumerate() {
        let pieces = shard.memory.regions().len();
        say!(
            voice,
            "pci-server-{number}: segment {} buses {}, {pieces} memory range(s)",
            shard.segment,
            shard.buses
        );
    }
    for conflict in &plan.conflicts {
        say!(voice, "{conflict}");
    }
}

/// The running root task.
struct Root<'a> {
    desk: Desk,
    supervisor: Supervisor,
    /// What the medic tells.
    reports: Reports,
    hands: RootHands<'a>,
    space: Space<Stock>,
    plan: &'a Plan,
}

impl Root<'_> {
    /// Starts the servers one by one, then all clients. Stops early when a server dies.
    fn start(&mut self, inputs: &Inputs<'_>) -> Result<(), String> {
        for server in self.plan.of(|kind| kind.is_server()) {
            self.hands
                .maker()
                .furnish(server, inputs, &mut self.space)?;
            self.hands.maker().start(server)?;
            while !self.supervisor.is_started(server.number) {
                self.turn();
            }
            if self.supervisor.is_broken() {
                // The supervisor has said so and ended the run.
                return Ok(());
            }
            if server.number == pd::CONSOLE {
                let console = self.console(server)?;
                self.hands.voice.use_console(Some(console));
            } else {
                if server.number == pd::TIMER {
                    let own = Badge::plain(BadgeKind::Pd, pd::ROOT);
                    let port = self.callable(server, own)?;
                    medic::use_timer(port);
                }
                let port = self.callable(server, Badge::plain(BadgeKind::Supervisor, 0))?;
                self.hands.add_shard(server, port);
            }
        }
        say!(
            self.hands.voice,
            "@booted tsc_mhz={}",
            inputs.machine.tsc_mhz
        );
        self.supervisor.remember_figures(&mut self.hands);
        for client in self.plan.of(|kind| !kind.is_server()) {
            self.hands.maker().client_objects(client)?;
        }
        // Clients that a channel joins have something of each other.
        for client in self.plan.of(|kind| !kind.is_server()) {
            self.hands
                .maker()
                .furnish(client, inputs, &mut self.space)?;
        }
        for client in self.plan.of(|kind| !kind.is_server()) {
            self.hands.maker().start(client)?;
        }
        Ok(())
    }

    /// A capability of the root task's own to call a server.
    fn callable(&mut self, server: &Pd, badge: Badge) -> Result<Port, String> {
        let endpoint = server
            .layout
            .slot(root_core::objects::Part::Endpoint)
            .ok_or("a server without an endpoint")?;
        let stock = self.space.tables();
        let port = stock.fill(|slot| maker::mint(slot, endpoint.into(), Rights::CALL, badge));
        kernel(port, "a way to call a server").map(Port::at)
    }

    /// The root task's ring and its way to the console.
    fn console(&mut self, server: &Pd) -> Result<Console, String> {
        let rings = self.plan.rings;
        let ring: &LogRing = kernel(
            self.space.ring(rings.frames.into(), maker::RING_PAGES),
            "the log ring",
        )?;
        let events = server
            .layout
            .slot(root_core::objects::Part::Events)
            .ok_or("no notification")?;
        let flag = Badge::from_word(Badge::event(event::INTERRUPT)).ok_or("no badge")?;
        let stock = self.space.tables();
        let signal = stock.fill(|slot| maker::mint(slot, events.into(), Rights::WRITE, flag));
        let signal = Notification::at(kernel(signal, "the console's notification")?);
        let port = self.callable(server, Badge::plain(BadgeKind::Pd, pd::ROOT))?;
        Ok(Console { ring, signal, port })
    }

    /// Supervises for ever.
    fn supervise(&mut self) -> ! {
        loop {
            self.turn();
        }
    }

    /// One arrival, and what becomes possible by it.
    fn turn(&mut self) {
        match self.desk.receive() {
            Arrival::Request { badge, message } => {
                if let Some(answer) =
                    supervisor::dispatch(&mut self.supervisor.desk(), badge, &message)
                {
                    self.desk.answer(&answer);
                }
            }
            Arrival::Events(flags) => self.supervisor.signalled(flags),
            Arrival::Fault { pd, fault } => {
                let registers = self.plan.pd(pd).and_then(|pd| self.registers(pd));
                self.fault(pd, fault, registers);
            }
        }
        // Before anything is asked of a server: what is open with one that was restarted is asked again.
        self.hear();
        while let Some((pd, result)) = self.hands.reclaimed() {
            self.supervisor.reclaimed(pd, result, &mut self.hands);
        }
        self.supervisor.work(&mut self.hands);
    }

    /// What the medic has to tell.
    fn hear(&mut self) {
        while let Some(report) = self.reports.next() {
            let Report {
                told,
                ticks,
                fault,
                registers,
            } = report;
            let (supervisor, hands) = (&mut self.supervisor, &mut self.hands);
            match told {
                Told::Died {
                    pd,
                    cause: cause @ (Cause::Fault | Cause::Crash | Cause::Silence),
                    ..
                } => {
                    if let Some(pd) = self.plan.pd(pd) {
                        let silent = cause == Cause::Silence;
                        let words = if silent {
                            post_mortem::tell_silence(&mut hands.voice, pd, registers)
                        } else {
                            post_mortem::tell(&mut hands.voice, pd, fault, registers)
                        };
                        supervisor.told(told, ticks, format_args!("{words}"), hands);
                    }
                }
                _ => supervisor.told(told, ticks, format_args!("killed"), hands),
            }
        }
        match self.reports.lost() {
            0 => {}
            lost => say!(self.hands.voice, "{lost} reports of the medic are lost"),
        }
    }

    /// The registers of a thread that does not run.
    fn registers(&self, pd: &Pd) -> Option<UserContext> {
        let tcb = self.hands.maker().tcb(pd).ok()?;
        tcb.read_registers(Then::Leave).ok()
    }

    fn fault(&mut self, number: u16, fault: Option<Fault>, registers: Option<UserContext>) {
        let Some(pd) = self.plan.pd(number) else {
            return;
        };
        if pd.number == pd::CONSOLE {
            self.hands.voice.use_console(None);
        }
        let words = post_mortem::tell(&mut self.hands.voice, pd, fault, registers);
        self.supervisor.fault(pd.number, format_args!("{words}"));
    }
}
