//! A plot as SVG: what came in a second, and how long it took, over time.

use std::fmt::Write as _;

/// What a moment was like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) seconds: f64,
    /// Messages a second.
    pub(crate) rate: f64,
    /// Delays in microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 200.0;
const MARGIN: f64 = 70.0;
const GAP: f64 = 50.0;

/// Two panels, one above the other.
pub(crate) fn plot(title: &str, points: &[Point]) -> String {
    let total = 2.0 * HEIGHT + 3.0 * GAP;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {total}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{MARGIN}\" y=\"20\">{}</text>\n",
        WIDTH + 2.0 * MARGIN,
        title.replace('&', "&amp;").replace('<', "&lt;")
    );
    let of = |what: fn(&Point) -> f64| points.iter().map(|p| (p.seconds, what(p))).collect::<Vec<_>>();
    panel(&mut svg, GAP, "messages/s", &[("rate", "#1f77b4", of(|p| p.rate))]);
    let delays = [("p50", "#2ca02c", of(|p| p.p50)), ("p99", "#d62728", of(|p| p.p99))];
    panel(&mut svg, HEIGHT + 2.0 * GAP, "delay, us", &delays);
    svg += "</svg>\n";
    svg
}

/// A line's name, its colour, and its points.
type Line<'a> = (&'a str, &'a str, Vec<(f64, f64)>);

fn panel(svg: &mut String, top: f64, unit: &str, lines: &[Line<'_>]) {
    let all = || lines.iter().flat_map(|(_, _, points)| points).filter(|(_, y)| y.is_finite());
    let right = all().map(|(x, _)| *x).fold(1.0, f64::max);
    let high = all().map(|(_, y)| *y).fold(1.0, f64::max);
    let bottom = top + HEIGHT;
    let _ = write!(
        svg,
        "<rect x=\"{MARGIN}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#999\"/>\n\
         <text x=\"{MARGIN}\" y=\"{}\">{unit}</text>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{high:.0}</text>\n\
         <text x=\"{}\" y=\"{bottom}\" text-anchor=\"end\">0</text>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{right:.0} s</text>\n",
        top - 6.0,
        MARGIN - 6.0,
        top + 12.0,
        MARGIN - 6.0,
        MARGIN + WIDTH,
        bottom + 16.0
    );
    for (at, (name, colour, points)) in (0u8..).zip(lines) {
        let place = |(x, y): &(f64, f64)| {
            format!("{:.1},{:.1}", MARGIN + x / right * WIDTH, bottom - y / high * HEIGHT)
        };
        let places: Vec<String> = points.iter().filter(|(_, y)| y.is_finite()).map(place).collect();
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" points=\"{}\"/>\n\
             <text x=\"{}\" y=\"{}\" fill=\"{colour}\">{name}</text>\n",
            places.join(" "),
            MARGIN + 100.0 + 60.0 * f64::from(at),
            top - 6.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_well_formed_and_has_its_lines() {
        let point = |seconds| Point { seconds, rate: 1000.0, p50: 50.0, p99: f64::NAN };
        let svg = plot("a <b> & c", &[point(0.5), point(1.0)]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt;b> &amp; c") && !svg.contains("NaN"));
        assert_eq!(svg.matches("<polyline").count(), 3);
        assert!(svg.contains("points=\"470.0,50.0 870.0,50.0\""), "{svg}");
    }
}
