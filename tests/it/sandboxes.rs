//! The commands of README.md, docs/operations.md and docs/sandboxes.md, run as they stand there,
//! and what programs in a sandbox need.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::unistd::geteuid;

use crate::dist::has;
use crate::support::*;

const PAGE: &str = include_str!("../../docs/sandboxes.md");

/// Empty folders, and the programs where a package would put them.
const PREPARE: &str = r#"mount -t tmpfs none /srv; mount -t tmpfs none /run
mount --bind "$PROGRAMS" /usr/local/bin; PATH=/usr/local/bin:$PATH
"#;

const AS_ROOT: &str = r#"eval "$1$2""#;
const AS_USER: &str = r#"eval "$1"
setpriv --reuid 1000 --regid 1000 --clear-groups sh -ec "$2""#;

/// In a container that boots its own systemd.
const WITH_SYSTEMD: &str = r#"
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --register=no --keep-unit --boot \
    --directory=/ --volatile=yes --private-network --console=pipe --machine=mqfs-test \
    --bind-ro="$PROGRAMS":/usr/local/bin --bind-ro="$UNIT:/etc/systemd/system/${UNIT##*/}" \
    systemd.unit=basic.target > /dev/null &
trap "kill $!; wait" EXIT
for try in $(seq 300); do
    in="nsenter --all --target $(pgrep --parent $!)" || in=false
    case $($in systemctl is-system-running --wait 2> /dev/null) in
    running | degraded) $in sh -ec "$1$2"; exit ;;
    esac
    sleep 0.1
done
exit 77"#;

/// A shell in namespaces of its own, for a minute at most.
fn elsewhere(programs: &ForEverybody, shell: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", "unshare", "--ipc", "--mount-proc", "--pid", "--fork", "--kill-child"]);
    command.args(["--propagation", "private"]).args(shell);
    command.env("PROGRAMS", programs.path("")).env_remove("MQFS_KEY").stdin(Stdio::null());
    command
}

/// Runs the recipes of the section with this title in one shell, after those that stand before all
/// sections. Each that asks must get the file.
#[track_caller]
fn follow(title: &str) {
    let recipes_of = |section: &'static str| {
        let blocks = section.split("```sh\n").skip(1);
        blocks.map(|block| block.split("```\n").next().unwrap()).collect::<Vec<_>>()
    };
    let mut sections = PAGE.split("\n## ");
    let setup = recipes_of(sections.next().unwrap()).concat();
    let mut recipes = recipes_of(sections.find(|section| section.starts_with(title)).unwrap());
    if !geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let runner = match recipes.concat() {
        all if all.contains("systemctl") && !has("systemd-nspawn") => return,
        all if all.contains("systemctl") => WITH_SYSTEMD,
        all if all.starts_with("# as a user") => AS_USER,
        _ => AS_ROOT,
    };
    recipes.retain(|recipe| {
        ["bwrap", "systemd-nspawn"].iter().all(|tool| !recipe.contains(tool) || has(tool))
    });
    let programs = ForEverybody::new();
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/systemd/mqfs-server@.service");
    let script = format!("{PREPARE}{runner}");
    let mut command =
        elsewhere(&programs, &["sh", "-ec", &script, "sh", &setup, &recipes.concat()]);
    let done = run(command.env("UNIT", unit));
    if done.code() == Some(77) {
        return eprintln!("skipped: systemd does not boot in a container here: {}", done.stderr);
    }
    let asked = recipes.iter().filter(|recipe| recipe.contains("mqfs-client")).count();
    let printed = String::from_utf8_lossy(&done.stdout).into_owned();
    let outcome = (done.code(), printed);
    assert_eq!(outcome, (Some(0), "hello\n".repeat(asked)), "{title}: {}", done.stderr);
}

#[test]
fn the_recipes_for_sandboxes_work() {
    follow("bubblewrap, without root");
    follow("A namespace that lasts");
    follow("A sandbox that runs already");
    follow("systemd units");
}

/// A new root that holds only the client and its libraries.
#[as_root_in_own_namespace]
fn a_client_needs_its_program_and_the_c_library_and_nothing_else() {
    let (served, root) = (public_folder(), public_folder());
    fs::create_dir(served.path().join("tree")).unwrap();
    fs::write(served.path().join("tree/file"), vec![7; 4 << 20]).unwrap();
    let server = Server::start(&["--mode", "0622", "--root", served.path().to_str().unwrap()]);
    let copy = r#"cd "$1"; mkdir -m 777 out; cp "$2" client
        for library in $(ldd "$2" | grep -o '/[^ ]*'); do cp --parents "$library" .; done"#;
    let client = server.client();
    let mut shell = with(Command::new("sh"), &["-ec", copy, "sh"]);
    run(shell.arg(root.path()).arg(client.get_program())).success();
    let ask = |arguments: &[&str]| {
        let mut chroot = Command::new("chroot");
        chroot.arg(format!("--userspec={VICTIM}:{VICTIM}")).arg(root.path()).arg("/client");
        run(chroot.args(client.get_args()).args(arguments).stdin(Stdio::null())).success()
    };
    assert_eq!(ask(&["/tree/file"]).len(), 4 << 20);
    ask(&["-r", "-C", "out", "/tree"]);
    ask(&["-o", "out/copy", "/tree/file"]);
    assert_eq!(fs::read(root.path().join("out/tree/file")).unwrap(), vec![7; 4 << 20]);
    assert_eq!(fs::read(root.path().join("out/copy")).unwrap(), vec![7; 4 << 20]);
    let listed = String::from_utf8(ask(&["-l", "/tree"])).unwrap();
    assert!(listed.starts_with("-rw-r--r-- 1 0 0 4194304 "), "{listed}");
}

/// The same command behind a filter that answers a system call with this errno.
fn filtered(call: i64, errno: Errno, command: &Command) -> Command {
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    // Load the number of the call, compare it, and return: bpf(4), seccomp(2).
    let program =
        [(0x20, 0, 0), (0x15, 1, call as u32), (6, 0, ERRNO | errno as u32), (6, 0, ALLOW)];
    let filter = program.map(|(code, otherwise, value): (u16, u8, u32)| {
        let [low, high] = code.to_ne_bytes();
        let [a, b, c, d] = value.to_ne_bytes();
        [low, high, 0, otherwise, a, b, c, d]
    });
    let escaped: String = filter.concat().iter().map(|byte| format!("\\{byte:03o}")).collect();
    let mut shell = Command::new("bash");
    let script = r#"exec bwrap --dev-bind / / --seccomp 9 -- "$@" 9< <(printf "$0")"#;
    shell.args(["-c", script, &escaped]).arg(command.get_program()).args(command.get_args());
    shell.env_remove("MQFS_KEY").stdin(Stdio::null());
    shell
}

#[as_root_in_own_namespace]
fn an_old_filter_of_system_calls_hinders_no_client_and_stops_a_server_with_the_reason() {
    if !has("bwrap") {
        return;
    }
    let (folder, copies) = (public_folder(), public_folder());
    fs::write(folder.path().join("file"), "text").unwrap();
    let server = Server::start(&["--root", folder.path().to_str().unwrap()]);
    for errno in [Errno::EPERM, Errno::ENOSYS] {
        let mut client = server.client();
        client.args(["-r", "/", "-C"]).arg(copies.path().join(errno.to_string()));
        fs::create_dir(copies.path().join(errno.to_string())).unwrap();
        run(&mut filtered(libc::SYS_openat2, errno, &client)).success();

        let second = server_of(unique_key());
        for (call, told) in [
            (libc::SYS_openat2, "the system call openat2 is not available here: "),
            (libc::SYS_semget, "semget: key "),
        ] {
            let refused = run(&mut filtered(call, errno, &second));
            assert_eq!(refused.code(), Some(2), "{}", refused.stderr);
            assert!(refused.stderr.contains(told), "{}", refused.stderr);
            assert!(refused.stderr.contains("ilter"), "{}", refused.stderr);
        }
    }
}

const PAGES: [(&str, &str); 2] = [
    ("README.md", include_str!("../../README.md")),
    ("docs/operations.md", include_str!("../../docs/operations.md")),
];

/// How commands begin that are not run here, and why.
const NOT_RUN: [(&str, &str); 8] = [
    ("cargo ", "it builds, and .ci/run does"),
    ("./run_demo.sh", ".ci/run does"),
    ("sudo dpkg ", "it installs"),
    ("sudo install ", "it installs"),
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
            let mut command = elsewhere(&programs, &["bash", "-c", SHELL, "bash", &script]);
            let done = run(command.current_dir(folder.path()));
            assert_eq!(done.code(), Some(0), "{page}:\n{script}\n{}", done.stderr);
        }
    }
}
