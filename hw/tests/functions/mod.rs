//! Simulated functions that several tests use.

use hw::Sbdf;
use portcullis_hw as hw;
use sim::config::{Endpoint, ExpressShape, Machine, MsiShape, MsixShape, PortKind, Space};

/// A machine of one function.
pub fn machine(function: impl Into<Space>) -> (Machine, Sbdf) {
    let mut machine = Machine::new();
    let at = machine.add("00:03.0", function);
    (machine, at)
}

/// An endpoint that can be reset alone.
pub const EXPRESS: ExpressShape = ExpressShape {
    kind: PortKind::Endpoint,
    flr: true,
    slot: None,
};

/// A network card: four capabilities, two extended ones.
pub fn full() -> Endpoint {
    Endpoint::new(0x8086, 0x10d3)
        .power_management(true)
        .msi(MsiShape {
            wide: true,
            maskable: false,
            vectors_log2: 0,
        })
        .express(EXPRESS)
        .msix(MsixShape {
            entries: 5,
            table: (3, 0),
            pending: (3, 0x2000),
        })
        .extended(0x0001, 2, &[0; 0x40])
        .extended(0x0003, 1, &[1, 2, 3, 4, 5, 6, 7, 8])
}
