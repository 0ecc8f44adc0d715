//! Windows of bridges that cannot work as firmware left them: [`report`] says which, with both names. Nothing is
//! changed: what lies behind such a window is judged by itself when it is placed.

use crate::env::Host;
use crate::{Index, Table, placement};

/// Reports each window of the bridge at `index` that the bridge above does not forward, or that meets a window of
/// a bridge beside it. Two bridges beside each other are reported once, by the later one.
pub(super) fn report<E: Host>(env: &mut E, devices: &Table, index: Index) {
    let Some((device, forwarding)) = devices
        .get(index)
        .and_then(|device| Some((device, device.bridge?)))
    else {
        return;
    };
    let at = device.at;
    let above = devices.bridge_to(at.segment(), at.bus());
    let above = above.and_then(|bridge| Some((bridge, devices.at(bridge)?.bridge?)));
    for window in forwarding.windows() {
        let (first, last) = (window.first, window.last);
        if let Some((parent, above)) = above
            && !above.forwards(&window)
        {
            env.log(format_args!(
                "{at} window {first:#x} to {last:#x} leaves what {parent} forwards"
            ));
        }
        let beside = placement::neighbours(devices, at)
            .filter(|(_, other)| other.at < at)
            .filter_map(|(_, other)| Some((other.at, other.bridge?)))
            .find(|(_, other)| other.windows().any(|theirs| theirs.meets(&window)));
        if let Some((other, _)) = beside {
            env.log(format_args!(
                "{at} window {first:#x} to {last:#x} overlaps one of {other}"
            ));
        }
    }
}
