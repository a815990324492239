//! Many small files in one request.

use std::fs;

use crate::contender::{Contender, Cost, Pairs, Sink};
use crate::options::Options;
use crate::report::{Figure, Report, Target, Unit};
use crate::servers::Server;
use crate::stage::Stage;

const FOLDERS: usize = 100;
const FILES: usize = 100;
const SIZE: usize = 1024;

pub(crate) fn measure(stage: &Stage, options: &Options, report: &mut Report) {
    fill(stage);
    let mqfs = Server::mqfs(stage);
    let rsync = Server::rsync(stage);
    let out = stage.path("out");
    let out = out.display();
    let line = format!("mqfs-client --key {} -r /tree -C {out}", mqfs.at);
    let ours = Contender::new("ours", Some(&mqfs), line);
    let mut anchors = Vec::new();
    if let Some(rsync) = &rsync {
        let line = format!("rsync -a rsync://127.0.0.1:{}/data/tree {out}", rsync.at);
        let anchor = Contender::new("rsync -a from its daemon", None, line);
        anchors.push((anchor, Some(Target::AtLeast(2.0))));
    }
    let line = format!("cp -a {} {out}", stage.file("tree").display());
    anchors.push((Contender::new("cp -a", None, line), None));
    for (anchor, target) in anchors {
        let pairs = Pairs::run(stage, &ours, &anchor, Sink::Null, options.runs, 0);
        let files = (FOLDERS * FILES) as f64;
        let compared = pairs.compare(|cost: &Cost| files / cost.seconds);
        let what = "files of 1 KiB, 10,000 in a tree, to a new folder on tmpfs";
        report.add(Figure::new(what, Unit::RequestsPerSecond, anchor.name, compared, target));
    }
    let _ = fs::remove_dir_all(stage.path("out/tree"));
}

fn fill(stage: &Stage) {
    for folder in 0..FOLDERS {
        let folder = stage.file("tree").join(format!("{folder:02}"));
        fs::create_dir_all(&folder).expect("our own folder");
        for file in 0..FILES {
            let content = vec![file as u8; SIZE];
            fs::write(folder.join(format!("{file:02}")), content).expect("our own folder");
        }
    }
}
