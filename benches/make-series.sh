#!/bin/bash
# make-series.sh DIR - PostgreSQL dumps of successive days, DIR/day0.dump to DIR/dayN.dump (`pg_dump -Fc -Z0`).
#
# A database as Prefect keeps it, in a PostgreSQL of tests/parts. A day adds 3 % of rows, changes 1 % and deletes 1 %. Every value
# follows from SEED, so that the same seed gives the same rows; the time in a dump's head differs. What is there is kept.
#
#   SEED=1        another one gives another database
#   DAYS=6        how many dumps
#   FLOW_RUNS=3000  each with 90 rows in other tables; 3000 make a dump of about 70 MB
#   SPREAD=recent   changes lie close together in time, old rows are deleted; `even`: all rows alike
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
postgres=$here/../tests/parts/postgres.sh
dir=${1:?make-series.sh DIR}
seed=${SEED:-1} days=${DAYS:-6} flow_runs=${FLOW_RUNS:-3000} spread=${SPREAD:-recent}
case $spread in recent | even) ;; *) echo "SPREAD is recent or even" >&2; exit 2 ;; esac
mkdir -p "$dir"
dir=$(cd -- "$dir" && pwd -P)
last=$dir/day$((days - 1)).dump
[ ! -s "$last" ] || exit 0

"$postgres" up "$dir/postgres" >"$dir/postgres.env"
trap '"$postgres" down "$dir/postgres"; rm -f "$dir/postgres.env"' EXIT
value() { sed -n "s/^$1=//p" "$dir/postgres.env"; }
PGPASSFILE=$(value POSTGRES_PASSFILE) PGPORT=$(value POSTGRES_PORT)
export PGPASSFILE PGPORT PGHOST=127.0.0.1 PGUSER=postgres PGDATABASE=prefect
export PGOPTIONS='-c client_min_messages=warning -c synchronous_commit=off'
bin=$(value POSTGRES_BIN)
sql() { "$bin/psql" -X -q -v ON_ERROR_STOP=1 -v seed="$seed" "$@"; }

sql <<'SQL'
create function token(text, bigint) returns text immutable language sql as $$ select md5(current_setting('series.seed') || $1 || $2) $$;
create function share(text, bigint) returns float8 immutable language sql
    as $$ select (hashtextextended(current_setting('series.seed') || $1, $2) & 1048575) / 1048576.0 $$;
create table flow_run (id bigint primary key, uuid uuid, created timestamptz, updated timestamptz, name text, state text, run_count int, parameters jsonb, tags jsonb);
create table task_run (id bigint primary key, uuid uuid, flow_run uuid, created timestamptz, updated timestamptz, name text, state text, run_count int, inputs jsonb);
create table task_run_state (id bigint primary key, uuid uuid, task_run uuid, at timestamptz, type text, message text, details jsonb);
create table log (id bigint primary key, flow_run uuid, at timestamptz, level int, logger text, message text);
create table events (id bigint primary key, uuid uuid, at timestamptz, event text, resource jsonb, payload jsonb);
SQL
sql -c "alter database prefect set series.seed = '$seed'"

# rows FROM TO: those of the flow runs FROM up to, not including, TO
rows() {
    sql -v a="$1" -v b="$2" <<'SQL'
insert into flow_run select i, token('f', i)::uuid, at, at + interval '7 minutes',
    (array['amber','brisk','cobalt','daring','eager','fancy','golden','hasty'])[1 + i % 8] || '-' || substr(token('n', i), 1, 6), 'COMPLETED', 1,
    jsonb_build_object('branch', 'main', 'device', substr(token('d', i % 900), 1, 12), 'checksum', token('c', i)), '["scheduled", "infrahub.app"]'
from generate_series(:a::bigint, :b::bigint - 1) i, lateral (select timestamptz '2026-01-01 00:00+00' + i * interval '97 seconds' as at) t;
insert into task_run select i, token('t', i)::uuid, token('f', i / 6)::uuid, at, at + interval '40 seconds', 'render-artifact-' || i % 6, 'COMPLETED', 1,
    jsonb_build_object('artifact', token('a', i), 'definition', substr(token('def', i % 40), 1, 16), 'parents', jsonb_build_array(token('t', i - 1)))
from generate_series(:a::bigint * 6, :b::bigint * 6 - 1) i, lateral (select timestamptz '2026-01-01 00:00+00' + i / 6 * interval '97 seconds' + i % 6 * interval '11 seconds' as at) t;
insert into task_run_state select i, token('s', i)::uuid, token('t', i / 3)::uuid, at, (array['PENDING','RUNNING','COMPLETED'])[1 + i % 3],
    case when i % 3 = 2 then 'All states completed.' end, jsonb_build_object('flow_run_id', token('f', i / 18), 'cache_key', token('k', i / 5), 'retriable', false)
from generate_series(:a::bigint * 18, :b::bigint * 18 - 1) i, lateral (select timestamptz '2026-01-01 00:00+00' + i / 18 * interval '97 seconds' + i % 18 * interval '3 seconds' as at) t;
insert into log select i, token('f', i / 52)::uuid, at, 10 * (1 + i % 4), (array['prefect.flow_runs','prefect.task_runs','infrahub.git'])[1 + i % 3],
    'Rendered artifact ' || token('la', i) || ' for device ' || substr(token('ld', i % 9000), 1, 12) || ' of branch main: storage ' || substr(token('ls', i % 90000), 1, 20)
from generate_series(:a::bigint * 52, :b::bigint * 52 - 1) i, lateral (select timestamptz '2026-01-01 00:00+00' + i / 52 * interval '97 seconds' + i % 52 * interval '1 second' as at) t;
insert into events select i, token('e', i)::uuid, at, 'prefect.task-run.' || (array['Pending','Running','Completed'])[1 + i % 3],
    jsonb_build_object('prefect.resource.id', 'prefect.task-run.' || token('t', i / 3), 'prefect.resource.name', 'render-artifact-' || i % 6),
    jsonb_build_object('intended', jsonb_build_object('from', 'RUNNING', 'to', 'COMPLETED'), 'validated_state', jsonb_build_object('type', 'COMPLETED', 'data', token('p', i), 'hash', token('h', i / 4)))
from generate_series(:a::bigint * 14, :b::bigint * 14 - 1) i, lateral (select timestamptz '2026-01-01 00:00+00' + i / 14 * interval '97 seconds' + i % 14 * interval '6 seconds' as at) t;
SQL
}

# a_day N: what happens on it
a_day() {
    local from=$((flow_runs + (10#$1 - 1) * flow_runs * 3 / 100)) to=$((flow_runs + 10#$1 * flow_runs * 3 / 100))
    local old recent
    if [ "$spread" = recent ]; then
        # Half of the deleted flow runs are the oldest ones; nine in ten of the changed rows are of the newest tenth.
        old="id < (select min(id) + greatest(count(*) / 200, 1) from flow_run) or share('gone$1', id) < 0.005"
        recent="case when :t.id > (select max(id) * 9 / 10 from :t) then 0.09 else 0.001 end"
        sql <<SQL
create temp table gone as select id from flow_run where $old;
delete from task_run where id / 6 in (select id from gone);
delete from task_run_state where id / 18 in (select id from gone);
delete from log where id / 52 in (select id from gone);
delete from events where id / 14 in (select id from gone);
delete from flow_run where id in (select id from gone);
SQL
    else
        recent=0.01
        for table in flow_run task_run task_run_state log events; do
            sql -c "delete from $table where share('gone$1$table', id) < 0.01"
        done
    fi
    rows "$from" "$to"
    sql <<SQL
update flow_run set updated = updated + interval '1 day', run_count = run_count + 1 where share('u$1f', id) < ${recent//:t/flow_run};
update task_run set updated = updated + interval '1 day', run_count = run_count + 1 where share('u$1t', id) < ${recent//:t/task_run};
update task_run_state set at = at + interval '1 second' where share('u$1s', id) < ${recent//:t/task_run_state};
update log set level = level + 1 where share('u$1l', id) < ${recent//:t/log};
update events set at = at + interval '1 second' where share('u$1e', id) < ${recent//:t/events};
SQL
}

for ((day = 0; day < days; day++)); do
    if [ "$day" = 0 ]; then rows 0 "$flow_runs"; else a_day "$day"; fi
    sql -c vacuum
    "$bin/pg_dump" -w -Fc -Z0 >"$dir/part"
    mv "$dir/part" "$dir/day$day.dump"
    printf 'day %d: %s bytes\n' "$day" "$(stat -c %s "$dir/day$day.dump")" >&2
done
