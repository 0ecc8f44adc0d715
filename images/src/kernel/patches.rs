//! Corrections to the kernel's source: unified diffs in `images/patches`, each
//! with a heading that says why.

use std::fs;
use std::path::{Path, PathBuf};

use diffy::patch_set::{FileOperation, ParseOptions, PatchSet};

use super::{KernelError, read};

/// A patch file, read but not yet applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchFile {
    /// Its file name.
    pub name: String,
    /// Heading and diff.
    pub text: String,
}

/// The folder of the project's patches, of the project in `root`.
pub fn folder(root: &Path) -> PathBuf {
    root.join("images/patches")
}

/// Reads the patches of a folder in the order of their names, without those
/// whose short name (`B1` of `B1-what-it-does.patch`) is in `without`.
pub fn load(folder: &Path, without: &[String]) -> Result<Vec<PatchFile>, KernelError> {
    let entries = fs::read_dir(folder).map_err(|error| KernelError::io("read", folder, error))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|error| KernelError::io("read", folder, error))?
            .path();
        if path
            .extension()
            .is_some_and(|extension| extension == "patch")
        {
            paths.push(path);
        }
    }
    paths.sort();
    let mut known = Vec::new();
    let mut patches = Vec::new();
    for path in paths {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let short = name.split(['-', '.']).next().unwrap_or("").to_owned();
        if !without.contains(&short) {
            let text = read(&path)?;
            patches.push(PatchFile { name, text });
        }
        known.push(short);
    }
    match without.iter().find(|name| !known.contains(name)) {
        None => Ok(patches),
        Some(name) => Err(KernelError::UnknownPatch {
            name: name.clone(),
            known: known.join(", "),
        }),
    }
}

impl PatchFile {
    /// Applies the patch to the source below `tree`, which changes only if all
    /// of the patch fits.
    pub fn apply(&self, tree: &Path) -> Result<(), KernelError> {
        let mut changed = Vec::new();
        for file in PatchSet::parse(&self.text, ParseOptions::unidiff()) {
            let file = file.map_err(|error| self.error(error.to_string()))?;
            let operation = file.operation().strip_prefix(1);
            let FileOperation::Modify { original, modified } = operation else {
                return Err(self.error("it does more than change files in place"));
            };
            if original != modified {
                return Err(self.error(format!("it renames {original}")));
            }
            let Some(diff) = file.patch().as_text() else {
                return Err(self.error(format!("its change of {original} is not text")));
            };
            let path = tree.join(original.as_ref());
            if !path.is_file() {
                return Err(self.error(format!("the kernel's source has no {original}")));
            }
            let text = diffy::apply(&read(&path)?, diff)
                .map_err(|error| self.error(format!("{original}: {error}")))?;
            changed.push((path, text));
        }
        if changed.is_empty() {
            return Err(self.error("it changes nothing"));
        }
        for (path, text) in changed {
            super::write(&path, &text)?;
        }
        Ok(())
    }

    fn error(&self, reason: impl Into<String>) -> KernelError {
        KernelError::Patch {
            name: self.name.clone(),
            reason: reason.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::source;

    const FILE: &str = "one\ntwo\nthree\n";
    const PATCH: &str =
        "Why.\n\n--- a/dir/file\n+++ b/dir/file\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n";

    fn apply(text: &str) -> Result<String, String> {
        let tree = tempfile::tempdir().unwrap();
        let path = tree.path().join("dir/file");
        crate::kernel::write(&path, FILE).unwrap();
        let patch = PatchFile {
            name: "X1-test.patch".into(),
            text: text.into(),
        };
        let result = patch.apply(tree.path()).map_err(|error| error.to_string());
        let after = fs::read_to_string(path).unwrap();
        match result {
            Ok(()) => Ok(after),
            Err(error) => {
                assert_eq!(after, FILE, "a patch that fails changes nothing");
                Err(error)
            }
        }
    }

    #[test]
    fn a_patch_changes_its_file() {
        assert_eq!(apply(PATCH), Ok("one\n2\nthree\n".into()));
    }

    #[test]
    fn a_patch_that_does_not_fit_is_named() {
        for (text, reason) in [
            (
                PATCH.replace("-two", "-zwei"),
                "dir/file: error applying hunk #1",
            ),
            (PATCH.replace("dir/file", "dir/other"), "no dir/other"),
            (PATCH.replace("b/dir/file", "b/dir/new"), "renames dir/file"),
            (
                PATCH.replace("a/dir/file", "/dev/null"),
                "more than change files",
            ),
            (PATCH.replace("@@ -1,3", "@@ -1,9"), ""),
            ("Only a heading.\n".to_owned(), ""),
            (
                // The first file fits, the second does not: neither may change.
                format!("{PATCH}--- a/dir/none\n+++ b/dir/none\n@@ -1 +1 @@\n-a\n+b\n"),
                "no dir/none",
            ),
        ] {
            let error = apply(&text).unwrap_err();
            assert!(error.contains("kernel patch X1-test.patch: "), "{error}");
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn the_projects_patches_fit_and_give_a_reason() {
        let source = source::find(&source::root()).unwrap();
        let patches = load(&folder(&source::root()), &[]).unwrap();
        let names: Vec<_> = patches.iter().map(|patch| &patch.name[..3]).collect();
        assert_eq!(names, ["B0-", "B1-", "B2-", "B3-", "P1-", "P2-"]);
        let tree = tempfile::tempdir().unwrap();
        source::copy(&source, tree.path()).unwrap();
        for patch in &patches {
            let heading = patch.text.split("--- a/").next().unwrap();
            assert!(
                heading.lines().count() > 3,
                "{} gives no reason",
                patch.name
            );
            patch.apply(tree.path()).unwrap();
        }
        let without = load(&folder(&source::root()), &["B1".into()]).unwrap();
        assert_eq!(without.len(), patches.len() - 1);
        assert!(!without.iter().any(|patch| patch.name.starts_with("B1")));
    }
}
