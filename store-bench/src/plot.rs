//! Plots of saved lines, as SVG that is readable on light and on dark ground.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::report::Line;
use crate::subject::Result;
use crate::targets::SLOW_US;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 210.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 52.0;

/// Told apart also by who sees no red or green.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f"];

/// Lines over a logarithmic x.
struct Chart {
    title: &'static str,
    x: &'static str,
    y: &'static str,
    series: BTreeMap<String, Vec<(f64, f64)>>,
}

/// Writes the plots that the lines have something for into a directory; says which.
pub(crate) fn write(lines: &[Line], directory: &Path) -> Result<Vec<String>> {
    std::fs::create_dir_all(directory)?;
    let charts = [("ratio-by-clients.svg", ratios(lines)), ("growth-by-size.svg", growth(lines))];
    let mut written = Vec::new();
    for (name, chart) in charts {
        if chart.series.values().any(|points| points.len() > 1) {
            std::fs::write(directory.join(name), chart.svg()?)?;
            written.push(name.to_owned());
        }
    }
    Ok(written)
}

fn ratios(lines: &[Line]) -> Chart {
    let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.case == "append-version" && line.subject == "ours") {
        let Some(ratio) = line.ratio.filter(|_| line.engine != "memory") else { continue };
        let delay = match line.delay_flush_us {
            0 => String::new(),
            us if us < SLOW_US => continue,
            us => format!(", flush +{} ms", us as f64 / 1e3),
        };
        series.entry(format!("{}{delay}", line.engine)).or_default().push((line.clients as f64, ratio));
    }
    Chart { title: "Versions appended per second, ours over bare", x: "clients", y: "times as many", series }
}

fn growth(lines: &[Line]) -> Chart {
    let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.subject == "ours" && line.engine == "sqlite") {
        let (Some(name), Some(size)) = (line.case.strip_prefix("scale-"), line.size) else { continue };
        series.entry(name.to_owned()).or_default().push((size as f64, line.p50_us));
    }
    for points in series.values_mut() {
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        let first = points[0].1;
        points.iter_mut().for_each(|point| point.1 /= first);
    }
    Chart {
        title: "Cost as the store grows, SQLite engine",
        x: "records",
        y: "p50, over that of the smallest",
        series,
    }
}

impl Chart {
    fn svg(&self) -> Result<String> {
        let points = || self.series.values().flatten();
        let (low, high) =
            points().fold((f64::MAX, f64::MIN), |(low, high), (x, _)| (low.min(*x), high.max(*x)));
        let top = points().fold(1.0, |top: f64, (_, y)| top.max(*y)) * 1.1;
        let x_of = |x: f64| LEFT + (x / low).ln() / (high / low).ln() * (WIDTH - LEFT - RIGHT);
        let y_of = |y: f64| HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM);

        let mut svg = self.frame()?;
        let mut xs: Vec<f64> = points().map(|(x, _)| *x).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        for x in xs {
            let (at, below) = (x_of(x), HEIGHT - BOTTOM + 18.0);
            writeln!(svg, r#"<text x="{at:.1}" y="{below}" text-anchor="middle">{x}</text>"#)?;
        }
        let step = step(top);
        for y in (0..).map(|n| f64::from(n) * step).take_while(|y| *y <= top) {
            let (at, right) = (y_of(y), WIDTH - RIGHT);
            writeln!(svg, r#"<path class="grid" d="M{LEFT} {at:.1}H{right}"/>"#)?;
            writeln!(svg, r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{y}</text>"#, LEFT - 8.0, at + 4.0)?;
        }
        for (at, ((name, points), colour)) in self.series.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let path: Vec<String> =
                points.iter().map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y))).collect();
            writeln!(svg, r#"<polyline style="stroke:{colour}" points="{}"/>"#, path.join(" "))?;
            for (x, y) in points {
                writeln!(
                    svg,
                    r#"<circle style="fill:{colour}" cx="{:.1}" cy="{:.1}" r="3"/>"#,
                    x_of(*x),
                    y_of(*y)
                )?;
            }
            let (x, y) = (WIDTH - RIGHT + 20.0, TOP + 14.0 + 20.0 * at as f64);
            writeln!(svg, r#"<path style="stroke:{colour};stroke-width:3" d="M{x} {:.1}h18"/>"#, y - 4.0)?;
            writeln!(svg, r#"<text x="{:.1}" y="{y:.1}">{name}</text>"#, x + 26.0)?;
        }
        svg.push_str("</svg>\n");
        Ok(svg)
    }

    /// What every chart begins with.
    fn frame(&self) -> Result<String> {
        let Chart { title, x, y, .. } = self;
        let mut svg = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<style>
  text {{ fill: #222 }} .ground {{ fill: #fff }} .grid {{ stroke: #ddd }} polyline {{ fill: none; stroke-width: 2 }}
  @media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} .ground {{ fill: #111 }} .grid {{ stroke: #3a3a3a }} }}
</style>
<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>
"#
        );
        writeln!(svg, r#"<text x="{LEFT}" y="24" font-size="15">{title}</text>"#)?;
        let (middle, bottom) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 12.0);
        writeln!(svg, r#"<text x="{middle}" y="{bottom}" text-anchor="middle">{x}</text>"#)?;
        let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
        writeln!(
            svg,
            r#"<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">{y}</text>"#
        )?;
        Ok(svg)
    }
}

/// A round distance between the lines of a grid, of which there are four to ten.
fn step(top: f64) -> f64 {
    let power = 10_f64.powf((top / 4.0).log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|n| n * power).find(|step| top / step >= 4.0).unwrap_or(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        assert_eq!([0.2, 1.0, 2.0, 5.0], [1.1, 7.0, 11.0, 24.0].map(step));
    }

    #[test]
    fn a_plot_is_drawn_of_what_there_is() {
        let line = |clients, ratio| Line {
            case: "append-version".into(),
            engine: "sqlite".into(),
            subject: "ours".into(),
            clients,
            ratio: Some(ratio),
            ..Line::default()
        };
        let directory = tempfile::tempdir().unwrap();
        let written = write(&[line(1, 1.0), line(4, 2.5), line(16, 4.0)], directory.path()).unwrap();
        assert_eq!(written, ["ratio-by-clients.svg"]);
        let svg = std::fs::read_to_string(directory.path().join("ratio-by-clients.svg")).unwrap();
        assert!(svg.contains("prefers-color-scheme: dark") && svg.matches("<circle").count() == 3, "{svg}");
    }
}
