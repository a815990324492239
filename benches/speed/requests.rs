//! Requests per second for a small file, by the number of clients.

use crate::contender::in_pairs;
use crate::options::Options;
use crate::plot::{Curve, Plot};
use crate::report::{Figure, Report, Unit};
use crate::servers::{Owner, Server};
use crate::stage::{SMALL, Stage};

pub(crate) fn measure(stage: &Stage, options: &Options, report: &mut Report) {
    let mqfs = Server::mqfs(stage);
    let textbook = Server::textbook(stage, Owner::User);
    let nginx = Server::nginx(stage, &stage.data());
    let counts: &[usize] = if options.quick { &[1, 8] } else { &[1, 8, 64, 256] };
    let unit = Unit::RequestsPerSecond;
    let mut curves = [Curve::new("mqfs"), Curve::new("textbook"), Curve::new("HTTP from nginx")];
    for &clients in counts {
        let ours = format!("mqfs-each,{},/small", mqfs.at);
        let small = stage.file("small");
        let theirs = format!("textbook,{},{}", textbook.at, small.display());
        let http = nginx.as_ref().map(|nginx| format!("http,{},/small", nginx.at));
        let what = format!("requests, {clients} at once, {SMALL} bytes");
        let rate = |source: &str| rate(stage, options, Owner::User, clients, source);
        let compared = in_pairs(options.runs, || rate(&ours), || rate(&theirs));
        curves[0].add(clients as f64, compared.0.median);
        curves[1].add(clients as f64, compared.1.median);
        report.add(Figure::new(&what, unit, "textbook pair", compared));
        if let Some(http) = http {
            let runs = options.runs.div_ceil(2);
            let compared = in_pairs(runs, || rate(&ours), || rate(&http));
            curves[2].add(clients as f64, compared.1.median);
            report.add(Figure::new(&what, unit, "HTTP from nginx", compared));
        }
    }
    if stage.uid().is_some() {
        of_roots_server(stage, options, report, Owner::Root);
        of_roots_server(stage, options, report, Owner::User);
    }
    report.plot(Plot {
        name: "clients",
        title: "Requests for a small file, by clients at once",
        x: "clients at once",
        y: "requests per second",
        curves: curves.into(),
    });
}

/// Root's server beside root's textbook server, asked by this user.
fn of_roots_server(stage: &Stage, options: &Options, report: &mut Report, user: Owner) {
    let mode: &[&str] = if user == Owner::Root { &["--mode", "0600"] } else { &[] };
    let mqfs = Server::mqfs_of(stage, "", &stage.data(), Owner::Root, mode);
    let textbook = Server::textbook(stage, user);
    let ours = format!("mqfs-each,{},/small", mqfs.at);
    let theirs = format!("textbook,{},{}", textbook.at, stage.file("small").display());
    for clients in [1, 8, 64] {
        let who = if user == Owner::Root { "root" } else { "a user" };
        let what = format!("root's server, {clients} at once for {who}, {SMALL} bytes");
        let rate = |source: &str| rate(stage, options, user, clients, source);
        let compared = in_pairs(options.runs, || rate(&ours), || rate(&theirs));
        report.add(Figure::new(&what, Unit::RequestsPerSecond, "textbook pair", compared));
    }
}

fn rate(stage: &Stage, options: &Options, user: Owner, clients: usize, source: &str) -> f64 {
    let mut worker = stage.worker("clients");
    user.set(&mut worker);
    worker.args([clients.to_string(), options.window.as_millis().to_string()]);
    let answered = stage.output_of(worker.arg(source));
    let answered: f64 = answered.trim().parse().expect("a number");
    answered.max(1.0) / options.window.as_secs_f64()
}
