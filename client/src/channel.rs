//! [`Channel`]: this PD's end of a channel that the system description names
//! between it and another client. Over it the two hand each other capabilities,
//! DMA buffers above all, and signal each other. Neither waits for the other,
//! and no server is asked.
//!
//! A buffer that is taken out of a channel is a share: the same memory, for this
//! PD's devices in this PD's context. It ends when it is freed, when its owner
//! frees the buffer, or with either client; then nothing of this PD and none of
//! its devices reaches the memory any more.

use system::info::ChannelEnd;
use system::layout::{MAILBOX_BITS, event};

use crate::device::clear;
use crate::{Buffer, Client, Error, Narrowed, Platform, Run};

/// Capabilities that each end can have on their way.
pub const POSTED_MAX: u16 = 1 << (MAILBOX_BITS - 1);

/// The kernel's error for an empty slot where a capability was to be taken from.
const EMPTY: u64 = 6;
/// The kernel's error for a slot that is taken.
const TAKEN: u64 = 8;

/// An end of a channel.
pub struct Channel<'c, 'p, P: Platform> {
    client: &'c Client<'p, P>,
    end: &'p ChannelEnd,
    number: usize,
}

impl<'p, P: Platform> Client<'p, P> {
    /// This PD's end of the channel of this name, if the system description gives it one.
    pub fn channel(&self, name: &str) -> Option<Channel<'_, 'p, P>> {
        let mut ends = self.info().channels.iter().enumerate();
        let (number, end) = ends.find(|(_, end)| end.name == name)?;
        Some(Channel {
            client: self,
            end,
            number,
        })
    }
}

impl<'c, 'p, P: Platform> Channel<'c, 'p, P> {
    /// The flag by which the other end's signals arrive: for [`Client::wait_for`].
    pub fn flag(&self) -> u64 {
        event::CHANNEL << self.number
    }

    /// Signals the other end. Several signals may arrive as one.
    pub fn signal(&self) {
        self.client.platform().signal(self.end.signal.into());
    }

    /// Gives the other end a share of the buffer ([`Client::shared_buffer`]), and signals it.
    ///
    /// # Errors
    /// [`Error::ChannelFull`], or the kernel's.
    pub fn give(&self, buffer: &Buffer<'_, 'p, P>) -> Result<(), Error> {
        self.give_slot(buffer.slot())
    }

    /// Hands the other end a narrowed capability of a device, and signals it.
    ///
    /// # Errors
    /// [`Error::ChannelFull`], or the kernel's.
    pub fn give_narrowed(&self, narrowed: &Narrowed<'_, 'p, P>) -> Result<(), Error> {
        self.give_slot(narrowed.slot())
    }

    /// Hands the other end a copy of the capability in a window slot, whatever it is, and signals it.
    ///
    /// # Errors
    /// [`Error::ChannelFull`], or the kernel's.
    pub fn give_slot(&self, window_slot: u16) -> Result<(), Error> {
        let platform = self.client.platform();
        for place in half(self.end.side) {
            match platform.post(self.end.mailbox.into(), place, window_slot) {
                Ok(()) => {
                    self.signal();
                    return Ok(());
                }
                Err(error) if error.code == TAKEN => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::ChannelFull)
    }

    /// Takes the next buffer that the other end gave, if there is one.
    ///
    /// # Errors
    /// It was no buffer, it is gone already, or there is no room; it is not in the channel any more all the same.
    pub fn take(&self) -> Result<Option<Buffer<'c, 'p, P>>, Error> {
        let Some(run) = self.fetch()? else {
            return Ok(None);
        };
        let address = self.client.platform().window_address(run.first);
        let buffer = Buffer::import(self.client, address);
        // The share has a capability of its own.
        clear(self.client, run);
        buffer.map(Some)
    }

    /// Takes the next capability that the other end gave, if there is one, as a device's.
    ///
    /// # Errors
    /// [`Error::WindowFull`], or the kernel's.
    pub fn take_narrowed(&self) -> Result<Option<Narrowed<'c, 'p, P>>, Error> {
        let run = self.fetch()?;
        Ok(run.map(|run| Narrowed::received(self.client, run)))
    }

    fn fetch(&self) -> Result<Option<Run>, Error> {
        let window = self.client.window();
        let run = window.take(1).ok_or(Error::WindowFull(1))?;
        let platform = self.client.platform();
        let mut outcome = Ok(None);
        for place in half(1 - self.end.side.min(1)) {
            match platform.fetch(self.end.mailbox.into(), place, run.first) {
                Ok(()) => return Ok(Some(run)),
                Err(error) if error.code == EMPTY => {}
                Err(error) => outcome = Err(error.into()),
            }
        }
        window.give_back(run);
        outcome
    }
}

/// Where the end of a side posts.
fn half(side: u8) -> core::ops::Range<u16> {
    let first = u16::from(side) * POSTED_MAX;
    first..first + POSTED_MAX
}
