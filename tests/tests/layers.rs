//! The layers of docs/architecture.md, as what must be absent: which package
//! never knows which other, where `unsafe` never stands, and who never asks for the kernel's version.
//!
//! Dependencies for tests and for building do not count: they are in no image.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, TargetKind};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The kernel's bindings, and what is built on them.
const KERNEL: [&str; 5] = ["sel4-sys", "sel4", "sel4-rt", "sel4-glue", "sel4-client"];
const GENERATOR: &str = "sel4-gen";
const CORES: [&str; 5] = [
    "pci-core",
    "iommu-core",
    "msi-core",
    "services-core",
    "root-core",
];
/// Programs: nobody builds upon them.
const PROGRAMS: [&str; 6] = [
    "root-task",
    "pci-server",
    "iommu-server",
    "msi-server",
    "console",
    "timer",
];
/// Binary and its core.
const PAIRS: [(&str, &str); 6] = [
    ("root-task", "root-core"),
    ("pci-server", "pci-core"),
    ("iommu-server", "iommu-core"),
    ("msi-server", "msi-core"),
    ("console", "services-core"),
    ("timer", "services-core"),
];

struct Tree {
    root: PathBuf,
    /// Package: its folder, and what it needs of the workspace, directly or not.
    packages: BTreeMap<String, Package>,
}

struct Package {
    folder: PathBuf,
    /// The file in which each library or program begins.
    roots: Vec<PathBuf>,
    knows: BTreeSet<String>,
}

fn tree() -> Tree {
    let metadata = MetadataCommand::new()
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .no_deps()
        .exec()
        .unwrap();
    let direct = direct(&metadata);
    let packages = metadata.workspace_packages().into_iter().map(|package| {
        let mut knows = BTreeSet::new();
        let mut open: Vec<&String> = direct[package.name.as_str()].iter().collect();
        while let Some(name) = open.pop() {
            if knows.insert(name.clone()) {
                open.extend(&direct[name]);
            }
        }
        let roots = package.targets.iter().filter(|target| {
            let kinds = [TargetKind::Lib, TargetKind::Bin];
            target.kind.iter().any(|kind| kinds.contains(kind))
        });
        let roots = roots
            .map(|target| target.src_path.clone().into_std_path_buf())
            .collect();
        let folder = package
            .manifest_path
            .parent()
            .unwrap()
            .as_std_path()
            .to_owned();
        (
            package.name.to_string(),
            Package {
                folder,
                roots,
                knows,
            },
        )
    });
    Tree {
        root: metadata.workspace_root.clone().into_std_path_buf(),
        packages: packages.collect(),
    }
}

/// What each package of the workspace needs of the workspace.
fn direct(metadata: &Metadata) -> BTreeMap<String, Vec<String>> {
    let packages = metadata.workspace_packages();
    let names: BTreeSet<&str> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let needs = |package: &cargo_metadata::Package| {
        package
            .dependencies
            .iter()
            // A path tells the workspace's own `sel4-sys` from the one on crates.io.
            .filter(|needed| needed.kind == DependencyKind::Normal && needed.path.is_some())
            .filter(|needed| names.contains(needed.name.as_str()))
            .map(|needed| needed.name.clone())
            .collect()
    };
    packages
        .iter()
        .map(|package| (package.name.to_string(), needs(package)))
        .collect()
}

impl Tree {
    fn knows(&self, package: &str) -> &BTreeSet<String> {
        &self
            .packages
            .get(package)
            .unwrap_or_else(|| panic!("no package {package}"))
            .knows
    }

    fn forbid(&self, package: &str, others: &[&str]) {
        for other in others {
            assert!(self.packages.contains_key(*other), "no package {other}");
            assert!(
                !self.knows(package).contains(*other),
                "{package} must not know {other}"
            );
        }
    }

    /// The package knows nothing of the workspace but these.
    fn only(&self, package: &str, allowed: &[&str]) {
        for known in self.knows(package) {
            assert!(
                allowed.contains(&known.as_str()),
                "{package} must not know {known}"
            );
        }
    }

    fn below(&self, folder: &str) -> Vec<&str> {
        let folder = self.root.join(folder);
        let inside = self
            .packages
            .iter()
            .filter(|(_, package)| package.folder.starts_with(&folder));
        inside.map(|(name, _)| name.as_str()).collect()
    }
}

#[test]
fn the_vocabulary_knows_nothing_above_it() {
    let tree = tree();
    tree.only("portcullis-hw", &[]);
    tree.only("ledger", &[]);
    tree.only("ipc-proto", &["portcullis-hw"]);
    tree.only("portcullis-system", &["portcullis-hw"]);
}

#[test]
fn cores_know_neither_each_other_nor_the_kernel() {
    let tree = tree();
    for core in CORES {
        tree.only(
            core,
            &["portcullis-hw", "ledger", "ipc-proto", "portcullis-system"],
        );
    }
}

#[test]
fn a_server_knows_no_core_but_its_own() {
    let tree = tree();
    for (program, own) in PAIRS {
        let others: Vec<&str> = CORES.into_iter().filter(|core| *core != own).collect();
        tree.forbid(program, &others);
        tree.forbid(
            program,
            &["portcullis-client", "sel4-client", "images", GENERATOR],
        );
    }
}

#[test]
fn clients_know_no_server() {
    let tree = tree();
    tree.only(
        "portcullis-client",
        &["portcullis-hw", "ipc-proto", "portcullis-system"],
    );
    let drivers = tree.below("drivers");
    assert!(!drivers.is_empty());
    for driver in drivers {
        tree.forbid(driver, &CORES);
        tree.forbid(driver, &["images", "sim", GENERATOR]);
    }
}

#[test]
fn the_bindings_know_nothing_of_the_project() {
    let tree = tree();
    for package in ["sel4-sys", "sel4", "sel4-rt", GENERATOR] {
        tree.only(package, &["sel4-sys", "sel4", GENERATOR]);
    }
    for package in ["sel4-glue", "sel4-client"] {
        tree.forbid(package, &CORES);
    }
    tree.forbid("sel4-glue", &["portcullis-client"]);
}

#[test]
fn the_host_side_knows_no_kernel() {
    let tree = tree();
    for package in ["images", "sim", "compare", "scenarios"] {
        tree.forbid(package, &KERNEL);
    }
    tree.only(
        "images",
        &[
            "portcullis-hw",
            "portcullis-system",
            "compare",
            "sim",
            GENERATOR,
        ],
    );
    tree.only("compare", &["portcullis-hw", "sim"]);
}

#[test]
fn peers_know_nothing_of_the_project() {
    tree().only("linux-peer", &[]);
}

#[test]
fn nobody_builds_upon_a_program() {
    let tree = tree();
    for package in tree.packages.keys() {
        tree.forbid(package, &PROGRAMS);
    }
}

#[test]
fn pure_packages_forbid_unsafe_code() {
    let tree = tree();
    let pure = [
        "portcullis-hw",
        "ipc-proto",
        "portcullis-system",
        "portcullis-client",
    ];
    let host = ["images", "sim", "compare", "scenarios", GENERATOR];
    for name in pure.iter().chain(&CORES).chain(&host) {
        for root in &tree.packages[*name].roots {
            let text = std::fs::read_to_string(root).unwrap();
            assert!(
                text.contains("#![forbid(unsafe_code)]"),
                "{} lacks #![forbid(unsafe_code)]",
                root.strip_prefix(&tree.root).unwrap().display()
            );
        }
    }
}

/// The one file outside `sel4/`: calls of Linux, by a program that is in no image and measures what a peer costs.
const OF_A_PEER: &str = "peers/linux/src/sys.rs";

#[test]
fn unsafe_stands_under_sel4_only() {
    let tree = tree();
    let bindings = tree.root.join("sel4");
    let of_a_peer = tree.root.join(OF_A_PEER);
    for package in tree.packages.values() {
        if package.folder.starts_with(&bindings) {
            continue;
        }
        for path in sources(&package.folder) {
            if path == of_a_peer {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let found = unsafe_lines(text.parse().unwrap());
            let shown = path.strip_prefix(&tree.root).unwrap().display();
            assert_eq!(found, [0; 0], "{shown}: `unsafe` in these lines");
        }
    }
}

/// What differs between kernels is in one folder of the bindings; the generator says which family a
/// kernel is of, and the build script tells the compiler.
#[test]
fn one_module_knows_the_kernels_apart() {
    let tree = tree();
    let allowed = ["sel4/sys/src/abi", "sel4/sys/build.rs", "sel4/gen"].map(|path| {
        let path = tree.root.join(path);
        assert!(path.exists(), "no {}", path.display());
        path
    });
    let mut found = BTreeSet::new();
    for package in tree.packages.values() {
        for path in sources(&package.folder) {
            let text = std::fs::read_to_string(&path).unwrap();
            let lines = family_lines(text.parse().unwrap());
            let allowed = allowed.iter().position(|allowed| path.starts_with(allowed));
            match allowed {
                Some(place) if !lines.is_empty() => {
                    found.insert(place);
                }
                Some(_) => {}
                None => {
                    let shown = path.strip_prefix(&tree.root).unwrap().display();
                    assert_eq!(lines, [0; 0], "{shown}: asks for the kernel's version");
                }
            }
        }
    }
    assert_eq!(found.len(), allowed.len(), "the search found too little");
}

/// Families of kernels. In one text, so that the search does not find itself.
const FAMILIES: &str = "v5 modern";

/// Lines that ask for a family of kernels: by the `cfg` of the bindings, or by a family's name. Texts of
/// whole sentences and comments do not count.
fn family_lines(tokens: TokenStream) -> Vec<usize> {
    let mut lines = Vec::new();
    for token in tokens {
        let asks = match &token {
            TokenTree::Ident(word) => *word == "sel4_abi",
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                let mut names = FAMILIES.split(' ').map(|name| format!("{name:?}"));
                names.any(|name| text == name)
            }
            TokenTree::Group(group) => {
                lines.extend(family_lines(group.stream()));
                false
            }
            TokenTree::Punct(_) => false,
        };
        if asks {
            lines.push(token.span().start().line);
        }
    }
    lines
}

#[test]
fn the_search_for_families_finds_them() {
    let lines = |text: &str| family_lines(text.parse().unwrap());
    assert_eq!(
        lines("mod m {\n#[cfg(not(sel4_abi = \"v5\"))]\nfn f() {} }"),
        [2, 2]
    );
    assert_eq!(
        lines("fn f() -> bool {\n\n cfg!(sel4_abi = \"modern\") }"),
        [3, 3]
    );
    assert_eq!(lines("fn f() { match ABI { \"v5\" => 1, _ => 2 } }"), [1]);
    assert_eq!(
        lines("// sel4_abi\n/// of \"v5\"\nfn f() { \"a modern kernel\" }"),
        [0; 0]
    );
}

/// The Rust files of a package; packages within it are others' business.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir()
            && !path.join("Cargo.toml").exists()
            && path.file_name().unwrap() != "target"
        {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Lines with the word `unsafe`, save in attributes such as `#[unsafe(no_mangle)]`.
fn unsafe_lines(tokens: TokenStream) -> Vec<usize> {
    let mut lines = Vec::new();
    let mut after_hash = false;
    for token in tokens {
        match &token {
            TokenTree::Ident(word) if *word == "unsafe" => lines.push(word.span().start().line),
            TokenTree::Group(group) => {
                let attribute = after_hash && group.delimiter() == Delimiter::Bracket;
                if !attribute {
                    lines.extend(unsafe_lines(group.stream()));
                }
            }
            _ => {}
        }
        // `#[...]` and `#![...]`.
        after_hash = match &token {
            TokenTree::Punct(sign) => sign.as_char() == '#' || after_hash && sign.as_char() == '!',
            _ => false,
        };
    }
    lines
}

#[test]
fn the_search_for_unsafe_finds_it() {
    let lines = |text: &str| unsafe_lines(text.parse().unwrap());
    assert_eq!(lines("fn f() {\n    unsafe { g() }\n}"), [2]);
    assert_eq!(lines("unsafe impl Send for X {}"), [1]);
    assert_eq!(lines("macro_rules! m { () => {\n[unsafe { g() }] } }"), [2]);
    assert_eq!(
        lines("#![forbid(unsafe_code)]\n// unsafe\n#[unsafe(no_mangle)]\nfn f() { \"unsafe\"; }"),
        [0; 0]
    );
}
