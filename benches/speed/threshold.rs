//! From which size on a window pays: files of several sizes, with windows and without.

use crate::latency::compare;
use crate::options::Options;
use crate::report::Report;
use crate::servers::{Server, WITHOUT_WINDOWS};
use crate::stage::Stage;

pub(crate) fn measure(stage: &Stage, options: &Options, report: &mut Report) {
    let [with, without] = [&[][..], WITHOUT_WINDOWS].map(|with| Server::of_build(stage, "", with));
    let client = format!("run:{}", stage.path("bin/mqfs-client").display());
    for kib in [256, 512, 1024, 2048, 4096] {
        stage.make_file("part", kib << 10).expect("room for a file");
        for (what, source) in [
            ("a process", format!("{client} --key KEY /part")),
            ("a process for 16", format!("{client} --key KEY{}", " /part".repeat(16))),
            ("a request each, within a process", "mqfs-each,KEY,/part".to_owned()),
            ("in a session, within a process", "mqfs,KEY,/part".to_owned()),
        ] {
            let source = |of: &Server| source.replace("KEY", &of.at);
            let kinds = [("ours", source(&with)), ("without windows", source(&without))];
            compare(stage, options, report, &format!("{kib} KiB, {what}"), &kinds);
        }
    }
}
