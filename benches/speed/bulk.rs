//! One large file: how fast it comes, and what it costs at both ends.

use crate::contender::{Amount, Contender, Pairs, Sink};
use crate::options::Options;
use crate::report::Report;
use crate::servers::{Owner, Server, WITHOUT_WINDOWS};
use crate::stage::Stage;

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
    let cat = &Contender::new("cat", None, format!("cat {}", big.display()));
    let anchors = [Some(&textbook), curl.as_ref(), Some(cat), Some(&without)];
    for (what, sink, runs) in [
        ("bulk to nothing", Sink::Null, options.runs),
        ("bulk to a pipe", Sink::Pipe, options.runs.div_ceil(2)),
        ("bulk to a new file on tmpfs", Sink::File, options.runs),
    ] {
        for anchor in anchors.into_iter().flatten() {
            let pairs = Pairs::run(stage, &ours, anchor, sink, runs, Amount::Bytes(options.size));
            report.add(pairs.rate(what));
            report.add(pairs.cpu(what));
        }
    }
}
