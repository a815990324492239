#!/usr/bin/env bash
# Shows mqfs at work: the programs of this repository, on a key of their own, with real queues.
#
# It checks everything that it shows, and fails if something is wrong. It signals only processes
# that it started, by pid, and leaves no queue, however it ends.
set -euo pipefail

usage='Usage: ./run_demo.sh [--mode=golden | --mode=failure]

Builds mqfs (cargo build --release) and shows it at work on a key of its own.

  (no argument)    a file, a refusal, rates beside those of the textbook, a killed server, a killed
                   client and the reaper
  --mode=golden    every file under fixtures/ and 10,000 requests, byte for byte; the same output
                   every time; exit status 0
  --mode=failure   no server, a bad key, a missing file; exit status 2
  -h, --help       this text

Exit status: 0 or, with --mode=failure, 2 if everything is as it should be; 1 otherwise.'

# How long anything here may take, in seconds.
deadline=60

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
scratch='' bin='' key=''
server='' book_key='' clients=() comparers=() stopped_child=''
queues_before=''
expected_status=0

# --- messages -------------------------------------------------------------------------------------

heading() { printf '\n== %s\n' "$*"; }

command_line() { printf '$ %s\n' "$*"; }

# Ends the demo, which did not show what it should.
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# --- processes ------------------------------------------------------------------------------------

# wait_until WHAT COMMAND...: repeats the command until it succeeds.
wait_until() {
    local what=$1 end=$((SECONDS + deadline))
    shift
    until "$@"; do
        ((SECONDS < end)) || fail "not within $deadline s: $what"
        sleep 0.02
    done
}

is_running() { kill -0 "$1" 2>/dev/null; }

is_gone() { ! is_running "$1"; }

# The fields of /proc/PID/stat after the name, which may contain anything.
stat_of() {
    local line
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    printf '%s\n' "${line##*') '}"
}

state_of() { stat_of "$1" | cut -d ' ' -f 1; }

parent_of() { stat_of "$1" | cut -d ' ' -f 2; }

is_stopped() { [[ $(state_of "$1") == T ]]; }

server_has_no_child() {
    local folder
    for folder in /proc/[0-9]*; do
        if [[ $(parent_of "${folder#/proc/}") == "$server" ]]; then
            return 1
        fi
    done
}

start_server() {
    # Root's server shows what it is for: each user gets what they could open.
    local mode=0600
    ((EUID)) || mode=0622
    [[ $1 != / ]] || command_line "mqfs-server --key $key --mode $mode &"
    # The server's own reaper must not remove the orphan that mqfs-reap is about to find.
    "$bin/mqfs-server" --key "$key" --root "$1" --mode "$mode" --reap-interval 1h \
        >"$scratch/server.out" 2>"$scratch/server.log" &
    server=$!
    wait_until 'the server is ready' server_is_ready
}

server_is_ready() {
    is_running "$server" || fail "the server ended: $(<"$scratch/server.log")"
    grep -q '^mqfs-server: ready: ' "$scratch/server.out" 2>/dev/null
}

stop_server() {
    local status=0 pid=$server
    kill -TERM "$pid"
    wait "$pid" || status=$?
    server=''
    ((status == 0)) || fail "the server ended with exit status $status: $(<"$scratch/server.log")"
}

# Runs a client and returns its exit status. In the background, because clean_up needs its pid.
run_client() {
    "$bin/mqfs-client" --key "$key" "$@" &
    clients+=($!)
    wait $!
}

# --- queues ---------------------------------------------------------------------------------------

list_queues() { "$bin/mqfs-reap" --dry-run; }

queues_as_json() { "$bin/mqfs-reap" --dry-run --json; }

# field NAME: that field of each object on standard input.
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p"; }

row_of_id() { queues_as_json | grep "\"id\":$1," || true; }

row_of_pid() { queues_as_json | grep "\"pid\":$1," || true; }

# The last sender to queue $1: column 6 of /proc/sysvipc/msg, proc_sysvipc(5).
last_sender() {
    local id sender
    while read -r _ id _ _ _ sender _; do
        if [[ $id == "$1" ]]; then
            printf '%s\n' "$sender"
        fi
    done </proc/sysvipc/msg
}

# A key that no queue and no semaphore has, and that is not the default one.
unused_key() {
    local random key
    while true; do
        random=$(od -A n -N 4 -t u4 /dev/urandom)
        key=$((0x20000000 | (random & 0x1fffffff)))
        if ! cat /proc/sysvipc/msg /proc/sysvipc/sem | grep -q "^ *$key "; then
            printf '0x%08x\n' "$key"
            return
        fi
    done
}

# The queues that this demo left, one object to a line: those under its key, those of its clients,
# and unused reply queues that this user made meanwhile.
left_queues() {
    local row id pids
    pids=$(IFS='|'; printf '%s' "${clients[*]:-none}")
    local unused='"key":"0x00000000","last_receiver":null,"last_sender":null,"messages":0,'
    unused+='"mode":"0711","pid":null'
    queues_as_json |
        { grep -E "\"key\":\"$key\"|\"pid\":($pids),|\"cuid\":$EUID,.*$unused" || true; } |
        while read -r row; do
            id=$(field id <<<"$row")
            [[ $queues_before == *" $id "* ]] || printf '%s\n' "$row"
        done
}

no_queue_is_left() { [[ -z $(left_queues) ]]; }

check_no_queue_is_left() {
    # Another mqfs-client of this user may run right now; its queue disappears soon.
    local end=$((SECONDS + 5))
    until no_queue_is_left; do
        ((SECONDS < end)) || fail "queues are left: $(left_queues)"
        sleep 0.1
    done
}

# --- start and end --------------------------------------------------------------------------------

prepare() {
    cd -- "$here"
    unset MQFS_KEY
    export LC_ALL=C
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/mqfs-demo.XXXXXX")
    command -v cargo >/dev/null ||
        fail 'cargo is missing: install a Rust toolchain, such as that of https://rustup.rs'
    echo 'Building the programs: cargo build --release'
    cargo build --release --bins --example textbook_server --example textbook_client \
        --message-format=json-render-diagnostics >"$scratch/built" 2>"$scratch/build.log" </dev/null || {
        cat "$scratch/build.log" >&2
        fail 'cargo build --release'
    }
    bin=$(sed -n 's|.*"executable":"\([^"]*\)/mqfs-client".*|\1|p' "$scratch/built")
    key=$(unused_key)
    queues_before=" $(queues_as_json | field id | tr '\n' ' ')"
}

# Runs however the demo ends: ends the processes that are left.
clean_up() {
    local status=$? pid end
    trap - EXIT
    trap '' INT TERM HUP
    set +e
    if [[ -n $stopped_child && $(parent_of "$stopped_child") == "$server" ]]; then
        kill -CONT "$stopped_child"
    fi
    for pid in $(jobs -rp); do
        kill -TERM "$pid" 2>/dev/null
    done
    # The server lets its children finish for at most 10 s, then ends them.
    end=$((SECONDS + 20))
    while [[ -n $(jobs -rp) ]] && ((SECONDS < end)); do
        sleep 0.05
    done
    if [[ -n $(jobs -rp) ]]; then
        for pid in $(jobs -rp); do
            kill -KILL "$pid" 2>/dev/null
        done
        ipcrm -Q "$key" -S "$key"
        [[ -z $book_key ]] || ipcrm -Q "$book_key" 2>/dev/null
    fi
    wait 2>/dev/null
    rm -rf -- "$scratch"
    if ((status == 2 && expected_status != 2)); then
        status=1 # some other tool's 2 does not mean what --mode=failure promises
    fi
    exit "$status"
}

# --- the modes ------------------------------------------------------------------------------------

show() {
    local file=/etc/hostname
    [[ -s $file ]] || file=/proc/sys/kernel/hostname
    echo "The key of this demo: $key"

    heading 'The queues before'
    command_line mqfs-reap --dry-run
    list_queues

    heading 'A server, and a file that arrives'
    start_server /
    cat "$scratch/server.out"
    command_line "mqfs-client --key $key --verbose $file"
    run_client --verbose "$file" >"$scratch/file" 2>"$scratch/said" ||
        fail "$(<"$scratch/said")"
    cat "$scratch/file" "$scratch/said"
    cmp "$scratch/file" "$file" || fail "what arrived is not $file"

    heading 'A refusal'
    show_refusal

    heading 'Small files in one session, and a large one'
    mkdir "$scratch/small"
    head -c 2048000 /dev/urandom | split -b 1024 -a 4 - "$scratch/small/"
    head -c 256M /dev/urandom >"$scratch/large"
    show_rates

    heading 'A server that is killed on the way'
    show_killed_server

    heading 'A client that is killed on the way, and its orphaned queue'
    local try=1
    until show_orphan; do
        ((try++ < 3)) || fail 'somebody else removed the orphan each time'
        echo 'Somebody else removed it, perhaps another server. Again:'
    done

    heading 'The server stops'
    command_line "kill $server"
    stop_server
    echo 'exit status 0; its log:'
    cat "$scratch/server.log"

    heading 'The queues after'
    command_line mqfs-reap --dry-run
    list_queues
    check_no_queue_is_left
    echo
    echo 'OK: no queue of this demo is left'
}

show_refusal() {
    local status=0 private=$scratch/private client=$bin/mqfs-client user=()
    : >"$private"
    chmod 000 "$private"
    if ((EUID == 0)); then
        # Root may read everything, so another user asks, with a client that this user may run.
        user=(setpriv --reuid 12345 --regid 12345 --clear-groups)
        client=$scratch/mqfs-client
        chmod 711 "$scratch"
        install -m 755 "$bin/mqfs-client" "$client"
        "${user[@]}" "$client" --version &>/dev/null || {
            echo 'Left out: root cannot become another user here'
            return
        }
    fi
    command_line "${user[*]}${user:+ }mqfs-client --key $key $private"
    "${user[@]}" "$client" --key "$key" "$private" 2>"$scratch/said" || status=$?
    cat "$scratch/said"
    ((status == 1)) && grep -q 'Permission denied' "$scratch/said" || fail "exit status $status"
    echo "exit status $status"
}

# microseconds COMMAND…: how long it takes.
microseconds() {
    local start=${EPOCHREALTIME/./}
    "$@" >/dev/null || fail "$*"
    echo $((${EPOCHREALTIME/./} - start))
}

# The textbook's client fetches one file.
fetch_each_by_textbook() {
    local file
    for file in "$scratch"/small/*; do
        "$bin/examples/textbook_client" --key "$book_key" "$file" || return
    done
}

show_rates() {
    local book size=256 ours book_took
    book_key=$(unused_key)
    "$bin/examples/textbook_server" --key "$book_key" >"$scratch/book.out" 2>&1 &
    book=$!
    wait_until "the textbook's server is ready" grep -qs ready "$scratch/book.out"

    command_line "mqfs-client --key $key -r -C copies small    # 2,000 files of 1 KiB"
    mkdir "$scratch/copies"
    ours=$(microseconds run_client -r -C "$scratch/copies" "$scratch/small")
    diff -r "$scratch/small" "$scratch/copies/small" || fail 'the copies differ'
    book_took=$(microseconds fetch_each_by_textbook)
    printf '%d files/s, all of them equal; the textbook, a client for each file: %d files/s\n' \
        $((2000000000 / ours)) $((2000000000 / book_took))

    command_line "mqfs-client --key $key large >/dev/null    # $size MiB"
    ours=$(microseconds run_client "$scratch/large")
    book_took=$(microseconds "$bin/examples/textbook_client" --key "$book_key" "$scratch/large")
    printf '%d MiB/s; the textbook: %d MiB/s\n' \
        $((size * 1000000 / ours)) $((size * 1000000 / book_took))
    kill -TERM "$book"
    wait "$book" 2>/dev/null || true
    ipcrm -Q "$book_key" 2>/dev/null || true
    book_key=''
}

show_killed_server() {
    local client reader child
    mkfifo "$scratch/pipe" "$scratch/go" || fail mkfifo
    wait_until 'the server is idle' server_has_no_child
    (read -r <"$scratch/go" && exec cmp - "$scratch/large") <"$scratch/pipe" &
    reader=$!
    command_line "mqfs-client --key $key large > a slow reader &"
    "$bin/mqfs-client" --key "$key" "$scratch/large" >"$scratch/pipe" &
    client=$!
    clients+=("$client")
    wait_until 'the client is in the middle of its transfer' is_under_way "$client"
    child=$(last_sender "$(row_of_pid "$client" | field id)")
    [[ $(parent_of "$child") == "$server" ]] || fail "$child is no child of the server"
    command_line "kill -9 $server $child    # the server, and the child that sends"
    kill -KILL "$server" "$child"
    wait "$server" 2>/dev/null || true
    start_server /
    cat "$scratch/server.out"
    echo >"$scratch/go"
    wait "$client" || fail 'the client did not go on with the next server'
    wait "$reader" || fail 'what arrived differs'
    echo "The client went on with the next server: every byte is right, exit status 0."
    rm -f -- "$scratch/pipe"
}

# Fails if somebody else removed the orphan.
show_orphan() {
    local client child queue nobody
    rm -f "$scratch/pipe"
    mkfifo "$scratch/pipe" || fail mkfifo
    # The only child of the server must be the one that serves this client.
    wait_until 'the server is idle' server_has_no_child
    exec {nobody}<>"$scratch/pipe"
    command_line "mqfs-client --key $key LARGE-FILE > a pipe that nobody reads &"
    "$bin/mqfs-client" --key "$key" "$scratch/large" >"$scratch/pipe" {nobody}>&- &
    client=$!
    clients+=("$client")
    wait_until 'the client is in the middle of its transfer' is_under_way "$client"
    queue=$(row_of_pid "$client" | field id)
    child=$(last_sender "$queue")
    echo "Client $client has queue $queue, which child $child of the server fills."

    # A child notices within two seconds that its client is dead, and removes the queue itself.
    [[ $(parent_of "$child") == "$server" ]] || fail "$child is no child of the server"
    stopped_child=$child
    command_line "kill -STOP $child    # otherwise it would clean up at once"
    kill -STOP "$child"
    wait_until 'the child has stopped' is_stopped "$child"
    command_line "kill -9 $client"
    kill -KILL "$client"
    wait "$client" 2>/dev/null || true
    exec {nobody}>&-

    command_line mqfs-reap --dry-run
    list_queues
    [[ $(row_of_id "$queue" | field verdict) == orphan ]] || return 1
    command_line mqfs-reap
    "$bin/mqfs-reap" | tee "$scratch/reaped"
    grep -Eq "^ *$queue .* removed\$" "$scratch/reaped" || return 1
    [[ -z $(row_of_pid "$client") ]] || fail 'mqfs-reap left the orphan'

    command_line "kill -CONT $child"
    kill -CONT "$child"
    stopped_child=''
    wait_until 'the child has ended' is_gone "$child"
    echo 'The child found the queue gone and ended.'
}

# The queue holds the lease and another message: the child has started, and cannot finish.
is_under_way() {
    local row queue
    is_running "$1" || fail 'the client ended too early'
    row=$(row_of_pid "$1")
    [[ -n $row && $(field messages <<<"$row") -ge 2 ]] || return 1
    queue=$(field id <<<"$row")
    [[ $(last_sender "$queue") != "$1" ]]
}

golden() {
    local clients_at_once=8 requests_each=1250
    local requests=$((clients_at_once * requests_each))
    local file files=() paths=() fetched=0 i failed=0 sent

    mapfile -d '' files < <(cd fixtures && find . -type f -printf '%P\0' | sort -z)
    ((${#files[@]} > 0)) || fail 'no files under fixtures/'
    start_server "$here/fixtures"

    heading 'Every file under fixtures/, fetched and compared'
    for file in "${files[@]}"; do
        run_client "/$file" >"$scratch/file" 2>"$scratch/complaints" ||
            fail "$file: $(<"$scratch/complaints")"
        [[ ! -s $scratch/complaints ]] || fail "$file: $(<"$scratch/complaints")"
        cmp "fixtures/$file" "$scratch/file" || fail "$file arrived different"
        fetched=$((fetched + 1))
        printf '%8d bytes identical: %s\n' "$(wc -c <"$scratch/file")" "$file"
    done
    echo "files: $fetched of ${#files[@]} identical"

    heading "$requests requests from $clients_at_once clients at once"
    for ((i = 0; i < requests_each; i++)); do
        paths+=("${files[i % ${#files[@]}]}")
    done
    (cd fixtures && cat -- "${paths[@]}") >"$scratch/expected"
    for ((i = 0; i < clients_at_once; i++)); do
        mkfifo "$scratch/pipe$i"
        cmp - "$scratch/expected" <"$scratch/pipe$i" >"$scratch/difference$i" 2>&1 &
        comparers+=($!)
        "$bin/mqfs-client" --key "$key" -- "${paths[@]}" \
            >"$scratch/pipe$i" 2>"$scratch/complaints$i" &
        clients+=($!)
    done
    local started=("${clients[@]: -clients_at_once}")
    for ((i = 0; i < clients_at_once; i++)); do
        if ! wait "${started[i]}" || [[ -s $scratch/complaints$i ]]; then
            printf 'client %d:\n%s\n' "$i" "$(<"$scratch/complaints$i")" >&2
            failed=$((failed + 1))
        fi
        if ! wait "${comparers[i]}"; then
            printf 'client %d: %s\n' "$i" "$(<"$scratch/difference$i")" >&2
            failed=$((failed + 1))
        fi
    done
    ((failed == 0)) || fail 'not every request was answered byte for byte'
    local all="$clients_at_once of $clients_at_once"
    echo "clients: $all received $requests_each files each, byte for byte"

    heading 'The server'
    stop_server
    # A session has one line, with the number of its questions.
    sent=$(awk '/ outcome="sent"$/ { sent++ }
        / failures=0 .* outcome="session: / && match($0, / questions=[0-9]+/) {
            sent += substr($0, RSTART + 11, RLENGTH - 11)
        }
        END { print sent + 0 }' "$scratch/server.log")
    ((sent == fetched + requests)) ||
        fail "the server logged $sent transfers, not $((fetched + requests))"
    ! grep -Eq ' (WARN|ERROR) ' "$scratch/server.log" ||
        fail "the server complained: $(grep -E ' (WARN|ERROR) ' "$scratch/server.log")"
    echo "transfers in its log: $sent sent, 0 failed"
    echo 'exit status: 0'

    heading 'The queues'
    check_no_queue_is_left
    echo 'queues of this demo left: 0'
    echo
    echo 'OK: golden scenario completed'
}

# expect STATUS TEXT ARGUMENT...: runs a client, which must end with this status and print this
# text.
expect() {
    local expected=$1 text=$2 status=0
    shift 2
    command_line mqfs-client "$@"
    "$bin/mqfs-client" "$@" >"$scratch/file" 2>"$scratch/complaints" &
    clients+=($!)
    wait $! || status=$?
    cat "$scratch/complaints"
    echo "exit status: $status"
    ((status == expected)) || fail "exit status $status; $expected was expected"
    grep -qF "$text" "$scratch/complaints" || fail "it did not say: $text"
    [[ ! -s $scratch/file ]] || fail 'it wrote to standard output'
}

failure() {
    heading 'A client without a server'
    expect 2 "no server: nothing is under key $key" --key "$key" /etc/hostname

    heading 'A bad key'
    expect 2 "invalid value 'nonsense'" --key nonsense /etc/hostname

    heading 'A missing file'
    command_line "mqfs-server --key $key --root fixtures &"
    start_server "$here/fixtures"
    expect 1 'No such file or directory' --key "$key" /no-such-file
    stop_server
    check_no_queue_is_left

    echo
    echo 'ERROR: invalid input or unavailable IPC resource'
    echo 'exit=2'
    expected_status=2
    exit 2
}

# --- arguments ------------------------------------------------------------------------------------

case $#:${1-} in
    0:) mode=show ;;
    1:--mode=golden) mode=golden ;;
    1:--mode=failure) mode=failure ;;
    1:-h | 1:--help)
        printf '%s\n' "$usage"
        exit
        ;;
    *)
        printf 'run_demo.sh: unknown arguments: %s\n\n%s\n' "$*" "$usage" >&2
        exit 2
        ;;
esac

trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
prepare
"$mode"
