//! What each PD is told: [`Plan::info`] puts its [`PdInfo`] together from the plan.

use alloc::boxed::Box;

use system::info::{
    ChannelEnd, ClientEntry, ClientInfo, ConsoleInfo, EcamWindow, IommuInfo, LineInfo,
    MAX_ALIAS_RANGES, MAX_CORES, MAX_IO, MAX_PROXIMITY, MsiInfo, PciInfo, PdInfo, PortInterrupt,
    Role, Slots, TimerInfo, UnitInfo, UnitMessage,
};
use system::layout::pd;
use system::model::{self, DeviceMatch, Name};

use super::grants::SERIAL_PORTS;
use super::{Foreign, Inputs, Irq, Kind, Pd, Plan, PlanError};
use crate::facts::{Configuration, Host, Unit};
use crate::plan::build::{confines, units as driven};

/// Message address of a fixed interrupt to a local APIC (Intel SDM volume 3, 11.11.1), without the APIC's id.
const MESSAGE_ADDRESS: u64 = 0xfee0_0000;

/// Adds to a bounded list that cannot overflow silently.
fn push<T, const N: usize>(
    list: &mut heapless::Vec<T, N>,
    what: &'static str,
    item: T,
) -> Result<(), PlanError> {
    list.push(item)
        .map_err(|_| PlanError::TooMany { what, limit: N })
}

impl Plan {
    /// The information of a PD. Large: made for one PD at a time.
    ///
    /// # Errors
    /// A list has no room.
    pub fn info(&self, inputs: &Inputs<'_>, pd: &Pd) -> Result<Box<PdInfo>, PlanError> {
        let mut info = Box::new(PdInfo {
            format: model::FORMAT,
            abi_fingerprint: inputs.kernel.abi_fingerprint,
            name: pd.name.clone(),
            pd: pd.number,
            cnode_bits: pd.cnode_bits,
            free_slots: Slots {
                first: pd.first_free,
                count: pd.slots_end().saturating_sub(pd.first_free),
            },
            tsc_mhz: inputs.machine.tsc_mhz,
            clients: heapless::Vec::new(),
            testing: inputs.system.testing,
            role: self.role(inputs, pd)?,
        });
        for (client, (window, events, notification)) in
            inputs.system.clients.iter().zip(&pd.given.clients)
        {
            let entry = ClientEntry {
                name: client.name.clone(),
                window: *window,
                window_bits: client.window_bits,
                events: *events,
                notification: *notification,
                devices: client.devices.clone(),
                dma_quota: client.dma_quota,
                largest_buffer: client.largest_buffer,
                vectors: client.vectors,
                reserved_vectors: client.reserved_vectors,
                interrupt_rate: client.interrupt_rate,
                core: client.core,
            };
            push(&mut info.clients, "clients", entry)?;
        }
        Ok(info)
    }

    fn role(&self, inputs: &Inputs<'_>, pd: &Pd) -> Result<Role, PlanError> {
        Ok(match pd.kind {
            Kind::Console => Role::Console(self.console()?),
            Kind::Timer => {
                let mut signals = heapless::Vec::new();
                for signal in &pd.given.signals {
                    push(&mut signals, "protection domains", *signal)?;
                }
                let hpet_vaddr = device_at(pd, 0);
                Role::Timer(TimerInfo {
                    hpet_vaddr,
                    pin: inputs.machine.timer.map_or(0, |timer| timer.pin),
                    signals,
                })
            }
            Kind::Iommu(shard) => Role::Iommu(self.iommu(inputs, pd, shard)?),
            Kind::Msi(shard) => Role::Msi(self.msi(inputs, pd, shard)?),
            Kind::Pci(shard) => Role::Pci(self.pci(inputs, pd, shard)?),
            Kind::Client(id) => Role::Client(self.client_info(inputs, pd, id)?),
        })
    }

    fn console(&self) -> Result<ConsoleInfo, PlanError> {
        let mut names = heapless::Vec::new();
        push(
            &mut names,
            "protection domains",
            Name::try_from("root").unwrap_or_default(),
        )?;
        for pd in &self.pds {
            push(&mut names, "protection domains", pd.name.clone())?;
        }
        Ok(ConsoleInfo {
            names,
            port: SERIAL_PORTS.0,
        })
    }

    fn shard_buses<const N: usize>(&self) -> Result<heapless::Vec<(u16, u8, u8), N>, PlanError> {
        let mut buses = heapless::Vec::new();
        for shard in &self.shards {
            push(
                &mut buses,
                "pci-server shards",
                (shard.segment, shard.buses.first(), shard.buses.last()),
            )?;
        }
        Ok(buses)
    }

    fn iommu(&self, inputs: &Inputs<'_>, pd: &Pd, shard: u8) -> Result<IommuInfo, PlanError> {
        let mut units = heapless::Vec::new();
        let irqs = self.irqs.iter().filter(|irq| irq.pd == pd.number);
        let known = driven(inputs).zip(irqs).zip(&pd.given.irqs).enumerate();
        for (index, ((unit, irq), handler)) in known {
            let mut scopes = heapless::Vec::new();
            for scope in &unit.scopes {
                push(&mut scopes, "device scopes of a remapping unit", *scope)?;
            }
            let (irq_address, irq_data) = message(inputs, pd.core, irq);
            let entry = UnitInfo {
                kind: unit.kind,
                vaddr: device_at(pd, index),
                bytes: unit.bytes,
                paddr: unit.base,
                segment: unit.segment,
                // QEMU names each device of its one unit instead; the unit takes them all.
                include_all: unit.include_all || is_alone(inputs, unit),
                scopes,
                irq_handler: *handler,
                irq_address,
                irq_data,
            };
            push(&mut units, "remapping units", entry)?;
        }
        let mut pool = heapless::Vec::new();
        for piece in &pd.given.untypeds {
            push(&mut pool, "pieces of the DMA pool", *piece)?;
        }
        let mut reserved = heapless::Vec::new();
        for region in &inputs.machine.reserved {
            push(&mut reserved, "reserved regions", region.clone())?;
        }
        let mut shard_signals = heapless::Vec::new();
        for signal in &pd.given.shard_signals {
            push(&mut shard_signals, "pci-server shards", *signal)?;
        }
        let tables = pd
            .mappings
            .iter()
            .find(|mapping| mapping.frames == Foreign::IommuTables);
        Ok(IommuInfo {
            shard,
            units,
            io_space: pd.given.io_space,
            tables_vaddr: tables.map_or(0, |mapping| mapping.vaddr),
            tables_paddr: self.iommu_tables.block.base,
            tables_pages: inputs.system.table_pages,
            pool,
            interrupt_remapping: inputs.system.interrupt_remapping,
            quarantine: inputs.system.quarantine,
            reserved,
            aliases: inputs
                .machine
                .aliases
                .iter()
                .copied()
                .take(MAX_ALIAS_RANGES)
                .collect(),
            reserved_allowed: inputs.system.reserved_regions.clone(),
            shard_signals,
            shard_buses: self.shard_buses()?,
        })
    }

    fn msi(&self, inputs: &Inputs<'_>, pd: &Pd, shard: u8) -> Result<MsiInfo, PlanError> {
        let (first_vector, vectors) = self.vectors_of(inputs.system.shards.msi, shard);
        let mut apic_ids = heapless::Vec::new();
        for core in (0..inputs.machine.cores.max(1)).take(MAX_CORES) {
            push(&mut apic_ids, "cores", apic_id(inputs, core))?;
        }
        let mut lines = heapless::Vec::new();
        for ((line, vector), handler) in self.lines.iter().zip(&pd.given.line_handlers) {
            let line = LineInfo {
                line: u16::from(*line),
                vector: *vector,
                handler: *handler,
            };
            push(&mut lines, "interrupt lines", line)?;
        }
        let mut shard_signals = heapless::Vec::new();
        for signal in &pd.given.shard_signals {
            push(&mut shard_signals, "pci-server shards", *signal)?;
        }
        let mut server_vectors = heapless::Vec::new();
        for irq in self.irqs.iter().filter(|_| shard == 0) {
            push(&mut server_vectors, "vectors of servers", irq.vector.into())?;
        }
        Ok(MsiInfo {
            shard,
            first_vector,
            vectors,
            cpu_vector_base: inputs.kernel.cpu_vector_base,
            handlers: pd.given.handlers,
            apic_ids,
            shard_buses: self.shard_buses()?,
            shard_signals,
            lines,
            server_vectors,
        })
    }

    /// The vectors of msi-server shard `shard` of `shards`: first, and how many. Below those of servers and
    /// lines, in equal shares that begin at multiples of four, for devices with several messages.
    #[must_use]
    pub fn vectors_of(&self, shards: u8, shard: u8) -> (u16, u16) {
        let end = self
            .irqs
            .iter()
            .map(|irq| u16::from(irq.vector))
            .chain(self.lines.iter().map(|(_, vector)| *vector))
            .min()
            .unwrap_or(crate::policy::VECTORS);
        let shards = u16::from(shards.max(1));
        let share = if shards == 1 {
            end
        } else {
            end / shards / 4 * 4
        };
        (share * u16::from(shard), share)
    }

    fn pci(&self, inputs: &Inputs<'_>, pd: &Pd, number: u8) -> Result<PciInfo, PlanError> {
        let mut ecam = heapless::Vec::new();
        let shard = self.shards.get(usize::from(number));
        for (index, (region, buses)) in shard.iter().flat_map(|shard| &shard.ecam).enumerate() {
            let entry = EcamWindow {
                vaddr: device_at(pd, index),
                paddr: region.start(),
                segment: shard.map_or(0, |shard| shard.segment),
                first_bus: buses.first(),
                last_bus: buses.last(),
            };
            push(&mut ecam, "pieces of configuration space", entry)?;
        }
        if let (Configuration::Ports, Some(shard)) = (inputs.machine.configuration, shard) {
            let entry = EcamWindow {
                vaddr: 0,
                paddr: 0,
                segment: shard.segment,
                first_bus: shard.buses.first(),
                last_bus: shard.buses.last(),
            };
            push(&mut ecam, "pieces of configuration space", entry)?;
        }
        let own = |host: &&Host| {
            shard.is_some_and(|shard| {
                shard.segment == host.segment && shard.buses.covers(host.buses)
            })
        };
        // Beyond what there is room for a bus has no domain, like one of which firmware says none.
        let domains = inputs.machine.hosts.iter().filter(own).filter_map(|host| {
            let (first, last) = (host.buses.first(), host.buses.last());
            host.proximity.map(|domain| (first, last, domain))
        });
        let proximity = domains.take(MAX_PROXIMITY).collect();
        let passed = inputs.machine.hosts.iter().filter(own);
        let io = passed.filter_map(|host| host.resources.as_ref());
        let io = io.flat_map(|resources| resources.io.iter().copied());
        let io = io.take(MAX_IO).collect();
        let mut withheld = inputs.system.withheld.clone();
        for function in inputs.machine.units.iter().filter_map(|unit| unit.function) {
            let rule = DeviceMatch::Address(function.to_bits());
            push(&mut withheld, "withheld devices", rule)?;
        }
        let mut mmio = heapless::Vec::new();
        for piece in &pd.given.untypeds {
            push(&mut mmio, "pieces of a pci-server's memory", *piece)?;
        }
        Ok(PciInfo {
            shard: number,
            ecam,
            mmio,
            io,
            config_ports: pd.given.config_ports,
            port_interrupt: self.port_interrupt(inputs, pd),
            unit_messages: self.unit_messages(inputs, number)?,
            withheld,
            large_bars: inputs.system.large_bars.clone(),
            ats: inputs.system.ats.clone(),
            virtual_functions: inputs.system.virtual_functions.clone(),
            proximity,
            iommu_present: confines(inputs),
            iommu_shard: 0,
            msi_shard: number % inputs.system.shards.msi.max(1),
            intx: inputs.system.intx.clone(),
            unprotected: inputs.system.unprotected,
            done: pd.given.done,
        })
    }

    /// Messages of the remapping units that the iommu-server drives and that are functions of the shard.
    fn unit_messages<const N: usize>(
        &self,
        inputs: &Inputs<'_>,
        number: u8,
    ) -> Result<heapless::Vec<UnitMessage, N>, PlanError> {
        let mut messages = heapless::Vec::new();
        let Some(server) = self.of(|kind| matches!(kind, Kind::Iommu(_))).next() else {
            return Ok(messages);
        };
        let shard = self.shards.get(usize::from(number));
        let irqs = self.irqs.iter().filter(|irq| irq.pd == server.number);
        for (unit, irq) in driven(inputs).zip(irqs) {
            let own = unit.function.filter(|at| {
                shard.is_some_and(|shard| {
                    shard.segment == at.segment() && shard.buses.contains(at.bus())
                })
            });
            if let Some(function) = own {
                let (address, data) = message(inputs, server.core, irq);
                let entry = UnitMessage {
                    device: function.to_bits(),
                    address,
                    data,
                };
                push(&mut messages, "remapping units", entry)?;
            }
        }
        Ok(messages)
    }

    /// The interrupt of a shard's ports, to the shard's own core.
    fn port_interrupt(&self, inputs: &Inputs<'_>, pd: &Pd) -> Option<PortInterrupt> {
        let (handler, index) = pd.given.port_interrupt?;
        let (address, data) = message(inputs, pd.core, self.irqs.get(index)?);
        Some(PortInterrupt {
            handler,
            address,
            data,
        })
    }

    fn client_info(&self, inputs: &Inputs<'_>, pd: &Pd, id: u16) -> Result<ClientInfo, PlanError> {
        let client = inputs.system.clients.get(usize::from(id));
        let mut pci = heapless::Vec::new();
        for number in &pd.given.shards {
            if let Some(shard) = self.shards.get(usize::from(*number)) {
                let entry = (
                    *number,
                    shard.segment,
                    shard.buses.first(),
                    shard.buses.last(),
                );
                push(&mut pci, "pci-server shards", entry)?;
            }
        }
        let mut pds = heapless::Vec::new();
        for other in self.pds.iter().filter(|_| inputs.system.testing) {
            push(
                &mut pds,
                "protection domains",
                (other.name.clone(), other.number),
            )?;
        }
        let mut clients = heapless::Vec::new();
        for client in inputs
            .system
            .clients
            .iter()
            .filter(|_| pd.privileges.inspect)
        {
            push(&mut clients, "clients", client.name.clone())?;
        }
        let mut channels = heapless::Vec::new();
        for (number, mailbox, signal) in &pd.given.channels {
            let channel = self.channels.get(*number);
            if let Some((channel, (side, _))) =
                channel.and_then(|one| Some((one, one.of(pd.number)?)))
            {
                let end = ChannelEnd {
                    name: channel.name.clone(),
                    side,
                    mailbox: *mailbox,
                    signal: *signal,
                };
                push(&mut channels, "channels of a client", end)?;
            }
        }
        Ok(ClientInfo {
            client: id,
            window_bits: client.map_or(0, |client| client.window_bits),
            untyped_bits: client.map_or(0, |client| client.untyped_bits),
            pci,
            iommu: pd.given.iommu.then_some(0),
            inspect: pd.privileges.inspect,
            admin: pd.privileges.admin,
            clients,
            channels,
            args: client.map(|client| client.args.clone()).unwrap_or_default(),
            pds,
        })
    }
}

/// Is it the only unit of its segment?
fn is_alone(inputs: &Inputs<'_>, unit: &Unit) -> bool {
    let others = driven(inputs).filter(|other| other.segment == unit.segment);
    others.count() == 1
}

/// Local APIC id of a core; of the first where the table says nothing of it.
fn apic_id(inputs: &Inputs<'_>, core: u8) -> u8 {
    let cores = usize::from(inputs.machine.cores.max(1));
    let id = inputs
        .machine
        .apic_ids
        .get(usize::from(core) % cores)
        .copied()
        .unwrap_or(0);
    u8::try_from(id).unwrap_or(0)
}

/// Address and data of the message that raises an interrupt on a core.
fn message(inputs: &Inputs<'_>, core: u8, irq: &Irq) -> (u64, u32) {
    (
        MESSAGE_ADDRESS | u64::from(apic_id(inputs, core)) << 12,
        u32::from(irq.vector) + u32::from(inputs.kernel.cpu_vector_base),
    )
}

/// Where the `index`-th piece of device memory of a PD is mapped.
fn device_at(pd: &Pd, index: usize) -> u64 {
    let device = pd
        .mappings
        .iter()
        .filter(|mapping| matches!(mapping.frames, Foreign::Device(_)));
    device.map(|mapping| mapping.vaddr).nth(index).unwrap_or(0)
}

const _: () = assert!(pd::ROOT == 0);
