//! [`Report`]: counts, and every difference, of one dump or of many.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::explain::{Difference, Rule};
use crate::sizes::SizeResult;

/// What kind of thing was compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// A field of the header.
    Header,
    /// A BAR or expansion ROM.
    Region,
    /// That there is a capability, with its offset, name and version.
    Capability,
    /// A field of a capability.
    Field,
}

impl Class {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Header, "header fields"),
        (Self::Region, "regions"),
        (Self::Capability, "capabilities"),
        (Self::Field, "capability fields"),
    ];
}

/// How many comparisons came to what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Both readings are the same.
    pub equal: usize,
    /// They differ for a reason in [`crate::explain::RULES`].
    pub explained: usize,
    /// They differ.
    pub unexplained: usize,
}

impl Counts {
    /// All of them.
    #[must_use]
    pub const fn compared(&self) -> usize {
        self.equal + self.explained + self.unexplained
    }

    fn add(&mut self, other: Self) {
        self.equal += other.equal;
        self.explained += other.explained;
        self.unexplained += other.unexplained;
    }
}

/// A difference and its reason.
pub struct Explained {
    /// Why.
    pub rule: &'static Rule,
    /// What.
    pub difference: Difference,
}

/// What came of one function.
pub struct FunctionResult {
    /// Its address.
    pub name: String,
    counts: [Counts; 4],
    /// Differences with a reason.
    pub explained: Vec<Explained>,
    /// Differences without.
    pub unexplained: Vec<Difference>,
    /// Lines of lspci's about capabilities that hw does not decode.
    pub not_decoded: usize,
    /// Fields of hw's that lspci prints only in some versions or for some functions.
    pub not_printed: usize,
}

impl FunctionResult {
    /// Nothing yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            counts: [Counts::default(); 4],
            explained: Vec::new(),
            unexplained: Vec::new(),
            not_decoded: 0,
            not_printed: 0,
        }
    }

    /// The counts of all classes.
    #[must_use]
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.counts {
            total.add(counts);
        }
        total
    }

    /// The counts of a class.
    pub fn count(&mut self, class: Class) -> &mut Counts {
        &mut self.counts[class as usize]
    }
}

/// What came of one dump.
pub struct Dump {
    /// Its file.
    pub path: PathBuf,
    /// Its functions.
    pub functions: Vec<FunctionResult>,
    /// Sizes of regions, if they were given.
    pub sizes: SizeResult,
}

impl Dump {
    /// Nothing yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            functions: Vec::new(),
            sizes: SizeResult::default(),
        }
    }
}

/// What came of a comparison.
#[derive(Default)]
pub struct Report {
    /// Dump by dump.
    pub dumps: Vec<Dump>,
}

impl Report {
    /// Adds another's dumps.
    pub fn add(&mut self, other: Self) {
        self.dumps.extend(other.dumps);
    }

    fn functions(&self) -> impl Iterator<Item = &FunctionResult> {
        self.dumps.iter().flat_map(|dump| &dump.functions)
    }

    /// The counts of a class.
    #[must_use]
    pub fn count(&self, class: Class) -> Counts {
        let mut counts = Counts::default();
        for function in self.functions() {
            counts.add(function.counts[class as usize]);
        }
        counts
    }

    /// All comparisons, of sizes too.
    #[must_use]
    pub fn total(&self) -> Counts {
        let mut counts = Counts::default();
        for (class, _) in Class::ALL {
            counts.add(self.count(class));
        }
        for dump in &self.dumps {
            counts.add(dump.sizes.counts());
        }
        counts
    }

    /// How many differences each rule explains.
    #[must_use]
    pub fn by_rule(&self) -> Vec<(&'static Rule, usize)> {
        let mut by_name: BTreeMap<&str, (&'static Rule, usize)> = BTreeMap::new();
        for (_, _, Explained { rule, .. }) in self.explained() {
            by_name.entry(rule.name).or_insert((rule, 0)).1 += 1;
        }
        by_name.into_values().collect()
    }

    /// Every difference with a reason: dump, function, difference.
    pub fn explained(&self) -> impl Iterator<Item = (&Path, &str, &Explained)> {
        self.dumps.iter().flat_map(|dump| {
            let functions = dump.functions.iter();
            functions.flat_map(|function| {
                let found = function.explained.iter();
                found.map(|found| (dump.path.as_path(), function.name.as_str(), found))
            })
        })
    }

    /// Every difference without a reason: dump, function, difference.
    pub fn unexplained(&self) -> impl Iterator<Item = (&Path, &str, String)> {
        self.dumps.iter().flat_map(|dump| {
            let fields = dump.functions.iter().flat_map(|function| {
                let differences = function.unexplained.iter();
                differences.map(|difference| (function.name.as_str(), difference.to_string()))
            });
            let sizes = dump.sizes.unexplained.iter();
            let sizes = sizes.map(|size| (size.function.as_str(), size.to_string()));
            fields
                .chain(sizes)
                .map(|(name, text)| (dump.path.as_path(), name, text))
        })
    }
}

impl fmt::Display for Report {
    /// The counts, the reasons with how often each was needed, and every difference without one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let functions = self.functions().count();
        writeln!(f, "{} dumps, {functions} functions", self.dumps.len())?;
        writeln!(
            f,
            "{:<18} {:>9} {:>9} {:>9} {:>11}",
            "", "compared", "equal", "explained", "unexplained"
        )?;
        let row = |f: &mut fmt::Formatter<'_>, name: &str, counts: Counts| {
            writeln!(
                f,
                "{name:<18} {:>9} {:>9} {:>9} {:>11}",
                counts.compared(),
                counts.equal,
                counts.explained,
                counts.unexplained
            )
        };
        for (class, name) in Class::ALL {
            row(f, name, self.count(class))?;
        }
        let mut sizes = Counts::default();
        for dump in &self.dumps {
            sizes.add(dump.sizes.counts());
        }
        if sizes.compared() != 0 {
            row(f, "sizes", sizes)?;
        }
        row(f, "all", self.total())?;
        let not_decoded: usize = self.functions().map(|function| function.not_decoded).sum();
        let not_printed: usize = self.functions().map(|function| function.not_printed).sum();
        writeln!(
            f,
            "not compared: {not_decoded} lines of lspci about capabilities that hw does not decode, \
             {not_printed} fields of hw that this lspci does not print"
        )?;
        for (rule, count) in self.by_rule() {
            writeln!(f, "explained {count} times: {}: {}", rule.name, rule.reason)?;
        }
        for dump in &self.dumps {
            for size in &dump.sizes.explained {
                writeln!(
                    f,
                    "explained: {} {}: {size}",
                    dump.path.display(),
                    size.function
                )?;
            }
        }
        for (path, function, text) in self.unexplained() {
            writeln!(f, "UNEXPLAINED: {} {function} {text}", path.display())?;
        }
        Ok(())
    }
}
