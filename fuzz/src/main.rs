//! `fuzz acpi`: as many inputs as one likes, or one again. `./x fuzz` calls it.
#![forbid(unsafe_code)]

use clap::{Args, Parser, Subcommand};
use fuzz::check::Violation;
use fuzz::corpus::{Corpus, real_tables};
use fuzz::run::{Failure, Plan, current, input, replay, run};
use indicatif::{ProgressBar, ProgressStyle};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
#[command(
    name = "fuzz",
    about = "Malformed input for the readers of what firmware says"
)]
struct Cli {
    #[command(subcommand)]
    target: Target,
}

#[derive(Subcommand)]
enum Target {
    /// ACPI tables
    Acpi(Acpi),
}

#[derive(Args, Clone)]
struct Acpi {
    /// How many inputs
    #[arg(long, default_value_t = 1_000_000)]
    inputs: u64,
    /// Decides all inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this input, with its bytes shown
    #[arg(long)]
    replay: Option<u64>,
    /// Folder with a folder of tables for each of many machines, which inputs begin with, too
    /// [default: the data folder of real machines, if there is one]
    #[arg(long)]
    tables: Option<PathBuf>,
    /// Begin with tables that are built here only
    #[arg(long, conflicts_with = "tables")]
    built: bool,
    /// How many at a time [default: one for each processor]
    #[arg(long)]
    workers: Option<NonZeroUsize>,
}

fn main() -> ExitCode {
    let Target::Acpi(acpi) = Cli::parse().target;
    match acpi.perform() {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::FAILURE
        }
    }
}

impl Acpi {
    fn perform(&self) -> Result<(), String> {
        let mut corpus = Corpus::built();
        if let Some(folder) = self.folder() {
            let shown = folder.display();
            corpus
                .add_real(&folder)
                .map_err(|error| format!("cannot read {shown}: {error}"))?;
        }
        let (built, real) = (corpus.built.len(), corpus.real.len());
        println!(
            "seed {}, tables to begin with: {built} built, {real} real",
            self.seed
        );
        match self.replay {
            Some(index) => self.again(&corpus, index),
            None => self.all(corpus),
        }
    }

    /// Where tables of real machines are, if they are wanted and there are any.
    fn folder(&self) -> Option<PathBuf> {
        match (self.built, &self.tables) {
            (true, _) => None,
            (false, Some(folder)) => Some(folder.clone()),
            (false, None) => real_tables(),
        }
    }

    fn again(&self, corpus: &Corpus, index: u64) -> Result<(), String> {
        let (bytes, _) = input(corpus, self.seed, index);
        for (row, bytes) in bytes.chunks(16).enumerate() {
            let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            println!("{:04x}: {}", row * 16, hex.join(" "));
        }
        match replay(corpus, self.seed, index) {
            Ok(outcome) => {
                println!("{outcome:#?}");
                Ok(())
            }
            Err(Violation(what)) => Err(what),
        }
    }

    fn all(&self, corpus: Corpus) -> Result<(), String> {
        let bar = ProgressBar::new(self.inputs);
        let template = "{bar:40} {human_pos} of {human_len} inputs, {per_sec}, {eta} left";
        // The template is constant; a wrong one would show the default style.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let processors = std::thread::available_parallelism();
        let workers = self
            .workers
            .or(processors.ok())
            .map_or(1, NonZeroUsize::get);
        let plan = Plan {
            inputs: self.inputs,
            seed: self.seed,
            workers,
        };
        // A panic ends the program at once.
        let (told, usual) = (self.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            usual(panic);
            if let Some(index) = current() {
                let what = "a panic, told above".to_owned();
                eprintln!("error: {}", told.told(&Failure { index, what }));
            }
        }));
        let start = Instant::now();
        let result = run(corpus, plan, |done| bar.set_position(done));
        bar.finish_and_clear();
        let outcome = result.map_err(|failure| self.told(&failure))?;
        let took = start.elapsed().as_secs_f64();
        println!(
            "{} inputs clean in {took:.1} s: {} tables and {} records read, {} plans made; rules broken:",
            self.inputs, outcome.read, outcome.records, outcome.plans
        );
        for ((table, rule), count) in &outcome.reached {
            println!("  {table}  {count:>10}  {rule}");
        }
        Ok(())
    }

    fn told(&self, failure: &Failure) -> String {
        let folder = match self.folder() {
            Some(folder) => format!(" --tables {}", folder.display()),
            None => " --built".to_owned(),
        };
        format!(
            "input {index}: {what}\nagain: ./x fuzz acpi --seed {seed}{folder} --replay {index}",
            index = failure.index,
            what = failure.what,
            seed = self.seed
        )
    }
}
