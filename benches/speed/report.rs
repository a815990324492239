//! The figures beside their anchors, as a table, and the plots.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use nix::sys::utsname::uname;

use crate::neighbours::Neighbours;
use crate::options::Options;
use crate::plot::Plot;
use crate::spread::Spread;
use crate::stage::Stage;

/// The unit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    MegabytesPerSecond,
    SecondsPerGigabyte,
    RequestsPerSecond,
    FilesPerSecond,
    MicrosecondsPerFile,
    Milliseconds,
    Microseconds,
    Count,
    Mebibytes,
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Figure {
    what: String,
    unit: Unit,
    ours: f64,
    /// The name of what it is compared with, its figure, and our ratio to it.
    anchor: Option<(String, f64, Spread)>,
}

impl Figure {
    /// From our figures, the anchor's, and their ratios.
    pub(crate) fn new(
        what: &str,
        unit: Unit,
        anchor: &str,
        (ours, others, ratios): (Spread, Spread, Spread),
    ) -> Self {
        let anchor = Some((anchor.to_owned(), others.median, ratios));
        Self { what: what.to_owned(), unit, ours: ours.median, anchor }
    }

    /// A figure without an anchor.
    pub(crate) fn alone(what: &str, unit: Unit, ours: f64) -> Self {
        Self { what: what.to_owned(), unit, ours, anchor: None }
    }

    /// Ours, and the anchor's.
    pub(crate) fn values(&self) -> impl Iterator<Item = f64> {
        std::iter::once(self.ours).chain(self.anchor.as_ref().map(|(_, value, _)| *value))
    }

    fn cells(&self) -> [String; 4] {
        let (anchor, ratio) = match &self.anchor {
            Some((name, value, ratios)) => {
                (format!("{name}: {}", self.unit.show(*value)), ratios.to_string())
            }
            None => (String::new(), String::new()),
        };
        [self.what.clone(), self.unit.show(self.ours), anchor, ratio]
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        let digits = match value {
            value if value >= 100.0 => 0,
            value if value >= 10.0 => 1,
            value if value >= 1.0 => 2,
            _ => 3,
        };
        let unit = match self {
            Self::MegabytesPerSecond => "MB/s",
            Self::SecondsPerGigabyte => "s/GB",
            Self::RequestsPerSecond => "/s",
            Self::FilesPerSecond => "files/s",
            Self::MicrosecondsPerFile => "us/file",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Count => "",
            Self::Mebibytes => "MiB",
        };
        let space = if self == Self::RequestsPerSecond { "" } else { " " };
        format!("{value:.digits$}{space}{unit}")
    }
}

/// All that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    circumstances: String,
    neighbours: Neighbours,
    figures: Vec<Figure>,
    plots: Vec<Plot>,
}

impl Report {
    const BEGIN: &str = "<!-- what benches/compare.sh wrote -->";
    const END: &str = "<!-- end -->";
    const HEAD: [&str; 4] = ["figure", "ours", "anchor", "ratio (min–max)"];

    pub(crate) fn new(stage: &Stage, options: &Options) -> Self {
        let kernel = uname().map_or(String::new(), |uname| uname.release().display().to_string());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut circumstances = format!(
            "Linux {kernel}, {cores} cores; at most {} pairs to a figure, {} MiB in bulk; the programs ran {}.",
            options.runs,
            options.size >> 20,
            stage.description()
        );
        if options.quick {
            circumstances.push_str(" Quick: the figures mean nothing.");
        }
        let neighbours = Neighbours::watch();
        Self { circumstances, neighbours, figures: Vec::new(), plots: Vec::new() }
    }

    pub(crate) fn add(&mut self, figure: Figure) {
        eprintln!("speed: {}", figure.cells().join(" | "));
        self.figures.push(figure);
    }

    pub(crate) fn plot(&mut self, plot: Plot) {
        self.plots.push(plot);
    }

    /// Adds how much CPU time other programs took, once everything is measured.
    pub(crate) fn end(&mut self) {
        let share = self.neighbours.share() * 100.0;
        let verdict = if share > 5.0 { ": too much for figures to rely on" } else { "" };
        let _ = write!(
            self.circumstances,
            " Other programs took {share:.0} % of the CPU time meanwhile{verdict}."
        );
    }

    /// The table, as Markdown.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{}\n\n", self.circumstances);
        let mut line = |cells: &[String]| {
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        };
        line(&Self::HEAD.map(str::to_owned));
        line(&Self::HEAD.map(|_| "---".to_owned()));
        for figure in &self.figures {
            line(&figure.cells());
        }
        text
    }

    /// Writes the plots, and the table into performance.md; the text around the table stays.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let page = folder.join("performance.md");
        let before = fs::read_to_string(&page)?;
        let mut body = self.to_text();
        for plot in &self.plots {
            let name = format!("performance-{}.svg", plot.name);
            fs::write(folder.join(&name), plot.to_svg())?;
            let _ = write!(body, "\n![{}]({name})\n", plot.title);
        }
        let (Some(begin), Some(end)) = (before.find(Self::BEGIN), before.find(Self::END)) else {
            let why = format!("{}: no {} and {}", page.display(), Self::BEGIN, Self::END);
            return Err(io::Error::other(why));
        };
        let head = &before[..begin + Self::BEGIN.len()];
        fs::write(&page, format!("{head}\n\n{body}\n{}", &before[end..]))
    }
}
