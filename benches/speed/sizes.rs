//! How the time of a transfer grows with its size, within one process.

use crate::latency::turns;
use crate::options::Options;
use crate::plot::{Curve, Plot};
use crate::report::Report;
use crate::servers::{Owner, Server};
use crate::spread::median;
use crate::stage::Stage;

pub(crate) fn measure(stage: &Stage, options: &Options, report: &mut Report) {
    let mqfs = Server::mqfs(stage);
    let textbook = Server::textbook(stage, Owner::User);
    let nginx = Server::nginx(stage, &stage.data());
    let mut curves = ["mqfs", "textbook", "HTTP from nginx"].map(Curve::new);
    let most = if options.quick { 1 << 20 } else { 64 << 20 };
    let sizes = std::iter::successors(Some(64_u64), |size| Some(size * 4));
    for size in sizes.take_while(|&size| size <= most) {
        stage.make_file("part", size).expect("room for a file");
        let mut kinds = vec![
            format!("mqfs-each,{},/part", mqfs.at),
            format!("textbook,{},{}", textbook.at, stage.file("part").display()),
        ];
        kinds.extend(nginx.as_ref().map(|nginx| format!("http,{},/part", nginx.at)));
        let rounds = ((16 << 20) / size).clamp(3, if options.quick { 5 } else { 50 });
        let runs: Vec<_> = (0..options.runs.div_ceil(2))
            .map(|_| turns(stage, rounds as usize, kinds.iter()))
            .collect();
        for (i, curve) in curves.iter_mut().enumerate().take(kinds.len()) {
            curve.add(size as f64, median(runs.iter().map(|run| run[i])));
        }
    }
    report.plot(Plot {
        name: "size",
        title: "A transfer within one process, by size",
        x: "bytes",
        y: "ms",
        curves: curves.into(),
    });
}
