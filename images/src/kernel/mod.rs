//! Builds the bundled kernel, seL4 5.0.0, from its source in the locked package,
//! or takes a later one that is installed already.
//!
//! [`build`] takes a [`KernelSpec`] and leaves one folder per variant: the
//! patched source, the generated headers, the kernel as ELF64 and as the
//! multiboot ELF32 that QEMU loads, and the Rust constants that the bindings
//! include ([`BuiltKernel`]). Nothing is rebuilt while nothing changed.
//!
//! Steps, each a file: [`source`] finds and copies the source, [`patches`]
//! corrects it, [`options`] configures it, [`generate`] writes headers and
//! constants with `sel4-gen`, [`compile`] runs gcc and binutils, [`stamp`]
//! remembers what all that was made from. [`installed`] needs none of them: it
//! makes a [`BuiltKernel`] of what `SEL4_PREFIX` names.

mod compile;
mod error;
mod generate;
pub mod installed;
mod options;
mod patches;
mod source;
mod stamp;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use sel4_gen::Config;

pub use error::KernelError;

/// What the kernel checks and says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Build {
    /// Assertions, kernel messages on the serial line, debug system calls.
    Debug,
    /// None of these: what runs in earnest and what is measured.
    Release,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "debug",
            Self::Release => "release",
        })
    }
}

/// Which kernel to build. The configuration is otherwise fixed (see
/// `options.rs`); VT-d is compiled in and left to user level by the boot
/// argument `disable_iommu`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KernelSpec {
    /// Debug or release.
    pub build: Build,
    /// Processor cores that the kernel can start, 1 to 256.
    pub cores: u32,
    /// Patches to leave out, by the name before the first `-` of the file in
    /// `images/patches` (`B1`): for tests that show what a patch is for.
    pub without_patches: Vec<String>,
}

impl KernelSpec {
    /// The kernel with all patches.
    #[must_use]
    pub const fn new(build: Build, cores: u32) -> Self {
        Self {
            build,
            cores,
            without_patches: Vec::new(),
        }
    }

    /// The variant's name, such as `release-4` or `debug-1-without-B0-B1`: the
    /// name of its folder.
    #[must_use]
    pub fn variant(&self) -> String {
        let mut name = format!("{}-{}", self.build, self.cores);
        let mut left_out = self.without_patches.clone();
        left_out.sort();
        left_out.dedup();
        if !left_out.is_empty() {
            name.push_str("-without-");
            name.push_str(&left_out.join("-"));
        }
        name
    }
}

/// Whether a build had anything to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// The kernel was built now.
    Built,
    /// Everything was there already.
    UpToDate,
}

/// A kernel that is ready to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltKernel {
    /// The kernel as linked, with symbols.
    pub elf64: PathBuf,
    /// The same as a 32-bit ELF, which QEMU's `-kernel` loads by multiboot.
    pub multiboot: PathBuf,
    /// The constants file that the bindings include (format: `sel4-gen`).
    pub constants_rs: PathBuf,
    /// The kernel's configuration.
    pub config: Config,
    /// Its release, such as `5.0.0`.
    pub version: String,
    /// What was configured, in short: [`KernelSpec::variant`], or the same of an installed kernel.
    pub variant: String,
    /// The folder that it was installed to, if it was not built here.
    pub prefix: Option<PathBuf>,
    /// Whether it was built now.
    pub freshness: Freshness,
}

impl fmt::Display for BuiltKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seL4 {} {}", self.version, self.variant)?;
        match &self.prefix {
            Some(prefix) => write!(f, " from {}", prefix.display()),
            None => Ok(()),
        }
    }
}

/// Builds the kernel that `spec` describes in a folder of its own below `out`,
/// or finds it there. `root` is the project's folder, as it is now: it may have been moved since this program was
/// compiled. `progress` gets a short line before each longer step.
/// Concurrent builds of one variant wait for each other.
///
/// # Errors
/// Each [`KernelError`] says what is wrong and what to do about it. After an
/// error the next call builds anew.
pub fn build(
    spec: &KernelSpec,
    root: &Path,
    out: &Path,
    progress: &dyn Fn(&str),
) -> Result<BuiltKernel, KernelError> {
    let source = source::find(root)?;
    let patches = patches::load(&patches::folder(root), &spec.without_patches)?;
    build_from(spec, &source, &patches, out, progress)
}

/// [`build`] with the inputs that come with the project given.
fn build_from(
    spec: &KernelSpec,
    source: &Path,
    patches: &[patches::PatchFile],
    out: &Path,
    progress: &dyn Fn(&str),
) -> Result<BuiltKernel, KernelError> {
    if !(1..=256).contains(&spec.cores) {
        return Err(KernelError::Cores(spec.cores));
    }
    let config = options::config(spec);
    let headers = generate::headers(source, &config)?;
    let tools = compile::find_tools()?;

    let variant = spec.variant();
    let folder = out.join(&variant);
    create_folder(&folder)?;
    let _lock = stamp::lock(&folder)?;
    let kernel = BuiltKernel {
        elf64: folder.join("kernel.elf"),
        multiboot: folder.join("kernel32.elf"),
        constants_rs: folder.join("constants.rs"),
        config,
        version: headers.version.clone(),
        variant,
        prefix: None,
        freshness: Freshness::UpToDate,
    };
    let variant = &kernel.variant;
    let wanted = stamp::of(&stamp::Inputs {
        source,
        patches,
        headers: &headers,
        tools: &tools,
    })?;
    let outputs = [&kernel.elf64, &kernel.multiboot, &kernel.constants_rs];
    if stamp::read(&folder).as_deref() == Some(&wanted) && outputs.iter().all(|file| file.is_file())
    {
        return Ok(kernel);
    }

    stamp::remove(&folder)?;
    progress(&format!("kernel {variant}: source"));
    let tree = folder.join("src");
    source::copy(source, &tree)?;
    for patch in patches {
        patch.apply(&tree)?;
    }
    progress(&format!("kernel {variant}: generated headers"));
    let generated = folder.join("gen");
    headers.write(&generated)?;
    let compiler = compile::Compiler {
        tree: &tree,
        folder: &folder,
        build: spec.build,
    };
    for bitfield in generate::BITFIELDS {
        let text = compiler.preprocess(bitfield.source)?;
        bitfield.write(&text, &generated)?;
    }
    write(&kernel.constants_rs, &headers.constants)?;
    progress(&format!("kernel {variant}: compiling"));
    compiler.link(&kernel.elf64)?;
    compile::multiboot(&kernel.elf64, &kernel.multiboot)?;
    stamp::write(&folder, &wanted)?;
    Ok(BuiltKernel {
        freshness: Freshness::Built,
        ..kernel
    })
}

fn create_folder(path: &Path) -> Result<(), KernelError> {
    fs::create_dir_all(path).map_err(|error| KernelError::io("create", path, error))
}

fn read(path: &Path) -> Result<String, KernelError> {
    fs::read_to_string(path).map_err(|error| KernelError::io("read", path, error))
}

/// Writes a file and the folders above it.
fn write(path: &Path, text: &str) -> Result<(), KernelError> {
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    fs::write(path, text).map_err(|error| KernelError::io("write", path, error))
}

#[cfg(test)]
impl BuiltKernel {
    /// One for tests of what is done with it.
    pub fn example() -> Self {
        Self {
            elf64: "E".into(),
            multiboot: "K".into(),
            constants_rs: "C".into(),
            config: Config::default(),
            version: "5.0.0".into(),
            variant: "release-4".into(),
            prefix: None,
            freshness: Freshness::UpToDate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_have_folders_of_their_own() {
        let mut spec = KernelSpec::new(Build::Release, 4);
        assert_eq!(spec.variant(), "release-4");
        spec.build = Build::Debug;
        spec.without_patches = vec!["B1".into(), "B0".into(), "B1".into()];
        assert_eq!(spec.variant(), "debug-4-without-B0-B1");
    }

    #[test]
    fn core_counts_the_kernel_does_not_know() {
        let folder = tempfile::tempdir().unwrap();
        for cores in [0, 257, u32::MAX] {
            let spec = KernelSpec::new(Build::Release, cores);
            let error = build(&spec, &source::root(), folder.path(), &|_| ()).unwrap_err();
            assert!(matches!(error, KernelError::Cores(n) if n == cores));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_patch_that_nobody_has() {
        let mut spec = KernelSpec::new(Build::Release, 1);
        spec.without_patches = vec!["B9".into()];
        let folder = tempfile::tempdir().unwrap();
        let error = build(&spec, &source::root(), folder.path(), &|_| ())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`B9`") && error.contains("B0, B1, B2"),
            "{error}"
        );
    }
}
