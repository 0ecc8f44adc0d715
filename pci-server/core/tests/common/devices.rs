//! Devices of the machines that the tests boot.

use sim::config::{BarShape, Endpoint, ExpressShape, MsiShape, MsixShape, PortKind};

pub fn memory32(size: u32, address: u32) -> BarShape {
    BarShape::Memory32 {
        size,
        address,
        prefetchable: false,
    }
}

/// 1 MiB of registers, MSI, neither Express nor a reset; firmware left it mastering.
pub fn edu(address: u32) -> Endpoint {
    Endpoint::new(0x1234, 0x11e8)
        .class(0x00, 0xff, 0x00)
        .command(0x0107)
        .interrupt(1, 11)
        .bar(0, memory32(1 << 20, address))
        .msi(MsiShape {
            wide: true,
            maskable: false,
            vectors_log2: 0,
        })
}

/// Registers with an MSI-X table in their third page, Express with function-level reset.
pub fn nvme(address: u64) -> Endpoint {
    Endpoint::new(0x1b36, 0x0010)
        .class(0x01, 0x08, 0x02)
        .command(0x0006)
        .interrupt(1, 10)
        .bar(
            0,
            BarShape::Memory64 {
                size: 16 << 10,
                address,
                prefetchable: false,
            },
        )
        .power_management(true)
        .msix(MsixShape {
            entries: 65,
            table: (0, 0x2000),
            pending: (0, 0x3000),
        })
        .express(ExpressShape {
            kind: PortKind::Integrated,
            flr: true,
            slot: None,
        })
        // Advanced Error Reporting: status registers at +4 and +16.
        .extended(1, 2, &[0; 0x28])
}

/// A conventional function with function-level reset and four maskable messages.
pub fn conventional(address: u32) -> Endpoint {
    Endpoint::new(0x8086, 0x1234)
        .class(0x02, 0x00, 0x00)
        .bar(0, memory32(1 << 12, address))
        .msi(MsiShape {
            wide: false,
            maskable: true,
            vectors_log2: 2,
        })
        .advanced_features()
}

/// A function that is reset by a power cycle.
pub fn power_cycled(address: u32) -> Endpoint {
    Endpoint::new(0x8086, 0x4321)
        .class(0x04, 0x03, 0x00)
        .bar(0, memory32(1 << 14, address))
        .power_management(false)
}

/// A host bridge.
pub fn host_bridge() -> Endpoint {
    Endpoint::new(0x8086, 0x29c0)
        .class(0x06, 0x00, 0x00)
        .command(0x0006)
}

/// The bridge to ISA.
pub fn isa_bridge() -> Endpoint {
    Endpoint::new(0x8086, 0x2918)
        .class(0x06, 0x01, 0x00)
        .command(0x0107)
}
