//! [`Rule`]: every rule that a request can break, one code each, and
//! [`Refusal`]: the broken rule with what it was about.

use hw::Sbdf;

use crate::message::Message;
use crate::types::{Exhausted, Word};

/// Labels below this one (and not 0) are errors of the kernel, which answers
/// itself when a capability is gone (`seL4_Error`, 1 to 10).
pub(crate) const KERNEL_ERRORS: u64 = 16;

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal,)+) => {
        /// A rule that a request broke. The code travels as the reply's label; codes below
        /// [`KERNEL_ERRORS`] are the kernel's own errors.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Rule { $($(#[doc = $doc])+ $name = $code,)+ }

        impl Rule {
            /// Every rule, in order of code.
            pub const ALL: &'static [Rule] = &[$(Rule::$name,)+];

            /// The rule with this code.
            #[must_use]
            pub fn from_code(code: u64) -> Option<Self> {
                match code { $($code => Some(Self::$name),)+ _ => None }
            }

            /// The rule in words, as an error message says it.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => rules!(@first $($doc)+),)+ }
            }
        }
    };
    (@first $first:literal $($rest:literal)*) => { $first };
}

rules! {
    /// the operation is not in this interface
    UnknownOperation = 128,
    /// the message has another length than the operation's table says
    BadLength = 129,
    /// an argument is outside its range; the number says which
    BadArgument = 130,
    /// capabilities came along that the operation does not take
    UnexpectedCapability = 131,
    /// the operation needs a capability of this server to come along
    MissingCapability = 132,
    /// the operation is not one of this kind of capability
    WrongCapability = 133,
    /// the capability is from before a release
    StaleCapability = 134,
    /// client and server speak different versions of the contract
    VersionMismatch = 135,
    /// the badge is none that the server ever gave out
    UnknownBadge = 136,
    /// the reply makes no sense; the server and the client do not match
    BadReply = 137,
    /// there is no such capability (any more): the kernel answered itself, the number is its error
    NoCapability = 138,
    /// no more items in this list
    EndOfList = 16,
    /// there is no such device in this shard
    NoSuchDevice = 17,
    /// the system description does not grant this device to this client
    NotGranted = 18,
    /// another client holds the device
    HeldByAnother = 19,
    /// the device is already held by this client
    AlreadyHeld = 20,
    /// the device is withheld from every client
    Withheld = 21,
    /// the device is broken and stays in quarantine
    DeviceBroken = 22,
    /// the device is in the middle of a transition
    DeviceBusy = 23,
    /// the shard has no free assignment slot
    TooManyAssignments = 24,
    /// there is no IOMMU for this device and the description does not allow it unprotected
    NoIommu = 25,
    /// the device's configuration space does not make sense
    MalformedDevice = 26,
    /// the device lies outside the shard's buses
    OutsideShard = 27,
    /// another client holds a device of the same isolation group
    GroupHeld = 28,
    /// a device of the same isolation group is not granted to this client
    GroupNotGranted = 29,
    /// the holder of another function on the bus has not agreed to its reset
    NotAgreed = 30,
    /// firmware reserved memory for DMA of this device, and the description does not allow it
    ReservedRegion = 31,
    /// the register is not readable through a device capability
    RegisterHidden = 32,
    /// the register is not writable through a device capability
    RegisterReadOnly = 33,
    /// the access crosses the register space or is not aligned to its width
    BadAccess = 34,
    /// the device has no such BAR
    NoSuchBar = 35,
    /// the BAR is not memory
    NotMemoryBar = 36,
    /// the pages hold interrupt messages and are never mapped into a client
    PageWithheld = 37,
    /// the page range leaves the BAR or the buffer
    PageOutOfRange = 38,
    /// the device has no reset
    NoReset = 39,
    /// the device did not come back from its reset in time
    ResetTimeout = 40,
    /// the device has no such interrupt mechanism
    NoSuchMechanism = 41,
    /// interrupts of this device are enabled already
    InterruptsEnabled = 42,
    /// no interrupts of this device are enabled
    InterruptsDisabled = 43,
    /// the capability was narrowed: it does not allow this
    NotInRights = 44,
    /// no more narrowed capabilities within the bound
    TooManyViews = 45,
    /// the device has no virtual functions
    NoVirtualFunctions = 46,
    /// more virtual functions than the device, its bus numbers or its memory window have room for
    BadFunctionCount = 47,
    /// a virtual function of the device is held
    VirtualFunctionHeld = 51,
    /// the messages are not enabled
    MessageNotEnabled = 52,
    /// the device is not below a port whose bus can be reset
    NoBusReset = 53,
    /// the device cannot be removed: it is part of the platform
    NotRemovable = 54,
    /// the page is not withheld: map it and access it directly
    PageNotWithheld = 55,
    /// the BAR does not lie alone in large pages; the number is the BAR's
    NotLarge = 56,
    /// the device has no interrupt pin
    NoInterruptPin = 57,
    /// nobody knows which line the device's interrupt pin is wired to: `[[intx]]` in the system description says it
    NoInterruptRoute = 58,
    /// the window slot is outside the client's grant window
    WindowSlotOutOfRange = 48,
    /// the window slot is occupied
    WindowSlotOccupied = 49,
    /// the client has no grant window
    NoWindow = 50,
    /// the DMA quota of the client is used up
    DmaQuota = 64,
    /// the pool of DMA memory is used up
    DmaPoolExhausted = 65,
    /// the size is zero, not a multiple of 4 KiB or more than a buffer holds
    BadBufferSize = 66,
    /// the buffer is mapped already
    AlreadyMapped = 67,
    /// the buffer is not mapped
    NotMapped = 68,
    /// the I/O virtual address range is taken, not aligned or outside the context
    BadIova = 69,
    /// no more page tables within the bound
    TablesExhausted = 70,
    /// no more domain ids
    DomainsExhausted = 71,
    /// the unit did not confirm an invalidation in time
    InvalidationTimeout = 72,
    /// the buffer belongs to another client
    ForeignBuffer = 73,
    /// the requester id is not attached
    NotAttached = 74,
    /// the requester id is attached already
    AlreadyAttached = 75,
    /// no free buffer slot within the bound
    TooManyBuffers = 76,
    /// the client has no context: it holds no device of this unit
    NoContext = 77,
    /// no more interrupt remapping entries
    RemapExhausted = 78,
    /// the device did not answer the invalidation of its translation cache in time
    DeviceTlbTimeout = 79,
    /// the client has no context of this number
    NoSuchContext = 80,
    /// the backend cannot do this
    BackendCannot = 81,
    /// the buffer was allocated for its holder alone
    PrivateBuffer = 82,
    /// a buffer of the client may have no more bytes: its `largest_buffer`
    BufferTooLarge = 83,
    /// the vector quota of the client is used up
    VectorQuota = 96,
    /// all vectors of the shard are in use; the number holds how many are free, which client has most of
    /// them, and how many that one has ([`crate::Exhausted`])
    VectorsExhausted = 97,
    /// the number of messages is zero, not a power of two or more than the device has
    BadMessageCount = 98,
    /// a vector that the caller does not hold
    ForeignVector = 99,
    /// the device is on no interrupt line
    NotOnLine = 100,
    /// the machine has no such core
    NoSuchCore = 101,
    /// more devices share the line than there is room for
    LineFull = 102,
    /// no more vectors can be metered; the number is how many the server has room for
    MeteredExhausted = 103,
    /// the message is not metered: its handler is the holder's own
    NotMetered = 104,
    /// as many requests of this client wait already as may; the number says how many
    TooManyParked = 112,
    /// the server could not carry out a step; the number is the kernel's error
    KernelRefused = 113,
    /// the server holds no more capability slots
    SlotsExhausted = 114,
    /// the client is being taken down
    ClientGone = 115,
    /// the server below refused; the number is its rule
    Downstream = 116,
    /// the server was restarted while it served the request: ask again
    Restarted = 117,
    /// the server died too often and is not restarted: nothing it serves can be had any more
    ServerBroken = 118,
}

/// A broken rule, and the number it is about: a device's address bits, an
/// argument's position, a limit. What it means stands with the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule that was broken.
    pub rule: Rule,
    /// What it is about.
    pub about: u64,
}

impl Refusal {
    /// A refusal about something.
    #[must_use]
    pub const fn new(rule: Rule, about: u64) -> Self {
        Self { rule, about }
    }

    /// Is it worth asking again? The request was not carried out, or can be repeated as if it had not been: the server was
    /// restarted. What was refused for any other reason is refused again.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self.rule, Rule::Restarted)
    }

    /// The reply that says so.
    #[must_use]
    pub fn to_message(self) -> Message {
        let mut message = Message::new(self.rule as u64);
        // An empty message has room for one word.
        let _ = message.push(self.about);
        message
    }
}

impl From<Rule> for Refusal {
    fn from(rule: Rule) -> Self {
        Self::new(rule, 0)
    }
}

/// What a kernel's error number means (seL4 `libsel4/include/sel4/errors.h`).
#[must_use]
pub const fn kernel_error_name(number: u64) -> Option<&'static str> {
    Some(match number {
        1 => "invalid argument",
        2 => "invalid capability",
        3 => "illegal operation",
        4 => "range error",
        5 => "alignment error",
        6 => "failed lookup",
        7 => "truncated message",
        8 => "delete first",
        9 => "revoke first",
        10 => "not enough memory",
        _ => return None,
    })
}

impl Rule {
    /// Is [`Refusal::about`] a device?
    const fn is_about_device(self) -> bool {
        matches!(
            self,
            Self::NoSuchDevice
                | Self::NotGranted
                | Self::HeldByAnother
                | Self::AlreadyHeld
                | Self::Withheld
                | Self::DeviceBroken
                | Self::DeviceBusy
                | Self::NoIommu
                | Self::MalformedDevice
                | Self::GroupHeld
                | Self::GroupNotGranted
                | Self::NotAgreed
                | Self::NoReset
                | Self::ResetTimeout
                | Self::NoSuchMechanism
                | Self::InterruptsEnabled
                | Self::InterruptsDisabled
                | Self::NotInRights
                | Self::NoVirtualFunctions
                | Self::VirtualFunctionHeld
                | Self::NoBusReset
                | Self::NotRemovable
                | Self::NoInterruptPin
                | Self::NotAttached
                | Self::AlreadyAttached
                | Self::NotOnLine
        )
    }
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { rule, about } = *self;
        match u32::try_from(about) {
            // No device is what these are about where there is no number: 0000:00:00.0 is the host bridge.
            Ok(0) if rule.is_about_device() => write!(f, "{rule:?}")?,
            Ok(bits) if rule.is_about_device() => {
                write!(f, "{rule:?}({})", Sbdf::from_bits(bits))?;
            }
            _ => write!(f, "{rule:?}({about:#x})")?,
        }
        write!(f, ": {}", rule.text().trim_start())?;
        match rule {
            Rule::VectorsExhausted => match Exhausted::from_word(about) {
                Some(Exhausted { free, holder, held }) => {
                    write!(f, ": {free} free, client {} has {held}", holder.0)
                }
                None => Ok(()),
            },
            Rule::DmaQuota => write!(f, ": {about} bytes of its `dma_quota` are left"),
            Rule::VectorQuota => write!(f, ": its `vectors` are {about}"),
            Rule::BufferTooLarge => write!(f, " is {about} bytes"),
            Rule::Downstream => match Rule::from_code(about) {
                Some(below) => write!(f, " ({:?}: {})", below, below.text().trim_start()),
                None => Ok(()),
            },
            Rule::KernelRefused | Rule::NoCapability => match kernel_error_name(about) {
                Some(name) => write!(f, " ({name})"),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

impl core::error::Error for Refusal {}

/// How often [`retry`] asks: a server that is restarted more often while one request waits is given up.
pub const TRIES: u32 = 32;

/// Asks again as long as the server was restarted meanwhile ([`Refusal::is_retryable`]), at most [`TRIES`] times. Each
/// time waits until the server is there again, so there is nothing to wait for in between.
///
/// # Errors
/// The last refusal.
#[inline(always)]
pub fn retry<T>(mut ask: impl FnMut() -> Result<T, Refusal>) -> Result<T, Refusal> {
    match ask() {
        Err(refusal) if refusal.is_retryable() => retry_again(ask),
        answer => answer,
    }
}

/// The rest of [`retry`], out of the way of who is answered at once.
#[cold]
#[inline(never)]
fn retry_again<T>(mut ask: impl FnMut() -> Result<T, Refusal>) -> Result<T, Refusal> {
    let mut left = TRIES - 1;
    loop {
        left -= 1;
        match ask() {
            Err(refusal) if refusal.is_retryable() && left > 0 => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_restart_is_worth_another_try() {
        let mut asked = 0;
        let answer = retry(|| {
            asked += 1;
            if asked < 5 {
                Err(Rule::Restarted.into())
            } else {
                Ok(asked)
            }
        });
        assert_eq!(answer, Ok(5));
        for rule in Rule::ALL.iter().filter(|rule| **rule != Rule::Restarted) {
            let mut asked = 0;
            let answer: Result<(), Refusal> = retry(|| {
                asked += 1;
                Err((*rule).into())
            });
            assert_eq!((answer, asked), (Err((*rule).into()), 1));
        }
    }

    #[test]
    fn a_refusal_names_the_device_or_what_the_number_means() {
        extern crate std;
        let said = |rule, about| std::format!("{}", Refusal::new(rule, about));
        assert_eq!(
            said(Rule::GroupNotGranted, 0x1_0031),
            "GroupNotGranted(0001:00:06.1): a device of the same isolation group is not granted to this client"
        );
        assert_eq!(
            said(Rule::DeviceBusy, 0),
            "DeviceBusy: the device is in the middle of a transition"
        );
        assert_eq!(
            said(Rule::DmaQuota, 4096),
            "DmaQuota(0x1000): the DMA quota of the client is used up: 4096 bytes of its `dma_quota` are left"
        );
        assert_eq!(
            said(Rule::BufferTooLarge, 4096),
            "BufferTooLarge(0x1000): a buffer of the client may have no more bytes: its `largest_buffer` is 4096 bytes"
        );
        assert_eq!(
            said(Rule::Downstream, Rule::TablesExhausted as u64),
            "Downstream(0x46): the server below refused; the number is its rule (TablesExhausted: no more page tables within the bound)"
        );
        assert_eq!(
            said(Rule::KernelRefused, 10),
            "KernelRefused(0xa): the server could not carry out a step; the number is the kernel's error (not enough memory)"
        );
        // Whatever a server answers can be printed.
        for rule in Rule::ALL {
            for about in [0, 1, 11, u64::from(u32::MAX), u64::MAX] {
                assert!(said(*rule, about).starts_with(&std::format!("{rule:?}")));
            }
        }
    }

    #[test]
    fn a_server_that_never_comes_back_is_given_up() {
        let mut asked = 0;
        let answer: Result<(), Refusal> = retry(|| {
            asked += 1;
            Err(Rule::Restarted.into())
        });
        assert_eq!((answer, asked), (Err(Rule::Restarted.into()), TRIES));
    }
}
