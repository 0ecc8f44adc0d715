//! Where a kernel's interface files are, and what they say together.
//!
//! Main types: [`KernelInterface`], which the build of the bundled kernel and
//! the reading of an installed one share, and [`Abi`].

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Config, Error, Facts, InterfaceXml, Labels, Syscalls, XmlFile, constants};

/// One numbered name of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<N> {
    /// The interface's own name.
    pub id: String,
    /// Its number, if it exists in the configuration at hand.
    pub number: Option<N>,
    /// Whether it depends on the configuration at all.
    pub conditional: bool,
}

/// Families of kernels that differ in more than numbers: rights, badges, boot
/// information and the methods' arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abi {
    /// seL4 5.0.0.
    V5,
    /// seL4 13 and later.
    Modern,
}

impl Abi {
    /// The family's name in the constants file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V5 => "v5",
            Self::Modern => "modern",
        }
    }
}

/// The description that one kernel gives of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelInterface {
    /// The release, such as `5.0.0`.
    pub version: String,
    /// The family of its ABI.
    pub abi: Abi,
    /// Methods of all architectures.
    pub generic_xml: PathBuf,
    /// Methods of x86-64 alone.
    pub sel4_arch_xml: PathBuf,
    /// Methods of x86.
    pub arch_xml: PathBuf,
    /// System calls.
    pub syscall_xml: PathBuf,
    /// The configuration.
    pub config: Config,
}

impl KernelInterface {
    /// The interface of seL4 5.0.0 from its source folder (the one that holds
    /// `libsel4` and `VERSION`).
    ///
    /// # Errors
    /// [`Error::Read`] if the folder has no readable `VERSION`.
    pub fn of_source(source: &Path, config: Config) -> Result<Self, Error> {
        let libsel4 = source.join("libsel4");
        Ok(Self {
            version: read(&source.join("VERSION"))?.trim().to_owned(),
            abi: Abi::V5,
            generic_xml: libsel4.join("include/interfaces/sel4.xml"),
            sel4_arch_xml: libsel4.join("sel4_arch_include/x86_64/interfaces/sel4arch.xml"),
            arch_xml: libsel4.join("arch_include/x86/interfaces/sel4arch.xml"),
            syscall_xml: libsel4.join("include/api/syscall.xml"),
            config,
        })
    }

    /// The interface of a later kernel from the folder it was installed to (the
    /// one that holds `bin` and `libsel4`). Such a folder does not state the
    /// release, so the caller names it.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::InFile`] if a `gen_config.json` is missing or
    /// is not one.
    pub fn of_prefix(prefix: &Path, version: &str) -> Result<Self, Error> {
        let [generic_xml, sel4_arch_xml, arch_xml, syscall_xml] =
            INTERFACE_FILES.map(|file| prefix.join(file));
        let mut config = Config::default();
        for path in CONFIG_FILES.map(|file| prefix.join(file)) {
            let options = Config::from_gen_config_json(&read(&path)?)
                .map_err(|error| error.in_file(&path))?;
            for (name, value) in options.iter() {
                config.set(name, value.clone());
            }
        }
        Ok(Self {
            version: version.to_owned(),
            abi: Abi::Modern,
            generic_xml,
            sel4_arch_xml,
            arch_xml,
            syscall_xml,
            config,
        })
    }

    /// Reads the invocation labels.
    ///
    /// # Errors
    /// A missing file, or a fault in one of the three (see [`Labels::new`]).
    pub fn labels(&self) -> Result<Labels, Error> {
        let generic = read(&self.generic_xml)?;
        let sel4_arch = read(&self.sel4_arch_xml)?;
        let arch = read(&self.arch_xml)?;
        let xml = InterfaceXml {
            generic: XmlFile {
                path: &self.generic_xml,
                text: &generic,
            },
            sel4_arch: XmlFile {
                path: &self.sel4_arch_xml,
                text: &sel4_arch,
            },
            arch: XmlFile {
                path: &self.arch_xml,
                text: &arch,
            },
        };
        Labels::new(xml, &self.config)
    }

    /// Reads the system calls.
    ///
    /// # Errors
    /// A missing file, or a fault in it (see [`Syscalls::new`]).
    pub fn syscalls(&self) -> Result<Syscalls, Error> {
        Syscalls::new(&read(&self.syscall_xml)?, &self.config)
            .map_err(|error| error.in_file(&self.syscall_xml))
    }

    /// The Rust constants file of this kernel.
    ///
    /// # Errors
    /// Those of [`Self::labels`], [`Self::syscalls`] and [`constants`].
    pub fn constants(&self) -> Result<String, Error> {
        constants(&Facts {
            version: &self.version,
            abi: self.abi,
            labels: &self.labels()?,
            syscalls: &self.syscalls()?,
            config: &self.config,
        })
    }
}

/// In a prefix: methods of all architectures, of x86-64 alone, of x86, and the system calls.
const INTERFACE_FILES: [&str; 4] = [
    "libsel4/include/interfaces/object-api.xml",
    "libsel4/include/interfaces/object-api-sel4-arch.xml",
    "libsel4/include/interfaces/object-api-arch.xml",
    "libsel4/include/api/syscall.xml",
];
/// In a prefix: the configuration of the kernel and of its library.
const CONFIG_FILES: [&str; 2] = [
    "libsel4/include/kernel/gen_config.json",
    "libsel4/include/sel4/gen_config.json",
];

/// The files of a prefix that are needed: the kernel and those that tell about it.
pub(crate) fn prefix_files() -> impl Iterator<Item = &'static str> {
    let files = INTERFACE_FILES.into_iter().chain(CONFIG_FILES);
    std::iter::once("bin/kernel.elf").chain(files)
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|error| Error::Read {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}
