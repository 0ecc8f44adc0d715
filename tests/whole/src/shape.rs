//! [`Shape`]: which capabilities exist, and how much of everything is in use.

use std::collections::BTreeMap;

use ipc_proto::iommu;

use crate::kernel::{Object, Place};

/// All that a refused request must leave as it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    pub(crate) caps: BTreeMap<Place, Object>,
    pub(crate) pci: (u32, u32, u32, u64),
    pub(crate) iommu: iommu::FiguresReply,
    pub(crate) msi: (u16, u16),
}

impl Shape {
    /// Without how the servers have cut memory: the iommu-server puts together what is free when something is
    /// freed, and the pci-server keeps its own frames of an MSI-X table until the device is given back.
    #[must_use]
    pub fn without_cuts(mut self) -> Self {
        self.caps.retain(|place, object| {
            let memory = matches!(object, Object::Untyped { .. } | Object::Frame { .. });
            !(memory && matches!(place, Place::Iommu(_) | Place::Pci(_)))
        });
        (self.pci.2, self.pci.3, self.iommu.slots_used) = (0, 0, 0);
        self
    }

    /// In what another one differs.
    #[must_use]
    pub fn difference(&self, other: &Self) -> String {
        let less = self
            .caps
            .iter()
            .filter(|(place, object)| other.caps.get(place) != Some(object));
        let more = other
            .caps
            .iter()
            .filter(|(place, object)| self.caps.get(place) != Some(object));
        let (less, more) = (less.collect::<Vec<_>>(), more.collect::<Vec<_>>());
        let figures = |shape: &Self| format!("{:?} {:?} {:?}", shape.pci, shape.iommu, shape.msi);
        format!(
            "gone {less:?}, new {more:?}; figures {} then, {} now",
            figures(self),
            figures(other)
        )
    }
}
