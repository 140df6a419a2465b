#!/usr/bin/env bash
# Starts what deploy/build.sh has laid out, the way the image starts it: deploy/try.sh FOLDER
# As root: in a root of its own that holds nothing but ayova, the C library and the authorities, as user 65532, who may
# write to /data alone. As anybody else: in the same folders, as oneself. Fails unless it gets ready, says so to
# `ayova healthcheck`, leaves no file outside /data, and ends with code 0.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
root=$work/root
pid=
leave() {
    local code=$?
    [[ -z $pid ]] || kill -KILL "$pid" 2>/dev/null || true
    ((code == 0)) || cat "$work/log" 2>/dev/null || true
    chmod -R u+w "$work" && rm -rf "$work"
    exit "$code"
}
trap leave EXIT

fail() { printf 'deploy/try.sh: %s\n' "$1" >&2; exit 1; }

furnish() {
    mkdir -p "$root/etc/ayova" "$root/etc/ssl/certs" "$root/run/secrets"
    cp -a "$1/." "$root"
    local library
    for library in $(ldd "$root/usr/local/bin/ayova" | grep -o '/[^ ]*'); do
        # The image has these and no others.
        case ${library##*/} in
        libc.so.6 | libm.so.6 | libgcc_s.so.1 | ld-linux-*) ;;
        *) fail "the image has no $library" ;;
        esac
        install -D "$library" "$root$library"
    done
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    cp "$here/config/sandbox-key.pem" "$root/run/secrets/key.pem"
    # Paths count from the file's folder, so they hold inside and outside of the root. Port 0: a free one.
    cat >"$root/etc/ayova/ayova.yaml" <<'END'
listen: { address: "127.0.0.1:0" }
admin: { address: "127.0.0.1:0" }
upstream: { base_url: https://sandbox.api.of.ayoconnect.id }
merchants:
  - name: sample
    merchant_code: AYOTST
    client_id: sandbox-client
    client_secret: sandbox-secret
    private_key: ${file:../../run/secrets/key.pem}
store: { path: ../../data/ayova.db }
END
    chmod -R u=rX,go=rX "$root"
    chmod 0700 "$root/data"
}

# Replaces this shell, so that a process started in the background is ayova itself.
ayova() {
    if ((EUID == 0)); then
        exec chroot --userspec=65532:65532 --groups= "$root" /usr/local/bin/ayova "$@"
    fi
    exec "$root/usr/local/bin/ayova" "$@"
}

config() { if ((EUID == 0)); then echo /etc/ayova/ayova.yaml; else echo "$root/etc/ayova/ayova.yaml"; fi; }

furnish "$1"
if ((EUID == 0)); then chown -R 65532:65532 "$root/data"; fi
outside() { find "$root" -path "$root/data" -prune -o -printf '%p %s %m\n' | sort; }
before=$(outside)
(ayova check --config "$(config)") >/dev/null || fail "ayova check refuses the configuration"

# There before it is read, however late the other process begins.
: >"$work/log"
(ayova run --config "$(config)") 2>"$work/log" &
pid=$!
admin=
for _ in {1..300}; do
    admin=$(sed -n 's/.*"ready".*"admin":"\([^"]*\)".*/\1/p; s/.*"admin":"\([^"]*\)".*"ready".*/\1/p' "$work/log" | head -n 1)
    [[ -z $admin ]] || break
    kill -0 "$pid" 2>/dev/null || fail "it ended at once"
    sleep 0.1
done
[[ -n $admin ]] || fail "not ready within 30 s"
(ayova healthcheck --admin "$admin") || fail "ayova healthcheck says it is not ready"
if ((EUID == 0)); then
    grep -q '^Uid:.65532.65532' "/proc/$pid/status" || fail "it does not run as 65532"
    grep -q '^CapEff:.0*$' "/proc/$pid/status" || fail "it has capabilities"
fi
[[ -s $root/data/ayova.db ]] || fail "no records in /data"
[[ $(outside) == "$before" ]] || fail "something changed outside /data"

kill -TERM "$pid"
wait "$pid" || fail "it did not end well"
pid=
! (ayova healthcheck --admin "$admin") 2>/dev/null || fail "ayova healthcheck calls a process ready that is gone"
printf 'ready, healthy and gone again: %s bytes, user %s\n' \
    "$(stat -c %s "$root/usr/local/bin/ayova")" "$(stat -c %u "$root/data/ayova.db")"
