#!/usr/bin/env python3
"""Checks that a file is an archive as the predecessor (v1.7.4) writes it. Standard library only, no code shared with the program.

check.py ARCHIVE [--key PRIVATE.pem] [--into DIR]

Written from the description in docs/reference/archives.md: gzip and tar headers byte by byte, metadata as Go's encoding/json writes
them, checksums, and for encrypted archives P-256, HKDF and AES-GCM from their standards. Prints what it found as JSON.
"""
import base64, hashlib, hmac, json, os, re, struct, sys, zlib


def need(condition, text):
    if not condition:
        sys.exit(f"not an archive of the predecessor: {text}")


# P-256 (FIPS 186-4, D.1.2.3), affine.
P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
A = P - 3
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
     0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)


def add(p, q):
    if p is None or q is None:
        return p or q
    if p[0] == q[0]:
        if (p[1] + q[1]) % P == 0:
            return None
        slope = (3 * p[0] * p[0] + A) * pow(2 * p[1], -1, P)
    else:
        slope = (q[1] - p[1]) * pow(q[0] - p[0], -1, P)
    x = (slope * slope - p[0] - q[0]) % P
    return x, (slope * (p[0] - x) - p[1]) % P


def multiply(number, point):
    result = None
    while number:
        if number & 1:
            result = add(result, point)
        point = add(point, point)
        number >>= 1
    return result


# AES-256 (FIPS 197) and GCM (SP 800-38D).
def tables():
    sbox, p, q = [0] * 256, 1, 1
    while True:
        p = p ^ (p << 1) & 0xFF ^ (0x1B if p & 0x80 else 0)
        q ^= q << 1
        q ^= q << 2
        q ^= q << 4
        q &= 0xFF
        if q & 0x80:
            q ^= 0x09
        rotated = [(q << n | q >> (8 - n)) & 0xFF for n in range(5)]
        sbox[p] = rotated[0] ^ rotated[1] ^ rotated[2] ^ rotated[3] ^ rotated[4] ^ 0x63
        if p == 1:
            break
    sbox[0] = 0x63
    return sbox


SBOX = tables()


def double(byte):
    return (byte << 1) ^ (0x11B if byte & 0x80 else 0)


# One table for each row: SubBytes and MixColumns at once.
MIXED = [[0] * 256 for _ in range(4)]
for value in range(256):
    s = SBOX[value]
    word = double(s) << 24 | s << 16 | s << 8 | double(s) ^ s
    for row in range(4):
        MIXED[row][value] = (word >> 8 * row | word << 32 - 8 * row) & 0xFFFFFFFF


def key_schedule(key):
    words, rcon = list(struct.unpack(">8I", key)), 1
    sub = lambda w: SBOX[w >> 24] << 24 | SBOX[w >> 16 & 255] << 16 | SBOX[w >> 8 & 255] << 8 | SBOX[w & 255]
    for n in range(8, 60):
        word = words[-1]
        if n % 8 == 0:
            word = sub((word << 8 | word >> 24) & 0xFFFFFFFF) ^ rcon << 24
            rcon = double(rcon)
        elif n % 8 == 4:
            word = sub(word)
        words.append(words[n - 8] ^ word)
    return words


def encrypt_block(words, block):
    a, b, c, d = (x ^ k for x, k in zip(struct.unpack(">4I", block), words))
    m0, m1, m2, m3 = MIXED
    for n in range(4, 56, 4):
        a, b, c, d = (
            m0[a >> 24] ^ m1[b >> 16 & 255] ^ m2[c >> 8 & 255] ^ m3[d & 255] ^ words[n],
            m0[b >> 24] ^ m1[c >> 16 & 255] ^ m2[d >> 8 & 255] ^ m3[a & 255] ^ words[n + 1],
            m0[c >> 24] ^ m1[d >> 16 & 255] ^ m2[a >> 8 & 255] ^ m3[b & 255] ^ words[n + 2],
            m0[d >> 24] ^ m1[a >> 16 & 255] ^ m2[b >> 8 & 255] ^ m3[c & 255] ^ words[n + 3])
    last = lambda w, x, y, z, k: (SBOX[w >> 24] << 24 | SBOX[x >> 16 & 255] << 16 | SBOX[y >> 8 & 255] << 8 | SBOX[z & 255]) ^ k
    k = words[56:]
    return struct.pack(">4I", last(a, b, c, d, k[0]), last(b, c, d, a, k[1]), last(c, d, a, b, k[2]), last(d, a, b, c, k[3]))


def ghash(h, data):
    # Products of h with each value of each byte, so that a block costs sixteen looks.
    reduce = 0xE1 << 120
    powers = [h]
    for _ in range(127):
        v = powers[-1]
        powers.append(v >> 1 ^ (reduce if v & 1 else 0))
    table = []
    for byte in range(16):
        row = [0] * 256
        for bit in range(8):
            row[128 >> bit] = powers[8 * byte + bit]
        for value in range(1, 256):
            low = value & -value
            row[value] = row[low] ^ row[value ^ low]
        table.append(row)
    y = 0
    for at in range(0, len(data), 16):
        y ^= int.from_bytes(data[at:at + 16], "big")
        y = _mul(table, y)
    return y


def _mul(table, y):
    z = 0
    for row, byte in zip(table, y.to_bytes(16, "big")):
        z ^= row[byte]
    return z


def open_chunk(words, nonce, sealed):
    body, tag = sealed[:-16], sealed[-16:]
    pad = lambda data: data + bytes(-len(data) % 16)
    h = int.from_bytes(encrypt_block(words, bytes(16)), "big")
    hashed = ghash(h, pad(body) + struct.pack(">QQ", 0, 8 * len(body)))
    mask = int.from_bytes(encrypt_block(words, nonce + b"\0\0\0\1"), "big")
    need((hashed ^ mask).to_bytes(16, "big") == tag, "a chunk of its encryption does not authenticate")
    stream = b"".join(encrypt_block(words, nonce + struct.pack(">I", n + 2)) for n in range((len(body) + 15) // 16))
    return (int.from_bytes(body, "big") ^ int.from_bytes(stream[:len(body)], "big")).to_bytes(len(body), "big")


def der(data):
    """The elements of a DER sequence's content, as (tag, content)."""
    found = []
    while data:
        tag, size, at = data[0], data[1], 2
        if size & 0x80:
            at += size & 0x7F
            size = int.from_bytes(data[2:at], "big")
        found.append((tag, data[at:at + size]))
        data = data[at + size:]
    return found


def private_scalar(path):
    text = open(path).read()
    lines = text.split("\n")
    need(lines[0] == "-----BEGIN PRIVATE KEY-----" and lines[-2:] == ["-----END PRIVATE KEY-----", ""], "the key file's frame")
    need(all(len(line) == 64 for line in lines[1:-3]), "lines of the key file")
    sequence = der(der(base64.b64decode("".join(lines[1:-2]), validate=True))[0][1])
    need(sequence[0] == (2, b"\0"), "version of PKCS#8")
    algorithm = der(sequence[1][1])
    need(algorithm == [(6, bytes.fromhex("2a8648ce3d0201")), (6, bytes.fromhex("2a8648ce3d030107"))], "algorithm of the key")
    ec = der(der(sequence[2][1])[0][1])
    need(ec[0] == (2, b"\1") and ec[1][0] == 4 and len(ec[1][1]) == 32, "the EC key inside")
    scalar = int.from_bytes(ec[1][1], "big")
    x, y = multiply(scalar, G)
    public = b"\4" + x.to_bytes(32, "big") + y.to_bytes(32, "big")
    need(len(ec) == 3 and ec[2][0] == 0xA1 and der(ec[2][1]) == [(3, b"\0" + public)], "the public half inside of the key")
    if os.path.exists(path + ".pub"):
        need(open(path + ".pub", "rb").read() == base64.b64encode(public) + b"\n", "the public key file")
    return scalar


def decrypt(data, key):
    need(len(data) >= 86 and data[0] == 2 and data[1] == 4, "the head of its encryption")
    x, y = int.from_bytes(data[2:34], "big"), int.from_bytes(data[34:66], "big")
    need((y * y - x * x * x - A * x - B) % P == 0, "its ephemeral key is no point of the curve")
    chunk_size, size, chunks = struct.unpack(">IQQ", data[66:86])
    need(chunk_size == 4194304 and chunks == -(-size // chunk_size), "sizes in the head of its encryption")
    need(len(data) == 86 + size + 32 * chunks, "its length")
    shared = multiply(private_scalar(key), (x, y))[0].to_bytes(32, "big")
    extracted = hmac.new(bytes(32), shared, "sha256").digest()
    words = key_schedule(hmac.new(extracted, b"opsmill-upload-ecies\1", "sha256").digest())
    plain, at = b"", 86
    while at < len(data):
        (length,) = struct.unpack(">I", data[at + 12:at + 16])
        plain += open_chunk(words, data[at:at + 12], data[at + 16:at + 16 + length])
        at += 16 + length
    need(len(plain) == size, "its length in clear")
    return plain


def gunzip(data):
    need(data[:10] == b"\x1f\x8b\x08\0\0\0\0\0" + data[8:9] + b"\xff", "its gzip header: no name, no time, OS 255")
    engine = zlib.decompressobj(31)
    plain = engine.decompress(data)
    need(engine.eof and not engine.unused_data, "one gzip member and nothing behind it")
    return plain


def text_field(field):
    text, _, rest = field.partition(b"\0")
    need(not rest.strip(b"\0"), "bytes behind the end of a text in a header")
    return text.decode("ascii")


def number(field, digits):
    need(re.fullmatch(rb"[0-7]{%d}\0" % digits, field), f"a number in a header: {field!r}")
    return int(field[:digits], 8)


def members(tar):
    """(name, kind, mode, data) of each member."""
    at, pax, found = 0, {}, []
    while True:
        block = tar[at:at + 512]
        need(len(block) == 512, "it ends without two zero blocks")
        at += 512
        if not block.strip(b"\0"):
            need(tar[at:] == bytes(512), "two zero blocks and nothing more")
            need(not pax, "an extended header without its member")
            return found
        need(block[257:265] == b"ustar\00000", "magic of a header")
        need(block[148:156] == b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:])), "checksum of a header")
        name, kind, size = text_field(block[:100]), block[156:157], number(block[124:136], 11)
        number(block[108:116], 7), number(block[116:124], 7)
        need(not text_field(block[157:257]) and not block[500:].strip(b"\0"), "a link, or bytes at the end of a header")
        size = int(pax.pop("size", size))
        if prefix := text_field(block[345:500]):
            name = prefix + "/" + name
        name = pax.pop("path", name)
        data = tar[at:at + size]
        need(len(data) == size and not tar[at + size:at + -(-size // 512) * 512].strip(b"\0"), "data and padding")
        at += -(-size // 512) * 512
        if kind == b"x":
            while data:
                length, _, rest = data.partition(b" ")
                record, data = data[:int(length)], data[int(length):]
                key, _, value = record[len(length) + 1:].partition(b"=")
                need(record.endswith(b"\n"), "a pax record")
                pax[key.decode()] = value[:-1].decode()
            continue
        need(not pax, f"pax records that are not used: {pax}")
        need(text_field(block[265:297]) != "" and text_field(block[297:329]) != "", "names of owner and group")
        number(block[136:148], 11)
        found.append((name, kind, number(block[100:108], 7), data))


KEYS = [("metadata_version", int), ("backup_id", str), ("created_at", str), ("tool_version", str), ("infrahub_version", str),
        ("components", list), ("checksums", dict), ("neo4j_edition", str), ("redacted", bool), ("encrypted", bool)]
OPTIONAL = {"checksums", "neo4j_edition", "redacted", "encrypted"}


def go_json(value):
    """As json.MarshalIndent(value, "", "    ") of Go writes it."""
    text = json.dumps(value, indent=4, ensure_ascii=False)
    return re.sub("[<>&\u2028\u2029]", lambda sign: f"\\u{ord(sign[0]):04x}", text).encode()


def metadata(data):
    pairs = json.loads(data, object_pairs_hook=list)
    names = [key for key, _ in pairs]
    need(names == [key for key, _ in KEYS if key in names], f"order of the metadata's keys: {names}")
    need(set(dict(KEYS)) - OPTIONAL <= set(names), "keys that must be there")
    found = json.loads(data)
    for key, kind in KEYS:
        need(key not in found or type(found[key]) is kind, f"type of `{key}`")
        need(key not in OPTIONAL or key not in found or found[key], f"`{key}` is left out where there is nothing to say")
    need(go_json(found) == data, "the metadata are not as Go writes them")
    need(found["metadata_version"] == 2025111200, "version of the metadata")
    need(re.fullmatch(r"infrahub_backup_\d{8}_\d{6}", found["backup_id"]), "the backup id")
    need(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["created_at"]), "the time")
    need(found.get("neo4j_edition") in (None, "community", "enterprise"), "the edition")
    need(list(found["checksums"]) == sorted(found["checksums"]), "order of the checksums")
    return found


def main():
    arguments = sys.argv[1:]
    option = lambda name: arguments[arguments.index(name) + 1] if name in arguments else None
    path, key, into = arguments[0], option("--key"), option("--into")
    data = open(path, "rb").read()
    encrypted = data[:1] == b"\2"
    if encrypted:
        need(key is not None, "it is encrypted, and no key was given")
        data = decrypt(data, key)
    found = members(gunzip(data))
    names = [name for name, *_ in found]
    need(names == sorted(names) and len(set(names)) == len(names), f"order of the members: {names}")
    need(names[:3] == ["backup", "backup/backup_information.json", "backup/database"], f"the first members: {names}")
    for name, kind, mode, _ in found:
        need((kind, mode) == ((b"5", 0o755) if name in ("backup", "backup/database") else (b"0", 0o644)), f"kind and mode of {name}")
    about = metadata(found[1][3])
    files = {name.removeprefix("backup/"): data for name, kind, _, data in found if kind == b"0"}
    del files["backup_information.json"]
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    need(sums == about["checksums"], "checksums")
    dumps = [name for name in files if name.startswith("database/")]
    need(len(dumps) == 1 and re.fullmatch(r"database/[\w.-]+\.(dump|backup)", dumps[0]), f"one dump of Neo4j: {dumps}")
    need(files[dumps[0]][:4] in (b"DZV1", b"DGV1", b"BTV1", b"BZV1", b"BTV2", b"BZV2"), "what the dump of Neo4j begins with")
    if dumps[0].endswith(".backup"):
        need(re.search(r"-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.backup$", dumps[0]), "name of the backup")
    rest = set(files) - set(dumps)
    need(about["components"] == ["database"] + ["task-manager-db"] * len(rest), "components")
    need(rest <= {"prefect.dump"} and all(files[name][:5] == b"PGDMP" for name in rest), "the dump of PostgreSQL")
    need(about.get("encrypted", False) == encrypted, "whether it says that it is encrypted")
    if into:
        for name, data in files.items():
            os.makedirs(os.path.dirname(os.path.join(into, name)), exist_ok=True)
            open(os.path.join(into, name), "wb").write(data)
    print(json.dumps({"metadata": about, "files": {name: len(data) for name, data in files.items()}}))


main()
