//! Many transfers of large files at once: their total rate, with windows and without.

use crate::contender::{Amount, Contender, Pairs, Sink};
use crate::options::Options;
use crate::plot::{Curve, Plot};
use crate::report::Report;
use crate::servers::{Server, WITHOUT_WINDOWS};
use crate::stage::Stage;

pub(crate) fn measure(stage: &Stage, options: &Options, report: &mut Report) {
    let (mqfs, without) = (Server::mqfs(stage), Server::of_build(stage, "", WITHOUT_WINDOWS));
    let mut curves = ["mqfs", "without windows"].map(Curve::new);
    let counts: &[u64] = if options.quick { &[1, 4] } else { &[1, 2, 4, 16, 64] };
    for &count in counts {
        // Enough bytes in all that the start of the processes does not matter.
        let size = options.size * if count < 16 { 1 } else { 2 } / count;
        stage.make_file("part", size).expect("room for a file");
        let both = [("ours", &mqfs), ("ours without windows", &without)];
        let [ours, anchor] = both.map(|(name, server)| {
            let line = format!("mqfs-client --key {} /part", server.at);
            Contender::new(name, Some(server), line).at_once(count)
        });
        let total = Amount::Bytes(size * count);
        let pairs = Pairs::run(stage, &ours, &anchor, Sink::Null, options.runs, total);
        let what = format!("aggregate, {count} at once");
        let rate = pairs.rate(&what);
        for (curve, rate) in curves.iter_mut().zip(rate.values()) {
            curve.add(count as f64, rate);
        }
        report.add(rate);
        report.add(pairs.cpu(&what));
    }
    report.plot(Plot {
        name: "transfers",
        title: "All transfers together, by transfers at once",
        x: "transfers at once",
        y: "MB/s",
        curves: curves.into(),
    });
}
