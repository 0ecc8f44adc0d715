//! [`Rows`]: the rows of the table, as `images/figures/rows.toml` has them:
//! what each is, its goal, what the same work costs elsewhere.

use serde::Deserialize;

/// The file.
const TEXT: &str = include_str!("../../figures/rows.toml");
/// The system that measures a row of which nothing else is said.
pub const SYSTEM: &str = "costs";

/// Rows in the order of the table, and where the peers' figures come from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// Where the peers' figures come from.
    pub sources: Sources,
    /// The rows.
    #[serde(rename = "row")]
    pub rows: Vec<Row>,
}

/// Where the figures of each column were measured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sources {
    /// Column `linux`.
    pub linux: String,
    /// Column `xen`.
    pub xen: String,
    /// Column `floor`.
    pub floor: String,
}

/// One row.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Name of the metric.
    pub key: String,
    /// What is done, for people.
    pub title: String,
    /// More of that.
    pub about: Option<String>,
    /// The system in `systems/` that measures it.
    #[serde(default = "default_system")]
    pub system: String,
    /// The metric that says over how much the figure is a mean; without, `<key>.n` says how often it was measured.
    pub count: Option<String>,
    /// Unit.
    #[serde(default = "default_unit")]
    pub unit: String,
    /// Not more than this is wanted.
    pub goal: Option<f64>,
    /// Linux with VFIO.
    pub linux: Option<f64>,
    /// What that figure is, if not the same.
    pub linux_is: Option<String>,
    /// Xen.
    pub xen: Option<f64>,
    /// What that figure is, if not the same.
    pub xen_is: Option<String>,
    /// The kernel's part, which nothing built on it can be below.
    pub floor: Option<f64>,
    /// What that is made of.
    pub floor_is: Option<String>,
}

fn default_system() -> String {
    SYSTEM.into()
}

/// Instructions of the guest.
pub const INSTRUCTIONS: &str = "instructions";

fn default_unit() -> String {
    INSTRUCTIONS.into()
}

impl Rows {
    /// The rows of the project.
    ///
    /// # Errors
    /// The file is not of its form; a test holds that it is.
    pub fn load() -> Result<Self, toml::de::Error> {
        toml::from_str(TEXT)
    }

    /// The systems that measure them, each once, in order.
    #[must_use]
    pub fn systems(&self) -> Vec<&str> {
        let mut systems = Vec::new();
        for row in &self.rows {
            if !systems.contains(&row.system.as_str()) {
                systems.push(&row.system);
            }
        }
        systems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_file_is_right() {
        let rows = Rows::load().unwrap();
        let keys: BTreeSet<_> = rows.rows.iter().map(|row| &row.key).collect();
        assert_eq!(keys.len(), rows.rows.len(), "a row twice");
        assert_eq!(rows.systems(), ["costs", "many"]);
        for row in &rows.rows {
            let goal = row.goal.unwrap_or(f64::INFINITY);
            assert!(
                goal > 0.0 && row.floor.is_none_or(|floor| floor < goal),
                "{}",
                row.key
            );
            assert_eq!(row.floor.is_some(), row.floor_is.is_some(), "{}", row.key);
            let systems = concat!(env!("CARGO_MANIFEST_DIR"), "/../systems");
            let system = std::path::Path::new(systems).join(format!("{}.toml", row.system));
            assert!(system.is_file(), "{}", system.display());
        }
    }
}
