//! [`Error`]: what can keep the tool from doing its work. A run that fails is
//! not among it: that is a verdict.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// Why the tool could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A description is not valid, or cannot be read.
    #[error(transparent)]
    Description(#[from] crate::description::LoadError),
    /// The kernel could not be built.
    #[error(transparent)]
    Kernel(#[from] crate::kernel::KernelError),
    /// A dump could not be compared.
    #[error(transparent)]
    Compare(#[from] compare::Error),
    /// Something with a file.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, e.g. `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program that the tool needs could not be started.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// QEMU's monitor could not be reached.
    #[error(transparent)]
    Qmp(#[from] crate::qmp::QmpError),
    /// A program that the tool needs did not succeed; it has said why.
    #[error("{program} did not succeed ({status})")]
    Command {
        /// The program, with what it was to do.
        program: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// `cargo metadata` gave nothing to work with.
    #[error("cannot list the workspace's packages: {0}")]
    Metadata(#[from] cargo_metadata::Error),
    /// A program's ELF file is not as it has to be.
    #[error("{}: {why}", path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The bundle would not be one.
    #[error("cannot pack {system}: {why}")]
    Pack {
        /// The system.
        system: String,
        /// What is wrong.
        why: String,
    },
    /// The benchmark's figures cannot be read or drawn.
    #[error("benchmark: {0}")]
    Bench(String),
    /// A peer's figures cannot be had.
    #[error("{0}")]
    Peer(String),
    /// The emulator refused its arguments, or died early.
    #[error("QEMU did not run the machine ({status}): {said}")]
    Qemu {
        /// How it ended.
        status: ExitStatus,
        /// What it wrote.
        said: String,
    },
}

impl Error {
    /// For `map_err`: something with a file.
    pub fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    /// For `map_err`: a program that cannot be started.
    pub fn spawn(program: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let program = program.into();
        move |source| Self::Spawn { program, source }
    }
}
