//! The program behind `./x`: reads the command line and calls [`images::commands`].

#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use images::commands::bench::Beside;
use images::commands::run::Lines;
use images::commands::{Success, bench, check, compare, fuzz, lint, plan, run, show_error, test};
use images::error::Error;
use images::workspace::Workspace;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Builds, boots and judges systems made with Portcullis.
#[derive(Parser)]
#[command(name = "./x", bin_name = "./x", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build a system, boot it in QEMU and judge the run
    Run {
        /// Description: a file, or a name in systems/
        #[arg(default_value = "systems/demo.toml")]
        system: String,
        /// Show the lines that are for the judge, too
        #[arg(short, long)]
        verbose: bool,
        /// Show only the account at the end
        #[arg(short, long, conflicts_with = "verbose")]
        quiet: bool,
    },
    /// Run the host's tests and every scenario in systems/
    Test {
        /// Run only the scenarios whose names contain this
        filter: Option<String>,
    },
    /// Measure what each operation costs, and show it beside the goals and what it costs elsewhere
    Bench {
        /// Measure Linux, too: Debian's stock kernel with VFIO, in the same machine
        #[arg(long)]
        peers: bool,
    },
    /// Build a system's kernel and image
    Build {
        /// Description: a file, or a name in systems/
        #[arg(default_value = "systems/demo.toml")]
        system: String,
    },
    /// Say whether a description is valid, and what is wrong with it
    Check {
        /// Description: a file, or a name in systems/
        system: String,
    },
    /// Show which remapping unit serves which device, as a machine's ACPI tables say
    Plan {
        /// Folder with the machine's DMAR or IVRS, or with a folder for each of many machines
        folder: PathBuf,
        /// What `lspci -xxxx` printed on the machine: tells what is behind bridges
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Throw malformed input at what reads firmware's tables: `./x fuzz acpi --inputs 10000000`
    #[command(disable_help_flag = true)]
    Fuzz {
        /// What to fuzz, and how: `./x fuzz --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Compare what the project reads from dumps of configuration spaces with what lspci reads
    Compare {
        /// What `lspci -xxxx` (or -xxx, -x) printed, on any machine
        dump: PathBuf,
        /// More of them
        more: Vec<PathBuf>,
        /// Sizes of BARs as that machine's system saw them: lines of function, BAR, size, between tabs
        #[arg(long, value_name = "FILE", conflicts_with = "more")]
        regions: Option<PathBuf>,
        /// Show also the differences that have a reason
        #[arg(short, long)]
        verbose: bool,
    },
    /// Check formatting, and run clippy on everything
    Lint,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let workspace = match Workspace::find() {
        Ok(workspace) => workspace,
        Err(error) => {
            show_error(None, &error);
            return ExitCode::FAILURE;
        }
    };
    match perform(&workspace, cli.command) {
        Ok(Success::Yes) => ExitCode::SUCCESS,
        Ok(Success::No) => ExitCode::FAILURE,
        Err(error) => {
            show_error(Some(&workspace), &error);
            ExitCode::from(2)
        }
    }
}

fn perform(workspace: &Workspace, action: Action) -> Result<Success, Error> {
    match action {
        Action::Run {
            system,
            verbose,
            quiet,
        } => {
            let lines = match (verbose, quiet) {
                (true, _) => Lines::All,
                (_, true) => Lines::None,
                _ => Lines::ForPeople,
            };
            run::run(workspace, &system, lines)
        }
        Action::Test { filter } => test::test(workspace, filter.as_deref()),
        Action::Bench { peers } => {
            let beside = match peers {
                true => Beside::Measured,
                false => Beside::Known,
            };
            bench::bench(workspace, beside)
        }
        Action::Build { system } => run::build(workspace, &system),
        Action::Check { system } => check::check(workspace, &system),
        Action::Plan { folder, config } => plan::plan(&folder, config.as_deref()),
        Action::Fuzz { arguments } => fuzz::fuzz(workspace, &arguments),
        Action::Compare {
            dump,
            mut more,
            regions,
            verbose,
        } => {
            more.insert(0, dump);
            let shown = match verbose {
                true => compare::Shown::Explained,
                false => compare::Shown::Unexplained,
            };
            compare::compare(&more, regions.as_deref(), shown)
        }
        Action::Lint => lint::lint(workspace),
    }
}
