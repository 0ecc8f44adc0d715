//! Narrowed capabilities. A device badge's index has two parts: the assignment slot in its low six bits and, above,
//! the number of a [`View`]; 0 stands for the whole device, so that its holder's way is not longer for it.
//!
//! A view belongs to an assignment and goes with it: every master is revoked, then its number is free.

use hw::Sbdf;
use ipc_proto::pci::{NarrowReply, ViewAtReply};
use ipc_proto::{Badge, BadgeKind, ConfigRight, Refusal, Rule, Switch, Word as _};
use ledger::Words;

use super::{Parts, Shard};
use crate::Device;
use crate::assignment::{Assignment, Hold};
use crate::env::Env;
use crate::notes;
use crate::reset::Failure;

/// Bits of a badge's index that name the assignment.
const ASSIGNMENT_BITS: u32 = 6;
const _: () = assert!(crate::MAX_ASSIGNMENTS == 1 << ASSIGNMENT_BITS);

/// Most narrowed capabilities of a shard: what is left of a badge's index, without 0.
pub const MAX_VIEWS: usize = 63;
/// Most of them for the devices of one client, so that it leaves some to others.
pub const MAX_VIEWS_OF_CLIENT: usize = 16;

/// The assignment slot that a device badge names.
#[inline(always)]
pub(super) const fn slot_of(badge: Badge) -> u16 {
    badge.index & ((1 << ASSIGNMENT_BITS) - 1)
}

/// What a capability allows. A whole one allows everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights {
    /// What of configuration space.
    pub config: ConfigRight,
    /// Which BARs, one bit each.
    pub bars: u8,
    /// How many messages.
    pub messages: u16,
    /// Bus mastering, reset, release.
    pub control: Switch,
}

impl Rights {
    const ALL: Self = Self {
        config: ConfigRight::Write,
        bars: 0x3f,
        messages: u16::MAX,
        control: Switch::On,
    };

    /// Does it allow everything that `other` does?
    fn cover(&self, other: &Self) -> bool {
        self.config as u8 >= other.config as u8
            && other.bars & !self.bars == 0
            && self.messages >= other.messages
            && self.control as u8 >= other.control as u8
    }

    fn allow(&self, need: Need) -> bool {
        match need {
            Need::Nothing => true,
            Need::ReadConfig => self.config != ConfigRight::None,
            Need::WriteConfig => self.config == ConfigRight::Write,
            Need::Bar(bar) => u32::from(self.bars)
                .checked_shr(u32::from(bar))
                .is_some_and(|bars| bars & 1 != 0),
            Need::Messages(count) => self.messages >= count.max(1),
            Need::Control => self.control == Switch::On,
            Need::Everything => false,
        }
    }
}

/// What an operation needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// To hold any capability of the device.
    Nothing,
    ReadConfig,
    WriteConfig,
    Bar(u8),
    /// So many messages.
    Messages(u16),
    Control,
    /// A capability that was not narrowed.
    Everything,
}

/// A narrowed capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct View {
    assignment: u16,
    generation: u16,
    rights: Rights,
}

impl View {
    const VALID: u64 = 1 << 63;

    fn to_word(self) -> u64 {
        let Rights {
            config,
            bars,
            messages,
            control,
        } = self.rights;
        Self::VALID
            | u64::from(self.assignment)
            | u64::from(self.generation) << 8
            | (config as u64) << 24
            | u64::from(bars) << 28
            | u64::from(messages) << 36
            | (control as u64) << 52
    }

    /// What a word says; `None` for one that says nothing.
    fn from_word(word: u64) -> Option<Self> {
        let is_ours = word & Self::VALID != 0;
        is_ours.then_some(Self {
            assignment: (word & 0xff) as u16,
            generation: (word >> 8 & 0xfff) as u16,
            rights: Rights {
                config: ConfigRight::from_word(word >> 24 & 0xf)?,
                bars: (word >> 28 & 0x3f) as u8,
                messages: (word >> 36) as u16,
                control: Switch::from_word(word >> 52 & 0xf)?,
            },
        })
    }
}

/// The narrowed capabilities of a shard.
#[derive(Debug)]
pub struct Views {
    views: [Option<View>; MAX_VIEWS],
}

impl Views {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            views: [None; MAX_VIEWS],
        }
    }

    /// The view that a badge names. Numbers begin at 1.
    fn get(&self, badge: Badge) -> Option<&View> {
        let place = usize::from(badge.index >> ASSIGNMENT_BITS).checked_sub(1)?;
        let view = self.views.get(place)?.as_ref()?;
        let same = (view.assignment, view.generation) == (slot_of(badge), badge.generation);
        same.then_some(view)
    }

    /// Forgets those with these numbers, one bit each.
    pub(super) fn forget<W: Words>(&mut self, ledger: &mut W, mut numbers: u64) {
        while numbers != 0 {
            let number = numbers.trailing_zeros() as usize;
            numbers &= numbers - 1;
            if let Some(view) = number
                .checked_sub(1)
                .and_then(|place| self.views.get_mut(place))
            {
                *view = None;
                ledger.store(notes::view(number as u16), 0);
            }
        }
    }
}

impl Default for Views {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes the device capability and every narrowed one from everybody.
pub(super) fn revoke_all<E: Env>(
    env: &mut E,
    device: &Device,
    at: u16,
    views: u64,
) -> Option<Failure> {
    let mut failure = env.revoke_device(at).err();
    let mut left = views;
    while left != 0 {
        let number = left.trailing_zeros() as u16;
        left &= left - 1;
        failure = env.revoke_view(number).err().or(failure);
    }
    let refusal = failure?;
    env.log(format_args!(
        "{} capability not revoked: {refusal}",
        device.at
    ));
    Some(Failure::NotRevoked)
}

impl<E: Env> Shard<'_, E> {
    /// Takes the narrowed capabilities up that an earlier life has noted, for holds that it has left; gives their
    /// numbers, one bit each.
    pub(super) fn recall_views(&mut self) -> u64 {
        let mut numbers = 0;
        for number in 1..=MAX_VIEWS as u16 {
            let word = self.env.load(notes::view(number));
            let view = View::from_word(word).filter(|view| {
                let assignment = self.assignments.get_mut(usize::from(view.assignment));
                let hold = assignment
                    .filter(|assignment| assignment.generation == view.generation)
                    .and_then(|assignment| assignment.hold.as_mut());
                hold.map(|hold| hold.views |= 1 << number).is_some()
            });
            match view {
                Some(_) => numbers |= 1 << number,
                None if word != 0 => self.env.store(notes::view(number), 0),
                None => {}
            }
            if let Some(place) = self.views.views.get_mut(usize::from(number) - 1) {
                *place = view;
            }
        }
        numbers
    }

    /// [`Self::held_for`] with a badge that names no assignment by itself: the rights of its view are looked at.
    #[cold]
    #[inline(never)]
    pub(super) fn held_narrowly(
        &self,
        badge: Badge,
        need: Need,
    ) -> Result<(&Hold<E::Ticket>, &Device), Refusal> {
        let stale = || Refusal::new(Rule::StaleCapability, badge.to_word());
        let view = self.views.get(badge).ok_or_else(stale)?;
        let hold = match self.assignments.get(usize::from(view.assignment)) {
            Some(Assignment {
                generation,
                hold: Some(hold),
                ..
            }) if *generation == badge.generation => hold,
            _ => return Err(stale()),
        };
        let (hold, device) = self.in_use(badge, hold)?;
        if view.rights.allow(need) {
            Ok((hold, device))
        } else {
            Err(device.refusal(Rule::NotInRights))
        }
    }

    /// Makes a narrower capability of the one with this badge and places it in the holder's window.
    pub(super) fn narrow_device(
        &mut self,
        badge: Badge,
        rights: Rights,
        slot: u16,
    ) -> Result<NarrowReply, Refusal> {
        let (hold, device) = self.held_for(badge, Need::Nothing)?;
        let (client, at) = (hold.client, slot_of(badge));
        let own = self
            .views
            .get(badge)
            .map_or(Rights::ALL, |view| view.rights);
        if rights.bars & !Rights::ALL.bars != 0 {
            return Err(Refusal::new(Rule::BadArgument, 1));
        }
        if !own.cover(&rights) {
            return Err(device.refusal(Rule::NotInRights));
        }
        self.check_window(client, slot, 1)?;
        let (of_client, free) = self.count_views(client.0);
        if of_client >= MAX_VIEWS_OF_CLIENT {
            let bound = MAX_VIEWS_OF_CLIENT as u64;
            return Err(Refusal::new(Rule::TooManyViews, bound));
        }
        let number = free.ok_or(Refusal::new(Rule::TooManyViews, MAX_VIEWS as u64))?;
        let index = number << ASSIGNMENT_BITS | at;
        let narrowed = Badge::new(BadgeKind::Device, badge.generation, index);
        let Parts { env, hold, .. } = self
            .parts(at)
            .ok_or(Refusal::new(Rule::StaleCapability, badge.to_word()))?;
        let view = View {
            assignment: at,
            generation: badge.generation,
            rights,
        };
        env.place_view(number, narrowed, client, slot)?;
        hold.views |= 1 << number;
        // Without this word its capability is one of nothing: it goes at the next start.
        env.store(notes::view(number), view.to_word());
        if let Some(place) = self.views.views.get_mut(usize::from(number) - 1) {
            *place = Some(view);
        }
        Ok(NarrowReply {})
    }

    /// Views of a client's devices, and a number that is free.
    fn count_views(&self, client: u16) -> (usize, Option<u16>) {
        let holder = |view: &View| {
            let assignment = self.assignments.get(usize::from(view.assignment))?;
            Some(assignment.hold.as_ref()?.client.0)
        };
        let views = || (1..).zip(&self.views.views);
        let of_client = views()
            .filter_map(|(_, view)| holder(view.as_ref()?))
            .filter(|holder| *holder == client)
            .count();
        let free = views().find_map(|(number, view)| view.is_none().then_some(number));
        (of_client, free)
    }

    /// The `index`-th view, for those who look.
    pub(super) fn view_of(&self, index: u16) -> Result<ViewAtReply, Refusal> {
        let view = self
            .views
            .views
            .iter()
            .flatten()
            .nth(usize::from(index))
            .ok_or(Rule::EndOfList)?;
        let hold = self
            .assignments
            .get(usize::from(view.assignment))
            .and_then(|assignment| assignment.hold.as_ref());
        let device = hold.and_then(|hold| self.devices.get(hold.device));
        let Rights {
            config,
            bars,
            messages,
            control,
        } = view.rights;
        Ok(ViewAtReply {
            device: device.map_or(Sbdf::default(), |device| device.at),
            holder: hold.map_or(0, |hold| hold.client.0 + 1),
            config,
            bars,
            messages,
            control,
        })
    }
}
