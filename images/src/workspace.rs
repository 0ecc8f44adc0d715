//! [`Workspace`]: where the project lies, what packages it has, where output goes.

use crate::error::Error;
use cargo_metadata::{Metadata, MetadataCommand, TargetKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Folder of the clients' programs, below the root.
const DRIVERS: &str = "drivers";

/// The project.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Folder of the root `Cargo.toml`.
    pub root: PathBuf,
    /// Cargo's target folder; everything that the tool makes is below it.
    pub target: PathBuf,
    /// Clients' programs: the binary packages under `drivers/`.
    pub programs: Vec<String>,
    /// Packages that do not build on the host as they are, because they need a kernel's constants.
    pub on_kernel: Vec<String>,
    /// The folder of the installed kernel to build for, which the environment variable `SEL4_PREFIX`
    /// names; without it a kernel is built here.
    pub prefix: Option<PathBuf>,
    /// What cargo calls each package, by its name and its programs': a name alone may be one on crates.io, too.
    ids: BTreeMap<String, String>,
}

impl Workspace {
    /// Finds the project around this program.
    ///
    /// # Errors
    /// `cargo metadata` does not succeed.
    pub fn find() -> Result<Self, Error> {
        let mut command = MetadataCommand::new();
        // Set by `cargo run` to this package's folder; without it the current folder has to be in the project.
        // In a member's folder cargo would take that member for the only default one.
        if let Some(folder) = std::env::var_os("CARGO_MANIFEST_DIR") {
            command.current_dir(PathBuf::from(folder).join(".."));
        }
        let mut workspace = Self::from_metadata(&command.no_deps().exec()?);
        workspace.prefix = std::env::var_os("SEL4_PREFIX")
            .filter(|prefix| !prefix.is_empty())
            .map(|prefix| std::path::absolute(&prefix).unwrap_or_else(|_| prefix.into()));
        Ok(workspace)
    }

    fn from_metadata(metadata: &Metadata) -> Self {
        let root = metadata.workspace_root.as_std_path();
        let mut programs = Vec::new();
        for package in metadata.workspace_packages() {
            let below = package
                .manifest_path
                .as_std_path()
                .starts_with(root.join(DRIVERS));
            for target in &package.targets {
                if below && target.kind.contains(&TargetKind::Bin) {
                    programs.push(target.name.clone());
                }
            }
        }
        programs.sort_unstable();
        let on_host: Vec<_> = metadata
            .workspace_default_packages()
            .iter()
            .map(|package| package.name.to_string())
            .collect();
        let mut ids = BTreeMap::new();
        let mut on_kernel = Vec::new();
        for package in metadata.workspace_packages() {
            let name = package.name.to_string();
            let programs = package
                .targets
                .iter()
                .filter(|target| target.kind.contains(&TargetKind::Bin));
            for name in programs.map(|target| &target.name).chain([&name]) {
                ids.insert(name.clone(), package.id.repr.clone());
            }
            if !on_host.contains(&name) {
                on_kernel.push(name);
            }
        }
        Self {
            root: root.to_owned(),
            target: metadata.target_directory.as_std_path().to_owned(),
            programs,
            on_kernel,
            prefix: None,
            ids,
        }
    }

    /// What to tell cargo after `--package` for a package or program.
    #[must_use]
    pub fn id<'w>(&'w self, package: &'w str) -> &'w str {
        self.ids.get(package).map_or(package, String::as_str)
    }

    /// A folder below the target folder, made if need be.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn output(&self, name: impl AsRef<Path>) -> Result<PathBuf, Error> {
        let folder = self.target.join(name);
        std::fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        Ok(folder)
    }

    /// The path as people write it: relative to the project where it is inside.
    #[must_use]
    pub fn shown<'p>(&self, path: &'p Path) -> std::path::Display<'p> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }

    /// The description that is meant by `system`: a file, or the name of one in `systems/`.
    #[must_use]
    pub fn description(&self, system: &str) -> PathBuf {
        let given = PathBuf::from(system);
        let known = self.root.join("systems").join(format!("{system}.toml"));
        if !given.exists() && known.exists() {
            known
        } else {
            given
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_kernel_is_told_from_what_does_not() {
        let workspace = Workspace::find().unwrap();
        let needs = |name: &str| workspace.on_kernel.iter().any(|other| other == name);
        assert!(needs("root-task") && needs("sel4-glue") && needs("edu-driver"));
        assert!(!needs("images") && !needs("pci-core") && !needs("portcullis-hw"));
        assert!(workspace.programs.iter().any(|name| name == "edu-driver"));
        assert!(workspace.id("console").contains("services/console"));
        assert!(workspace.root.join("x").is_file());
    }
}
