//! Curves on logarithmic axes, as SVG.

use std::fmt::Write as _;

#[derive(Debug)]
pub(crate) struct Plot {
    /// Part of the file's name.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) curves: Vec<Curve>,
}

#[derive(Debug)]
pub(crate) struct Curve {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

impl Curve {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, points: Vec::new() }
    }

    pub(crate) fn add(&mut self, x: f64, y: f64) {
        self.points.push((x, y));
    }
}

/// Maps decimal logarithms to pixels.
#[derive(Debug, Clone, Copy)]
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

const COLOURS: [&str; 5] = ["#0b6e4f", "#c1121f", "#1d4e89", "#b07d12", "#6a4c93"];

/// The corners of the area of the curves, in a picture of 760 × 420 pixels.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 590.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 370.0;

impl Axis {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.map(f64::log10) {
            (least, most) = (least.min(value), most.max(value));
        }
        let margin = ((most - least) * 0.05).max(0.05);
        Self { least: least - margin, most: most + margin, from, to }
    }

    fn at(self, value: f64) -> f64 {
        let part = (value.log10() - self.least) / (self.most - self.least);
        self.from + part * (self.to - self.from)
    }

    /// Powers of ten; if they are few, twice and five times as much too.
    fn ticks(self) -> impl Iterator<Item = f64> {
        let steps: &[f64] = if self.most - self.least < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        (self.least.floor() as i32..=self.most.ceil() as i32)
            .flat_map(move |decade| steps.iter().map(move |step| step * 10_f64.powi(decade)))
            .filter(move |tick| (self.least..=self.most).contains(&tick.log10()))
    }
}

impl Plot {
    pub(crate) fn to_svg(&self) -> String {
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let x = Axis::over(points().map(|point| point.0), LEFT, RIGHT);
        let y = Axis::over(points().map(|point| point.1), BOTTOM, TOP);
        let mut svg = String::from(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 420\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        );
        text(&mut svg, LEFT, 22.0, "font-size=\"15\"", self.title);
        for tick in x.ticks() {
            line(&mut svg, &format!("M{:.1} {BOTTOM}V{TOP}", x.at(tick)), "#ddd", 1);
            text(&mut svg, x.at(tick), BOTTOM + 16.0, MIDDLE, &label(tick));
        }
        for tick in y.ticks() {
            line(&mut svg, &format!("M{LEFT} {:.1}H{RIGHT}", y.at(tick)), "#ddd", 1);
            text(&mut svg, LEFT - 6.0, y.at(tick) + 4.0, "text-anchor=\"end\"", &label(tick));
        }
        text(&mut svg, f64::midpoint(LEFT, RIGHT), 408.0, MIDDLE, self.x);
        let up = format!("{MIDDLE} transform=\"translate(16 205) rotate(-90)\"");
        text(&mut svg, 0.0, 0.0, &up, self.y);
        let drawn = self.curves.iter().filter(|curve| !curve.points.is_empty());
        for (curve, (i, colour)) in drawn.zip(COLOURS.iter().enumerate()) {
            let path: Vec<_> = curve
                .points
                .iter()
                .map(|&(a, b)| format!("{:.1} {:.1}", x.at(a), y.at(b)))
                .collect();
            line(&mut svg, &format!("M{}", path.join("L")), colour, 2);
            for &(a, b) in &curve.points {
                let (a, b) = (x.at(a), y.at(b));
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"3\" fill=\"{colour}\"/>"
                );
            }
            let top = 60.0 + 20.0 * i as f64;
            line(&mut svg, &format!("M605 {top}h18"), colour, 2);
            text(&mut svg, 629.0, top + 4.0, "", curve.name);
        }
        svg + "</svg>\n"
    }
}

const MIDDLE: &str = "text-anchor=\"middle\"";

fn text(svg: &mut String, x: f64, y: f64, attributes: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{text}</text>");
}

fn line(svg: &mut String, path: &str, colour: &str, width: u32) {
    let _ = writeln!(
        svg,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
    );
}

/// A number in its shortest form: 0.02, 5, 20k, 100M.
fn label(value: f64) -> String {
    let (value, suffix) = match value {
        value if value > 0.99e9 => (value / 1e9, "G"),
        value if value > 0.99e6 => (value / 1e6, "M"),
        value if value > 0.99e3 => (value / 1e3, "k"),
        value => (value, ""),
    };
    format!("{}{suffix}", (value * 1e6).round() / 1e6)
}
