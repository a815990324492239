//! The commands of README.md and docs/operations.md, run as they stand there. Those of
//! docs/sandboxes.md are run by `sandboxes`.

use std::process::{Command, Stdio};

use crate::dist::has;
use crate::support::{ForEverybody, as_root_in_own_namespace, public_folder, run};

const PAGES: [(&str, &str); 2] = [
    ("README.md", include_str!("../../README.md")),
    ("docs/operations.md", include_str!("../../docs/operations.md")),
];

/// How commands begin that are not run here, and why.
const NOT_RUN: [(&str, &str); 7] = [
    ("cargo ", "it builds, and .ci/run does"),
    ("./run_demo.sh", ".ci/run does"),
    ("sudo dpkg ", "it installs"),
    ("sudo systemctl ", "it needs the package"),
    ("systemctl ", "it needs the package"),
    ("systemd-run ", "it needs systemd"),
    ("journalctl ", "it needs the package"),
];

/// A machine with a server, unless the commands start one.
const SHELL: &str = r#"
mount --bind "$PROGRAMS" /usr/local/bin; PATH=/usr/local/bin:$PATH
mount -t tmpfs none /tmp; mkdir /tmp/home /tmp/home/public; cd /tmp/home; export HOME=/tmp/home
perl -e 'msgget(0x1234, 01600)' # some other program's queue
sudo() { "$@"; }
until_ready() { for _ in {1..500}; do mqfs-stat &> /dev/null && return; sleep 0.01; done; }
# Ends what runs until a signal, once it has printed a line.
interrupted() {
    coproc "$@"
    read -r _ <&"${COPROC[0]}"
    kill "$!" && { wait "$!" || [ $? = 130 ]; }
}
case $1 in
mqfs-server* | *"interrupted mqfs-server"*) ;;
*) mqfs-server --mode 0622 --quiet > /dev/null & until_ready ;;
esac
set -eo pipefail
eval "$1"
"#;

/// The script for one block of commands. None: nothing of it is run.
fn script(block: &str) -> Option<String> {
    let mut script = String::new();
    for line in block.lines() {
        let command = line.split(" #").next().unwrap().trim_end();
        let is_run = NOT_RUN.iter().all(|(start, _)| !command.starts_with(start));
        if command.is_empty() || !is_run || (command.contains("| jq ") && !has("jq")) {
            continue;
        }
        let program = command.trim_start_matches("sudo ");
        let runs_on = program.starts_with("mqfs-server") || command.contains("--watch");
        script += &match command.strip_suffix(" &") {
            Some(_) => format!("{command} until_ready\n"),
            None if runs_on => format!("interrupted {program}\n"),
            None => format!("{command}\n"),
        };
    }
    (!script.is_empty()).then_some(script)
}

#[as_root_in_own_namespace]
fn the_commands_of_the_documentation_work() {
    let (programs, folder) = (ForEverybody::new(), public_folder());
    for (page, text) in PAGES {
        let blocks = text.split("```sh\n").skip(1);
        let scripts = blocks.filter_map(|block| script(block.split("```\n").next().unwrap()));
        for script in scripts {
            let mut command = Command::new("timeout");
            command.args(["60", "unshare", "--ipc", "--mount", "--pid", "--mount-proc", "--fork"]);
            command.args(["--kill-child", "--propagation", "private", "bash", "-c", SHELL]);
            command.args(["bash", &script]).env("PROGRAMS", programs.path(""));
            command.current_dir(folder.path()).env_remove("MQFS_KEY").stdin(Stdio::null());
            let done = run(&mut command);
            assert_eq!(done.code(), Some(0), "{page}:\n{script}\n{}", done.stderr);
        }
    }
}
