//! One large file: how fast it comes, and what it costs at both ends.

use crate::contender::{Amount, Contender, Pairs, Sink};
use crate::options::Options;
use crate::report::{Report, Target};
use crate::servers::{Owner, Server, WITHOUT_WINDOWS};
use crate::stage::Stage;

/// What to reach against an anchor: the rate, and the CPU time. None if there is no such anchor.
type Aim<'a> = Option<(&'a Contender<'a>, Option<Target>, Option<Target>)>;

pub(crate) fn measure(stage: &Stage, options: &Options, report: &mut Report) {
    let (mqfs, without) = (Server::mqfs(stage), Server::of_build(stage, "", WITHOUT_WINDOWS));
    let nginx = Server::nginx(stage, &stage.data());
    let textbook = Server::textbook(stage, Owner::User);
    let fetch = |server: &Server| format!("mqfs-client --key {} /big", server.at);
    let ours = Contender::new("ours", Some(&mqfs), fetch(&mqfs));
    let without = Contender::new("ours without windows", Some(&without), fetch(&without));
    let big = stage.file("big");
    let line = format!("textbook_client --key {} {}", textbook.at, big.display());
    let textbook = Contender::new("textbook pair", Some(&textbook), line);
    let curl = nginx.as_ref().map(|nginx| {
        let line = format!("curl --silent --unix-socket {} http://nginx/big", nginx.at);
        Contender::new("curl from nginx", Some(nginx), line)
    });
    let curl = curl.as_ref();
    let cat = &Contender::new("cat", None, format!("cat {}", big.display()));
    let at_least = |ratio| Some(Target::AtLeast(ratio));
    let mut race = |what: &str, sink, runs, aims: [Aim<'_>; 4]| {
        for (anchor, rate, cpu) in aims.into_iter().flatten() {
            let pairs = Pairs::run(stage, &ours, anchor, sink, runs, Amount::Bytes(options.size));
            report.add(pairs.rate(what, rate));
            report.add(pairs.cpu(what, cpu));
        }
    };
    let to_nothing = [
        Some((&textbook, at_least(6.0), None)),
        curl.map(|curl| (curl, at_least(2.0), Some(Target::AtMost(1.0)))),
        Some((cat, None, None)),
        Some((&without, None, None)),
    ];
    race("bulk to nothing", Sink::Null, options.runs, to_nothing);
    let to_a_pipe =
        [Some(&textbook), curl, Some(cat), Some(&without)].map(|to| Some((to?, None, None)));
    race("bulk to a pipe", Sink::Pipe, options.runs.div_ceil(2), to_a_pipe);
    let to_a_file = [
        Some((&textbook, None, None)),
        curl.map(|curl| (curl, at_least(1.3), None)),
        Some((cat, at_least(0.8), None)),
        Some((&without, None, None)),
    ];
    race("bulk to a new file on tmpfs", Sink::File, options.runs, to_a_file);
}
