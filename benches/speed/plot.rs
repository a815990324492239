//! Curves on logarithmic axes, as SVG.

use std::fmt::Write as _;

/// What a plot shows.
#[derive(Debug)]
pub(crate) struct Plot {
    /// In the file's name.
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

/// One axis: which decimal logarithms, on which pixels.
#[derive(Debug, Clone, Copy)]
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const COLOURS: [&str; 5] = ["#0b6e4f", "#c1121f", "#1d4e89", "#b07d12", "#6a4c93"];

impl Axis {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (least, most) = values
            .map(f64::log10)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
                (least.min(value), most.max(value))
            });
        let room = ((most - least) * 0.05).max(0.05);
        Self { least: least - room, most: most + room, from, to }
    }

    fn at(self, value: f64) -> f64 {
        let part = (value.log10() - self.least) / (self.most - self.least);
        self.from + part * (self.to - self.from)
    }

    /// Powers of ten; where they are few, their doubles and fives too.
    fn ticks(self) -> impl Iterator<Item = f64> {
        let steps: &[f64] = if self.most - self.least < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let decades = self.least.floor() as i32..=self.most.ceil() as i32;
        decades
            .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)))
            .filter(move |tick| (self.least..=self.most).contains(&tick.log10()))
    }
}

impl Plot {
    pub(crate) fn to_svg(&self) -> String {
        let all = || self.curves.iter().flat_map(|curve| &curve.points);
        let x = Axis::over(all().map(|point| point.0), 70.0, WIDTH - 170.0);
        let y = Axis::over(all().map(|point| point.1), HEIGHT - 50.0, 40.0);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"70\" y=\"22\" font-size=\"15\">{}</text>\n",
            self.title
        );
        self.draw_axes(&mut svg, x, y);
        for (i, curve) in self.curves.iter().filter(|curve| !curve.points.is_empty()).enumerate() {
            curve.draw(&mut svg, (x, y), i);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn draw_axes(&self, svg: &mut String, x: Axis, y: Axis) {
        for tick in x.ticks() {
            let (at, label) = (x.at(tick), label(tick));
            let _ = writeln!(
                svg,
                "<path d=\"M{at:.1} {:.1}V{:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                y.from,
                y.to,
                y.from + 16.0
            );
        }
        for tick in y.ticks() {
            let (at, label) = (y.at(tick), label(tick));
            let _ = writeln!(
                svg,
                "<path d=\"M{:.1} {at:.1}H{:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                x.from,
                x.to,
                x.from - 6.0,
                at + 4.0
            );
        }
        let (centre, bottom) = (f64::midpoint(x.from, x.to), HEIGHT - 12.0);
        let middle = f64::midpoint(y.from, y.to);
        let _ = writeln!(
            svg,
            "<text x=\"{centre}\" y=\"{bottom}\" text-anchor=\"middle\">{}</text>\n\
             <text transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            self.x, self.y
        );
    }
}

impl Curve {
    fn draw(&self, svg: &mut String, (x, y): (Axis, Axis), i: usize) {
        let colour = COLOURS[i % COLOURS.len()];
        let place = |&(a, b): &(f64, f64)| (x.at(a), y.at(b));
        let line: Vec<_> =
            self.points.iter().map(place).map(|(a, b)| format!("{a:.1},{b:.1}")).collect();
        let line = line.join(" ");
        let _ = writeln!(
            svg,
            "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        for (a, b) in self.points.iter().map(place) {
            let _ =
                writeln!(svg, "<circle cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let (left, top) = (WIDTH - 155.0, 60.0 + 20.0 * i as f64);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {top}h18\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{}\" y=\"{}\">{}</text>",
            left + 24.0,
            top + 4.0,
            self.name
        );
    }
}

/// A number as short as it can be: 0.02, 5, 20k, 100M.
fn label(value: f64) -> String {
    let (value, suffix) = match value {
        value if value > 0.99e9 => (value / 1e9, "G"),
        value if value > 0.99e6 => (value / 1e6, "M"),
        value if value > 0.99e3 => (value / 1e3, "k"),
        value => (value, ""),
    };
    format!("{}{suffix}", (value * 1e6).round() / 1e6)
}
