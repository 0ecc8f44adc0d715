//! [`Shard`]: one pci-server. Here: its state, and how a badge leads to a device.
//! `serve` gets a request to its operation; the operations are in `service`, which hands each to its family's file.
//!
//! A request is decoded and its badge judged by `ipc_proto::pci`; the badge's
//! index leads straight to the assignment, that to the device.

mod arrivals;
mod assign;
mod bus_reset;
mod configuration;
mod errors;
mod events;
mod frames;
mod inspect;
mod lines;
mod messages;
mod moving;
mod ports;
mod queries;
mod recover;
mod removals;
mod rescan;
mod revoke;
mod serve;
mod service;
mod storms;
mod trouble;
mod units;
mod views;
mod virtual_functions;
mod waiting;
mod work;

use heapless::{Vec, VecView};
use hw::Sbdf;
use ipc_proto::{Badge, Call, ClientId, DeviceState, Properties, Refusal, Rule};
use system::info::{ClientEntry, PciInfo};

use crate::assignment::{Assignment, Hold};
use crate::boot::{self, BarKey, BarOrder};
use crate::env::{Env, Parking};
use crate::groups::Claims;
use crate::interrupts::Masks;
use crate::ports::Ports;
use crate::table::{Bus, Slot};
use crate::{Device, Index, MAX_ASSIGNMENTS, MAX_BUSES, MAX_FUNCTIONS, Table, notes};
use arrivals::Regroup;
use bus_reset::{BusReset, MAX_BUS_RESETS};
use events::Events;
use removals::{MAX_REMOVALS, Removal};
use rescan::Scan;
use views::{Need, Views, slot_of};
use virtual_functions::{Enabling, MAX_ENABLING};

pub use events::MAX_EVENTS;
pub use views::{MAX_VIEWS, MAX_VIEWS_OF_CLIENT};
pub use waiting::{MAX_PARKED, MAX_PARKED_OF_CLIENT};

/// Every assignment slot, once the shard has booted.
type Assignments<T> = Vec<Assignment<T>, MAX_ASSIGNMENTS>;

/// The state of a shard: large, so that it lives in a static of the program, which costs the
/// program's file nothing: empty tables are zeros.
#[derive(Debug)]
pub struct Tables<
    T,
    const FUNCTIONS: usize = MAX_FUNCTIONS,
    const BUSES: usize = MAX_BUSES,
    const BARS: usize = { 6 * MAX_FUNCTIONS },
> {
    slots: Vec<Slot, FUNCTIONS>,
    buses: Vec<Bus, BUSES>,
    order: Vec<BarKey, BARS>,
    assignments: Assignments<T>,
    events: Events,
    views: Views,
    /// By assignment slot.
    masks: [Masks; MAX_ASSIGNMENTS],
    ports: Ports,
    /// What goes on besides jobs of devices.
    later: Later<T>,
}

impl<T, const FUNCTIONS: usize, const BUSES: usize, const BARS: usize>
    Tables<T, FUNCTIONS, BUSES, BARS>
{
    /// Empty tables.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            slots: Vec::new(),
            buses: Vec::new(),
            order: Vec::new(),
            assignments: Vec::new(),
            events: Events::new(),
            views: Views::new(),
            masks: [const { Masks::new() }; MAX_ASSIGNMENTS],
            ports: Ports::new(),
            later: Later::new(),
        }
    }

    /// The memory, for a shard.
    pub fn lend(&mut self) -> Lent<'_, T> {
        Lent {
            slots: &mut self.slots,
            buses: &mut self.buses,
            order: &mut self.order,
            assignments: &mut self.assignments,
            events: &mut self.events,
            views: &mut self.views,
            masks: &mut self.masks,
            ports: &mut self.ports,
            later: &mut self.later,
        }
    }
}

impl<T, const FUNCTIONS: usize, const BUSES: usize, const BARS: usize> Default
    for Tables<T, FUNCTIONS, BUSES, BARS>
{
    fn default() -> Self {
        Self::new()
    }
}

/// Memory of [`Tables`], lent to a shard.
#[derive(Debug)]
pub struct Lent<'a, T> {
    slots: &'a mut VecView<Slot>,
    buses: &'a mut VecView<Bus>,
    order: &'a mut BarOrder,
    assignments: &'a mut Assignments<T>,
    events: &'a mut Events,
    views: &'a mut Views,
    masks: &'a mut [Masks; MAX_ASSIGNMENTS],
    ports: &'a mut Ports,
    later: &'a mut Later<T>,
}

/// What takes longer than a request, besides the jobs of devices.
#[derive(Debug)]
struct Later<T> {
    bus_resets: Vec<BusReset<T>, MAX_BUS_RESETS>,
    enabling: Vec<Enabling<T>, MAX_ENABLING>,
    removals: Vec<Removal<T>, MAX_REMOVALS>,
    scan: Option<Scan<T>>,
    /// Functions that have come since the boot.
    arrived: u32,
    /// Functions that have gone.
    departed: u32,
}

impl<T> Later<T> {
    const fn new() -> Self {
        Self {
            bus_resets: Vec::new(),
            enabling: Vec::new(),
            removals: Vec::new(),
            scan: None,
            arrived: 0,
            departed: 0,
        }
    }
}

/// One shard of the pci-server.
pub struct Shard<'a, E: Env> {
    env: E,
    info: &'a PciInfo,
    clients: &'a [ClientEntry],
    devices: Table<'a>,
    assignments: &'a mut Assignments<<E as Parking>::Ticket>,
    events: &'a mut Events,
    views: &'a mut Views,
    masks: &'a mut [Masks; MAX_ASSIGNMENTS],
    ports: &'a mut Ports,
    later: &'a mut Later<<E as Parking>::Ticket>,
    /// Assignments with a job, one bit each.
    jobs: u64,
    /// Where the search for a due job goes on.
    turn: u16,
    /// When the timer runs out, if it was armed for a job.
    armed: Option<u64>,
    /// Where functions have come or gone since the isolation groups were formed.
    regroup: Regroup,
    /// What bridges said then.
    claims: Claims,
    /// The iommu-server may have more reports of trouble.
    trouble: bool,
    /// The msi-server may have more reports of lines.
    line_trouble: bool,
    /// Clients that are being taken down, one bit each.
    gone: u32,
    /// Revocations that the supervisor waits for.
    owed: u16,
    operations: u64,
    refused: u64,
}

const _: () = assert!(MAX_ASSIGNMENTS <= 64);
const _: () = assert!(system::model::MAX_CLIENTS <= 32);

impl<'a, E: Env> Shard<'a, E> {
    /// Finds the devices of the shard's buses and brings them to rest ([`boot::fill`]). Where the ledger says that this
    /// was done in an earlier life, what was held then is held, and only the others are brought to rest
    /// ([`recover`]).
    ///
    /// The memory is as it was made: empty.
    pub fn boot(
        mut env: E,
        info: &'a PciInfo,
        clients: &'a [ClientEntry],
        memory: Lent<'a, <E as Parking>::Ticket>,
    ) -> Self {
        let Lent {
            slots,
            buses,
            order,
            assignments,
            events,
            views,
            masks,
            ports,
            later,
        } = memory;
        let mut devices = Table::new(slots, buses);
        assignments.clear();
        while assignments.push(Assignment::new()).is_ok() {}
        let is_again = notes::begin(&mut env);
        let is_restart = notes::is_complete(&env);
        if is_restart {
            recover::enter_held(&mut env, info, clients, &mut devices, assignments);
        } else if is_again {
            // Nothing was noted before the first start began.
            notes::wipe(&mut env);
            recover::take_everything(&mut env);
        }
        recover::end_sizing(&mut env, info, &devices);
        let claims = boot::fill(&mut env, info, clients, &mut devices, order);
        ports.clear();
        *later = Later::new();
        let mut shard = Self {
            env,
            info,
            clients,
            devices,
            assignments,
            events,
            views,
            masks,
            ports,
            later,
            jobs: 0,
            turn: 0,
            armed: None,
            regroup: Regroup::Nothing,
            claims,
            trouble: false,
            line_trouble: false,
            gone: 0,
            owed: 0,
            operations: 0,
            refused: 0,
        };
        if is_restart {
            shard.recall_authority();
        }
        shard.start(is_restart);
        if is_restart {
            shard.resume();
        }
        notes::complete(&mut shard.env);
        shard
    }

    /// Reports every function to people, in a line each. Apart from [`Self::boot`], since lines cost more
    /// than what they tell of.
    pub fn report(&mut self) {
        boot::report_all(&mut self.env, &self.devices);
    }

    /// What is left of a shard that ends.
    pub fn into_env(self) -> E {
        self.env
    }

    /// What the shard was made with.
    pub const fn env(&self) -> &E {
        &self.env
    }

    /// What the shard was made with.
    pub const fn env_mut(&mut self) -> &mut E {
        &mut self.env
    }

    /// The devices.
    pub const fn devices(&self) -> &Table<'a> {
        &self.devices
    }

    /// The client that calls.
    fn client(&self, call: Call) -> Result<ClientId, Refusal> {
        let index = call.badge.index;
        if usize::from(index) >= self.clients.len() {
            return Err(Refusal::new(Rule::UnknownBadge, call.badge.to_word()));
        }
        if self.gone >> index & 1 != 0 {
            return Err(Rule::ClientGone.into());
        }
        Ok(ClientId(index))
    }

    /// The `n`-th device in ascending order of addresses.
    fn nth(&self, n: u32) -> Result<&Device, Refusal> {
        let index = self.devices.nth(n).ok_or(Rule::EndOfList)?;
        Ok(self.devices.get(index).ok_or(Rule::EndOfList)?)
    }

    /// A device that is granted to the client. That others exist is not told: what is not granted
    /// and what does not exist are refused alike.
    fn granted(&self, client: ClientId, at: Sbdf) -> Result<Index, Refusal> {
        let about = u64::from(at.to_bits());
        let inside = self.info.ecam.iter().any(|window| {
            window.segment == at.segment()
                && (window.first_bus..=window.last_bus).contains(&at.bus())
        });
        if !inside {
            return Err(Refusal::new(Rule::OutsideShard, about));
        }
        let is_granted = |index: &Index| {
            (self.devices.get(*index)).is_some_and(|device| device.is_granted(client.0))
        };
        match self.devices.find(at) {
            Some(index) if is_granted(&index) => Ok(index),
            None if self.names(client, at) => Err(Refusal::new(Rule::NoSuchDevice, about)),
            _ => Err(Refusal::new(Rule::NotGranted, about)),
        }
    }

    /// Does the description grant this very address to the client?
    fn names(&self, client: ClientId, at: Sbdf) -> bool {
        use system::model::DeviceMatch::Address;
        self.clients
            .get(usize::from(client.0))
            .is_some_and(|client| client.devices.contains(&Address(at.to_bits())))
    }

    /// The assignment that a device capability stands for, with its device, if the capability allows what is needed.
    #[inline]
    fn held_for(&self, badge: Badge, need: Need) -> Result<(&Hold<E::Ticket>, &Device), Refusal> {
        let hold = match self.assignments.get(usize::from(badge.index)) {
            Some(Assignment {
                generation,
                hold: Some(hold),
                ..
            }) if *generation == badge.generation => hold,
            // The number of a view is above that of the assignment.
            _ => return self.held_narrowly(badge, need),
        };
        self.in_use(badge, hold)
    }

    /// [`Self::held_for`] what no narrowed capability allows.
    #[inline]
    fn held(&self, badge: Badge) -> Result<(&Hold<E::Ticket>, &Device), Refusal> {
        self.held_for(badge, Need::Everything)
    }

    /// The device of a hold, if it can be worked on.
    #[inline(always)]
    fn in_use<'s>(
        &'s self,
        badge: Badge,
        hold: &'s Hold<E::Ticket>,
    ) -> Result<(&'s Hold<E::Ticket>, &'s Device), Refusal> {
        let stale = || Refusal::new(Rule::StaleCapability, badge.to_word());
        let device = self.devices.get(hold.device).ok_or_else(stale)?;
        match device.state {
            DeviceState::Assigned => Ok((hold, device)),
            DeviceState::Resetting => Err(device.refusal(Rule::DeviceBusy)),
            // The capability is revoked; this was on its way already.
            _ => Err(stale()),
        }
    }

    /// [`Self::held_for`], to change the hold.
    fn held_mut(&mut self, badge: Badge, need: Need) -> Result<Parts<'_, E>, Refusal> {
        self.held_for(badge, need)?;
        self.parts(slot_of(badge))
            .ok_or(Refusal::new(Rule::StaleCapability, badge.to_word()))
    }

    /// An assignment in use, its device, and the environment.
    fn parts(&mut self, assignment: u16) -> Option<Parts<'_, E>> {
        let hold = self
            .assignments
            .get_mut(usize::from(assignment))?
            .hold
            .as_mut()?;
        let device = self.devices.get_mut(hold.device)?;
        Some(Parts {
            env: &mut self.env,
            hold,
            device,
            masks: self.masks.get_mut(usize::from(assignment))?,
        })
    }

    /// Refuses window slots that the client does not have.
    fn check_window(&self, client: ClientId, slot: u16, count: u16) -> Result<(), Refusal> {
        let entry = self
            .clients
            .get(usize::from(client.0))
            .filter(|entry| entry.window != 0)
            .ok_or(Rule::NoWindow)?;
        let end = u32::from(slot) + u32::from(count);
        let size = 1u32.checked_shl(u32::from(entry.window_bits)).unwrap_or(0);
        if end > size {
            return Err(Refusal::new(Rule::WindowSlotOutOfRange, u64::from(end) - 1));
        }
        Ok(())
    }

    /// What an assignment of the device promises; none where no IOMMU confines it.
    fn promise(&mut self, client: ClientId, index: Index) -> Result<Properties, Refusal> {
        // What an assignment would be refused for is told by asking for one.
        let vectors = self.reserved_vectors(client, index).unwrap_or(0);
        let device = self.devices.get(index).ok_or(Rule::NoSuchDevice)?;
        let (at, reset) = (device.at, device.reset);
        let properties = if self.info.iommu_present {
            self.env.promise(at).map_err(from_below)?
        } else {
            Properties::default()
        };
        Ok(Properties {
            reset,
            vectors,
            ..properties
        })
    }
}

/// An assignment with what is needed to work on it.
struct Parts<'s, E: Env> {
    env: &'s mut E,
    hold: &'s mut Hold<E::Ticket>,
    device: &'s mut Device,
    masks: &'s mut Masks,
}

/// What a refusal of a server below means to the caller: rules about the caller's own quota, window or
/// arguments are passed on, others are named as coming from below.
fn from_below(refusal: Refusal) -> Refusal {
    match refusal.rule {
        Rule::WindowSlotOutOfRange
        | Rule::WindowSlotOccupied
        | Rule::NoWindow
        | Rule::VectorQuota
        | Rule::VectorsExhausted
        | Rule::MeteredExhausted
        | Rule::NotMetered
        | Rule::NoSuchCore
        | Rule::NoInterruptRoute
        | Rule::LineFull
        | Rule::BadMessageCount
        | Rule::TablesExhausted
        | Rule::DomainsExhausted
        | Rule::SlotsExhausted
        | Rule::InvalidationTimeout
        | Rule::ReservedRegion
        | Rule::NoSuchContext
        | Rule::RemapExhausted
        | Rule::Restarted
        | Rule::ClientGone => refusal,
        rule => Refusal::new(Rule::Downstream, rule as u64),
    }
}
