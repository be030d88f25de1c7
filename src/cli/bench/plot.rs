//! The picture of a run, as SVG: latency by percentile, as HDR histograms are drawn, and how it went over time.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::mix::Operation;
use super::report::{Report, Second};
use super::tally::{Latencies, Tally};

/// Of the picture, in pixels.
const SIZE: (u32, u32) = (1000, 900);
const UPPER: u32 = 450;

/// Points of a curve for each tenfold smaller part of the calls.
const POINTS_PER_DECADE: u32 = 20;

/// More calls than anybody makes: 10 to this power.
const MAX_DECADES: u32 = 12;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// A line over time: its name, its colour, and what it shows of a second.
type Line = (&'static str, RGBColor, fn(&Second) -> f64);
type Drawn = Result<(), Box<dyn Error>>;

/// Draws a run into a file.
pub fn draw(path: &Path, report: &Report, tally: &Tally) -> Drawn {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (upper, lower) = root.split_vertically(UPPER);
    percentiles(&upper, &report.plan, tally)?;
    over_time(&lower, &report.series)?;
    root.present()?;
    Ok(())
}

/// Latency by percentile. The axis is logarithmic in the part of the calls that is slower, so that the tail has room.
fn percentiles(area: &Area<'_>, title: &str, tally: &Tally) -> Drawn {
    let all = tally.all();
    let one_in = (all.count().max(10) as f64).max(10.0);
    let (low, high) = (all.quantile(0.0).max(1) as f64 / 1e3, all.max().max(2) as f64 / 1e3);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 14))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d((1.0..one_in).log_scale(), (low * 0.9..high * 1.1).log_scale())?;
    let percent = |one_in: &f64| format!("{} %", 100.0 - 100.0 / one_in);
    chart.configure_mesh().x_desc("percentile").y_desc("latency, ms").x_label_formatter(&percent).draw()?;
    let used = Operation::ALL.into_iter().filter(|operation| tally.latencies[operation.index()].count() > 0);
    for operation in used {
        let color = Palette99::pick(operation.index()).to_rgba();
        let points = curve(&tally.latencies[operation.index()]);
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(operation.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .border_style(BLACK)
        .background_style(WHITE)
        .draw()?;
    Ok(())
}

/// Calls a second to the left, latencies in milliseconds to the right.
fn over_time(area: &Area<'_>, series: &[Second]) -> Drawn {
    let most = series.iter().map(|second| second.succeeded + second.failed).max().unwrap_or(1).max(1) as f64;
    let slowest = series.iter().map(|second| second.p99_us).max().unwrap_or(1000).max(1) as f64 / 1e3;
    let times: Range<f64> = 0.0..series.last().map_or(1.0, |second| second.at_s);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .right_y_label_area_size(70)
        .build_cartesian_2d(times.clone(), 0.0..most * 1.1)?
        .set_secondary_coord(times, 0.0..slowest * 1.1);
    chart.configure_mesh().x_desc("time, s").y_desc("calls/s").draw()?;
    chart.configure_secondary_axes().y_desc("latency, ms").draw()?;
    let legend = |color: RGBColor| move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2));
    let lines: [Line; 2] =
        [("succeeded/s", BLUE, |second| second.succeeded as f64), ("failed/s", RED, |second| second.failed as f64)];
    for (name, color, of) in lines {
        let points = series.iter().map(|second| (second.at_s, of(second)));
        chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?.label(name).legend(legend(color));
    }
    let lines: [Line; 2] =
        [("p50", GREEN, |second| second.p50_us as f64 / 1e3), ("p99", MAGENTA, |second| second.p99_us as f64 / 1e3)];
    for (name, color, of) in lines {
        let points = series.iter().map(|second| (second.at_s, of(second)));
        chart.draw_secondary_series(LineSeries::new(points, color.stroke_width(1)))?.label(name).legend(legend(color));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .border_style(BLACK)
        .background_style(WHITE)
        .draw()?;
    Ok(())
}

/// Points `(1 / (1 - quantile), milliseconds)`, as far as there are calls to tell of.
fn curve(latencies: &Latencies) -> Vec<(f64, f64)> {
    let most = MAX_DECADES * POINTS_PER_DECADE;
    let last = (latencies.count() as f64).log10() * f64::from(POINTS_PER_DECADE);
    let point = |step: u32| {
        let one_in = 10_f64.powf(f64::from(step) / f64::from(POINTS_PER_DECADE));
        (one_in, latencies.quantile(1.0 - 1.0 / one_in) as f64 / 1e3)
    };
    (0..most).take_while(|step| f64::from(*step) <= last).map(point).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::gap::Gap;
    use super::super::run::Measured;
    use super::super::tally::Call;
    use super::*;

    fn measured(calls: u64) -> Measured {
        let mut tally = Tally::default();
        for number in 0..calls {
            let took = Duration::from_micros(100 + number);
            tally.succeeded(Call { operation: Operation::Get, took, bytes: 1, hit: Some(true) });
        }
        let seconds = vec![Second::of(Duration::from_secs(1), &tally.all(), 1); usize::from(calls > 0)];
        let (gap, time) = (Gap::default(), Duration::from_secs(1));
        Measured { tally, seconds, time, planned: None, gap, cpu: time, told: Vec::new() }
    }

    #[test]
    fn a_run_is_drawn_and_one_without_calls_too() {
        let directory = tempfile::tempdir().unwrap();
        for calls in [0, 1, 10_000] {
            let path = directory.path().join("plot.svg");
            let measured = measured(calls);
            let tally = measured.tally.clone();
            draw(&path, &Report::new("the plan".to_owned(), measured, None), &tally).unwrap();
            let drawn = std::fs::read_to_string(path).unwrap();
            assert!(drawn.starts_with("<svg") && drawn.contains("the plan") && drawn.contains("percentile"), "{calls}");
            assert_eq!(drawn.contains("\nget\n"), calls > 0, "{calls}");
        }
    }

    #[test]
    fn the_curve_ends_with_the_slowest_call() {
        let points = curve(&measured(1000).tally.all());
        assert_eq!(points.len(), 61);
        assert!((points[0].1 - 0.1).abs() < 0.001, "{:?}", points[0]);
        assert!((points[60].1 - 1.099).abs() < 0.002, "{:?}", points[60]);
    }
}
