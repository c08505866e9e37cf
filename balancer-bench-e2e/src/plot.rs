//! Results as plots.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use crate::contender::Contender;
use crate::results::{Figure, Row};

const SIZE: (u32, u32) = (760, 420);
/// How much of its place a group of bars takes.
const GROUP: f64 = 0.8;

/// Whether a figure compares anything.
pub fn worthwhile(figure: &Figure) -> bool {
    figure.rows.len() > 1
}

/// Bars: a group for each parameter, the median of each contender in it, with the least and the largest.
pub fn plot(figure: &Figure, file: &Path) -> anyhow::Result<()> {
    draw(figure, file).map_err(|error| anyhow!("{}: {error}", file.display()))
}

fn draw(figure: &Figure, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut groups: Vec<u32> = figure.rows.iter().map(|row| row.at).collect();
    groups.dedup();
    let mut contenders: Vec<Contender> = figure.rows.iter().map(|row| row.contender).collect();
    contenders.sort_unstable();
    contenders.dedup();
    let top = figure.rows.iter().map(|row| row.max).fold(0.0, f64::max) * 1.15;
    let top = if top > 0.0 { top } else { 1.0 };
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(&figure.title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(-0.5..groups.len() as f64 - 0.5, 0.0..top)?;
    let label = |at: &f64| {
        let known = groups
            .iter()
            .enumerate()
            .find(|(index, _)| (at - *index as f64).abs() < 0.01);
        match (known, &figure.parameter) {
            (Some((_, at)), Some(name)) => format!("{at} {name}"),
            _ => String::new(),
        }
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * groups.len() + 1)
        .x_label_formatter(&label)
        .y_label_formatter(&|value| {
            let decimals = usize::from(top < 10.0);
            format!("{value:.decimals$}")
        })
        .max_light_lines(1)
        .y_desc(&figure.unit)
        .draw()?;
    let width = GROUP / contenders.len() as f64;
    for (place, contender) in contenders.iter().enumerate() {
        let color = color(*contender);
        let rows: Vec<(f64, &Row)> = figure
            .rows
            .iter()
            .filter(|row| row.contender == *contender)
            .filter_map(|row| {
                let group = groups.iter().position(|at| *at == row.at)?;
                Some((group as f64 - GROUP / 2.0 + width * place as f64, row))
            })
            .collect();
        let bars = rows.iter().map(|(left, row)| {
            let corners = [(*left, 0.0), (left + width * 0.9, row.median)];
            let style = if row.noisy {
                color.mix(0.3).filled()
            } else {
                color.filled()
            };
            Rectangle::new(corners, style)
        });
        chart
            .draw_series(bars)?
            .label(contender.name())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()));
        chart.draw_series(rows.iter().map(|(left, row)| {
            let middle = left + width * 0.45;
            PathElement::new([(middle, row.min), (middle, row.max)], BLACK)
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    root.present()?;
    Ok(())
}

/// Told apart by people who see colours otherwise, too.
fn color(contender: Contender) -> RGBColor {
    match contender {
        Contender::Balancerd => RGBColor(0, 114, 178),
        Contender::Userspace => RGBColor(86, 180, 233),
        Contender::Iptables => RGBColor(213, 94, 0),
        Contender::Nft => RGBColor(230, 159, 0),
        Contender::Routing => RGBColor(120, 120, 120),
        Contender::Wire => RGBColor(200, 200, 200),
    }
}
