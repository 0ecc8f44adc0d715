//! Why a kernel could not be built: [`KernelError`].

use std::io;
use std::path::{Path, PathBuf};

/// A failed build. The message says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A number of cores outside what the kernel supports.
    #[error("the kernel supports 1 to 256 cores, not {0}")]
    Cores(u32),
    /// [`KernelSpec::without_patches`](super::KernelSpec::without_patches) names a patch that does not exist.
    #[error("no kernel patch is called `{name}`; there are {known}")]
    UnknownPatch {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// Cargo could not say where the kernel's source is.
    #[error(
        "cargo could not locate the kernel's source: {0}; check that the network or cargo's offline registry is available"
    )]
    Cargo(#[from] cargo_metadata::Error),
    /// The locked package is missing from cargo's answer.
    #[error(
        "cargo knows no package `sel4-sys` 0.0.28 from a registry; restore the dependency `kernel-source` of the package `images`"
    )]
    NoSource,
    /// A patch is not a unified diff that changes files in place, or does not
    /// fit the source.
    #[error("kernel patch {name}: {reason}; correct or remove the patch")]
    Patch {
        /// The patch's file name.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// A program of the tool chain is not installed.
    #[error("`{tool}` is not installed; install the Debian package `{package}`")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program of the tool chain reported an error.
    #[error("{tool} failed on {what}:\n{output}")]
    Tool {
        /// The program.
        tool: &'static str,
        /// What it worked on.
        what: String,
        /// The end of what it printed.
        output: String,
    },
    /// An installed kernel will not do.
    #[error(
        "the kernel that SEL4_PREFIX names will not do:{}\n(docs/kernels.md: how to build one that does)",
        listed(.0)
    )]
    Unfit(Vec<String>),
    /// The interface files of an installed kernel could not be read.
    #[error("the kernel that SEL4_PREFIX names: {0}; install it again")]
    Installed(sel4_gen::Error),
    /// The kernel's interface files could not be read.
    #[error(
        "kernel interface: {0}; the kernel's package is damaged, remove it from cargo's registry folder"
    )]
    Generate(#[from] sel4_gen::Error),
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
}

/// Sentences, a line each.
fn listed(sentences: &[String]) -> String {
    sentences
        .iter()
        .map(|sentence| format!("\n  - {sentence}"))
        .collect()
}

impl KernelError {
    pub(super) fn io(action: &'static str, path: &Path, error: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            error,
        }
    }
}
