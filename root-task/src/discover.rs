//! Finding out about the machine: boot information, firmware's tables,
//! configuration space. The result is [`root_core::facts::Machine`].
//!
//! Device memory is looked at through frames that are cut for the moment; at the
//! end everything is revoked, so that the plan begins with whole untypeds.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use hw::acpi::{Hpet, PhysicalMemory, Platform, Rsdp};
use hw::address::EcamWindow;
use hw::{BusRange, Mmio};
use root_core::aml::{self, HostBridge as Declared, Reader};
use root_core::carve::{Cut, Form, Want, carve, pieces_of};
use root_core::facts::{Configuration as Means, Host, Machine, Memory, Timer, Untyped};
use root_core::plan::CONFIG_PORTS;
use root_core::region::{PAGE, Region, RegionSet};
use sel4::bootinfo::{extra, extra_chunks};
use sel4::{BootInfo, Frame, IoPort, IoPortControl, MemoryKind};
use sel4_glue::root::{SHOWN_PAGES, Space, physical_address_bits};
use sel4_glue::{MmioRegion, PortSpace};
use system::model::ConfigAccess;

use crate::cutting::{cut, frame_size};
use crate::stock::{Stock, own};
use crate::survey::survey;
use crate::voice::Voice;
use crate::{KERNEL, say};

/// Where firmware leaves the RSDP (ACPI 6.5, 5.2.5.1).
const BIOS_AREA: (u64, u64) = (0xe_0000, 0x10_0000);
/// Most ECAM windows that are looked at.
const MAX_WINDOWS: usize = system::info::MAX_ECAM;

/// What the boot information says, as facts. The rest is found by [`discover`].
pub fn facts(boot: &BootInfo<'_>, extra_information: &[u8]) -> Machine {
    let untypeds = boot.untypeds().map(|untyped| Untyped {
        slot: untyped.slot as u32,
        base: untyped.physical,
        bits: untyped.size_bits,
        memory: match untyped.kind {
            MemoryKind::Ram => Memory::Ram,
            MemoryKind::Device => Memory::Device,
        },
    });
    let later_tsc = || {
        let chunk = extra_chunks(extra_information).find(|chunk| chunk.id == extra::X86_TSC_MHZ)?;
        chunk
            .content
            .first_chunk()
            .map(|bytes| u64::from(u32::from_le_bytes(*bytes)))
    };
    Machine {
        untypeds: untypeds.collect(),
        empty_slots: (boot.empty.start as u32, boot.empty.end as u32),
        cores: boot.nodes as u8,
        physical_bits: physical_address_bits(),
        kernel_iommu_levels: boot.io_page_table_levels,
        tsc_mhz: boot.tsc_mhz.or_else(later_tsc).unwrap_or(0) as u32,
        ..Machine::default()
    }
}

/// The ways to configuration space.
pub struct Ways {
    /// Which the description asks for.
    pub access: ConfigAccess,
    /// All I/O ports.
    pub control: IoPortControl,
    /// Slot of a capability for its ports, once it is found to be reached through them.
    pub ports: Option<u32>,
}

/// Completes the facts. Slots from the machine's empty ones are used, and empty again afterwards.
pub fn discover(
    machine: &mut Machine,
    space: &mut Space<Stock>,
    extra_information: &[u8],
    ways: &mut Ways,
    voice: &mut Voice,
) -> Result<(), String> {
    let mut look = Look::new(machine, space);
    let (platform, rsdp) = tables(&mut look, extra_information)?;
    let said = declared(&mut look, &rsdp, voice);
    if let Err(error) = &platform.proximity {
        say!(voice, "{error}");
    }
    look.close()?;
    machine.firmware = look.read.clone();
    adopt(machine, &platform, voice);
    if ways.access == ConfigAccess::Ports || machine.ecam.is_empty() {
        machine.configuration = Means::Ports;
    }

    let mut port_space = None;
    if machine.configuration == Means::Ports {
        let (first, last) = CONFIG_PORTS;
        let stock = space.tables();
        let slot = stock.fill(|slot| ways.control.issue(first, last, slot));
        let slot = slot.map_err(|error| format!("the ports of configuration space: {error}"))?;
        ways.ports = Some(slot as u32);
        port_space = Some(PortSpace::new(IoPort::at(slot)));
    }
    let ecam = match machine.configuration {
        Means::Ecam => machine.ecam.clone(),
        Means::Ports => Vec::new(),
    };
    let hpet = hpet(&platform, voice);
    let mut look = Look::new(machine, space);
    let mut wants = Vec::new();
    for window in &ecam {
        wants.extend(
            window
                .start()
                .and_then(|start| Region::sized(start, window.len())),
        );
    }
    wants.extend(
        hpet.and_then(|hpet| Region::sized(hpet.address, PAGE))
            .map(Region::pages),
    );
    let regions = look.registers(&wants)?;
    let found = match port_space {
        Some(ports) if !ports.answers() => {
            return Err("there is neither ECAM nor the ports 0xcf8 and 0xcfc".into());
        }
        Some(mut ports) => survey(&mut ports, &[(0, BusRange::ALL)], &platform, voice),
        None => {
            let windows = ecam.iter().zip(&regions).map(|(window, region)| {
                let buses = window.buses;
                ((window.segment, buses.first(), buses.last()), *region)
            });
            let mut mapped = Space::<Stock>::ecam(windows);
            let buses: Vec<_> = ecam
                .iter()
                .map(|window| (window.segment, window.buses))
                .collect();
            survey(&mut mapped, &buses, &platform, voice)
        }
    };
    let timer = match (hpet, regions.get(ecam.len())) {
        (Some(hpet), Some(registers)) => timer(&hpet, registers, voice),
        _ => None,
    };
    look.close()?;
    machine.hosts = found.hosts;
    for host in &mut machine.hosts {
        let own = |said: &&Declared| (said.segment, said.bus) == (host.segment, host.buses.first());
        let said = said.iter().find(own);
        host.resources = said.and_then(|said| said.resources.clone());
        say_resources(host, voice);
        // Domains mean nothing to a machine without an SRAT.
        host.proximity = said
            .and_then(|said| said.proximity)
            .filter(|_| matches!(platform.proximity, Ok(Some(_))));
        if let Some(domain) = host.proximity {
            let (segment, buses) = (host.segment, host.buses);
            say!(
                voice,
                "segment {segment} buses {buses}: proximity domain {domain}"
            );
        }
    }
    machine.units = found.units.units;
    machine.reserved = found.units.reserved;
    machine.aliases = found.units.aliases;
    machine.timer = timer;
    if matches!(platform.proximity, Ok(Some(_))) {
        let known = machine.hosts.iter().filter(|host| host.proximity.is_some());
        say!(voice, "@metric host_bridges_with_domain {}", known.count());
    }
    Ok(())
}

/// A look at device memory.
struct Look<'a> {
    machine: &'a Machine,
    space: &'a mut Space<Stock>,
    /// Slots of the untypeds that were cut.
    opened: Vec<u32>,
    buffer: Vec<u8>,
    /// Pages that were read as firmware's.
    read: RegionSet,
}

impl<'a> Look<'a> {
    const fn new(machine: &'a Machine, space: &'a mut Space<Stock>) -> Self {
        Self {
            machine,
            space,
            opened: Vec::new(),
            buffer: Vec::new(),
            read: RegionSet::new(),
        }
    }

    fn cut(&mut self, wants: &[Region]) -> Result<Vec<Cut>, String> {
        let wants: Vec<Want> = wants
            .iter()
            .map(|region| Want {
                region: *region,
                form: Form::Frames,
            })
            .collect();
        let (cuts, _) = carve(
            &self.machine.untypeds,
            &wants,
            self.machine.empty_slots,
            KERNEL.fan_out,
        )
        .map_err(|error| format!("device memory: {error}"))?;
        for cut in &cuts {
            if !self.opened.contains(&cut.from) {
                self.opened.push(cut.from);
            }
        }
        cut(&cuts).map_err(|error| format!("device memory: {error}"))?;
        Ok(cuts)
    }

    /// Maps registers; one region a want.
    fn registers(&mut self, wants: &[Region]) -> Result<Vec<MmioRegion>, String> {
        let cuts = self.cut(wants)?;
        let mut regions = Vec::new();
        for (index, want) in wants.iter().enumerate() {
            let frames = pieces_of(&cuts, index)
                .filter_map(|(slot, _, piece)| Some((Frame::at(slot.into()), frame_size(piece)?)));
            let frames: Vec<_> = frames.collect();
            let region = self.space.registers(want.start(), frames.iter().copied());
            regions.push(region.map_err(|error| format!("registers at {want}: {error}"))?);
        }
        Ok(regions)
    }

    /// Makes the untypeds whole again.
    fn close(&mut self) -> Result<(), String> {
        for slot in self.opened.drain(..) {
            own(slot)
                .revoke()
                .map_err(|error| format!("device memory cannot be taken back: {error}"))?;
        }
        Ok(())
    }

    /// Copies pages of device memory.
    fn copy(&mut self, pages: Region) -> Result<(), String> {
        self.close()?;
        let cuts = self.cut(&[pages])?;
        self.buffer.clear();
        // A table that lies about its length must not take the heap.
        self.buffer
            .try_reserve_exact(pages.bytes() as usize)
            .map_err(|_| format!("firmware's memory at {pages} is too large"))?;
        for cut in cuts.iter().filter(|cut| cut.want.is_some()) {
            let mut done = 0;
            // Firmware's tables lie in small pieces; a large page is not expected and would not be shown.
            while done < cut.count && cut.piece.bits() == 12 {
                let some = (cut.count - done).min(SHOWN_PAGES);
                let buffer = &mut self.buffer;
                self.space
                    .show(u64::from(cut.slot + done), some, |bytes| {
                        buffer.extend_from_slice(bytes)
                    })
                    .map_err(|error| format!("firmware's memory at {pages}: {error}"))?;
                done += some;
            }
        }
        Ok(())
    }
}

impl PhysicalMemory for Look<'_> {
    fn bytes(&mut self, address: u64, length: usize) -> Option<&[u8]> {
        let wanted = Region::sized(address, length as u64)?;
        let pages = wanted.pages();
        self.copy(pages).ok()?;
        self.read.insert(pages);
        let first = usize::try_from(wanted.start() - pages.start()).ok()?;
        self.buffer.get(first..first.checked_add(length)?)
    }
}

/// Firmware's tables: from the RSDP that the kernel copied, or else by a search of the BIOS area.
fn tables(look: &mut Look<'_>, extra_information: &[u8]) -> Result<(Platform, Rsdp), String> {
    let told = extra_chunks(extra_information)
        .find(|chunk| chunk.id == extra::X86_ACPI_RSDP)
        .and_then(|chunk| Rsdp::parse(chunk.content).ok());
    let rsdp = match told {
        Some(rsdp) => rsdp,
        None => {
            let area = Region::new(BIOS_AREA.0, BIOS_AREA.1).ok_or("no BIOS area")?;
            look.copy(area)?;
            let (_, rsdp) =
                Rsdp::find(&look.buffer).ok_or("no ACPI root pointer in the BIOS area")?;
            rsdp
        }
    };
    let platform = Platform::discover(look, &rsdp).map_err(|error| format!("{error}"))?;
    Ok((platform, rsdp))
}

/// What AML declares of host bridges. Nobody depends on it.
fn declared(look: &mut Look<'_>, rsdp: &Rsdp, voice: &mut Voice) -> Vec<Declared> {
    let mut reader = Reader::default();
    let tables = match aml::find::tables(look, rsdp) {
        Ok(tables) => tables,
        Err(error) => {
            say!(voice, "{error}");
            return Vec::new();
        }
    };
    for (address, length) in tables {
        match look.bytes(address, length as usize) {
            Some(table) => reader.table(table),
            None => say!(voice, "the AML table at {address:#x} cannot be read"),
        }
    }
    let said = reader.said();
    if said.code + said.unknown_resources + said.skipped > 0 {
        say!(
            voice,
            "AML is not run: {} number(s) and the resources of {} of {} host bridges are not known, {} block(s) were passed over",
            said.code,
            said.unknown_resources,
            said.hosts.len(),
            said.skipped
        );
    }
    said.hosts
}

/// Says what a host bridge passes on, as far as firmware does.
fn say_resources(host: &Host, voice: &mut Voice) {
    let (segment, buses) = (host.segment, host.buses);
    let Some(resources) = &host.resources else {
        say!(
            voice,
            "segment {segment} buses {buses}: only code says what they pass on; room is what lies near their devices"
        );
        return;
    };
    let bytes: u64 = resources.memory.iter().map(|region| region.bytes()).sum();
    say!(
        voice,
        "segment {segment} buses {buses}: {bytes:#x} bytes of memory in {} ranges, {} of I/O, as declared",
        resources.memory.len(),
        resources.io.len()
    );
}

/// Takes over what the tables say. What is wrong with one is said; the rest counts.
fn adopt(machine: &mut Machine, platform: &Platform, voice: &mut Voice) {
    match &platform.ecam {
        Ok(windows) => {
            let all: &[EcamWindow] = windows.as_ref().map_or(&[], |windows| windows.as_slice());
            machine.ecam = all.iter().take(MAX_WINDOWS).copied().collect();
            if all.len() > MAX_WINDOWS {
                say!(
                    voice,
                    "of {} ECAM windows only {MAX_WINDOWS} are used",
                    all.len()
                );
            }
        }
        Err(error) => say!(voice, "{error}"),
    }
    match &platform.remapping {
        // Its devices are told apart when configuration space can be read.
        Ok(Some(_)) => {}
        Ok(None) => say!(
            voice,
            "no DMAR or IVRS table: no IOMMU that this system can use"
        ),
        Err(error) => say!(voice, "{error}: no IOMMU is used"),
    }
    match &platform.interrupts {
        Ok(Some(plan)) => {
            machine.apic_ids = plan
                .processors
                .iter()
                .map(|processor| processor.id)
                .collect()
        }
        Ok(None) => say!(voice, "no MADT table: interrupts go to APIC 0"),
        Err(error) => say!(voice, "{error}: interrupts go to APIC 0"),
    }
}

fn hpet(platform: &Platform, voice: &mut Voice) -> Option<Hpet> {
    match &platform.hpet {
        Ok(hpet) => *hpet,
        Err(error) => {
            say!(voice, "{error}");
            None
        }
    }
}

/// Capabilities of comparator 0 (IA-PC HPET 1.0a, 2.3.8): the IOAPIC pins that it can be routed to.
const COMPARATOR_ROUTES: usize = 0x104;
/// Pins of the first IOAPIC.
const PINS: u8 = 24;

/// Chooses the pin of the timer's interrupt: one below 16, which no PCI line uses, if there is one.
fn timer(hpet: &Hpet, registers: &MmioRegion, voice: &mut Voice) -> Option<Timer> {
    let routes = registers.read32((hpet.address % PAGE) as usize + COMPARATOR_ROUTES);
    // Pin 0 is the 8259's, pin 1 the keyboard's on every PC.
    let pin = (2..PINS).find(|pin| routes >> pin & 1 != 0);
    if pin.is_none() {
        say!(
            voice,
            "the HPET's comparator 0 reaches no pin of the IOAPIC (routes {routes:#x})"
        );
    }
    if !hpet.address.is_multiple_of(PAGE) {
        say!(
            voice,
            "the HPET's registers at {:#x} share their page",
            hpet.address
        );
        return None;
    }
    Some(Timer {
        base: hpet.address,
        pin: pin?,
    })
}
