//! The interrupt dump: every vector with its device, message and holder, every line with who is on it, every client's
//! share ([`Inspector::dump_interrupts`]).

use core::fmt::Write;

use ipc_proto::{ClientId, Delivery, Refusal, Rule, Switch, VectorUse, msi};

use crate::{Error, Inspector, Platform};

/// Longest line.
type Text = heapless::String<160>;

/// The rows that `at` gives, to the end of the list.
fn rows<T>(
    mut at: impl FnMut(u16) -> Result<T, Refusal>,
) -> impl Iterator<Item = Result<T, Error>> {
    let mut index = Some(0u16);
    core::iter::from_fn(move || {
        let row = at(index?);
        index = match &row {
            Ok(_) => index.and_then(|index| index.checked_add(1)),
            Err(_) => None,
        };
        match row {
            Err(refusal) if refusal.rule == Rule::EndOfList => None,
            row => Some(row.map_err(Error::from)),
        }
    })
}

impl<P: Platform> Inspector<'_, P> {
    /// The vectors of msi-server shard `shard` that are not free.
    pub fn vectors(
        &self,
        shard: u8,
    ) -> impl Iterator<Item = Result<msi::VectorAtReply, Error>> + '_ {
        rows(move |index| self.msi(shard).vector_at(index))
    }

    /// The devices on interrupt lines. The first shard has the lines.
    pub fn lines(&self) -> impl Iterator<Item = Result<msi::LineAtReply, Error>> + '_ {
        rows(|index| self.msi(0).line_at(index))
    }

    /// What each client may hold, what is kept for it and what it holds, of msi-server shard `shard`, by client.
    pub fn shares(&self, shard: u8) -> impl Iterator<Item = Result<msi::ShareAtReply, Error>> + '_ {
        rows(move |index| self.msi(shard).share_at(ClientId(index)))
    }

    /// Says every vector of `shards` msi-server shards, every line and every client's share, line by line.
    ///
    /// # Errors
    /// A server's refusal.
    pub fn dump_interrupts(&self, shards: u8, mut line: impl FnMut(&str)) -> Result<(), Error> {
        let mut text = Text::new();
        // What does not fit is cut off.
        let mut say = |words: core::fmt::Arguments<'_>| {
            text.clear();
            let _ = text.write_fmt(words);
            line(&text);
        };
        for shard in 0..shards {
            for row in self.vectors(shard) {
                self.say_vector(&row?, &mut say);
            }
            for (client, share) in (0..).zip(self.shares(shard)) {
                let share = share?;
                let name = self.client_name(ClientId(client));
                say(format_args!(
                    "shard {shard}: {name} has {} vectors of {}, {} kept free for it",
                    share.used, share.quota, share.reserved
                ));
            }
            let figures = self.msi(shard).figures()?;
            say(format_args!(
                "shard {shard}: {} vectors, {} free, {} signals that nobody was bound to",
                figures.vectors, figures.free, figures.absorbed
            ));
        }
        for row in self.lines() {
            let row = row?;
            let name = self.client_name(row.client);
            let waits = match row.waits {
                Switch::On => ", not acknowledged",
                Switch::Off => "",
            };
            say(format_args!(
                "line {} vector {} raised {} times: {} of {name}{waits}",
                row.line, row.vector, row.raised, row.device
            ));
        }
        Ok(())
    }

    fn say_vector(&self, row: &msi::VectorAtReply, say: &mut impl FnMut(core::fmt::Arguments<'_>)) {
        let (number, data) = (row.vector, row.data);
        match row.purpose {
            VectorUse::Message => {
                say(format_args!(
                    "vector {number} data {data:#04x} core {}: message {} of {} for {}",
                    row.core,
                    row.message,
                    row.device,
                    self.client_name(row.client)
                ));
                self.say_message(row, say);
                match (row.delivery, row.passed) {
                    (Delivery::Direct, _) => say(format_args!(
                        "  delivered by the kernel, to what its holder has bound: nobody counts"
                    )),
                    (Delivery::Metered, Switch::On) => say(format_args!(
                        "  metered: signals {:#x}, raised {} times",
                        row.flags, row.raised
                    )),
                    (Delivery::Metered, Switch::Off) => say(format_args!(
                        "  metered: signals {:#x}, raised {} times, and switched off since: too often",
                        row.flags, row.raised
                    )),
                }
            }
            VectorUse::Kept => say(format_args!(
                "vector {number} data {data:#04x}: message {} of {}, which does not obey",
                row.message, row.device
            )),
            VectorUse::Line => say(format_args!("vector {number}: an interrupt line")),
            VectorUse::Server => say(format_args!("vector {number}: a server's own")),
            VectorUse::Lost => say(format_args!("vector {number}: lost")),
        }
    }

    /// The message as the device has it. One that is in a reset, or gives its messages back just now, is passed over.
    fn say_message(
        &self,
        row: &msi::VectorAtReply,
        say: &mut impl FnMut(core::fmt::Arguments<'_>),
    ) {
        let at = row.device;
        let owner = |&&(_, segment, first, last): &&(u8, u16, u8, u8)| {
            segment == at.segment() && (first..=last).contains(&at.bus())
        };
        let Some((shard, ..)) = self.info().pci.iter().find(owner) else {
            return;
        };
        if let Ok(now) = self.pci(*shard).message_at(at, row.message) {
            let state = |switch, word| if switch == Switch::On { word } else { "" };
            say(format_args!(
                "  programmed: {:#x} to {:#x}{}{}",
                now.data,
                now.address,
                state(now.masked, ", masked"),
                state(now.pending, ", pending")
            ));
        }
    }

    fn client_name(&self, client: ClientId) -> &str {
        let name = self.info().clients.get(usize::from(client.0));
        name.map_or("nobody known", |name| name.as_str())
    }
}
