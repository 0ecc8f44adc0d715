//! [`Table`]: the figures for people, beside the goals and the peers'.

use super::{Figures, INSTRUCTIONS, Row, Rows, number};
use crate::peers::Measured;
use owo_colors::OwoColorize;
use std::fmt;

/// Room for a row's title.
const TITLE: usize = 38;
/// Room for a number.
const NUMBER: usize = 10;

/// Displays as text with colours; `anstream` removes them where none belong.
pub struct Table<'a> {
    /// The rows.
    pub rows: &'a Rows,
    /// What was measured of them.
    pub figures: &'a Figures,
    /// What Linux took in the same run of the tool; without, the figures of the rows' file stand there.
    pub linux: Option<&'a Measured>,
}

/// What became of a row's goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// There is none.
    None,
    /// The median is not above it.
    Met,
    /// The median is above it.
    Missed,
    /// The row was not measured.
    Unmeasured,
}

impl Table<'_> {
    /// What became of the row's goal.
    #[must_use]
    pub fn goal(&self, row: &Row) -> Goal {
        match (self.figures.get(&row.key), row.goal) {
            (None, _) => Goal::Unmeasured,
            (_, None) => Goal::None,
            (Some(figure), Some(goal)) if figure.median <= goal => Goal::Met,
            _ => Goal::Missed,
        }
    }

    fn linux(&self, row: &Row) -> Option<f64> {
        match self.linux {
            Some(measured) => measured.figures.get(&row.key).map(|figure| figure.median),
            None => row.linux,
        }
    }

    /// What was measured of Linux, and rows that it alone has.
    fn more(&self, f: &mut fmt::Formatter<'_>, measured: &Measured) -> fmt::Result {
        let kernel = &measured.kernel;
        writeln!(
            f,
            "  {} {kernel}, VFIO type 1, measured just now",
            "Linux:".bold()
        )?;
        let ours: Vec<&String> = self.rows.rows.iter().map(|row| &row.key).collect();
        let figures = measured.figures.iter();
        for (key, figure) in figures.filter(|(key, _)| !ours.contains(key)) {
            writeln!(f, "         {key:26} {:>NUMBER$}", number(figure.median))?;
        }
        Ok(())
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
        let or_dash = |value: Option<f64>| value.map_or("-".into(), number);
        let figure = self.figures.get(&row.key);
        let title = match row.unit.as_str() {
            INSTRUCTIONS => row.title.clone(),
            unit => format!("{}, {unit}", row.title),
        };
        let median = or_dash(figure.map(|figure| figure.median));
        // Widths before colours, which have none.
        let median = format!("{median:>NUMBER$}");
        let median = match self.goal(row) {
            Goal::Met => median.green().to_string(),
            Goal::Missed | Goal::Unmeasured => median.red().bold().to_string(),
            Goal::None => median,
        };
        let least = or_dash(figure.map(|figure| figure.min));
        let (linux, xen) = (self.linux(row), row.xen);
        let times = |peer: Option<f64>| match (peer, figure) {
            (Some(peer), Some(figure)) if figure.median > 0.0 => {
                format!("{:.1}x", peer / figure.median)
            }
            _ => String::new(),
        };
        let (goal, floor) = (or_dash(row.goal), or_dash(row.floor));
        write!(
            f,
            "  {title:TITLE$} {median} {least:>NUMBER$} {goal:>NUMBER$} {floor:>7}"
        )?;
        write!(f, " {:>NUMBER$} {:>7}", or_dash(linux), times(linux))?;
        write!(f, " {:>NUMBER$}", or_dash(xen))?;
        if xen.is_some() {
            write!(f, " {:>7}", times(xen))?;
        }
        match self.goal(row) {
            Goal::Missed => write!(f, "  {}", "goal missed".red().bold())?,
            Goal::Unmeasured => write!(f, "  {}", "not measured".red().bold())?,
            Goal::Met | Goal::None => {}
        }
        writeln!(f)
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = format!(
            "  {:TITLE$} {:>NUMBER$} {:>NUMBER$} {:>NUMBER$} {:>7} {:>NUMBER$} {:>7} {:>NUMBER$} {:>7}",
            "guest instructions", "median", "least", "goal", "floor", "Linux", "", "Xen", ""
        );
        writeln!(f, "{}", head.trim_end().bold())?;
        for row in &self.rows.rows {
            self.row(f, row)?;
        }
        let count = |goal| {
            let rows = self.rows.rows.iter();
            rows.filter(|row| self.goal(row) == goal).count()
        };
        write!(f, "\n  {} goals met", count(Goal::Met))?;
        for (goal, words) in [(Goal::Missed, "missed"), (Goal::Unmeasured, "not measured")] {
            match count(goal) {
                0 => {}
                count => write!(f, ", {}", format!("{count} {words}").red().bold())?,
            }
        }
        writeln!(f)?;
        let sources = &self.rows.sources;
        match self.linux {
            Some(measured) => self.more(f, measured)?,
            None => writeln!(f, "  {} {}", "Linux:".bold(), sources.linux)?,
        }
        writeln!(f, "  {} {}", "Xen:".bold(), sources.xen)?;
        writeln!(f, "  {} {}", "floor:".bold(), sources.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Figure;

    fn figures(assign: f64) -> Figures {
        let figure = Figure {
            median: assign,
            min: assign,
            n: 200,
            unit: INSTRUCTIONS.into(),
        };
        [("assign".to_owned(), figure)].into()
    }

    fn line(table: &Table<'_>) -> String {
        let text = anstream::adapter::strip_str(&table.to_string()).to_string();
        let mut lines = text.lines();
        lines
            .find(|line| line.contains("assign a device"))
            .unwrap()
            .to_owned()
    }

    #[test]
    fn goals_are_told_in_words() {
        let rows = Rows::load().unwrap();
        let told = |median, linux| {
            let figures = figures(median);
            let table = Table {
                rows: &rows,
                figures: &figures,
                linux,
            };
            (line(&table), table.to_string())
        };
        let (met, all) = told(6000.0, None);
        assert!(!met.contains("missed"), "{met}");
        // 52,981 by 6,000.
        assert!(met.contains("52,981    8.8x"), "{met}");
        assert!(all.contains("not measured"));
        let (missed, _) = told(6001.0, None);
        assert!(missed.ends_with("goal missed"), "{missed}");
        // Measured figures stand in the place of the file's, all of them.
        let measured = Measured {
            kernel: "linux".into(),
            figures: figures(12_000.0),
        };
        let (line, all) = told(6000.0, Some(&measured));
        assert!(line.contains("12,000    2.0x"), "{line}");
        assert!(!all.contains("1,190"));
    }

    #[test]
    fn a_row_that_was_not_measured_is_no_success() {
        let rows = Rows::load().unwrap();
        let table = Table {
            rows: &rows,
            figures: &Figures::new(),
            linux: None,
        };
        assert!(line(&table).ends_with("not measured"));
        assert!(table.to_string().contains("0 goals met"));
    }
}
