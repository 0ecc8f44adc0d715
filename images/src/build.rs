//! From a description to what QEMU loads: kernel, programs, image, disks.

use crate::description::Description;
use crate::disk::{self, Image};
use crate::error::Error;
use crate::kernel::{self, BuiltKernel, Freshness, KernelError, KernelSpec, installed};
use crate::pack;
use crate::programs::{self, Programs, Recipe, SERVERS};
use crate::ui::Ui;
use crate::workspace::Workspace;
use sel4_gen::IommuDriver;
use std::path::{Path, PathBuf};
use system::model::IommuChoice;

/// Everything that a run needs.
#[derive(Clone, Debug)]
pub struct Bootable {
    /// The kernel.
    pub kernel: BuiltKernel,
    /// The programs, with symbols.
    pub programs: Programs,
    /// The image: root task and bundle.
    pub image: PathBuf,
    /// Disks of the machine.
    pub disks: Vec<Image>,
}

/// Who drives the IOMMU of a system.
#[must_use]
pub fn iommu_driver(description: &Description) -> IommuDriver {
    match description.system.iommu {
        IommuChoice::Kernel => IommuDriver::Kernel,
        IommuChoice::Auto | IommuChoice::Vtd | IommuChoice::AmdVi | IommuChoice::None => {
            IommuDriver::User
        }
    }
}

/// Why the kernel that `SEL4_PREFIX` names will not do for a description, a sentence each; nothing
/// if it will, or if the kernel is built here.
#[must_use]
pub fn kernel_lacks(workspace: &Workspace, description: &Description) -> Vec<String> {
    let needs = installed::needs(description.machine.cores.into(), iommu_driver(description));
    match &workspace.prefix {
        Some(prefix) => installed::lacks(prefix, &needs, &description.kernel_spec()),
        None => Vec::new(),
    }
}

/// The same for a system that asks for nothing special.
///
/// # Errors
/// It will not do for any system.
pub fn check_kernel(workspace: &Workspace) -> Result<(), Error> {
    let Some(prefix) = &workspace.prefix else {
        return Ok(());
    };
    let needs = installed::needs(1, IommuDriver::User);
    let spec = KernelSpec::new(kernel::Build::Release, 1);
    refuse(installed::lacks(prefix, &needs, &spec))
}

fn refuse(lacks: Vec<String>) -> Result<(), Error> {
    match lacks.is_empty() {
        true => Ok(()),
        false => Err(KernelError::Unfit(lacks).into()),
    }
}

/// Builds the kernel that a description asks for, or takes the one that `SEL4_PREFIX` names, and
/// says how to build programs for it.
///
/// # Errors
/// The kernel cannot be built, or the one that is named will not do for any system.
pub fn kernel(
    workspace: &Workspace,
    spec: &KernelSpec,
    ui: Ui,
) -> Result<(BuiltKernel, Recipe), Error> {
    check_kernel(workspace)?;
    let folder = workspace.output("kernel")?;
    let (step, word, built) = match &workspace.prefix {
        Some(prefix) => {
            let step = ui.step("kernel of SEL4_PREFIX");
            (step, "ready", installed::take(prefix, &folder))
        }
        None => {
            let step = ui.step(format!("kernel {}", spec.variant()));
            let built = kernel::build(spec, &workspace.root, &folder, &|what| step.say(what));
            (step, "built", built)
        }
    };
    match &built {
        Ok(built) => step.done((built.freshness == Freshness::Built).then(|| word.into())),
        Err(_) => step.abandon(),
    }
    let built = built?;
    let recipe = Recipe::new(workspace, &built)?;
    Ok((built, recipe))
}

/// Makes everything that a description's run needs. What is there already is not made again.
///
/// # Errors
/// Kernel, programs, image or disks cannot be made.
pub fn bootable(
    workspace: &Workspace,
    description: &Description,
    ui: Ui,
) -> Result<Bootable, Error> {
    refuse(kernel_lacks(workspace, description))?;
    let (kernel, recipe) = kernel(workspace, &description.kernel_spec(), ui)?;
    let programs = programs::build(workspace, &recipe, ui)?;
    let image = image(workspace, description, &programs)?;
    let folder = workspace.output("disks")?;
    let disks = description
        .machine
        .disks
        .iter()
        .map(|disk| disk::prepare(&description.name, disk, &folder))
        .collect::<Result<_, _>>()?;
    Ok(Bootable {
        kernel,
        programs,
        image,
        disks,
    })
}

fn image(
    workspace: &Workspace,
    description: &Description,
    programs: &Programs,
) -> Result<PathBuf, Error> {
    let name = &description.name;
    let compiled = description.compile().map_err(|error| Error::Pack {
        system: name.clone(),
        why: error.to_string(),
    })?;
    let names: Vec<&str> = SERVERS.into_iter().chain(description.programs()).collect();
    let paths: Vec<PathBuf> = names.iter().map(|name| programs.path(name)).collect();
    let entries: Vec<(&str, &Path)> = names
        .iter()
        .copied()
        .zip(paths.iter().map(PathBuf::as_path))
        .collect();
    let bytes = pack::image(name, &programs.root_task(), &compiled, &entries)?;
    let path = workspace.output("images")?.join(format!("{name}.elf"));
    // Packing takes milliseconds; an image that is the same keeps its time stamp.
    if std::fs::read(&path).ok().as_ref() != Some(&bytes) {
        std::fs::write(&path, &bytes).map_err(Error::file("write", &path))?;
    }
    Ok(path)
}
