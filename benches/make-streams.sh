#!/bin/bash
# make-streams.sh DIR [NAME:ROWS ...] - real `pg_dump -Fc -Z0` streams to measure with:
#
#   DIR/pg-1.dump  about 1.2 GB, 5 million rows
#   DIR/pg-5.dump  about 5 GB, 21 million rows
#
# From a PostgreSQL of tests/parts with one unlogged table: a uuid, text that compresses about as well as log messages
# do, a time. A file that exists is kept. Needs twice the size of the largest stream in DIR while it runs.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
postgres=$here/../tests/parts/postgres.sh
dir=${1:?make-streams.sh DIR [NAME:ROWS ...]}
shift
[ $# -gt 0 ] || set -- pg-1:5000000 pg-5:21000000
mkdir -p "$dir"
dir=$(cd -- "$dir" && pwd -P)

"$postgres" up "$dir/postgres" >"$dir/postgres.env"
trap '"$postgres" down "$dir/postgres"; rm -f "$dir/postgres.env"' EXIT
value() { sed -n "s/^$1=//p" "$dir/postgres.env"; }
PGPASSFILE=$(value POSTGRES_PASSFILE)
export PGPASSFILE PGHOST=127.0.0.1 PGUSER=postgres PGDATABASE=prefect
PGOPTIONS='-c client_min_messages=warning'
export PGOPTIONS
PGPORT=$(value POSTGRES_PORT)
export PGPORT
bin=$(value POSTGRES_BIN)

for stream; do
    name=${stream%%:*} rows=${stream##*:}
    if [ -s "$dir/$name.dump" ]; then continue; fi
    started=$SECONDS
    "$bin/psql" -X -q -v ON_ERROR_STOP=1 <<SQL
drop table if exists log;
create unlogged table log (id bigint, flow_run_id uuid, level int, message text, timestamp timestamptz);
insert into log
select i, md5('run' || i / 50)::uuid, 10 * (1 + i % 4),
       'Rendered artifact ' || md5('artifact' || i) || ' for device ' || substr(md5('device' || i % 9000), 1, 12)
           || ' of branch main: checksum ' || md5('sum' || i) || ', storage ' || substr(md5('store' || i % 90000), 1, 20),
       timestamptz '2026-01-01 00:00:00+00' + i * interval '4 seconds'
from generate_series(1, $rows) i;
SQL
    "$bin/pg_dump" -w -Fc -Z0 >"$dir/$name.part"
    mv "$dir/$name.part" "$dir/$name.dump"
    printf '%s: %s bytes in %d s\n' "$dir/$name.dump" "$(stat -c %s "$dir/$name.dump")" $((SECONDS - started))
done
