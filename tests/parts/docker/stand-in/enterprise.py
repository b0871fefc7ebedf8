"""A stand-in for what `neo4j-admin` of Neo4j Enterprise has and that of Community has not. No Neo4j, and no store.

From outside it is as Neo4j's manual says: `database backup` leaves one `NAME-TIME.backup` in the folder that it is told, of the
database that runs; `database restore` wants one file and a database that is stopped, and leaves a script for users and roles
below /data/scripts; `database migrate` wants a database that is stopped. All want to be the owner of the data.

Inside, a backup is the header of one, as Neo4j's sources write it, and a tar with what `cypher-shell` says of nodes,
relationships and users. What was restored is there when the database starts (`start`, called by the stand-in for `cypher-shell`).
Community has no roles: of those there is a comment only.

For tests, files in /data: `backup-fails`, `restore-fails` and `migrate-fails` make that end with 7 in the middle; `backup-waits`
and `restore-waits` make it wait there for as long as they are there, and say so by a file `waiting`; `script-breaks` puts a
statement into the script that fails.
"""

import datetime, io, os, pathlib, subprocess, sys, tarfile, time

DATA = pathlib.Path("/data")
STATE = DATA / "stand-in"
OWNER = 7474
METADATA = ["none", "all", "users", "roles"]
# Store id, database id, name, times, and a flag for `full`.
HEADER = b"BTV1" + b"\x01" + bytes(16) + b"\x06record\x07aligned\x01\x01" + b"\x10" + b"\x01" * 16 + b"\x05neo4j" + bytes(24) + b"\x01\x05"
BATCH = 500


def fail(text, code=1):
    print(text, file=sys.stderr)
    sys.exit(code)


def arguments(words, known):
    """Options with their values, and the database."""
    options, rest = {}, []
    for word in words:
        name, _, value = word.partition("=")
        if not word.startswith("-"):
            rest.append(word)
        elif name not in known:
            fail(f"Unknown option: '{word}'", 2)
        else:
            options[name] = value or "true"
    if len(rest) != 1:
        fail("one database must be named", 2)
    if os.getuid() != OWNER:
        fail("this must be run as the user neo4j")
    return options, rest[0]


def trouble(what):
    """What a test wants to happen in the middle."""
    while (DATA / f"{what}-waits").exists():
        (DATA / "waiting").touch()
        time.sleep(0.1)
    if (DATA / f"{what}-fails").exists():
        fail(f"the stand-in does not {what}", 7)


def stopped():
    return (STATE / "stopped").exists()


def serves():
    return subprocess.run(["pgrep", "-x", "java"], stdout=subprocess.DEVNULL).returncode == 0


def cypher(database, statements):
    user, _, password = os.environ["NEO4J_AUTH"].partition("/")
    environment = {**os.environ, "NEO4J_USERNAME": user, "NEO4J_PASSWORD": password}
    shell = ["/var/lib/neo4j/bin/cypher-shell", "--format", "plain", "-d", database]
    said = subprocess.run(shell, input=statements, env=environment, capture_output=True, text=True)
    if said.returncode != 0:
        fail(said.stderr)
    return said.stdout.splitlines()[1:]


def script(metadata):
    lines = ["// Needs the name of the database.", "SHOW DATABASES YIELD name WHERE name = $database RETURN name;"]
    if metadata in ("all", "users"):
        for name in cypher("system", "SHOW USERS YIELD user RETURN user;"):
            name = name.strip().strip('"')
            lines.append(f"CREATE USER `{name}` IF NOT EXISTS SET PASSWORD 'from-the-stand-in' CHANGE NOT REQUIRED;")
    if metadata in ("all", "roles"):
        lines.append("// Community has no roles.")
    if (DATA / "script-breaks").exists():
        lines.append("CREATE USER `b` SET PASSWORD 'secret-of-the-script' AND NONSENSE;")
    return lines


def backup(words):
    known = ["--expand-commands", "--type", "--include-metadata", "--to-path"]
    options, database = arguments(words, known)
    metadata = options.get("--include-metadata", "all")
    if metadata not in METADATA:
        fail(f"Invalid value for option '--include-metadata': expected one of {METADATA}", 2)
    folder = pathlib.Path(options["--to-path"])
    if not folder.is_dir() or list(folder.iterdir()):
        fail(f"{folder} is not an empty folder")
    if stopped() or not serves():
        fail(f"Database '{database}' is not running: Connection refused: localhost/127.0.0.1:6362")
    print(f"Starting backup of database {database}")
    temporary = folder / "temporary"
    temporary.write_bytes(HEADER)
    trouble("backup")
    files = {
        "nodes": cypher(database, "MATCH (n) RETURN [id(n), labels(n), properties(n)] AS row;"),
        "relationships": cypher(database, "MATCH (a)-[r]->(b) RETURN [id(a), type(r), id(b), properties(r)] AS row;"),
    }
    if metadata != "none":
        files["tools/metadata_script.cypher"] = script(metadata)
    with open(temporary, "ab") as file, tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        for name, lines in files.items():
            data = "".join(f"{line}\n" for line in lines).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    time_now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H-%M-%S")
    temporary.rename(folder / f"{database}-{time_now}.backup")
    print("Backup command completed.")


def restore(words):
    known = ["--expand-commands", "--overwrite-destination", "--from-path"]
    options, database = arguments(words, known)
    path = pathlib.Path(options["--from-path"])
    if options.get("--overwrite-destination") != "true":
        fail(f"Database with name [{database}] already exists at {DATA}/databases/{database}")
    if serves() and not stopped():
        fail(f"The database is in use. Stop database '{database}' and try again.")
    content = path.read_bytes()
    if not path.name.endswith(".backup") or not content.startswith(HEADER):
        fail(f"{path} is no backup")
    trouble("restore")
    with tarfile.open(fileobj=io.BytesIO(content[len(HEADER) :])) as tar:
        files = {entry.name: tar.extractfile(entry).read() for entry in tar}
    metadata = files.pop("tools/metadata_script.cypher", None)
    for name, data in files.items():
        (STATE / name).write_bytes(data)
    if metadata is not None:
        scripts = DATA / "scripts" / database
        scripts.mkdir(parents=True, exist_ok=True)
        (scripts / "restore_metadata.cypher").write_bytes(metadata)


def migrate(words):
    options, database = arguments(words, ["--expand-commands", "--to-format"])
    if serves() and not stopped():
        fail(f"The database is in use. Stop database '{database}' and try again.")
    trouble("migrate")


def batches(name, statement):
    lines = (STATE / name).read_text().splitlines()
    for at in range(0, len(lines), BATCH):
        yield f"UNWIND [{', '.join(lines[at : at + BATCH])}] AS row {statement};\n"


def start():
    """Brings what was restored into the database."""
    if not (STATE / "nodes").exists():
        return
    statements = [
        "MATCH (n) DETACH DELETE n;\n",
        "CREATE INDEX restored IF NOT EXISTS FOR (n:_Restored) ON (n._id);\n",
        "CALL db.awaitIndexes();\n",
        *batches("nodes", "CREATE (n:$(row[1])) SET n = row[2], n._id = row[0], n:_Restored"),
        *batches(
            "relationships",
            "MATCH (a:_Restored {_id: row[0]}), (b:_Restored {_id: row[2]}) CREATE (a)-[r:$(row[1])]->(b) SET r = row[3]",
        ),
        "DROP INDEX restored;\n",
        "MATCH (n:_Restored) REMOVE n:_Restored, n._id;\n",
    ]
    cypher("neo4j", "".join(statements))
    for name in ("nodes", "relationships"):
        (STATE / name).unlink()


if __name__ == "__main__":
    match sys.argv[1]:
        case "backup":
            backup(sys.argv[2:])
        case "restore":
            restore(sys.argv[2:])
        case "migrate":
            migrate(sys.argv[2:])
        case "start":
            start()
