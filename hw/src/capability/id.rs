//! Capability ids and their names (PCI Code and ID Assignment, 2 and 3).

/// Power management.
pub const POWER_MANAGEMENT: u8 = 0x01;
/// Vital product data.
pub const VITAL_PRODUCT_DATA: u8 = 0x03;
/// Message signalled interrupts.
pub const MSI: u8 = 0x05;
/// PCI-X.
pub const PCI_X: u8 = 0x07;
/// Vendor specific.
pub const VENDOR: u8 = 0x09;
/// Subsystem id of a bridge.
pub const BRIDGE_SUBSYSTEM: u8 = 0x0d;
/// PCI Express.
pub const EXPRESS: u8 = 0x10;
/// MSI-X.
pub const MSIX: u8 = 0x11;
/// Advanced Features.
pub const ADVANCED_FEATURES: u8 = 0x13;
/// Enhanced Allocation.
pub const ENHANCED_ALLOCATION: u8 = 0x14;

/// Ids of extended capabilities.
pub mod extended {
    /// Advanced error reporting.
    pub const ERROR_REPORTING: u16 = 0x0001;
    /// Device serial number.
    pub const SERIAL_NUMBER: u16 = 0x0003;
    /// Vendor specific.
    pub const VENDOR: u16 = 0x000b;
    /// Access control services.
    pub const ACCESS_CONTROL: u16 = 0x000d;
    /// Alternative routing-id interpretation.
    pub const ALTERNATIVE_ROUTING_ID: u16 = 0x000e;
    /// Address translation services.
    pub const ADDRESS_TRANSLATION: u16 = 0x000f;
    /// Single root IO virtualization.
    pub const SR_IOV: u16 = 0x0010;
    /// Page request.
    pub const PAGE_REQUEST: u16 = 0x0013;
    /// Resizable BAR.
    pub const RESIZABLE_BAR: u16 = 0x0015;
    /// Process address space id.
    pub const PASID: u16 = 0x001b;
    /// Downstream port containment.
    pub const PORT_CONTAINMENT: u16 = 0x001d;
    /// Designated vendor specific.
    pub const DESIGNATED_VENDOR: u16 = 0x0023;
    /// Resizable BAR of virtual functions.
    pub const VF_RESIZABLE_BAR: u16 = 0x0024;
}

/// Name of a conventional capability; `"unknown"` for an id that no specification gave out.
#[must_use]
pub const fn name(id: u8) -> &'static str {
    match id {
        0x00 => "null",
        0x01 => "power management",
        0x02 => "AGP",
        0x03 => "vital product data",
        0x04 => "slot identification",
        0x05 => "MSI",
        0x06 => "CompactPCI hot swap",
        0x07 => "PCI-X",
        0x08 => "HyperTransport",
        0x09 => "vendor specific",
        0x0a => "debug port",
        0x0b => "CompactPCI resource control",
        0x0c => "hot-plug controller",
        0x0d => "bridge subsystem id",
        0x0e => "AGP 8x",
        0x0f => "secure device",
        0x10 => "PCI Express",
        0x11 => "MSI-X",
        0x12 => "SATA data and index",
        0x13 => "advanced features",
        0x14 => "enhanced allocation",
        0x15 => "flattening portal bridge",
        _ => "unknown",
    }
}

/// Name of an extended capability; `"unknown"` for an id that no specification gave out.
#[must_use]
pub const fn extended_name(id: u16) -> &'static str {
    match id {
        0x0000 => "null",
        0x0001 => "advanced error reporting",
        0x0002 => "virtual channel",
        0x0003 => "device serial number",
        0x0004 => "power budgeting",
        0x0005 => "root complex link declaration",
        0x0006 => "root complex internal link control",
        0x0007 => "root complex event collector association",
        0x0008 => "multi-function virtual channel",
        0x0009 => "virtual channel (MFVC)",
        0x000a => "root complex register block",
        0x000b => "vendor specific",
        0x000c => "configuration access correlation",
        0x000d => "access control services",
        0x000e => "alternative routing-id interpretation",
        0x000f => "address translation services",
        0x0010 => "single root IO virtualization",
        0x0011 => "multi root IO virtualization",
        0x0012 => "multicast",
        0x0013 => "page request",
        0x0015 => "resizable BAR",
        0x0016 => "dynamic power allocation",
        0x0017 => "TPH requester",
        0x0018 => "latency tolerance reporting",
        0x0019 => "secondary PCI Express",
        0x001a => "protocol multiplexing",
        0x001b => "process address space id",
        0x001c => "LN requester",
        0x001d => "downstream port containment",
        0x001e => "L1 PM substates",
        0x001f => "precision time measurement",
        0x0020 => "M-PCIe",
        0x0021 => "FRS queueing",
        0x0022 => "readiness time reporting",
        0x0023 => "designated vendor specific",
        0x0024 => "VF resizable BAR",
        0x0025 => "data link feature",
        0x0026 => "physical layer 16 GT/s",
        0x0027 => "lane margining",
        0x0028 => "hierarchy id",
        0x0029 => "native PCIe enclosure management",
        0x002a => "physical layer 32 GT/s",
        0x002b => "alternate protocol",
        0x002c => "system firmware intermediary",
        0x002d => "shadow functions",
        0x002e => "data object exchange",
        0x002f => "device 3",
        0x0030 => "integrity and data encryption",
        0x0031 => "physical layer 64 GT/s",
        0x0032 => "flit logging",
        0x0033 => "flit performance measurement",
        0x0034 => "flit error injection",
        0x0035 => "streamlined virtual channel",
        0x0036 => "MMIO register block locator",
        0x0037 => "NOP flit",
        0x0038 => "scalable IO virtualization",
        0x0039 => "physical layer 128 GT/s",
        0x003a => "captured data",
        _ => "unknown",
    }
}
