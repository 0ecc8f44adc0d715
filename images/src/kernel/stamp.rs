//! What a variant was built from: a hash of every input beside the outputs.

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::generate::Headers;
use super::patches::PatchFile;
use super::{KernelError, source};

const STAMP: &str = "stamp";
const LOCK: &str = "lock";

/// How the kernel is built: a change to one of these makes every kernel stale.
/// (What `sel4-gen` makes of configuration and interface files is an input itself.)
const RECIPE: [&str; 4] = [
    include_str!("mod.rs"),
    include_str!("compile.rs"),
    include_str!("source.rs"),
    include_str!("../../../sel4/gen/src/bitfield/emit.rs"),
];

/// Everything that a build depends on.
pub struct Inputs<'a> {
    /// The package's source.
    pub source: &'a Path,
    /// The patches to apply.
    pub patches: &'a [PatchFile],
    /// The generated headers, which hold the whole configuration.
    pub headers: &'a Headers,
    /// The tools' versions.
    pub tools: &'a [String],
}

/// The hash of all inputs, in hexadecimal.
pub fn of(inputs: &Inputs<'_>) -> Result<String, KernelError> {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for text in RECIPE {
        add(text.as_bytes());
    }
    for tool in inputs.tools {
        add(tool.as_bytes());
    }
    for patch in inputs.patches {
        add(patch.name.as_bytes());
        add(patch.text.as_bytes());
    }
    for text in inputs.headers.texts() {
        add(text.as_bytes());
    }
    for file in source::files(inputs.source)? {
        let path = inputs.source.join(&file);
        add(file.as_os_str().as_encoded_bytes());
        add(&fs::read(&path).map_err(|error| KernelError::io("read", &path, error))?);
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// The stamp of the last complete build in `folder`.
pub fn read(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join(STAMP)).ok()
}

/// Marks the build in `folder` as complete.
pub fn write(folder: &Path, stamp: &str) -> Result<(), KernelError> {
    super::write(&folder.join(STAMP), stamp)
}

/// Marks the build in `folder` as incomplete.
pub fn remove(folder: &Path) -> Result<(), KernelError> {
    let path = folder.join(STAMP);
    if path.exists() {
        fs::remove_file(&path).map_err(|error| KernelError::io("remove", &path, error))?;
    }
    Ok(())
}

/// Waits until no other process builds in `folder`, and keeps others waiting
/// until the returned file is dropped.
pub fn lock(folder: &Path) -> Result<File, KernelError> {
    let path = folder.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| KernelError::io("open", &path, error))?;
    file.lock()
        .map_err(|error| KernelError::io("lock", &path, error))?;
    Ok(file)
}
