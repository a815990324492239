//! Users who learn a client's cookie: because the client trusts them as a server (`--server-uid`),
//! or because they may read another program's queue. They must not pass for the client at root's
//! server.

use mqfs::wire::{LEASE_TYPE, Request};
use nix::errno::Errno;
use sysv_ipc::{Key, MessageBuffer, Mode, OwnedQueue, Queue, QueueSettings, Select};

use crate::support::{
    ATTACKER, Attack, Running, Site, VICTIM, as_root_in_own_namespace, clear, errno_of, queue_of,
    received, request, run, sent, set, unique_key, wait_until,
};

/// A queue under a key of its own, and the request that a client sent to it.
struct Rogue {
    own: OwnedQueue,
    message: MessageBuffer,
}

impl Rogue {
    fn listen(key: Key) -> Result<Self, Errno> {
        let own = OwnedQueue::create(key, Mode::new(0o733)).map_err(errno_of)?;
        Ok(Self { own, message: MessageBuffer::with_capacity(65_536) })
    }

    /// Reads from the client's queue until the secret is there.
    fn read_secret(&mut self, reply: Queue) -> Result<(), Errno> {
        while self.message.text() != b"secret" {
            received(reply.receive(&mut self.message, Select::Except(LEASE_TYPE)))?;
        }
        Ok(())
    }
}

/// Waits for a request, and changes its path. Also returns the client's queue.
fn rewrite(
    from: Queue,
    message: &mut MessageBuffer,
    path: &str,
) -> Result<(Queue, MessageBuffer), Errno> {
    received(from.receive(message, Select::Any))?;
    let asked = Request::decode(message.text()).map_err(|_| Errno::EBADMSG)?;
    let cookie = asked.extension.ok_or(Errno::EBADMSG)?.cookie;
    let reply = Queue::from_id(asked.reply_queue);
    Ok((reply, request(reply, path, cookie)))
}

/// Lets a client, which may be root, ask the malicious server for another file than its secret.
fn ask_rogue(
    rogue: fn(&mut Rogue, Queue) -> Result<(), Errno>,
    check: fn(&Site, &mut Attack, Running),
) {
    for client in [VICTIM, 0] {
        let site = Site::start(&[]);
        site.put("secret", 0o600, (client, client), "secret");
        let (key, requests) = (unique_key(), site.requests());
        let mut attack = Attack::start(ATTACKER, || rogue(&mut Rogue::listen(key)?, requests));
        wait_until("the rogue listens", || queue_of(key).is_some());
        let mut command = site.programs.client(key, client);
        command.args(["--server-uid", &ATTACKER.to_string(), "--timeout", "2s", "/anything"]);
        let asking = Running::piped(&mut command);
        check(&site, &mut attack, asking);
        drop(attack);
        clear(key);
        site.stop();
    }
}

#[as_root_in_own_namespace]
fn a_trusted_server_cannot_use_a_clients_queue_to_ask_roots_server() {
    let pass_on = |rogue: &mut Rogue, requests: Queue| {
        let (reply, request) = rewrite(*rogue.own, &mut rogue.message, "/secret")?;
        sent(requests.send(&request))?;
        rogue.read_secret(reply)
    };
    ask_rogue(pass_on, |site, attack, asking| {
        wait_until("root's server has decided", || {
            site.server.log().contains("refused") || !attack.goes_on()
        });
        assert!(attack.goes_on(), "the rogue has read the client's secret");
        assert!(!site.server.log().contains("outcome="), "{}", site.server.log());
        drop(asking);
    });
}

/// A client may publish what it gets from that server, so it must not get its own secret file.
#[as_root_in_own_namespace]
fn a_server_cannot_make_a_client_take_its_own_files_for_the_servers() {
    let give_back = |rogue: &mut Rogue, requests: Queue| {
        let (reply, request) = rewrite(*rogue.own, &mut rogue.message, "/secret")?;
        let status = reply.status().map_err(errno_of)?;
        let client = status.permissions.cuid;
        set(reply, &QueueSettings { uid: client, ..status.settings() })?;
        sent(requests.send(&request))
    };
    ask_rogue(give_back, |_, _, asking| {
        let finished = asking.finish();
        assert_eq!(String::from_utf8_lossy(&finished.stdout), "", "{}", finished.stderr);
        assert_eq!(finished.code(), Some(1));
    });
}

/// A queue of root's that everybody may read belongs to another program. A user who reads the
/// cookie there could make root's server send the client another file than it asked for.
#[as_root_in_own_namespace]
fn reading_a_request_does_not_let_others_forge_its_replies() {
    let site = Site::start(&[]);
    site.put("planted", 0o644, (ATTACKER, ATTACKER), "planted");
    let (key, requests) = (unique_key(), site.requests());
    for mode in [0o666, 0o622 | 0o040, 0o622 | 0o004] {
        let theirs = OwnedQueue::create(key, Mode::new(mode)).unwrap();
        let queue = *theirs;
        let open_to_all = mode & 0o004 != 0;
        let attack = Attack::start(if open_to_all { ATTACKER } else { 0 }, || {
            let mut message = MessageBuffer::with_capacity(65_536);
            let (_, request) = rewrite(queue, &mut message, "/planted")?;
            sent(requests.send(&request))
        });
        let finished =
            run(site.programs.client(key, VICTIM).args(["--timeout", "500ms", "/report"]));
        assert_eq!(String::from_utf8_lossy(&finished.stdout), "", "mode {mode:o}");
        assert_eq!(finished.code(), Some(1), "{}", finished.stderr);
        assert_eq!(attack.finish(), Ok(()), "it could read the request");
        wait_until("root's server has refused", || {
            site.server.log().contains("the reply queue's lease is for another server")
        });
    }
    assert!(!site.server.log().contains("outcome="), "{}", site.server.log());
    site.stop();
}
