//! [`chart`]: the figures as a drawing, beside the peers' and the kernel's floor.

use super::{Figures, INSTRUCTIONS, Row, Rows, number};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Width of the drawing, and its parts, in points.
const WIDTH: u32 = 960;
const LEFT: i32 = 270;
const RIGHT: i32 = 70;
const TOP: i32 = 70;
const BOTTOM: i32 = 40;
/// Height of a row.
const ROW: i32 = 24;
/// Ends of the axis, which is logarithmic: ten to the power of these.
const DECADES: (i32, i32) = (2, 7);

const OURS: RGBColor = RGBColor(46, 107, 160);
const LINUX: RGBColor = RGBColor(200, 60, 50);
const XEN: RGBColor = RGBColor(220, 150, 30);
const INK: RGBColor = RGBColor(50, 50, 50);
const GRID: RGBColor = RGBColor(225, 225, 225);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), String>;

/// An SVG of every row that counts instructions. `linux` are figures of Linux
/// that were measured in the same run; without, those of the rows' file are drawn.
///
/// # Errors
/// A sentence: the drawing could not be made.
pub fn chart(rows: &Rows, figures: &Figures, linux: Option<&Figures>) -> Result<String, String> {
    let shown: Vec<&Row> = rows
        .rows
        .iter()
        .filter(|row| row.unit == INSTRUCTIONS)
        .collect();
    let rows_high = i32::try_from(shown.len()).map_err(|error| error.to_string())? * ROW;
    let height = u32::try_from(TOP + rows_high + BOTTOM).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE).map_err(words)?;
    legend(&area)?;
    grid(&area, TOP + rows_high)?;
    for (at, row) in (0..).zip(&shown) {
        let middle = TOP + at * ROW + ROW / 2;
        let of_linux = match linux {
            Some(measured) => measured.get(&row.key).map(|figure| figure.median),
            None => row.linux,
        };
        let ours = figures.get(&row.key).map(|figure| figure.median);
        label(&area, &row.title, (LEFT - 8, middle), HPos::Right, INK)?;
        bar(&area, middle, ours)?;
        if let Some(goal) = row.goal.map(x) {
            let points = vec![(goal, middle - ROW / 2 + 2), (goal, middle + ROW / 2 - 2)];
            let dashed = GREEN.mix(0.7).stroke_width(2);
            area.draw(&PathElement::new(points, dashed))
                .map_err(words)?;
        }
        if let Some(floor) = row.floor.map(x) {
            let points = vec![(floor, middle - 5), (floor, middle + 5)];
            area.draw(&PathElement::new(points, INK.stroke_width(3)))
                .map_err(words)?;
        }
        for (value, colour) in [(of_linux, LINUX), (row.xen, XEN)] {
            if let Some(value) = value {
                area.draw(&Circle::new((x(value), middle), 5, colour.filled()))
                    .map_err(words)?;
            }
        }
    }
    area.present().map_err(words)?;
    drop(area);
    text.push('\n');
    Ok(text)
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Where a figure is on the axis.
fn x(value: f64) -> i32 {
    let (from, to) = DECADES;
    let along = (value.max(1.0).log10() - f64::from(from)) / f64::from(to - from);
    let width = WIDTH as i32 - LEFT - RIGHT;
    LEFT + (along.clamp(0.0, 1.0) * f64::from(width)) as i32
}

fn label(area: &Area<'_>, text: &str, at: (i32, i32), side: HPos, colour: RGBColor) -> Drawn {
    let style = ("sans-serif", 13)
        .into_font()
        .color(&colour)
        .pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))
        .map_err(words)
}

fn bar(area: &Area<'_>, middle: i32, ours: Option<f64>) -> Drawn {
    let Some(ours) = ours else {
        return label(area, "not measured", (LEFT + 4, middle), HPos::Left, LINUX);
    };
    let corners = [(LEFT, middle - 6), (x(ours), middle + 6)];
    area.draw(&Rectangle::new(corners, OURS.filled()))
        .map_err(words)?;
    let end = (WIDTH as i32 - 4, middle);
    label(area, &number(ours), end, HPos::Right, OURS)
}

fn grid(area: &Area<'_>, bottom: i32) -> Drawn {
    for decade in DECADES.0..=DECADES.1 {
        let value = 10f64.powi(decade);
        let points = vec![(x(value), TOP), (x(value), bottom)];
        area.draw(&PathElement::new(points, GRID)).map_err(words)?;
        let at = (x(value), bottom + 14);
        label(area, &number(value), at, HPos::Center, INK)?;
    }
    Ok(())
}

fn legend(area: &Area<'_>) -> Drawn {
    let title = ("sans-serif", 16).into_font().color(&INK);
    let words_at = Text::new(
        "Guest instructions, median (logarithmic)",
        (LEFT, 12),
        title,
    );
    area.draw(&words_at).map_err(words)?;
    let parts = [
        ("Portcullis", OURS, 0),
        ("Linux VFIO", LINUX, 110),
        ("Xen", XEN, 220),
        ("goal", RGBColor(77, 255, 77), 290),
        ("the kernel's floor", INK, 360),
    ];
    for (name, colour, right) in parts {
        let left = LEFT + right;
        area.draw(&Circle::new((left + 5, 46), 5, colour.filled()))
            .map_err(words)?;
        label(area, name, (left + 15, 46), HPos::Left, INK)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Figure;

    #[test]
    fn every_row_is_drawn() {
        let rows = Rows::load().unwrap();
        let figure = Figure {
            median: 12_345.0,
            min: 1.0,
            n: 1,
            unit: INSTRUCTIONS.into(),
        };
        let figures: Figures = [("assign".to_owned(), figure)].into();
        let svg = chart(&rows, &figures, None).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        let instructions = rows.rows.iter().filter(|row| row.unit == INSTRUCTIONS);
        for row in instructions.clone() {
            assert!(svg.contains(&row.title), "{}", row.title);
        }
        assert!(svg.contains("12,345"));
        assert_eq!(
            svg.matches("not measured").count(),
            instructions.count() - 1
        );
        // A circle for each peer's figure, five in the legend.
        let peers = rows.rows.iter().filter(|row| row.unit == INSTRUCTIONS);
        let peers = peers.flat_map(|row| [row.linux, row.xen]).flatten().count();
        assert_eq!(svg.matches("<circle").count(), peers + 5);
    }

    #[test]
    fn the_axis_is_logarithmic_and_has_ends() {
        assert_eq!(x(1e2), LEFT);
        assert_eq!(x(1e7), WIDTH as i32 - RIGHT);
        assert_eq!(x(1e3) - x(1e2), x(1e4) - x(1e3));
        assert_eq!(x(1.0), LEFT);
    }
}
