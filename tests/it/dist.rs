//! What a package installs: manual pages and completions, which are made from the programs' own
//! definitions and must match them, and units; and the server under a service manager.
//!
//! To write them again: `MQFS_WRITE_DIST=1 cargo test --test it dist::`

use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::*;

fn dist(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dist").join(name)
}

/// The manual page of a program. The sections that clap does not know, from the environment to the
/// examples, are in `dist/man/text`.
fn manual_page(program: &clap::Command, section: u8) -> String {
    let name = program.get_name();
    let man = Man::new(program.clone()).section(section.to_string()).manual("mqfs");
    let mut page = b".\\\" Made from the program's options: see tests/it/dist.rs\n".to_vec();
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    page.extend(synopsis(program).into_bytes());
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    let mut page = String::from_utf8(page).unwrap();
    page += &exit_status(program);
    page + &fs::read_to_string(dist(&format!("man/text/{name}.roff"))).unwrap()
}

/// The usage, as `--help` has it.
fn synopsis(program: &clap::Command) -> String {
    let usage = program.clone().render_usage().to_string();
    let rest = usage.trim_start_matches("Usage: ").trim_start_matches(program.get_name());
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]).text([bold(program.get_name()), roman(rest)]);
    roff.to_roff()
}

/// From the end of its `--help`: `Exit status: 0 done; 1 ...; 2 .... More.`
fn exit_status(program: &clap::Command) -> String {
    let text = program.get_after_help().map(ToString::to_string).unwrap_or_default();
    let text = text.split_once("Exit status: ").expect("--help ends with the exit status").1;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (list, more) = text.split_once(". ").unwrap_or((text.trim_end_matches('.'), ""));
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for status in list.split("; ") {
        let (number, meaning) = status.split_once(' ').unwrap();
        assert!(number.parse::<u8>().is_ok(), "not an exit status: {status:?}");
        roff.control("TP", []).text([bold(number)]).text([roman(meaning)]);
    }
    if !more.is_empty() {
        roff.control("PP", []).text([roman(more)]);
    }
    roff.to_roff()
}

/// Every generated file with its content.
fn made() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for (program, section) in mqfs::cli::programs() {
        let name = program.get_name().to_owned();
        let page = dist(&format!("man/{name}.{section}"));
        files.push((page, manual_page(&program, section)));
        let shells = [
            (Shell::Bash, format!("bash/{name}")),
            (Shell::Zsh, format!("zsh/_{name}")),
            (Shell::Fish, format!("fish/{name}.fish")),
        ];
        for (shell, path) in shells {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut program.clone(), &name, &mut text);
            let path = dist("completions").join(path);
            let mut text = String::from_utf8(text).unwrap();
            // Where no dash begins an option, a file is due: bash offers files where this does not.
            const ALL: &str = "COMPREPLY=( $(compgen -W \"${opts}\" -- \"${cur}\") )";
            if name == "mqfs-client"
                && let Some((start, end)) = text.rsplit_once(ALL)
            {
                let start = start.replace(" || ${COMP_CWORD} -eq 1", "");
                text = format!("{start}COMPREPLY=(){end}");
            }
            files.push((path, text));
        }
    }
    files
}

#[test]
fn manual_pages_and_completions_match_the_programs() {
    let write = std::env::var_os("MQFS_WRITE_DIST").is_some();
    for (path, text) in made() {
        if write {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == text,
            "{} is stale: MQFS_WRITE_DIST=1 cargo test --test it dist::",
            path.display()
        );
    }
}

/// Whether a program that a test needs is installed; otherwise says so.
pub fn has(tool: &str) -> bool {
    let mut command = Command::new(tool);
    let found = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        eprintln!("skipped: {tool} is not installed");
    }
    found.is_ok()
}

#[test]
fn manual_pages_have_no_errors() {
    if !has("groff") {
        return;
    }
    for (program, section) in mqfs::cli::programs() {
        let page = dist(&format!("man/{}.{section}", program.get_name()));
        let set = run(Command::new("groff").args(["-man", "-Tascii", "-P-cbou", "-ww"]).arg(&page));
        assert_eq!(set.stderr, "", "{}", page.display());
        let text = String::from_utf8(set.success()).unwrap();
        for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES"] {
            assert!(text.contains(heading), "{}: {heading}", page.display());
        }
    }
}

/// A service manager's end of sd_notify(3).
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, folder }
    }

    /// A server with these arguments that notifies this manager.
    #[track_caller]
    fn start<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Server {
        let key = unique_key();
        let socket = self.folder.path().join("notify");
        Server::start_as(key, server_of(key).args(arguments).env("NOTIFY_SOCKET", socket))
    }

    #[track_caller]
    fn told(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).expect("it is told in time");
        let text = std::str::from_utf8(&message[..length]).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

#[in_own_namespace]
fn a_service_manager_is_told_when_the_server_is_ready_and_when_it_stops() {
    let (manager, root) = (Manager::new(), tempfile::tempdir().unwrap());
    fs::write(root.path().join("big"), noise(4 << 20)).unwrap();
    let root = root.path().to_str().unwrap();
    let mut server = manager.start(&["--root", root, "--drain-timeout", "7s"]);
    let ready = manager.told();
    assert_eq!(ready[0], "READY=1");
    assert!(ready[1].starts_with(&format!("STATUS=ready: key {}, ", server.key)), "{ready:?}");
    let client = stuck_client(&server, &["/big"]);
    server.signal(Signal::SIGTERM);
    let stopping = manager.told();
    assert_eq!(stopping[0], "STOPPING=1");
    assert_eq!(stopping[1], "STATUS=stopping: transfers under way may finish");
    assert_eq!(stopping[2], "EXTEND_TIMEOUT_USEC=12000000");
    client.finish().success();
    assert!(server.running().wait().success());
}

#[in_own_namespace]
fn a_server_serves_even_if_its_service_manager_does_not_listen() {
    let mut manager = Manager::new();
    manager.socket = UnixDatagram::unbound().unwrap(); // the old one closes
    let server = manager.start(&["--root", "/proc"]);
    assert!(!server.fetch("/version").is_empty());
    wait_until("it says so", || server.log().contains("cannot notify the service manager"));
}

/// The units, and the exposure of those that systemd rates, which must not grow.
const UNITS: [(&str, Option<&str>); 6] = [
    ("mqfs-server.service", Some("32")),
    ("mqfs-server@.service", Some("31")),
    ("mqfs-reap.service", Some("20")),
    ("mqfs-reap.timer", None),
    ("mqfs-metrics.service", Some("20")),
    ("mqfs-metrics.timer", None),
];

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if !has("systemd-analyze") {
        return;
    }
    // The units with the paths of the built programs.
    let folder = tempfile::tempdir().unwrap();
    let paths = UNITS.map(|(unit, _)| folder.path().join(unit));
    for path in &paths {
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/systemd");
        let text = fs::read_to_string(unit.join(path.file_name().unwrap())).unwrap();
        let programs = PathBuf::from(env!("CARGO_BIN_EXE_mqfs-server"));
        let start = format!("ExecStart={}/mqfs-", programs.parent().unwrap().display());
        fs::write(path, text.replace("ExecStart=mqfs-", &start)).unwrap();
    }
    let analyze = |arguments: &[&str], units: &[PathBuf]| {
        run(Command::new("systemd-analyze").args(arguments).args(units).stdin(Stdio::null()))
    };
    let verified = analyze(&["verify", "--man=no"], &paths);
    let words: Vec<_> = verified.stderr.lines().filter(|line| line.contains("mqfs")).collect();
    assert_eq!((verified.code(), words), (Some(0), vec![]), "{}", verified.stderr);
    for ((unit, exposure), path) in UNITS.into_iter().zip(paths) {
        let Some(exposure) = exposure else { continue };
        let judged = analyze(&["security", "--offline=true", "--threshold", exposure], &[path]);
        if judged.stderr.contains("offline") {
            return eprintln!("skipped: this systemd-analyze cannot: {}", judged.stderr);
        }
        let words = String::from_utf8_lossy(&judged.stdout).into_owned();
        assert_eq!(judged.code(), Some(0), "{unit}: {words}{}", judged.stderr);
    }
}
