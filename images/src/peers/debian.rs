//! [`take`]: Debian's stock kernel, downloaded by apt and unpacked below the
//! target folder; nothing is installed.

use crate::error::Error;
use crate::ui::Ui;
use crate::workspace::Workspace;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Debian's name of its current kernel for PCs: an empty package that needs the real one.
const CURRENT: &str = "linux-image-amd64";
/// The modules that VFIO needs of it, in the order in which they are loaded.
pub const MODULES: [&str; 6] = [
    "irqbypass.ko",
    "vfio.ko",
    "vfio_virqfd.ko",
    "vfio_iommu_type1.ko",
    "vfio-pci-core.ko",
    "vfio-pci.ko",
];

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Package and version.
    pub name: String,
    /// What boots.
    pub image: PathBuf,
    /// Those of [`MODULES`] that it has, in that order: later kernels have some of them built in.
    pub modules: Vec<PathBuf>,
}

/// Gets the kernel, or finds the one that was got before.
///
/// # Errors
/// A sentence that says what to do: there is no apt, it does not know the package, or cannot download it.
pub fn take(workspace: &Workspace, ui: Ui) -> Result<Kernel, Error> {
    let folder = workspace.output("peers")?;
    let step = ui.step("Debian's kernel");
    step.say("which");
    let (package, version) = current()?;
    let unpacked = folder.join(format!("{package}_{version}"));
    let mut did = None;
    if !unpacked.is_dir() {
        step.say(&format!("downloading {package} {version}"));
        let file = download(&folder, &package, &version)?;
        step.say("unpacking");
        let parts = folder.join("unpacking");
        // What was left of an attempt that was broken off.
        let _ = std::fs::remove_dir_all(&parts);
        std::fs::create_dir_all(&parts).map_err(Error::file("create", &parts))?;
        unpack(&file, &parts)?;
        std::fs::rename(&parts, &unpacked).map_err(Error::file("rename", &parts))?;
        did = Some(format!("{package} {version} unpacked"));
    }
    step.done(did);
    let mut files = Vec::new();
    list(&unpacked, &mut files)?;
    let named = |is: &dyn Fn(&str) -> bool| {
        let mut files = files.iter();
        files.find(|path| {
            path.file_name()
                .is_some_and(|name| is(&name.to_string_lossy()))
        })
    };
    let image = named(&|name| name.starts_with("vmlinuz-"));
    let image = image.ok_or(Error::Peer(format!("{package} has no kernel in it")))?;
    let modules = MODULES
        .iter()
        .filter_map(|module| named(&|name| name == *module));
    Ok(Kernel {
        name: format!("{package} {version}"),
        image: image.clone(),
        modules: modules.cloned().collect(),
    })
}

/// Runs a program of Debian's and returns what it said.
fn said(program: &str, arguments: &[&str], folder: &Path) -> Result<String, Error> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Error::Peer(format!("cannot run {program} ({error}): the peer is Debian's kernel, which needs Debian's apt and dpkg"))
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let last = why.lines().last().unwrap_or_default().to_owned();
    Err(Error::Peer(format!(
        "{program} {}: {last}",
        arguments.join(" ")
    )))
}

/// Name and version of the real package.
fn current() -> Result<(String, String), Error> {
    let unknown = |_| {
        let words = "apt does not know the package linux-image-amd64: run `apt-get update` (as root); its sources must be Debian's, main";
        Error::Peer(words.into())
    };
    let here = Path::new(".");
    let show = ["show", "--no-all-versions", CURRENT];
    let text = said("apt-cache", &show, here).map_err(unknown)?;
    let package = real(&text)
        .ok_or(())
        .map_err(|()| unknown(Error::Peer(String::new())))?;
    let text =
        said("apt-cache", &["show", "--no-all-versions", &package], here).map_err(unknown)?;
    let version = field(&text, "Version")
        .ok_or(())
        .map_err(|()| unknown(Error::Peer(String::new())))?;
    // As apt writes an epoch's colon in names of files.
    Ok((package, version.replace(':', "%3a")))
}

/// The kernel that the empty package needs, from what `apt-cache show` says of it.
fn real(text: &str) -> Option<String> {
    field(text, "Depends")?
        .split([',', ' '])
        .find(|word| word.starts_with("linux-image-"))
        .map(str::to_owned)
}

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The package's file, downloaded unless it is there.
fn download(folder: &Path, package: &str, version: &str) -> Result<PathBuf, Error> {
    let there = || -> Result<Option<PathBuf>, Error> {
        let mut files = Vec::new();
        list(folder, &mut files)?;
        Ok(files.into_iter().find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&format!("{package}_{version}_")) && name.ends_with(".deb")
        }))
    };
    if let Some(file) = there()? {
        return Ok(file);
    }
    // apt's own user may not write here: then it says so and downloads as the one who asked.
    let arguments = ["download", "-q", package];
    said("apt-get", &arguments, folder).map_err(|error| {
        let folder = folder.display();
        Error::Peer(format!(
            "{error}; the package's file can be put into {folder} by hand"
        ))
    })?;
    there()?.ok_or(Error::Peer(format!("apt-get downloaded no {package}")))
}

/// Unpacks the parts that are needed.
fn unpack(file: &Path, into: &Path) -> Result<(), Error> {
    let mut dpkg = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Error::spawn("dpkg-deb"))?;
    let mut tar = Command::new("tar");
    tar.args(["-x", "--wildcards", "-C"])
        .arg(into)
        .arg("./boot/vmlinuz-*");
    tar.args(["*/vfio*.ko*", "*/irqbypass.ko*"]);
    if let Some(stdout) = dpkg.stdout.take() {
        tar.stdin(stdout);
    }
    let status = tar.status().map_err(Error::spawn("tar"))?;
    let dpkg = dpkg.wait().map_err(Error::spawn("dpkg-deb"))?;
    if status.success() && dpkg.success() {
        Ok(())
    } else {
        Err(Error::Peer(format!("cannot unpack {}", file.display())))
    }
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let mut walk = || -> std::io::Result<()> {
        let mut open = vec![folder.to_owned()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    open.push(entry.path());
                } else {
                    files.push(entry.path());
                }
            }
        }
        Ok(())
    };
    walk().map_err(Error::file("list", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_package_is_what_the_empty_one_needs() {
        let text = "Package: linux-image-amd64\nSource: linux-signed-amd64\nVersion: 6.1.192-2\n\
            Depends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)\nDescription: Linux for 64-bit PCs\n";
        assert_eq!(real(text).unwrap(), "linux-image-6.1.0-56-amd64");
        assert_eq!(field(text, "Version"), Some("6.1.192-2"));
        assert_eq!(real("Package: other\nDepends: nothing\n"), None);
    }
}
