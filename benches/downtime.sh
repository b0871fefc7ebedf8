#!/bin/bash
# downtime.sh BINARY PROJECT URL - how long the API of a Compose project is away during `create`, beside the same stops,
# dumps and starts done one after the other. Use a release build. It stops and starts the services of PROJECT, twice.
#
# URL answers 200 while the API serves, as http://127.0.0.1:8000/api/config does. Prints the longest time without an answer
# of each way, their ratio, and what `create` reports of each service. Needs docker and curl.
#
# One after the other is what the predecessor does, less its waits: each service stops when the one before has, each starts
# when the one before is healthy; the dumps go to /dev/null, so that nothing is compressed or stored meanwhile.
set -euo pipefail
usage='downtime.sh BINARY PROJECT URL'
binary=$(readlink -f -- "${1:?$usage}")
project=${2:?$usage}
url=${3:?$usage}

work=$(mktemp -d)
export XDG_STATE_HOME=$work/state XDG_CACHE_HOME=$work/cache XDG_CONFIG_HOME=$work/config
watcher=
trap '[ -z "$watcher" ] || kill "$watcher" 2>/dev/null; rm -rf "$work"' EXIT

# In the order of Compose's depends_on; those that are missing are passed over.
services=(database task-manager task-manager-background-svc infrahub-server task-worker)

containers() {
    docker ps -aq --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1"
}

healthy() {
    case $(docker inspect -f '{{if .State.Health}}{{.State.Health.Status}}{{else if .State.Running}}healthy{{end}}' "$1") in
    healthy) return 0 ;;
    *) return 1 ;;
    esac
}

# "MOMENT CODE" five times a second
watch() {
    while :; do
        printf '%s %s\n' "$(date +%s.%N)" "$(curl -s -m 2 -o /dev/null -w '%{http_code}' "$url" || true)"
        sleep 0.2
    done >"$1"
}

# longest FILE: seconds between the last good answer before the longest silence and the first after it
longest() {
    awk '$2 == 200 { if (last && $1 - last > most) most = $1 - last; last = $1 } END { printf "%.1f\n", most }' "$1"
}

# measured NAME COMMAND...
measured() {
    local name=$1
    shift
    watch "$work/$name.watch" &
    watcher=$!
    sleep 1
    "$@"
    until [ "$(curl -s -m 2 -o /dev/null -w '%{http_code}' "$url")" = 200 ]; do sleep 0.2; done
    sleep 1
    kill "$watcher"
    watcher=
    longest "$work/$name.watch" >"$work/$name.seconds"
}

one_after_the_other() {
    local i service container database timeout
    for ((i = ${#services[@]} - 1; i >= 0; i--)); do
        # Only the database must not be killed: others get what they ask for, as from Compose (a service that does not hear the
        # signal would be waited for in full).
        timeout=()
        [ "${services[i]}" != database ] || timeout=(-t 900)
        for container in $(containers "${services[i]}"); do docker stop "${timeout[@]}" "$container" >/dev/null; done
    done
    database=$(containers database)
    docker run --rm --network none --volumes-from "$database" --user "$(docker run --rm --volumes-from "$database" \
        --entrypoint stat "$(docker inspect -f '{{.Image}}' "$database")" -c %u:%g /data/databases)" --entrypoint neo4j-admin \
        "$(docker inspect -f '{{.Image}}' "$database")" database dump neo4j --to-stdout \
        >/dev/null 2>"$work/dump.err" || { tail -n 20 "$work/dump.err" >&2 && return 1; }
    docker exec "$(containers task-manager-db)" sh -c 'pg_dump -Fc -Z0 -U "${POSTGRES_USER:-postgres}" "${POSTGRES_DB:-prefect}"' \
        >/dev/null
    for service in "${services[@]}"; do
        for container in $(containers "$service"); do
            docker start "$container" >/dev/null
            until healthy "$container"; do sleep 0.25; done
        done
    done
}

create() {
    "$binary" --repo "$work/repository" --key-file "$work/key" create --force --project "$project" \
        >"$work/out" 2>"$work/err" || {
        tail -n 20 "$work/err" >&2
        return 1
    }
}

"$binary" --repo "$work/repository" --key-file "$work/key" init --no-password >"$work/out"
measured create create
measured sequence one_after_the_other
sed -n 's/^[^ ]* \(`.*was down for .*\)$/\1/p' "$work/err"
paste -d ' ' "$work/create.seconds" "$work/sequence.seconds" |
    awk '{ printf "API away: %.1f s during create, %.1f s one after the other: %.2f\n", $1, $2, $1 / $2 }'
