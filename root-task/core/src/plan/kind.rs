//! [`Kind`]: what a PD is.

/// What kind of PD it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Console service.
    Console,
    /// Timer service.
    Timer,
    /// iommu-server shard.
    Iommu(u8),
    /// msi-server shard.
    Msi(u8),
    /// pci-server shard.
    Pci(u8),
    /// Client, by its id.
    Client(u16),
}

impl Kind {
    /// Is it one of ours, rather than a client?
    #[must_use]
    pub const fn is_server(self) -> bool {
        !matches!(self, Self::Client(_))
    }

    /// Is it a shard of a server, which is restarted when it dies? The services below the shards are not.
    #[must_use]
    pub const fn is_shard(self) -> bool {
        matches!(self, Self::Iommu(_) | Self::Msi(_) | Self::Pci(_))
    }
}
