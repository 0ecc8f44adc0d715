//! Where the kernel's source is and what of it belongs to an x86-64 PC.

use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::MetadataCommand;

use super::{KernelError, create_folder};

/// The folder `seL4` of the locked package, which cargo has downloaded and
/// checked against the lock file's checksum. `root` is the project's folder.
pub fn find(root: &Path) -> Result<PathBuf, KernelError> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("images/Cargo.toml"))
        .other_options(vec!["--locked".to_owned()])
        .exec()?;
    let package = metadata.packages.iter().find(|package| {
        package.name == "sel4-sys"
            && package.version.to_string() == "0.0.28"
            && package.source.is_some()
    });
    package
        .and_then(|package| package.manifest_path.parent())
        .map(|folder| folder.join("seL4").into_std_path_buf())
        .ok_or(KernelError::NoSource)
}

/// Folders of the package that a build needs.
const FOLDERS: [&str; 2] = ["include", "src"];

/// Files below [`FOLDERS`], as paths relative to `source`, in a fixed order.
/// Other processors' and platforms' files are left out, and the 32-bit kernel's.
pub fn files(source: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = FOLDERS.iter().map(PathBuf::from).collect();
    while let Some(folder) = folders.pop() {
        let path = source.join(&folder);
        let is_platforms = FOLDERS
            .iter()
            .any(|top| folder == Path::new(top).join("plat"));
        let entries = fs::read_dir(&path).map_err(|error| KernelError::io("read", &path, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| KernelError::io("read", &path, error))?;
            let kind = entry
                .file_type()
                .map_err(|error| KernelError::io("read", &entry.path(), error))?;
            let name = entry.file_name();
            let relative = folder.join(&name);
            if kind.is_file() {
                files.push(relative);
            } else if kind.is_dir()
                && name != "arm"
                && name != "32"
                && (name == "pc99" || !is_platforms)
            {
                folders.push(relative);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Replaces `tree` by a copy of the source's files.
pub fn copy(source: &Path, tree: &Path) -> Result<(), KernelError> {
    if tree.exists() {
        fs::remove_dir_all(tree).map_err(|error| KernelError::io("remove", tree, error))?;
    }
    for file in files(source)? {
        let from = source.join(&file);
        let to = tree.join(&file);
        if let Some(folder) = to.parent() {
            create_folder(folder)?;
        }
        // Reading and writing, unlike copying, does not carry a read-only mode along.
        let bytes = fs::read(&from).map_err(|error| KernelError::io("read", &from, error))?;
        fs::write(&to, bytes).map_err(|error| KernelError::io("write", &to, error))?;
    }
    Ok(())
}

/// Include folders below the source, in the order of the kernel's Makefile. The
/// generated headers come before them: the package brings an `autoconf.h` of its own.
pub const INCLUDE_FOLDERS: [&str; 6] = [
    "include",
    "include/64",
    "include/arch/x86",
    "include/arch/x86/arch/64",
    "include/plat/pc99",
    "include/plat/pc99/plat/64",
];

/// The linker script, before the preprocessor.
pub const LINKER_SCRIPT: &str = "src/plat/pc99/linker.lds";

/// Files among `files` that the kernel's Makefiles compile on their own.
pub fn assembler_files(files: &[PathBuf]) -> impl Iterator<Item = &PathBuf> {
    files
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "S"))
}

/// Files among `files` that the kernel's Makefiles compile as one, in order.
/// `profiler.c` belongs to another processor.
pub fn c_files(files: &[PathBuf]) -> impl Iterator<Item = &PathBuf> {
    files
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "c"))
        .filter(|file| !file.ends_with("src/machine/profiler.c"))
}

/// The project's folder, for tests: they run where they were compiled.
#[cfg(test)]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_may_have_been_moved_since() {
        let elsewhere = tempfile::tempdir().unwrap();
        let error = find(elsewhere.path()).unwrap_err().to_string();
        let asked = elsewhere.path().join("images");
        assert!(error.contains(&asked.display().to_string()), "{error}");
    }

    #[test]
    fn the_source_of_a_64_bit_pc() {
        let files = files(&find(&root()).unwrap()).unwrap();
        assert!(files.is_sorted());
        for part in ["arm", "32", "omap3"] {
            let name = std::ffi::OsStr::new(part);
            assert!(!files.iter().any(|file| file.iter().any(|p| p == name)));
        }
        // Counted in the Makefiles: 70, and `capdl.c` for debug kernels.
        assert_eq!(c_files(&files).count(), 71);
        assert_eq!(assembler_files(&files).count(), 4);
    }
}
