//! [`Scaling`]: how far shards carry, told and drawn from a run's figures by the [`super::model`].

use super::model::{Shape, WORKS, Work, saturation, throughput};
use super::number;
use crate::judge::Metrics;
use owo_colors::OwoColorize;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::fmt;

/// Instructions a second of a core, for figures a second.
const SECOND: f64 = 1e9;
/// Most clients that are drawn.
const CLIENTS: u32 = 16;
/// The shapes that are compared.
const SHAPES: [(&str, Shape, RGBColor); 4] = [
    ("one lock", Shape::Turnstile, RGBColor(200, 60, 50)),
    (
        "one shard each",
        Shape::Shards(1, 1, 1),
        RGBColor(220, 150, 30),
    ),
    (
        "4 host bridges",
        Shape::Shards(4, 1, 1),
        RGBColor(90, 160, 90),
    ),
    ("4 of each", Shape::Shards(4, 4, 4), RGBColor(46, 107, 160)),
];

/// The measured pieces of work.
#[derive(Clone, Debug, Default)]
pub struct Scaling {
    works: Vec<(&'static str, Work)>,
}

impl Scaling {
    /// Of a run's figures; what it did not measure is left out.
    #[must_use]
    pub fn of(metrics: &Metrics) -> Self {
        let works = WORKS.into_iter();
        let works = works.filter_map(|(key, title)| Some((title, Work::measured(key, metrics)?)));
        Self {
            works: works.collect(),
        }
    }

    /// An SVG of the first piece of work: how much more many clients get done than one.
    ///
    /// # Errors
    /// A sentence: nothing was measured, or it cannot be drawn.
    pub fn chart(&self) -> Result<String, String> {
        let (title, work) = self.works.first().ok_or("no work was measured")?;
        draw(title, work).map_err(|error| error.to_string())
    }
}

impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.works.is_empty() {
            return Ok(());
        }
        let head = "pieces of work a second when saturated (cores of 10^9 instructions a second)";
        writeln!(f, "  {}", head.bold())?;
        write!(f, "  {:52} {:>10}", "", "one client")?;
        for (name, ..) in SHAPES {
            write!(f, " {name:>22}")?;
        }
        writeln!(f)?;
        for (title, work) in &self.works {
            write!(
                f,
                "  {title:52} {:>10}",
                number((SECOND / work.total()).round())
            )?;
            for (_, shape, _) in SHAPES {
                let clients = saturation(work, shape);
                let rate = (SECOND * clients / work.total()).round();
                let told = format!("{} ({clients:.1} cores)", number(rate));
                write!(f, " {told:>22}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Size of the drawing, and its margins.
const SIZE: (i32, i32) = (720, 400);
const LEFT: i32 = 60;
const TOP: i32 = 50;
const BOTTOM: i32 = 50;
const RIGHT: i32 = 150;
/// Height of a line's name.
const NAME_HIGH: i32 = 15;

fn draw(title: &str, work: &Work) -> Result<String, Box<dyn std::error::Error>> {
    let alone = throughput(work, Shape::Turnstile, 1);
    let gain = |shape, clients| throughput(work, shape, clients) / alone;
    let most = SHAPES.iter().map(|(_, shape, _)| gain(*shape, CLIENTS));
    let top = most.fold(1.0, f64::max).ceil();
    let x =
        |clients: u32| LEFT + (SIZE.0 - LEFT - RIGHT) * (clients as i32 - 1) / (CLIENTS as i32 - 1);
    let y = |gain: f64| {
        SIZE.1 - BOTTOM - (f64::from(SIZE.1 - TOP - BOTTOM) * gain / top).round() as i32
    };
    let ink = RGBColor(50, 50, 50);
    let grid = RGBColor(225, 225, 225);
    let label = |colour, side| {
        let font = ("sans-serif", 13).into_font();
        font.color(&colour).pos(Pos::new(side, VPos::Center))
    };
    let mut text = String::new();
    let size = (SIZE.0 as u32, SIZE.1 as u32);
    let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
    area.fill(&WHITE)?;
    let words = format!("{title}: throughput of one client = 1, by clients on cores of their own");
    area.draw(&Text::new(words, (LEFT, 20), label(ink, HPos::Left)))?;
    for line in 0..=top as i32 {
        let at = y(f64::from(line));
        area.draw(&PathElement::new(vec![(LEFT, at), (x(CLIENTS), at)], grid))?;
        area.draw(&Text::new(
            line.to_string(),
            (LEFT - 8, at),
            label(ink, HPos::Right),
        ))?;
    }
    for clients in [1, 2, 4, 8, 12, 16] {
        let at = (x(clients), SIZE.1 - BOTTOM + 16);
        area.draw(&Text::new(
            clients.to_string(),
            at,
            label(ink, HPos::Center),
        ))?;
    }
    let mut names: Vec<i32> = Vec::new();
    for (name, shape, colour) in SHAPES {
        let points = (1..=CLIENTS).map(|clients| (x(clients), y(gain(shape, clients))));
        let points: Vec<(i32, i32)> = points.collect();
        let mut end = points.last().map_or((0, 0), |(x, y)| (x + 8, *y));
        // Where two lines end together their names do not.
        while names.iter().any(|other| (other - end.1).abs() < NAME_HIGH) {
            end.1 += NAME_HIGH;
        }
        names.push(end.1);
        area.draw(&PathElement::new(points, colour.stroke_width(2)))?;
        area.draw(&Text::new(name, end, label(colour, HPos::Left)))?;
    }
    area.present()?;
    drop(area);
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        let parts = [("total", 29e3), ("pci", 22e3), ("iommu", 4e3), ("msi", 6e3)];
        let named = parts.map(|(part, value)| (format!("demand.device.{part}"), value));
        named.into()
    }

    #[test]
    fn saturation_is_told_and_drawn() {
        let scaling = Scaling::of(&metrics());
        let text = anstream::adapter::strip_str(&scaling.to_string()).to_string();
        let row = text
            .lines()
            .find(|line| line.contains("a device's life"))
            .unwrap();
        // 10^9 by 29,000; one lock: 10^9 by 22,204.
        assert!(
            row.contains("34,483") && row.contains("45,037 (1.3 cores)"),
            "{row}"
        );
        assert!(!text.contains("configuration read"), "{text}");
        let svg = scaling.chart().unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("4 host bridges"));
        assert_eq!(svg.matches("stroke-width=\"2\"").count(), SHAPES.len());
    }

    #[test]
    fn what_was_not_measured_is_not_drawn() {
        let nothing = Scaling::of(&Metrics::new());
        assert_eq!(nothing.to_string(), "");
        assert!(nothing.chart().is_err());
    }
}
