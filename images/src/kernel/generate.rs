//! Headers and constants that come from the kernel's interface files.

use std::path::Path;

use sel4_gen::{Config, KernelInterface, bitfield};

use super::{KernelError, write};

/// What `sel4-gen` makes of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// Paths below the folder of generated headers, and contents.
    files: Vec<(&'static str, String)>,
    /// The kernel's release.
    pub version: String,
    /// The Rust constants file.
    pub constants: String,
}

/// Generates all but the bitfields, which need the preprocessor.
pub fn headers(source: &Path, config: &Config) -> Result<Headers, KernelError> {
    let interface = KernelInterface::of_source(source, config.clone())?;
    let labels = interface.labels()?;
    Ok(Headers {
        files: vec![
            ("autoconf.h", config.autoconf_header()),
            ("api/invocation.h", labels.generic_header()),
            ("arch/api/sel4_invocation.h", labels.sel4_arch_header()),
            ("arch/api/invocation.h", labels.arch_header()),
            ("arch/api/syscall.h", interface.syscalls()?.kernel_header()),
        ],
        constants: interface.constants()?,
        version: interface.version,
    })
}

impl Headers {
    /// Writes the headers below `folder`.
    pub fn write(&self, folder: &Path) -> Result<(), KernelError> {
        for (path, text) in &self.files {
            write(&folder.join(path), text)?;
        }
        Ok(())
    }

    /// All texts, in a fixed order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.files
            .iter()
            .map(|(_, text)| text.as_str())
            .chain([self.constants.as_str()])
    }
}

/// A description of bitfields and the header made from it.
pub struct Bitfields {
    /// Its path below the source.
    pub source: &'static str,
    /// The header's path below the folder of generated headers.
    header: &'static str,
    guard: &'static str,
}

/// The descriptions that the headers of a 64-bit PC include.
pub const BITFIELDS: [Bitfields; 3] = [
    Bitfields {
        source: "include/64/mode/api/shared_types.bf",
        header: "mode/api/shared_types_gen.h",
        guard: "GENERATED_SHARED_TYPES_H",
    },
    Bitfields {
        source: "include/arch/x86/arch/object/structures.bf",
        header: "arch/object/structures_gen.h",
        guard: "GENERATED_STRUCTURES_H",
    },
    Bitfields {
        source: "include/plat/pc99/plat/64/plat_mode/machine/hardware.bf",
        header: "plat_mode/machine/hardware_gen.h",
        guard: "GENERATED_HARDWARE_H",
    },
];

impl Bitfields {
    /// Writes the header for the preprocessed description `text`.
    pub fn write(&self, text: &str, folder: &Path) -> Result<(), KernelError> {
        let header = bitfield::header(text, self.guard)?;
        write(&folder.join(self.header), &header)
    }
}
