//! What clients have been told by replies, kept apart from all servers: the
//! yardstick of [`crate::rules`].

use std::collections::{BTreeMap, BTreeSet};

use ipc_proto::{Access, Badge};

/// How sure something is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Tense {
    /// It was given and nobody has asked to take it back: it must work.
    Given,
    /// It is being taken back: it may work.
    Leaving,
}

/// A device that a client holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Device {
    /// Badge of its capability.
    pub badge: Badge,
    /// Context of its requests.
    pub context: u16,
    /// What its first BAR decoded when it was assigned: first address, and the one after the last.
    pub registers: (u64, u64),
    /// Given or leaving.
    pub tense: Tense,
}

/// Where a buffer is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mapping {
    /// First address for devices.
    pub iova: u64,
    /// What they may do.
    pub access: Access,
    /// In which context.
    pub context: u16,
}

/// A buffer of a client, its own or imported.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Buffer {
    /// Badge of its capability.
    pub badge: Badge,
    /// Physical addresses of its pages.
    pub pages: Vec<u64>,
    /// The badge of what was imported.
    pub origin: Option<Badge>,
    /// Where it is mapped.
    pub mapping: Option<Mapping>,
}

/// A request that has no answer yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wait {
    /// For the release of a device.
    Release(usize),
    /// For its reset.
    Reset(usize),
    /// For a bus reset by way of a device.
    BusReset(usize),
    /// For something that changes nothing of this.
    Other,
}

/// What becomes of a client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Life {
    /// It runs.
    Alive,
    /// It is stopped, and pci-server takes its devices back.
    Dying,
    /// Nothing of it is left.
    Gone,
}

/// A client.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Client {
    /// What becomes of it.
    pub life: Life,
    /// Its devices, by number.
    pub devices: BTreeMap<usize, Device>,
    /// Its buffers, by the place that it has chosen.
    pub buffers: BTreeMap<u16, Buffer>,
    /// The request it waits in, by ticket.
    pub waits: Option<(u32, Wait)>,
}

/// All clients.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Told {
    /// By number.
    pub clients: Vec<Client>,
    /// Messages that a device was ever set up to send: device, address, data.
    pub messages: BTreeSet<(usize, u64, u32)>,
}

impl Told {
    /// Nothing, of so many.
    #[must_use]
    pub fn new(clients: u16) -> Self {
        let client = Client {
            life: Life::Alive,
            devices: BTreeMap::new(),
            buffers: BTreeMap::new(),
            waits: None,
        };
        Self {
            clients: vec![client; usize::from(clients)],
            messages: BTreeSet::new(),
        }
    }

    /// A client.
    pub fn of(&mut self, client: u16) -> &mut Client {
        &mut self.clients[usize::from(client)]
    }

    /// Who holds a device, or has it taken back just now.
    #[must_use]
    pub fn holder(&self, device: usize) -> Option<(u16, Device)> {
        let mut clients = (0..).zip(&self.clients);
        clients.find_map(|(number, client)| Some((number, *client.devices.get(&device)?)))
    }

    /// A device was taken back.
    pub fn forget_device(&mut self, device: usize) {
        for client in &mut self.clients {
            client.devices.remove(&device);
        }
    }

    /// A buffer is gone, and with it all that was imported from it.
    pub fn forget_buffer(&mut self, badge: Badge) {
        for client in &mut self.clients {
            client
                .buffers
                .retain(|_, buffer| buffer.badge != badge && buffer.origin != Some(badge));
        }
    }

    /// A client is gone.
    pub fn bury(&mut self, client: u16) {
        let badges: Vec<Badge> = self
            .of(client)
            .buffers
            .values()
            .map(|buffer| buffer.badge)
            .collect();
        badges
            .into_iter()
            .for_each(|badge| self.forget_buffer(badge));
        let client = self.of(client);
        client.devices.clear();
        client.life = Life::Gone;
        client.waits = None;
    }
}
