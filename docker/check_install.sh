#!/bin/sh
# Checks the content of docker/Dockerfile's image on a machine without a container engine. It takes the steps of the
# build stages in a clean environment, from the files that a build would see. Then it runs a testbed of two nodes with
# the rights of the image's user: certificates, inputs, health check, stop, start, and a whole run.
#
#   docker/check_install.sh [cpu|cuda]      needs Python 3.11 or newer, a C compiler, git's tar, and some minutes
#
# TORCH_INDEX names the index of torch, as in the Dockerfile; variables of pip (PIP_*) are passed on.
set -eu

build=${1:-cpu}
repository=$(cd "$(dirname "$0")/.." && pwd)
dockerfile=$repository/docker/Dockerfile
TORCH_INDEX=${TORCH_INDEX-$(sed -n 's/^ARG TORCH_INDEX=//p' "$dockerfile")}
work=$(mktemp -d)
nodes=

end() {
    for process in $nodes; do kill -KILL "$process" 2>/dev/null || true; done
    rm -rf "$work"
}
trap end EXIT

say() { echo "-- $*"; }

fail() {
    echo "failed: $*" >&2
    for log in "$work"/*.log; do [ ! -e "$log" ] || { echo "$log:" >&2; tail -n 20 "$log" >&2; }; done
    exit 1
}

# --- building -----------------------------------------------------------------------------------------

say "copying what a build sees"
mkdir "$work/src" "$work/home"
(cd "$repository" && sed -n 's/^!//p' docker/Dockerfile.dockerignore |
    tar --create --exclude=__pycache__ --exclude='*.so' --files-from=-) | tar --extract --directory="$work/src"

# STEP of every `RUN ... docker/install.sh STEP FOLDER` in the stages that the image for $build is copied from.
steps=$(awk -v build="$build" '
    /^FROM/ { inside = ($4 ~ "^(base-build|codec|dependencies-" build "|project-" build ")$") }
    inside && /^RUN/ && match($0, /install\.sh [a-z-]+/) { print substr($0, RSTART + 11, RLENGTH - 11) }' "$dockerfile")
[ -n "$steps" ] || fail "the Dockerfile has no stages for $build with steps of docker/install.sh"

for step in $steps; do
    say "docker/install.sh $step"
    # One word per variable is intended.
    # shellcheck disable=SC2046
    (cd "$work/src" && env -i $(env | grep -E '^(PIP_[A-Z_]+|SSL_CERT_FILE|https?_proxy|no_proxy)=[^ ]*$' || true) \
        PATH=/usr/local/bin:/usr/bin:/bin HOME="$work/home" TORCH_INDEX="$TORCH_INDEX" \
        docker/install.sh "$step" "$work/deca") > "$work/install.log" 2>&1 || fail "step $step"
done
[ ! -e "$work/deca/bin/pip" ] || fail "pip is still there"
"$work/deca/bin/python" -I -c "import sys
from deca_node.storage.compiled import load_built
sys.exit(load_built() is None)" || fail "the compiled codec is not there"
say "installed: $(du -sh "$work/deca" | cut -f 1)"

# --- running, with nothing writable but the volumes ---------------------------------------------------

volumes="authority certs inputs north east tmp"
for volume in $volumes; do mkdir "$work/$volume"; done
chmod 0755 "$work"

# Root drops its rights, as the engine does; another user does not have them.
as=
if [ "$(id -u)" = 0 ]; then
    for volume in $volumes; do chown 10001:10001 "$work/$volume"; done
    as="setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all"
fi

inside() {
    # $as has several words.
    # shellcheck disable=SC2086
    exec $as env -i PATH="$work/deca/bin:/usr/bin:/bin" HOME="$work/north" TMPDIR="$work/tmp" OMP_NUM_THREADS=1 \
        PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 "$@"
}

port() {
    "$work/deca/bin/python" -c \
        "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"
}

cat > "$work/run.toml" <<SETTINGS
rounds = 1
inner_steps = 4
sequence_length = 64
batch_size = 2
topology = "ring"
SETTINGS
printf 'north@127.0.0.1:%s\neast@127.0.0.1:%s\n' "$(port)" "$(port)" > "$work/peers.txt"

say "certificates and inputs, as the one-shot services make them"
(inside sh "$repository/docker/make_certificates.sh" "$work/authority" "$work/certs" testbed.example north east) \
    > "$work/certificates.log" 2>&1 || fail "certificates"
(inside python -m deca_node.lab.demo.inputs "$work/inputs" --steps 20 north east) > "$work/inputs.log" 2>&1 || fail "inputs"

start() { # NAME: sets $node to its process id
    (inside deca-node start --name "$1" --run "$work/run.toml" --peers "$work/peers.txt" --model "$work/inputs/model" \
        --data "$work/inputs/data/$1.jsonl" --dir "$work/$1" --threads 1 --network local \
        --tls-ca "$work/certs/$1/ca.crt" --tls-cert "$work/certs/$1/$1.crt" --tls-key "$work/certs/$1/$1.key") > "$work/$1.log" 2>&1 &
    node=$!
    nodes="$nodes $node"
}

say "health check, and a stop while it waits for the other"
start north
for _ in $(seq 120); do
    ! (inside deca-node status --json --dir "$work/north") > "$work/status.log" 2>&1 || break
    kill -0 "$node" 2>/dev/null || fail "north ended"
    sleep 1
done
grep -q '"phase"' "$work/status.log" || fail "health check"
kill -TERM "$node"
wait "$node" || fail "after SIGTERM north exited with $?"

say "a run from its start to the tuned model"
start north
first=$node
start east
wait "$first" || fail "north exited with $?"
wait "$node" || fail "east exited with $?"
[ -e "$work/north/final/model.safetensors" ] && [ -e "$work/east/final/model.safetensors" ] || fail "no tuned model"
say "everything an image needs is there"
