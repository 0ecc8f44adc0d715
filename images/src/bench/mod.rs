//! The benchmark's figures: [`Rows`] says what is measured, [`Figures`] what
//! came, [`Table`] shows both to people and [`chart`] draws them. [`Scaling`] says
//! by a [`model`] how far shards carry.
//!
//! The figures for machines are `reports/bench.json`:
//! `{"<row>": {"median", "min", "n", "unit"}}`.

mod chart;
pub mod model;
mod rows;
mod scaling;
mod table;

pub use chart::chart;
pub use rows::{INSTRUCTIONS, Row, Rows, SYSTEM, Sources};
pub use scaling::Scaling;
pub use table::Table;

use crate::judge::Metrics;
use serde::Serialize;
use std::collections::BTreeMap;

/// What was measured of one row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The median; where `n` functions were measured together, their mean.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// How often it was measured.
    pub n: u64,
    /// Of what the figures count.
    pub unit: String,
}

/// Figures by the keys of their rows.
pub type Figures = BTreeMap<String, Figure>;

/// Takes the figures of the rows that `system` measures from what its run said.
pub fn collect(rows: &Rows, system: &str, metrics: &Metrics, into: &mut Figures) {
    for row in rows.rows.iter().filter(|row| row.system == system) {
        let Some(&median) = metrics.get(&row.key) else {
            continue;
        };
        let of = |suffix: &str| metrics.get(&format!("{}.{suffix}", row.key)).copied();
        let counted = row.count.as_ref().and_then(|key| metrics.get(key).copied());
        let figure = Figure {
            median,
            min: of("min").unwrap_or(median),
            n: counted.or(of("n")).unwrap_or(1.0) as u64,
            unit: row.unit.clone(),
        };
        into.insert(row.key.clone(), figure);
    }
}

/// The figures for machines.
#[must_use]
pub fn json(figures: &Figures) -> String {
    // Texts and finite numbers cannot fail to be JSON.
    let mut text = serde_json::to_string_pretty(figures).unwrap_or_default();
    text.push('\n');
    text
}

/// Whole figures with a comma after each three digits, others with one decimal place.
#[must_use]
pub fn number(value: f64) -> String {
    if value.fract() != 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_the_rows_of_their_system() {
        let rows = Rows::load().unwrap();
        let metrics: Metrics = [
            ("assign", 6100.0),
            ("assign.min", 6000.0),
            ("assign.n", 200.0),
            ("boot_to_first_assign", 281.5),
            ("rescan_per_function", 400.0),
            ("functions", 240.0),
            ("timer_overhead", 4.0),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        let mut figures = Figures::new();
        collect(&rows, SYSTEM, &metrics, &mut figures);
        let keys: Vec<&String> = figures.keys().collect();
        assert_eq!(keys, ["assign", "boot_to_first_assign"]);
        collect(&rows, "many", &metrics, &mut figures);
        let read: serde_json::Value = serde_json::from_str(&json(&figures)).unwrap();
        let wanted = serde_json::json!({
            "assign": {"median": 6100.0, "min": 6000.0, "n": 200, "unit": "instructions"},
            "boot_to_first_assign": {"median": 281.5, "min": 281.5, "n": 1, "unit": "ms"},
            "rescan_per_function": {"median": 400.0, "min": 400.0, "n": 240, "unit": "instructions"},
        });
        assert_eq!(read, wanted);
    }

    #[test]
    fn numbers_are_read_at_a_glance() {
        for (value, text) in [
            (0.0, "0"),
            (550.0, "550"),
            (1000.0, "1,000"),
            (2_420_000.0, "2,420,000"),
            (281.19, "281.2"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
