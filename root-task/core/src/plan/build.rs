//! From facts to plan, step by step: shards, device memory, address spaces,
//! RAM, and last the capabilities (`grants`).

use alloc::vec::Vec;

use ipc_proto::log::RING_BYTES;
use system::bundle::program;
use system::info::MAX_UNITS;
use system::layout::{event, pd, va};
use system::model::{IommuChoice, Name};

use super::space::{draft, lay_out};
use super::{
    Binding, Foreign, Inputs, Irq, IrqSource, Kind, Mapping, Plan, PlanError, Rings, TableMemory,
    channels, grants,
};
use crate::carve::{Form, Want, carve};
use crate::facts::{Ports, Unit};
use crate::image::Image;
use crate::memory::{Block, Request, Shape, Slots, place};
use crate::policy::{self, VECTORS, shard_name};
use crate::region::{PAGE, Region};
use crate::shards;

/// Pages of a log ring.
pub(super) const RING_PAGES: u32 = (RING_BYTES as u64 / PAGE) as u32;

/// What device memory is wanted for, beside the list of wants.
#[derive(Clone, Debug, Default)]
pub(super) struct DeviceUse {
    pub wants: Vec<Want>,
    /// For each pci shard: wants of its configuration space.
    pub ecam: Vec<Vec<usize>>,
    /// For each pci shard: wants of its memory.
    pub memory: Vec<Vec<usize>>,
    /// Want of each remapping unit's registers.
    pub units: Vec<usize>,
    /// Want of the timer's registers.
    pub timer: Option<usize>,
}

pub(super) fn build(inputs: &Inputs<'_>) -> Result<Plan, PlanError> {
    let (machine, system) = (inputs.machine, inputs.system);
    let split = shards::split(machine, system.shards.pci)?;
    policy::check(system, machine, &Listed(inputs), split.shards.len())?;
    if units(inputs).count() > MAX_UNITS {
        return Err(PlanError::TooMany {
            what: "remapping units",
            limit: MAX_UNITS,
        });
    }
    let (first, end) = machine.empty_slots;
    let device = device_use(inputs, &split.shards);
    let (device_cuts, next) = carve(
        &machine.untypeds,
        &device.wants,
        (first, end),
        inputs.kernel.fan_out,
    )?;
    let mut slots = Slots::new(next, end);
    let irqs = irqs(inputs, &device, &split.shards, &mut slots)?;

    let mut programs = Vec::new();
    let mut pds = Vec::new();
    for (kind, name, program) in roster(inputs, split.shards.len()) {
        let program = load(inputs, &mut programs, program)?;
        let number = pds.len() as u16 + 1;
        let image = &programs[program].1;
        pds.push(draft(
            inputs,
            &device,
            image,
            (number, kind, name, program),
            &mut slots,
        )?);
    }
    let rings_count = pds.len() as u32 + 1;
    for pd in pds.iter_mut().filter(|pd| pd.kind == Kind::Console) {
        for ring in 0..rings_count {
            let at = va::RINGS + u64::from(ring) * RING_BYTES as u64;
            pd.mappings.push(Mapping {
                vaddr: at,
                bytes: RING_BYTES as u64,
                frames: Foreign::Ring(ring as u16),
            });
        }
    }
    for pd in &mut pds {
        lay_out(inputs, pd, &mut slots)?;
    }

    let table_bits = table_block_bits(system.table_pages);
    let mut requests = alloc::vec![
        Request {
            bits: block_bits(u64::from(rings_count * RING_PAGES) * PAGE),
            shape: Shape::Whole
        },
        Request {
            bits: table_bits,
            shape: Shape::Whole
        },
    ];
    let pool_first = requests.len();
    let pool = Region::sized(0, system.dma_pool & !(PAGE - 1));
    let pool_pieces = pool
        .into_iter()
        .flat_map(|pool| pool.natural_pieces(12, 30));
    requests.extend(pool_pieces.map(|(_, bits)| Request {
        bits,
        shape: Shape::Divisible,
    }));
    let pds_first = requests.len();
    requests.extend(pds.iter().map(|pd| Request {
        bits: pd.layout.bits,
        shape: Shape::Whole,
    }));
    let (ram_cuts, blocks) = place(&machine.untypeds, inputs.reserved, &requests, &mut slots)?;

    let mut pool: Vec<Block> = blocks
        .iter()
        .filter(|block| (pool_first..pds_first).contains(&block.request))
        .copied()
        .collect();
    pool.sort_by_key(|block| block.base);
    for block in &blocks {
        if let Some(pd) = block
            .request
            .checked_sub(pds_first)
            .and_then(|pd| pds.get_mut(pd))
        {
            pd.block = *block;
        }
    }
    let of = |request: usize| {
        blocks
            .iter()
            .find(|block| block.request == request)
            .copied()
            .unwrap_or(NO_BLOCK)
    };
    let ring_frames = rings_count * RING_PAGES;
    let frame_bits = if table_bits >= 21 { 21 } else { 12 };
    let table_frames = if uses_kernel(inputs) {
        0
    } else {
        ((u64::from(system.table_pages) * PAGE).div_ceil(1 << frame_bits)) as u32
    };
    let mut plan = Plan {
        ram_cuts,
        device_cuts,
        wants: device.wants.clone(),
        rings: Rings {
            block: of(0),
            count: rings_count,
            frames: slots.take(ring_frames)?,
            copies: slots.take(ring_frames)?,
        },
        iommu_tables: TableMemory {
            block: of(1),
            slot: slots.take(table_frames)?,
            frames: table_frames,
            frame_bits,
        },
        pool,
        lines: lines(inputs, &irqs),
        irqs,
        programs,
        channels: channels::plan(system, &pds)?,
        pds,
        shards: split.shards,
        conflicts: split.conflicts,
        slots_left: slots.left(),
    };
    grants::fill(inputs, &device, &mut plan)?;
    Ok(plan)
}

struct Listed<'a, 'b>(&'a Inputs<'b>);

impl policy::Programs for Listed<'_, '_> {
    fn has(&self, name: &str) -> bool {
        self.0.programs.find(name).is_some()
    }
}

pub(super) const NO_BLOCK: Block = Block {
    request: usize::MAX,
    slot: 0,
    base: 0,
    bits: 0,
};

fn block_bits(bytes: u64) -> u8 {
    bytes.max(PAGE).next_power_of_two().trailing_zeros() as u8
}

pub(super) fn table_block_bits(pages: u32) -> u8 {
    block_bits(u64::from(pages) * PAGE)
}

/// The units that the iommu-server drives: all of one kind. No machine has two kinds.
pub(super) fn units<'a>(inputs: &Inputs<'a>) -> impl Iterator<Item = &'a Unit> + use<'a> {
    let units = &inputs.machine.units;
    let kind = match inputs.system.iommu {
        IommuChoice::Auto => units.first().map(|unit| unit.kind),
        // The kernel's own driver leaves no unit to a server.
        IommuChoice::None | IommuChoice::Kernel => None,
        kind => Some(kind),
    };
    units.iter().filter(move |unit| Some(unit.kind) == kind)
}

/// Does the iommu-server work through the kernel's own driver?
pub(super) fn uses_kernel(inputs: &Inputs<'_>) -> bool {
    inputs.system.iommu == IommuChoice::Kernel
}

/// Is the devices' DMA confined?
pub(super) fn confines(inputs: &Inputs<'_>) -> bool {
    uses_kernel(inputs) || units(inputs).next().is_some()
}

fn device_use(inputs: &Inputs<'_>, shards: &[shards::Shard]) -> DeviceUse {
    let mut device = DeviceUse::default();
    let mut want = |region: Region, form| {
        device.wants.push(Want { region, form });
        device.wants.len() - 1
    };
    for shard in shards {
        device.ecam.push(
            shard
                .ecam
                .iter()
                .map(|(region, _)| want(*region, Form::Frames))
                .collect(),
        );
        device.memory.push(
            shard
                .memory
                .regions()
                .iter()
                .map(|region| want(*region, Form::Untypeds))
                .collect(),
        );
    }
    for unit in units(inputs) {
        if let Some(region) = Region::sized(unit.base, unit.bytes.into()) {
            device.units.push(want(region.pages(), Form::Frames));
        }
    }
    let timer = inputs
        .machine
        .timer
        .and_then(|timer| Region::sized(timer.base, PAGE));
    device.timer = timer.map(|region| want(region.pages(), Form::Frames));
    device
}

/// Interrupts of servers: units' fault events from the highest vector downwards, then the timer, then one for the
/// ports of each pci-server shard that has any, as long as [`DEVICE_VECTORS`] are left to devices.
fn irqs(
    inputs: &Inputs<'_>,
    device: &DeviceUse,
    shards: &[shards::Shard],
    slots: &mut Slots,
) -> Result<Vec<Irq>, PlanError> {
    let mut irqs = Vec::new();
    let mut vector = VECTORS as u8;
    let mut add = |source, pd, flags, binding| -> Result<u8, PlanError> {
        vector = vector.saturating_sub(1);
        let slot = slots.take(1)?;
        irqs.push(Irq {
            vector,
            source,
            pd,
            flags,
            binding,
            slot,
        });
        Ok(vector)
    };
    let mut left = VECTORS as u8;
    for unit in 0..device.units.len() {
        let flags = event::INTERRUPT << unit;
        left = add(IrqSource::Message, FIRST_IOMMU, flags, Binding::Own)?;
    }
    if let Some(timer) = inputs.machine.timer {
        let source = IrqSource::Pin(timer.pin);
        left = add(source, pd::TIMER, event::INTERRUPT, Binding::Own)?;
    }
    let first_pci = FIRST_IOMMU + 1 + u16::from(inputs.system.shards.msi);
    for (pd, shard) in (first_pci..).zip(shards) {
        if shard.ports == Ports::Some && left > DEVICE_VECTORS {
            left = add(IrqSource::Message, pd, event::INTERRUPT, Binding::Root)?;
        }
    }
    Ok(irqs)
}

/// The lines that the description names, with the vectors below those of servers.
/// The timer's is not for devices.
fn lines(inputs: &Inputs<'_>, irqs: &[Irq]) -> Vec<(u8, u16)> {
    let timer = inputs.machine.timer.map(|timer| timer.pin);
    let routes = inputs.system.intx.iter().flat_map(|route| route.lines);
    let mut lines: Vec<u8> = routes.filter(|line| Some(*line) != timer).collect();
    lines.sort_unstable();
    lines.dedup();
    let lowest = irqs.iter().map(|irq| u16::from(irq.vector)).min();
    let below = lowest.unwrap_or(VECTORS);
    // Vectors are left to devices all the same: there are few lines (the policy has counted).
    let vectors = (0..below).rev();
    lines.into_iter().zip(vectors).collect()
}

/// Vectors that are left to devices before a shard's ports get one: ports without are looked at by request only.
const DEVICE_VECTORS: u8 = 64;

/// The first (and only) iommu-server shard follows the timer.
pub(super) const FIRST_IOMMU: u16 = pd::TIMER + 1;

/// All PDs in the order in which they start: kind, name, program.
fn roster<'a>(inputs: &Inputs<'a>, pci_shards: usize) -> Vec<(Kind, Name, &'a str)> {
    let plain = |name: &str| Name::try_from(name).unwrap_or_default();
    let mut roster = Vec::new();
    roster.push((Kind::Console, plain(program::CONSOLE), program::CONSOLE));
    roster.push((Kind::Timer, plain(program::TIMER), program::TIMER));
    roster.push((
        Kind::Iommu(0),
        shard_name(program::IOMMU, 0),
        program::IOMMU,
    ));
    for shard in 0..inputs.system.shards.msi {
        roster.push((
            Kind::Msi(shard),
            shard_name(program::MSI, shard),
            program::MSI,
        ));
    }
    for shard in 0..pci_shards as u8 {
        roster.push((
            Kind::Pci(shard),
            shard_name(program::PCI, shard),
            program::PCI,
        ));
    }
    for (id, client) in inputs.system.clients.iter().enumerate() {
        roster.push((
            Kind::Client(id as u16),
            client.name.clone(),
            client.program.as_str(),
        ));
    }
    roster
}

/// The number of a program, checked when it is first needed.
fn load(
    inputs: &Inputs<'_>,
    programs: &mut Vec<(Name, Image)>,
    name: &str,
) -> Result<usize, PlanError> {
    if let Some(known) = programs.iter().position(|(other, _)| other == name) {
        return Ok(known);
    }
    let program = Name::try_from(name).unwrap_or_default();
    // The policy has found it there.
    let bytes = inputs.programs.find(name).unwrap_or(&[]);
    match Image::parse(bytes) {
        Ok(image) => programs.push((program, image)),
        Err(error) => return Err(PlanError::Program { program, error }),
    }
    Ok(programs.len() - 1)
}
