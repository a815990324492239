//! Files of 1 KiB: many by their paths, in a tree, by many clients at once, and one alone. The
//! files are on tmpfs or on a disk, and the server is the user's own or root's.

use std::fs;
use std::path::{Path, PathBuf};

use crate::contender::{Amount, Contender, Sink, in_pairs, run};
use crate::latency;
use crate::options::Options;
use crate::report::{Figure, Report, Unit};
use crate::servers::{Owner, Server};
use crate::stage::Stage;

const SIZE: usize = 1024;
const PATHS: usize = 2000;
const FOLDERS: usize = 100;
const FILES_IN_FOLDER: usize = 100;
const CLIENTS: usize = 256;
const PATHS_OF_CLIENT: usize = 20;

/// A folder of files, and who serves them.
pub(crate) struct Site<'a> {
    stage: &'a Stage,
    options: &'a Options,
    /// Follows the name of every figure.
    name: &'static str,
    data: PathBuf,
    ours: Programs,
    before: Option<Programs>,
}

/// The programs of one build: a server, and where its clients are.
struct Programs {
    name: &'static str,
    folder: &'static str,
    client: String,
    server: Server,
}

/// One way to get files: clients that start at once, and what each of them does how often.
struct Way {
    name: &'static str,
    /// In the stage's `bin`: the program whose workers are the clients.
    program: String,
    clients: usize,
    times: usize,
    /// See `workers::source::parse`.
    source: String,
}

/// Measures the same at every site.
pub(crate) fn measure<'a>(
    stage: &'a Stage,
    options: &'a Options,
    report: &mut Report,
    what: fn(&Site<'a>, &mut Report),
) {
    let mut places = vec![
        ("on tmpfs", stage.data(), Owner::User),
        ("on disk", stage.disk().to_owned(), Owner::User),
    ];
    if stage.uid().is_some() {
        places.push(("on tmpfs, root's server", stage.data(), Owner::Root));
    }
    for (name, data, owner) in places {
        for number in 1..=PATHS {
            make_file(&data.join(format!("f{number}")), number);
        }
        let programs = |name, folder| Programs::start(stage, name, folder, &data, owner);
        let before = stage.has_before().then(|| programs("before", "before/"));
        let ours = programs("ours", "");
        what(&Site { stage, options, name, data, ours, before }, report);
    }
}

impl Site<'_> {
    /// Many files by their paths: by a process, with its start and end, and within one.
    pub(crate) fn paths(&self, report: &mut Report) {
        let cat = numbered("cat", &format!("{}/", self.data.display()), PATHS);
        let nginx = Server::nginx(self.stage, &self.data);
        let curl = nginx.as_ref().map(|nginx| {
            format!("curl --silent --unix-socket {} http://nginx/f[1-{PATHS}]", nginx.at)
        });
        for line in [Some(self.ours.by_path(PATHS)), curl.clone()].into_iter().flatten() {
            // Does it bring all the files?
            let contender = Contender::new("files by path", None, line);
            run(self.stage, &contender, Sink::Pipe, Amount::Bytes((PATHS * SIZE) as u64));
        }
        let cat = || Way::process("cat, a process", &cat);
        let mut anchors = vec![cat()];
        anchors.extend(curl.map(|line| Way::process("curl from nginx, keep-alive", &line)));
        let client = |of: &Programs| Way::process(of.name, &of.by_path(PATHS));
        self.race(report, "2,000 by path", PATHS, client, anchors);
        let library = |of: &Programs| of.library("mqfs").repeated(1, PATHS);
        self.race(report, "2,000 by path, within a process", PATHS, library, vec![cat()]);
        let ahead = |of: &Programs| {
            let kind = if of.folder.is_empty() { "mqfs-all" } else { "mqfs" };
            of.library(kind).repeated(1, PATHS)
        };
        self.race(report, "2,000 asked for ahead, within a process", PATHS, ahead, vec![cat()]);
    }

    /// A tree, to a new folder on tmpfs.
    pub(crate) fn tree(&self, report: &mut Report) {
        let tree = self.data.join("tree");
        for folder in 0..FOLDERS {
            let folder = tree.join(format!("{folder:02}"));
            fs::create_dir_all(&folder).expect("our own folder");
            for file in 0..FILES_IN_FOLDER {
                make_file(&folder.join(format!("{file:02}")), file);
            }
        }
        let out = self.stage.path("out");
        let out = out.display();
        let cp = Way::process("cp -r", &format!("cp -r {} {out}", tree.display()));
        let rsync = Server::rsync(self.stage, &self.data);
        let mut anchors = vec![cp];
        anchors.extend(rsync.as_ref().map(|rsync| {
            let line = format!("rsync -a rsync://127.0.0.1:{}/data/tree {out}", rsync.at);
            Way::process("rsync -a from its daemon", &line)
        }));
        let client =
            |of: &Programs| Way::process(of.name, &format!("{} -r /tree -C {out}", of.client));
        self.race(report, "10,000 in a tree", FOLDERS * FILES_IN_FOLDER, client, anchors);
        self.remove_copy();
    }

    /// Many clients at once: each in a session, or with a request for every file.
    pub(crate) fn crowd(&self, report: &mut Report) {
        let files = CLIENTS * PATHS_OF_CLIENT;
        let each = || {
            let way = self.ours.library("mqfs-each").repeated(CLIENTS, PATHS_OF_CLIENT);
            vec![Way { name: "a request for every file", ..way }]
        };
        let library = |of: &Programs| of.library("mqfs").repeated(CLIENTS, PATHS_OF_CLIENT);
        self.race(report, "256 × 20 at once, within processes", files, library, each());
        let client = |of: &Programs| {
            Way::process(of.name, &of.by_path(PATHS_OF_CLIENT)).repeated(CLIENTS, 1)
        };
        self.race(report, "256 × 20 at once, by processes", files, client, each());
    }

    /// A request for each file, one after the other, against the programs before.
    pub(crate) fn single(&self, report: &mut Report) {
        let Some(before) = &self.before else {
            eprintln!("speed: without older programs, which MQFS_BEFORE=FOLDER names");
            return;
        };
        let fetch = |of: &Programs| format!("run:{}", of.by_path(1));
        let kinds = [("ours", fetch(&self.ours)), ("before", fetch(before))];
        latency::compare(self.stage, self.options, report, &self.what("one, a process"), &kinds);
        let times = if self.options.quick { 20 } else { 500 };
        let library = |of: &Programs| of.library("mqfs-each").repeated(1, times);
        self.race(report, "a request each, within a process", times, library, Vec::new());
    }

    /// Compares our way with others: files per second, from the start of the clients to their end.
    fn race(
        &self,
        report: &mut Report,
        what: &str,
        files: usize,
        way: impl Fn(&Programs) -> Way,
        mut anchors: Vec<Way>,
    ) {
        let rate = |way: &Way| {
            self.remove_copy();
            let mut worker = self.stage.worker_of(&way.program, "crowd");
            worker.args([way.clients.to_string(), way.times.to_string()]).arg(&way.source);
            let seconds = self.stage.output_of(&mut worker);
            files as f64 / seconds.trim().parse::<f64>().expect("seconds")
        };
        let ours = way(&self.ours);
        let before = self.before.as_ref();
        anchors.extend(before.map(way));
        for anchor in anchors {
            let compared = in_pairs(self.options.runs, || rate(&ours), || rate(&anchor));
            let (what, unit) = (self.what(what), Unit::FilesPerSecond);
            report.add(Figure::new(&what, unit, anchor.name, compared));
        }
    }

    fn what(&self, what: &str) -> String {
        format!("files of 1 KiB, {what}, {}", self.name)
    }

    fn remove_copy(&self) {
        let _ = fs::remove_dir_all(self.stage.path("out/tree"));
    }
}

impl Programs {
    fn start(
        stage: &Stage,
        name: &'static str,
        folder: &'static str,
        data: &Path,
        owner: Owner,
    ) -> Self {
        let server = Server::mqfs_of(stage, folder, data, owner, &[]);
        let program = stage.path("bin").join(folder).join("mqfs-client");
        let client = format!("{} --key {}", program.display(), server.at);
        Self { name, folder, client, server }
    }

    /// The command line of a client that fetches the first so many files.
    fn by_path(&self, count: usize) -> String {
        numbered(&self.client, "/", count)
    }

    /// A client within a process: see `workers::source::parse`.
    fn library(&self, kind: &str) -> Way {
        let source = format!("{kind},{},/f#", self.server.at);
        let program = format!("{}speed", self.folder);
        Way { name: self.name, program, clients: 1, times: 1, source }
    }
}

impl Way {
    fn process(name: &'static str, line: &str) -> Self {
        let (program, source) = ("speed".to_owned(), format!("run:{line}"));
        Self { name, program, clients: 1, times: 1, source }
    }

    /// By so many clients at once, and so often by each.
    fn repeated(self, clients: usize, times: usize) -> Self {
        Self { clients, times, ..self }
    }
}

fn make_file(path: &Path, number: usize) {
    fs::write(path, [number as u8; SIZE]).expect("room for a file");
}

/// A command line that ends with the paths of the first so many files.
fn numbered(command: &str, folder: &str, count: usize) -> String {
    (1..=count).fold(command.to_owned(), |line, number| format!("{line} {folder}f{number}"))
}
