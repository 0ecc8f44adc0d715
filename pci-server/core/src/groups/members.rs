//! What follows from formed groups: [`ring`], the members of a group, and [`aliases`], the requester ids that a
//! function's requests may carry.

use hw::Sbdf;

use super::{Functions, Kind, place};

/// The places of all members of the group of function `start`, itself first.
pub fn ring<F: Functions + ?Sized>(functions: &F, start: u32) -> impl Iterator<Item = u32> {
    let mut next = Some(start);
    // A ring has at most all of them, whatever the links say.
    (0..functions.count()).map_while(move |_| {
        let here = next?;
        next = place(functions.node(here)?.next).filter(|next| *next != start);
        Some(here)
    })
}

/// Requester ids besides its own that the requests of function `start` may carry when they reach the
/// root complex, from the device upwards.
pub fn aliases<F: Functions + ?Sized>(functions: &F, start: u32) -> impl Iterator<Item = Sbdf> {
    let above = move |here: u32| functions.node(functions.node(here)?.parent()?);
    let bridge_of = move |here: u32| Some((functions.node(here)?.parent()?, *above(here)?));
    // Parents are on lower buses.
    core::iter::successors(bridge_of(start), move |(here, _)| bridge_of(*here)).flat_map(
        move |(here, bridge)| {
            let below = bridge.behind.map(|buses| {
                Sbdf::from_requester_id(bridge.at.segment(), u16::from(buses.first()) << 8)
            });
            // One that has no Express capability but sits on a link can only be a bridge from Express.
            let on_link = above(here).is_some_and(|port| port.kind == Kind::DownstreamPort);
            match bridge.kind {
                Kind::DownstreamPort | Kind::Express => [None, None],
                Kind::ToConventional => [below, None],
                Kind::Conventional if on_link => [below, Some(bridge.at)],
                Kind::Conventional | Kind::Never => [Some(bridge.at), None],
            }
            .into_iter()
            .flatten()
        },
    )
}
