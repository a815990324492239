//! The limits per user.

use crate::support::{
    ForEverybody, Running, SOMEBODY, Server, Stuck, as_root_in_own_namespace, in_own_namespace,
    reply_queues, run, serve_file, wait_until,
};

fn refusals(server: &Server) -> usize {
    server.log().matches("the user has as many children as one may have").count()
}

#[as_root_in_own_namespace]
fn a_user_with_too_many_transfers_is_told_to_try_again_and_others_go_on() {
    let (server, _folder, file) = serve_file(4 << 20, &["--mode", "0622", "--max-per-user", "2"]);
    let programs = ForEverybody::new();
    let client = |uid| {
        let mut command = programs.client(server.key, uid);
        command.arg("/file");
        command
    };
    let first = Stuck::start(&mut client(SOMEBODY));
    let second = Stuck::start(&mut client(SOMEBODY));
    let told = run(client(SOMEBODY).args(["--timeout", "200ms"]));
    assert_eq!(told.code(), Some(1));
    let why = "busy: as many transfers as one user may have are under way";
    assert_eq!(told.stderr, format!("mqfs-client: /file: {why}\n"));
    assert!(run(&mut client(SOMEBODY - 1)).success() == file, "another user is served at once");

    let before = refusals(&server);
    let mut third = client(SOMEBODY);
    let third = Running::piped(&mut third);
    wait_until("it was told to try again", || refusals(&server) > before);
    assert!(first.finish() == file);
    assert!(third.finish().success() == file, "it tried again");
    assert!(second.finish() == file);
    server.stop();
}

#[in_own_namespace]
fn a_signal_ends_a_client_that_waits_to_retry() {
    let (server, _folder, file) = serve_file(4 << 20, &["--max-per-user", "1"]);
    let first = Stuck::start(server.client().arg("/file"));
    let mut second = server.client();
    let second = second.args(["--timeout", "1h", "/file"]);
    let second = Running::piped(second);
    wait_until("it was told to try again", || refusals(&server) > 0);
    second.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = second.finish();
    assert_eq!(ended.code(), Some(130));
    assert_eq!(ended.stderr, "mqfs-client: interrupted\n");
    assert_eq!(reply_queues(), [first.queue]);
    assert!(first.finish() == file);
    server.stop();
}
