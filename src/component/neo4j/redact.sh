# Loads a dump of database $1, replaces values in it, dumps it again.
# Input: the dump. Output: the other one. Runs in a container of its own that has no network and an empty volume at /data.
#
# A value that is replaced stays in indexes and transaction logs, all of which are in a dump: these are made new. What stays in
# the store itself is left to whoever reads the dump.
set -efu
database=$1
work=/data/infrahub-backup-redaction
home=$work/home
log=$work/log
umask 077

say() { printf '%s\n' "$*" >&2; }
fail() {
    # Steps of progress would hide why.
    [ ! -e "$log" ] || grep -v '^Files: ' "$log" | tail -n 40 >&2 || true
    say "$*"
    exit 1
}
ask() { cypher-shell -a neo4j://127.0.0.1:7687 --format plain -d "$database" 2>>"$log"; }
listens() { grep -Eq ':1E07 [0-9A-F]+:0000 0A' /proc/net/tcp /proc/net/tcp6 2>/dev/null; }

# Nobody but this container reaches it: it needs no password.
start() {
    command=$(neo4j console --dry-run 2>>"$log") || fail "the command of the server is not known"
    (eval "exec $command") >>"$log" 2>&1 </dev/null &
    server=$!
    until listens && echo 'RETURN 1;' | ask >/dev/null; do
        kill -0 "$server" 2>/dev/null || fail "the server ended"
        sleep 0.5
    done
}
stop() {
    kill -TERM "$server"
    code=0
    wait "$server" || code=$?
    # 143: it was asked to end, and did. Anything else may have left work undone, and its logs go.
    case $code in 0 | 143) ;; *) fail "the server ended with $code" ;; esac
}
# What the row that begins with the word $2 says behind it. One text in a row, since a count beside a constant gives no row where
# there is nothing to count.
row() { printf '%s\n' "$1" | sed -n "s/^\"$2 \(.*\)\"\$/\1/p"; }

[ -w /data ] || fail "/data cannot be written by $(id -u):$(id -g) in a new container of the image"
mkdir -p "$home/conf"
# A home of its own has folders of its own, and no plugins.
ln -s "${NEO4J_HOME:-/var/lib/neo4j}/lib" "$home/lib"
cat >"$home/conf/neo4j.conf" <<CONF
server.config.strict_validation.enabled=false
initial.dbms.default_database=$database
dbms.security.auth_enabled=false
server.default_listen_address=127.0.0.1
server.http.enabled=false
server.https.enabled=false
server.memory.pagecache.size=512m
dbms.usage_report.enabled=false
db.query.default_language=CYPHER_5
db.tx_log.rotation.retention_policy=keep_none
db.recovery.fail_on_missing_files=false
CONF
export NEO4J_HOME="$home" NEO4J_CONF="$home/conf"

counts="CALL { MATCH (n) RETURN count(n) AS nodes } CALL { MATCH ()-[r]->() RETURN count(r) AS relationships }
    RETURN 'counts ' + nodes + ' ' + relationships;"

neo4j-admin database load --from-stdin --overwrite-destination=true "$database" >>"$log" 2>&1 ||
    fail "neo4j-admin database load did not end well"
start
# Rows are nodes, so that no transaction gets large, whatever many nodes have one value.
said=$(ask <<CYPHER
$counts
SHOW DATABASES YIELD name, store WHERE name <> 'system' RETURN 'format ' + store;
MATCH (n:AttributeValue) WHERE n.value IS NOT NULL
    WITH n.value AS value, collect(n) AS nodes WITH nodes, randomUUID() AS uuid UNWIND nodes AS node
    CALL { WITH node, uuid SET node.value = uuid } IN TRANSACTIONS OF 10000 ROWS
    RETURN 'replaced ' + count(DISTINCT uuid) + ' ' + count(*);
CYPHER
) || fail "the values could not be replaced"
before=$(row "$said" counts)
replaced=$(row "$said" replaced)
format=$(row "$said" format)
# Whoever reads the dump blanks what the store does not use any more, and knows this format alone.
[ "$format" = record-aligned-1.1 ] ||
    fail "the store is in the format $format, and only in record-aligned-1.1 replaced values can be removed"
stop
rm -rf "$home/data/databases/$database/schema" "$home/data/databases/$database/profiles" "$home/data/transactions/$database"
start
said=$(ask <<CYPHER
CALL db.awaitIndexes(36000);
SHOW INDEXES YIELD state WHERE state <> 'ONLINE' RETURN 'indexes ' + count(*);
MATCH (n:AttributeValue) WHERE n.value IS NOT NULL AND NOT coalesce(n.value =~ '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', false)
    RETURN 'left ' + count(*);
$counts
CYPHER
) || fail "the new store does not answer"
[ "$(row "$said" indexes)" = 0 ] || fail "$(row "$said" indexes) indexes could not be made new"
[ "$(row "$said" left)" = 0 ] || fail "$(row "$said" left) values are left"
{ [ -n "$before" ] && [ "$(row "$said" counts)" = "$before" ]; } ||
    fail "nodes and relationships were $before and are $(row "$said" counts)"
stop
say "replaced: ${replaced% *} different values of ${replaced#* } nodes"
neo4j-admin database dump --to-stdout "$database" 2>>"$log" || fail "neo4j-admin database dump did not end well"
