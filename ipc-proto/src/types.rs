//! One-word argument types. [`Word`] turns each into a message word and
//! back; a word that is no value of the type is refused.

use hw::Sbdf;

/// A value that travels in one message word.
pub trait Word: Sized {
    /// The word.
    fn to_word(self) -> u64;
    /// The value, or `None` when the word is none.
    fn from_word(word: u64) -> Option<Self>;
}

macro_rules! integer_words {
    ($($ty:ty),+) => {$(
        impl Word for $ty {
            #[inline(always)]
            fn to_word(self) -> u64 { u64::from(self) }
            #[inline(always)]
            fn from_word(word: u64) -> Option<Self> { Self::try_from(word).ok() }
        }
    )+};
}
integer_words!(u8, u16, u32, u64);

impl Word for Sbdf {
    fn to_word(self) -> u64 {
        u64::from(self.to_bits())
    }
    fn from_word(word: u64) -> Option<Self> {
        u32::try_from(word).ok().map(Self::from_bits)
    }
}

macro_rules! enum_words {
    ($($(#[$meta:meta])+ $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $code:literal,)+ })+) => {$(
        $(#[$meta])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $doc])+ $variant = $code,)+ }

        impl Word for $name {
            #[inline(always)]
            fn to_word(self) -> u64 { self as u64 }
            #[inline(always)]
            fn from_word(word: u64) -> Option<Self> {
                match word { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    )+};
}

enum_words! {
    /// Width of a configuration access.
    Width {
        /// 1 byte
        Byte = 1,
        /// 2 bytes
        Word = 2,
        /// 4 bytes
        Dword = 4,
    }
    /// On or off.
    Switch {
        /// off
        Off = 0,
        /// on
        On = 1,
    }
    /// Where a device is in its life (see the design's state machine).
    DeviceState {
        /// not there (any more)
        Absent = 0,
        /// blocked, without a holder, can be assigned
        Quarantined = 1,
        /// on the way to a holder
        Assigning = 2,
        /// held
        Assigned = 3,
        /// being taken back from its holder
        Draining = 4,
        /// in a reset
        Resetting = 5,
        /// did not come back; blocked for good
        Broken = 6,
        /// kept by the platform or by the description
        Withheld = 7,
    }
    /// What a BAR is.
    BarKind {
        /// none
        None = 0,
        /// I/O ports
        Io = 1,
        /// memory, 32-bit address
        Memory32 = 2,
        /// memory, 64-bit address
        Memory64 = 3,
    }
    /// How a device signals.
    Mechanism {
        /// message-signalled interrupts (PCI 3.0, 6.8.1)
        Msi = 1,
        /// MSI-X (PCI 3.0, 6.8.2)
        MsiX = 2,
    }
    /// Which reset a device has.
    ResetKind {
        /// none
        None = 0,
        /// PCI Express function-level reset
        Flr = 1,
        /// Advanced Features function-level reset
        AfFlr = 2,
        /// D3hot to D0
        PowerCycle = 3,
        /// secondary bus reset, of all functions behind the port
        Bus = 4,
    }
    /// Which context of its client a device is attached to.
    ContextChoice {
        /// the one that all devices of the client share
        Shared = 0,
        /// one of its own
        Private = 1,
    }
    /// What ties a function to the others of its isolation group.
    GroupTie {
        /// nothing: it can be isolated from every other
        Alone = 0,
        /// a function of the same device, and nothing keeps them from reaching each other
        MultiFunction = 1,
        /// below a bridge to a conventional bus, which takes its requester id
        ConventionalBus = 2,
        /// below a port that lets requests go from one device to another (no ACS)
        PortWithoutAcs = 3,
        /// it uses the requester id of another function
        Alias = 4,
    }
    /// What happened.
    EventKind {
        /// a device that is granted to the client has come
        Added = 1,
        /// a device is gone; if the client held it, it has been taken back
        Removed = 2,
        /// somebody wants to pull the device out: release it, it is taken back after `detail` microseconds
        RemovalRequested = 3,
        /// the device was reset by another's request (bus reset); configuration is restored
        Reset = 4,
        /// the IOMMU blocked requests of the device: `detail` of them since the last such event; the iommu-server has the records
        Fault = 5,
        /// the device or its link reported an error (AER): `detail` is a `DeviceError`
        Error = 6,
        /// the device was taken away: it did not come back, or did not obey; `detail` is the rule
        Broken = 7,
        /// too many faults: bus mastering was switched off; `detail` is their number
        Storm = 8,
        /// something the client holds has reached its quota; `detail` is the quota
        Quota = 9,
        /// the device's interrupt line was switched off: nobody acknowledged it in time (`detail` 0), or it was raised too
        /// often (`detail`: how often within a tenth of a second)
        LineOff = 10,
        /// a metered message was switched off because it came too often; `detail` is its number, and in the upper half how
        /// often it came since it was let come. Unmasking it lets it come again
        MessageOff = 11,
    }
    /// How messages come to their holder.
    Delivery {
        /// from the kernel: no server is on the way
        Direct = 0,
        /// through the msi-server, which counts them and passes no more on than the description allows (`interrupt_rate`)
        Metered = 1,
    }
    /// What an interrupt vector is used for.
    VectorUse {
        /// messages of a held device
        Message = 1,
        /// a line of the I/O APIC
        Line = 2,
        /// a server's own: a unit's fault event, the timer, ports
        Server = 3,
        /// messages of a device that does not obey, whose holder is gone: nobody gets them
        Kept = 4,
        /// none: the kernel did not take it back
        Lost = 5,
    }
    /// Which list a capability is in.
    CapabilityListKind {
        /// the first 256 bytes (PCI 3.0, 6.7)
        Standard = 0,
        /// beyond them (PCIe 5.0, 7.6.3)
        Extended = 1,
    }
    /// What of configuration space a narrowed capability may touch.
    ConfigRight {
        /// nothing
        None = 0,
        /// reading
        Read = 1,
        /// reading, and writing what the policy allows
        Write = 2,
    }
    /// Why nobody gets a device.
    WithheldCode {
        /// it is not withheld
        No = 0,
        /// host bridge
        HostBridge = 1,
        /// bridge
        Bridge = 2,
        /// part of the chipset
        Chipset = 3,
        /// an IOMMU's function
        Iommu = 4,
        /// by the system description
        Description = 5,
        /// it breaks a rule of the specification; the shard's log says which
        Malformed = 6,
        /// the console's serial line
        Console = 7,
        /// a physical function whose virtual functions the platform hands out
        Platform = 8,
    }
    /// What is wrong with a device, as the iommu-server sees it.
    Trouble {
        /// more faults than the bound
        FaultStorm = 1,
        /// no answer to the invalidation of its translation cache
        DeviceTlbTimeout = 2,
        /// blocked requests of a device that somebody holds
        Fault = 3,
    }
    /// What a device may do with a buffer.
    Access {
        /// device reads memory
        Read = 1,
        /// device writes memory
        Write = 2,
        /// both
        ReadWrite = 3,
    }
    /// Which pages a buffer is made of.
    PagePreference {
        /// 4 KiB pages
        Small = 0,
        /// 2 MiB pages where the size allows it
        Large = 1,
    }
}

impl Access {
    /// Does it include reading?
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }
    /// Does it include writing?
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

/// [`crate::pci`]'s `Topology`: firmware names no proximity domain.
pub const NO_PROXIMITY: u32 = u32::MAX;

/// `iova` argument of [`crate::iommu`]'s `Map`: let the server choose.
pub const ANY_IOVA: u64 = u64::MAX;

/// Some of a device's messages: the first, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Messages {
    /// Number of the first: 0 is MSI's first, or the first entry of the MSI-X table.
    pub first: u16,
    /// How many.
    pub count: u16,
}

impl Messages {
    /// The number after the last.
    #[must_use]
    pub const fn end(self) -> u32 {
        self.first as u32 + self.count as u32
    }
}

impl Word for Messages {
    fn to_word(self) -> u64 {
        u64::from(self.first) << 16 | u64::from(self.count)
    }
    fn from_word(word: u64) -> Option<Self> {
        let word = u32::try_from(word).ok()?;
        Some(Self {
            first: (word >> 16) as u16,
            count: word as u16,
        })
    }
}

/// What a refusal for want of vectors is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exhausted {
    /// Vectors that are free, though not for this request: too few, not aligned, or kept for somebody else.
    pub free: u16,
    /// The client that has most.
    pub holder: ClientId,
    /// How many it has; 0: nobody has any.
    pub held: u16,
}

impl Word for Exhausted {
    fn to_word(self) -> u64 {
        u64::from(self.held) << 32 | u64::from(self.holder.0) << 16 | u64::from(self.free)
    }
    fn from_word(word: u64) -> Option<Self> {
        Some(Self {
            free: word as u16,
            holder: ClientId::from_word(word >> 16 & 0xffff)?,
            held: u16::try_from(word >> 32).ok()?,
        })
    }
}

/// A client, by its number in the system description (order of its PD).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u16);

/// How a server has spent its time since its start, in turns of its loop: from a request or an event until it waits
/// again. What waiting costs the kernel is not in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turns {
    /// Ticks of the time-stamp counter in all turns.
    pub ticks: u64,
    /// Ticks of the longest.
    pub longest: u64,
    /// Kernel calls since the start, besides receiving, answering and requests to other servers.
    pub kernel_calls: u64,
    /// Ticks in them.
    pub kernel_ticks: u64,
    /// Requests to the servers below.
    pub requests: u64,
}

impl Word for ClientId {
    fn to_word(self) -> u64 {
        u64::from(self.0)
    }
    fn from_word(word: u64) -> Option<Self> {
        u16::try_from(word)
            .ok()
            .filter(|id| *id <= crate::MAX_INDEX)
            .map(Self)
    }
}

/// What an assignment promises. Visible, never implied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Properties {
    /// The device's DMA reaches only its holder's buffers.
    pub dma_isolated: bool,
    /// The device can raise only its own vectors, even by a DMA write.
    pub interrupts_isolated: bool,
    /// Blocked DMA is reported to the holder.
    pub faults_reported: bool,
    /// The device may cache translations (ATS); unmapping waits for it.
    pub translation_cached: bool,
    /// Which reset the device has.
    pub reset: Option<ResetKind>,
    /// Interrupt vectors that are kept for the holder and that it has not used: so many messages can be enabled whatever
    /// others do. 0 where the description keeps none for it (`reserved_vectors`): those for all may do.
    pub vectors: u16,
}

impl Word for Properties {
    fn to_word(self) -> u64 {
        u64::from(self.dma_isolated)
            | u64::from(self.interrupts_isolated) << 1
            | u64::from(self.faults_reported) << 2
            | u64::from(self.translation_cached) << 3
            | self.reset.map_or(0, ResetKind::to_word) << 8
            | u64::from(self.vectors) << 16
    }
    fn from_word(word: u64) -> Option<Self> {
        if word & !0xffff_ff0f != 0 {
            return None;
        }
        let reset = match word >> 8 & 0xff {
            0 => None,
            code => Some(ResetKind::from_word(code)?),
        };
        Some(Self {
            dma_isolated: word & 1 != 0,
            interrupts_isolated: word & 2 != 0,
            faults_reported: word & 4 != 0,
            translation_cached: word & 8 != 0,
            reset,
            vectors: (word >> 16) as u16,
        })
    }
}

/// An error that a device reported, as the `detail` of an event has it: the status bits are those of its error reporting
/// capability (PCIe 5.0, 7.8.4.2 and 7.8.4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// Hardware has corrected it.
    Correctable(u32),
    /// A transaction failed; the link and the device go on.
    NonFatal(u32),
    /// The link or the device can no longer be relied on.
    Fatal(u32),
}

impl DeviceError {
    const UNCORRECTABLE: u64 = 1 << 63;
    const FATAL: u64 = 1 << 62;

    /// The bits of the status register.
    #[must_use]
    pub const fn status(self) -> u32 {
        match self {
            Self::Correctable(status) | Self::NonFatal(status) | Self::Fatal(status) => status,
        }
    }

    /// As the `detail` of an event: bit 63 for an uncorrectable error, bit 62 with it for a fatal one, and the status.
    #[must_use]
    pub const fn to_detail(self) -> u64 {
        match self {
            Self::Correctable(status) => status as u64,
            Self::NonFatal(status) => Self::UNCORRECTABLE | status as u64,
            Self::Fatal(status) => Self::UNCORRECTABLE | Self::FATAL | status as u64,
        }
    }

    /// What a `detail` says; `None` where it is none.
    #[must_use]
    pub const fn from_detail(detail: u64) -> Option<Self> {
        let status = detail as u32;
        match (detail & !(u32::MAX as u64), status) {
            (_, 0) => None,
            (0, _) => Some(Self::Correctable(status)),
            (Self::UNCORRECTABLE, _) => Some(Self::NonFatal(status)),
            (high, _) if high == Self::UNCORRECTABLE | Self::FATAL => Some(Self::Fatal(status)),
            _ => None,
        }
    }
}
