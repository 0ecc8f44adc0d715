//! [`Badge`]: what the kernel tells a server about the capability that was
//! invoked. 28 bits, the least that any supported kernel carries:
//! kind 4 | generation 12 | index 12.

/// Largest generation; after it a slot starts again at 1.
pub const MAX_GENERATION: u16 = 0xfff;
/// Largest index.
pub const MAX_INDEX: u16 = 0xfff;

/// What a badged capability stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BadgeKind {
    /// A client's way to a server; index = client id.
    Client = 1,
    /// "I hold this device"; index = the shard's assignment slot.
    Device = 2,
    /// A DMA buffer; index = the shard's buffer slot.
    Buffer = 3,
    /// A pci-server shard's way to the servers below it; index = shard.
    Shard = 4,
    /// The supervisor's way to a server.
    Supervisor = 5,
    /// A PD's way to the root task's services (supervisor, console, timer);
    /// index = PD number.
    Pd = 6,
    /// Not a capability of a client: a signal on the server's own
    /// notification. The low 24 bits are flags that the kernel ORs together.
    Event = 7,
    /// A PD's fault, on the supervisor's endpoint; index = PD number.
    Fault = 8,
    /// A client's way to look at a server, and to change nothing: dumps,
    /// figures; index = client id.
    Inspect = 9,
    /// A client's way to administer the platform: scan again, remove a
    /// device; index = client id.
    Admin = 10,
}

/// A decoded badge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Badge {
    /// What the capability stands for.
    pub kind: BadgeKind,
    /// Which life of the slot it belongs to; a stale one cannot match.
    pub generation: u16,
    /// Which slot, client, shard or PD.
    pub index: u16,
}

impl Badge {
    /// A badge; `generation` and `index` are cut to 12 bits.
    #[must_use]
    pub const fn new(kind: BadgeKind, generation: u16, index: u16) -> Self {
        Self {
            kind,
            generation: generation & MAX_GENERATION,
            index: index & MAX_INDEX,
        }
    }

    /// The badge of client, shard or PD number `index` (generation 0).
    #[must_use]
    pub const fn plain(kind: BadgeKind, index: u16) -> Self {
        Self::new(kind, 0, index)
    }

    /// The kernel's form.
    #[inline(always)]
    #[must_use]
    pub const fn to_word(self) -> u64 {
        (self.kind as u64) << 24 | (self.generation as u64) << 12 | self.index as u64
    }

    /// From the kernel's form; `None` for a kind that does not exist or bits
    /// above 28.
    #[inline(always)]
    #[must_use]
    pub fn from_word(word: u64) -> Option<Self> {
        // No kind has bits above the four that there are for it.
        let kind = match word >> 24 {
            1 => BadgeKind::Client,
            2 => BadgeKind::Device,
            3 => BadgeKind::Buffer,
            4 => BadgeKind::Shard,
            5 => BadgeKind::Supervisor,
            6 => BadgeKind::Pd,
            7 => BadgeKind::Event,
            8 => BadgeKind::Fault,
            9 => BadgeKind::Inspect,
            10 => BadgeKind::Admin,
            _ => return None,
        };
        Some(Self {
            kind,
            generation: (word >> 12) as u16 & MAX_GENERATION,
            index: word as u16 & MAX_INDEX,
        })
    }

    /// Does the kernel's form say this kind?
    #[inline(always)]
    #[must_use]
    pub const fn is(word: u64, kind: BadgeKind) -> bool {
        word >> 24 == kind as u64
    }

    /// The flags of an [`BadgeKind::Event`] word, or `None` for another kind.
    #[inline(always)]
    #[must_use]
    pub const fn event_flags(word: u64) -> Option<u64> {
        if word >> 24 == BadgeKind::Event as u64 {
            Some(word & 0xff_ffff)
        } else {
            None
        }
    }

    /// The word of an event with these flags (24 bits).
    #[must_use]
    pub const fn event(flags: u64) -> u64 {
        (BadgeKind::Event as u64) << 24 | (flags & 0xff_ffff)
    }
}
